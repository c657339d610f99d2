//! What suspends a machine, powers it off or resets it is the last thing that its processor does, in every tier.

#![forbid(unsafe_code)]

use std::time::Duration;

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use mimus_tests::client::Qmp;
use mimus_tests::image::{FREE, kernel, multiboot};
use mimus_tests::{Folder, Session};
use serde_json::json;

/// How long a run may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// Each tier by itself, the last one with regions.
const TIERS: [&str; 4] = [
    "interp",
    "jit,quick=1,threshold=1000000000",
    "jit,quick=0,threshold=1,compile=sync,region=0",
    "jit,quick=0,threshold=1,compile=sync,region=16",
];

/// Rounds of the loop, the last of which ends the machine.
const ROUNDS: u32 = 3000;

/// What ends the machine: a port, a value of one byte or two, and QMP's event.
const ENDS: [(&str, u32, u32, u32, &str); 6] = [
    ("S3", 0x604, 0x2400, 2, "SUSPEND"),
    ("S5", 0x604, 0x2000, 2, "SHUTDOWN"),
    ("the reset control register", 0xcf9, 6, 1, "SHUTDOWN"),
    ("port 0x92", 0x92, 1, 1, "SHUTDOWN"),
    ("the keyboard controller", 0x64, 0xfe, 1, "SHUTDOWN"),
    ("S5 by OUTS", 0x604, 0x2000, 0, "SHUTDOWN"),
];

/// Where the guest counts rounds, before and behind the OUT.
const BEFORE: u32 = FREE + 0x10;
const BEHIND: u32 = FREE + 0x20;

/// A kernel that writes to a port that does nothing, and in the last round to `port`. 0 bytes are two elements of REP OUTSW, the
/// second of which would tell of itself.
fn rounds(port: u32, value: u32, bytes: u32) -> Vec<u8> {
    let build = |a: &mut CodeAssembler| -> Result<(), IcedError> {
        let mut again = a.create_label();
        a.xor(edi, edi)?;
        a.mov(ebx, port)?;
        a.mov(dword_ptr(FREE), value)?;
        a.set_label(&mut again)?;
        a.inc(edi)?;
        a.mov(dword_ptr(BEFORE), edi)?;
        a.mov(edx, 0x80)?;
        a.cmp(edi, ROUNDS as i32)?;
        a.cmove(edx, ebx)?;
        a.mov(eax, value)?;
        match bytes {
            0 => {
                a.mov(esi, FREE)?;
                a.mov(ecx, 2)?;
                a.rep().outsw()?;
            }
            1 => a.out(dx, al)?,
            _ => a.out(dx, ax)?,
        }
        a.mov(dword_ptr(BEHIND), edi)?;
        a.jmp(again)
    };
    multiboot(kernel(build))
}

/// A word of guest memory, as the monitor shows it.
fn word(q: &mut Qmp, addr: u64) -> u32 {
    let command =
        json!({ "execute": "human-monitor-command", "arguments": { "command-line": format!("xp /1xw {addr:#x}") } });
    let answer = q.ask(&command);
    let text = answer["return"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let digits = text.trim().rsplit("0x").next().unwrap_or_default();
    u32::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text}"))
}

/// Runs a machine until `event`; then `[before, behind]` must say that the last round was not finished.
fn ends(name: &str, folder: &Folder, args: &[&str], event: &str, [before, behind]: [u64; 2]) {
    let socket = folder.path("qmp");
    let qmp = format!("unix:{socket},server=on,wait=on");
    let mut all = vec!["-display", "none", "-no-reboot", "-no-shutdown", "-qmp", &qmp, "-S"];
    all.extend(args);
    let mut session = Session::piped(name, &all, LIMIT);
    session.close_input();
    let mut q = Qmp::new(&socket);
    q.execute("qmp_capabilities");
    q.execute("cont");
    q.event(event);
    assert_eq!((word(&mut q, before), word(&mut q, behind)), (ROUNDS, ROUNDS - 1), "{name}");
    q.execute("quit");
    assert_eq!(session.finish().code, Some(0), "{name}");
}

fn pc(accel: &str) {
    for (name, port, value, bytes, event) in ENDS {
        let folder = Folder::new();
        let file = folder.write("guest", &rounds(port, value, bytes));
        let args = ["-kernel", &file, "-bios", "none", "-accel", accel];
        ends(&format!("{name}, {accel}"), &folder, &args, event, [BEFORE.into(), BEHIND.into()]);
    }
}

/// A program for the board `virt`, which powers itself off by a store. It waits for `ROUNDS` in the same way.
fn virt(accel: &str) {
    const RAM: u64 = 0x8000_0000;
    // lui t0, 0x100 (the test device); lui t1, 0x80001 (data); slli t1, t1, 32; srli t1, t1, 32; lui t2, 0x5;
    // addi t2, t2, 0x555; li a0, 0; lui a1, 0x1; addi a1, a1, ROUNDS - 0x1000
    let rounds = (ROUNDS as i32 - 0x1000) as u32;
    let code: [u32; 17] = [
        0x0010_02b7,
        0x8000_1337,
        0x0203_1313,
        0x0203_5313,
        0x0000_53b7,
        0x5553_8393,
        0x0000_0513,
        0x0000_15b7,
        rounds << 20 | 0x0005_8593,
        // again: addi a0, a0, 1; sw a0, 0(t1); sub a2, a0, a1; seqz a2, a2; mul a2, a2, t2; sw a2, 0(t0); sw a0, 4(t1); j again
        0x0015_0513,
        0x00a3_2023,
        0x40b5_0633,
        0x0016_3613,
        0x0276_0633,
        0x00c2_a023,
        0x00a3_2223,
        0xfe5f_f06f,
    ];
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let folder = Folder::new();
    let file = folder.write("guest", &bytes);
    let args = ["-arch", "riscv64", "-bios", &file, "-accel", accel];
    ends(&format!("virt, {accel}"), &folder, &args, "SHUTDOWN", [RAM + 0x1000, RAM + 0x1004]);
}

#[test]
fn a_pc() {
    TIERS.into_iter().for_each(pc);
}

#[test]
fn a_riscv_board() {
    TIERS.into_iter().for_each(virt);
}
