//! What a guest's panic and its watchdog lead to, as QMP and the exit code tell: `pvpanic`, `ib700`, `-action`.

#![forbid(unsafe_code)]

use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_tests::client::Qmp;
use mimus_tests::image::{exit, exit_code, kernel, multiboot};
use mimus_tests::{Folder, Session};
use serde_json::{Value, json};

/// How long a run may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// What the guest ends the run with that goes on.
const WENT_ON: u32 = 5;

/// A machine that has not started, with a guest that `build` makes, and a client of it.
fn machine(build: fn(&mut CodeAssembler) -> Result<(), IcedError>, more: &[&str]) -> (Folder, Session, Qmp) {
    let folder = Folder::new();
    let (socket, image) = (folder.path("qmp"), folder.write("guest", &multiboot(kernel(build))));
    let qmp = format!("unix:{socket},server=on,wait=off");
    let mut args = vec!["-S", "-kernel", &image, "-bios", "none", "-display", "none", "-qmp", &qmp];
    args.extend(["-device", "isa-debug-exit"].iter().chain(more));
    let mut session = Session::piped(&more.join(" "), &args, LIMIT);
    session.close_input();
    let mut client = Qmp::new(&socket);
    client.execute("qmp_capabilities");
    client.execute("cont");
    (folder, session, client)
}

/// Asks what the device understands, tells that a dump is to come, later that it has panicked, and goes on if it can.
fn panics(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut wait, mut again) = (a.create_label(), a.create_label());
    a.mov(dx, 0x505)?;
    a.in_(al, dx)?;
    // 2 of 3: nothing would be told of another number.
    a.dec(al)?;
    a.out(dx, al)?;
    a.mov(ecx, 10_000)?;
    a.set_label(&mut wait)?;
    a.dec(ecx)?;
    a.jne(wait)?;
    a.mov(al, 1)?;
    a.out(dx, al)?;
    a.mov(ecx, 10_000)?;
    a.set_label(&mut again)?;
    a.dec(ecx)?;
    a.jne(again)?;
    exit(a, WENT_ON)
}

/// Starts the watchdog with its shortest interval and waits.
fn hangs(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut wait = a.create_label();
    a.mov(dx, 0x443)?;
    a.mov(al, 15)?;
    a.out(dx, al)?;
    a.set_label(&mut wait)?;
    a.jmp(wait)
}

#[test]
fn a_panic_is_told_and_ends_the_run_as_asked() {
    for (action, told, code) in
        [("shutdown", "poweroff", 0), ("exit-failure", "poweroff", 1), ("none", "run", exit_code(WENT_ON as u8))]
    {
        let action = format!("panic={action}");
        let (_folder, session, mut q) = machine(panics, &["-device", "pvpanic", "-action", &action]);
        assert_eq!(q.event("GUEST_CRASHLOADED")["data"], json!({ "action": "run" }), "{action}");
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({ "action": told }), "{action}");
        let reason = if told == "run" { "guest-shutdown" } else { "guest-panic" };
        assert_eq!(q.event("SHUTDOWN")["data"], json!({ "guest": true, "reason": reason }), "{action}");
        assert_eq!(session.finish().code, Some(code), "{action}");
    }
}

#[test]
fn a_guest_that_panics_can_be_looked_at_and_go_on() {
    for more in
        [&["-device", "pvpanic", "-action", "panic=pause"], &["-device", "pvpanic", "-action", "shutdown=pause"]]
    {
        let (_folder, session, mut q) = machine(panics, more);
        assert_eq!(q.event("GUEST_PANICKED")["data"], json!({ "action": "pause" }));
        q.event("STOP");
        assert_eq!(q.execute("query-status")["status"], "guest-panicked");
        q.execute("cont");
        assert_eq!(session.finish().code, Some(exit_code(WENT_ON as u8)));
    }
}

#[test]
fn what_a_watchdog_does_is_chosen_and_changed() {
    let expired = |q: &mut Qmp, action: &str| assert_eq!(q.event("WATCHDOG")["data"], json!({ "action": action }));
    let set = |q: &mut Qmp, name: &str, arguments: Value| {
        assert_eq!(q.ask(&json!({ "execute": name, "arguments": arguments }))["return"], json!({}));
    };
    let (_folder, session, mut q) = machine(hangs, &["-device", "ib700", "-watchdog-action", "pause"]);
    expired(&mut q, "pause");
    q.event("STOP");
    assert_eq!(q.execute("query-status")["status"], "watchdog");
    set(&mut q, "watchdog-set-action", json!({ "action": "none" }));
    q.execute("system_reset");
    q.execute("cont");
    expired(&mut q, "none");
    set(&mut q, "set-action", json!({ "watchdog": "poweroff" }));
    q.execute("system_reset");
    expired(&mut q, "poweroff");
    assert_eq!(session.finish().code, Some(0));
    let (_folder, session, mut q) = machine(hangs, &["-device", "ib700", "-no-reboot"]);
    expired(&mut q, "reset");
    assert_eq!(q.event("SHUTDOWN")["data"], json!({ "guest": true, "reason": "guest-reset" }));
    assert_eq!(session.finish().code, Some(0));
}
