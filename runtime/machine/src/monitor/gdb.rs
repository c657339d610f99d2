//! The gdb server: gdbstub speaks the protocol, and this is what it works on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep, SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use mimus_frontend::debug::{Description, Feature, Register};
use mimus_softmmu::{Watch, WatchOwner};

use super::commands::{State, execute};
use super::server::{Flow, Session};
use crate::control::{Control, Controlled, Gone, Notice, RunState, Space, StopReason};

/// Breakpoints, and likewise watchpoints, that a debugger may have.
const POINTS: usize = 1024;

/// Bytes of memory read or written at once.
const PIECE: usize = 4096;

/// Bytes of memory that one packet is told, in such pieces: the answer is kept until the debugger reads it, and nobody else is
/// listened to before it is complete.
const MOST: usize = 1 << 20;

/// Any guest: its registers are described by the target.
#[derive(Debug)]
enum AnyGuest {}

/// Number of a register.
#[derive(Clone, Copy, Debug)]
struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Number, Option<std::num::NonZeroUsize>)> {
        Some((Number(id), None))
    }
}

/// The general registers as the protocol sends them.
#[derive(Clone, Debug, Default, PartialEq)]
struct General {
    bytes: Vec<u8>,
    pc: u64,
}

impl Registers for General {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.pc
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|&byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

impl Arch for AnyGuest {
    type Usize = u64;
    type Registers = General;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// The target description of a guest ("Debugging with GDB", appendix "Target Descriptions").
fn description_xml(description: &Description) -> String {
    let mut out =
        String::from("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">");
    out.push_str(&format!("<architecture>{}</architecture>", description.architecture));
    for Feature { name, types, registers } in &description.features {
        out.push_str(&format!("<feature name=\"{name}\">{types}"));
        for Register { name, bits, kind, group } in registers {
            let group = group.map(|group| format!(" group=\"{group}\"")).unwrap_or_default();
            out.push_str(&format!("<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"{group}/>"));
        }
        out.push_str("</feature>");
    }
    out.push_str("</target>");
    out
}

/// A breakpoint: its address, and whether it is one of those that gdb takes for software's.
type Breakpoint = (u64, bool);

/// The machine as gdbstub sees it.
struct Guest {
    control: Arc<Control>,
    description: Arc<Description>,
    xml: String,
    breakpoints: Vec<Breakpoint>,
    watches: Vec<Watch>,
    /// Bytes of memory that the present packet was told.
    told: usize,
    /// What the machine has of them. Debuggers take all away whenever the guest stops, and put them back before it goes on: only
    /// what changes by that costs anything.
    applied: (Vec<u64>, Vec<Watch>),
}

impl Guest {
    fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut dyn Controlled) -> T + Send + 'static,
    ) -> TargetResult<T, Guest> {
        self.control.call(f).map_err(TargetError::Fatal)
    }

    /// Gives the machine its watchpoints, and its breakpoints where it is to run for longer.
    fn apply(&mut self, breakpoints: bool) -> Result<(), Gone> {
        if breakpoints {
            let wanted: Vec<u64> = self.breakpoints.iter().map(|&(addr, _)| addr).collect();
            if wanted != self.applied.0 {
                self.applied.0 = wanted.clone();
                self.control.call(move |machine| machine.set_breakpoints(&wanted))?;
            }
        }
        if self.watches != self.applied.1 {
            let wanted = self.watches.clone();
            self.applied.1 = wanted.clone();
            self.control.call(move |machine| machine.set_watchpoints(wanted))?;
        }
        Ok(())
    }

    /// Takes all of them away.
    fn clear(&mut self) -> Result<(), Gone> {
        self.breakpoints.clear();
        self.watches.clear();
        self.apply(true)
    }

    fn add(&mut self, breakpoint: Breakpoint) -> TargetResult<bool, Guest> {
        if self.breakpoints.len() >= POINTS {
            return Ok(false);
        }
        if !self.breakpoints.contains(&breakpoint) {
            self.breakpoints.push(breakpoint);
        }
        Ok(true)
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> TargetResult<bool, Guest> {
        let count = self.breakpoints.len();
        self.breakpoints.retain(|other| *other != breakpoint);
        Ok(self.breakpoints.len() < count)
    }

    fn watch(addr: u64, len: u64, kind: WatchKind) -> Watch {
        let (read, write) = match kind {
            WatchKind::Write => (false, true),
            WatchKind::Read => (true, false),
            WatchKind::ReadWrite => (true, true),
        };
        Watch { addr, len, read, write, owner: WatchOwner::Debugger, tag: 0 }
    }

    /// Why the guest has stopped, in gdb's words; `None` if it has not.
    fn reason(&self, reason: StopReason) -> Result<Option<SingleThreadStopReason<u64>>, Gone> {
        let (state, pc) = self.control.call(|machine| (machine.state(), machine.linear_pc()))?;
        if state == RunState::Running {
            return Ok(None);
        }
        Ok(Some(match reason {
            StopReason::User => SingleThreadStopReason::Signal(Signal::SIGINT),
            StopReason::Step => SingleThreadStopReason::DoneStep,
            StopReason::Breakpoint if self.breakpoints.contains(&(pc, true)) => SingleThreadStopReason::SwBreak(()),
            StopReason::Breakpoint => SingleThreadStopReason::HwBreak(()),
            StopReason::Watchpoint(hit) => {
                let kind = match (hit.watch.read, hit.watch.write) {
                    (true, true) => WatchKind::ReadWrite,
                    (true, false) => WatchKind::Read,
                    _ => WatchKind::Write,
                };
                SingleThreadStopReason::Watch { tid: (), kind, addr: hit.watch.addr }
            }
        }))
    }
}

impl Target for Guest {
    type Arch = AnyGuest;
    type Error = Gone;

    fn base_ops(&mut self) -> BaseOps<'_, AnyGuest, Gone> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(&mut self) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Guest {
    fn read_registers(&mut self, regs: &mut General) -> TargetResult<(), Self> {
        let description = self.description.clone();
        *regs = self.call(move |machine| {
            let mut bytes = Vec::new();
            for (number, register) in description.registers().take(description.general).enumerate() {
                let value = machine.register(number).unwrap_or(0);
                bytes.extend_from_slice(&value.to_le_bytes()[..register.bytes()]);
            }
            General { bytes, pc: machine.linear_pc() }
        })?;
        Ok(())
    }

    fn write_registers(&mut self, regs: &General) -> TargetResult<(), Self> {
        let (description, bytes) = (self.description.clone(), regs.bytes.clone());
        self.call(move |machine| {
            let mut rest = &*bytes;
            for (number, register) in description.registers().take(description.general).enumerate() {
                let Some((value, more)) = rest.split_at_checked(register.bytes()) else { break };
                rest = more;
                let value = little_endian(value);
                // Those that it has already are not written: some cannot be.
                if machine.register(number) != Some(value) {
                    machine.set_register(number, value);
                }
            }
        })
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, (), Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start_addr: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let len = data.len().min(PIECE);
        self.told += len;
        if self.told > MOST {
            return Err(TargetError::NonFatal);
        }
        let (count, bytes) = self.call(move |machine| {
            let mut bytes = vec![0; len];
            (machine.read(Space::Virtual, start_addr, &mut bytes), bytes)
        })?;
        if count == 0 && len > 0 {
            return Err(TargetError::NonFatal);
        }
        data[..len].copy_from_slice(&bytes);
        Ok(count)
    }

    fn write_addrs(&mut self, start_addr: u64, data: &[u8]) -> TargetResult<(), Self> {
        let bytes = data.to_vec();
        let len = bytes.len();
        let count = self.call(move |machine| machine.write(Space::Virtual, start_addr, &bytes))?;
        if count < len { Err(TargetError::NonFatal) } else { Ok(()) }
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
}

impl SingleRegisterAccess<()> for Guest {
    fn read_register(&mut self, _: (), Number(number): Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let Some(len) = self.description.registers().nth(number).map(Register::bytes) else {
            return Err(TargetError::NonFatal);
        };
        let value = self.call(move |machine| machine.register(number))?.ok_or(TargetError::NonFatal)?;
        buf.get_mut(..len).ok_or(TargetError::NonFatal)?.copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(len)
    }

    fn write_register(&mut self, _: (), Number(number): Number, val: &[u8]) -> TargetResult<(), Self> {
        let value = little_endian(val.get(..16).unwrap_or(val));
        let written = self.call(move |machine| machine.set_register(number, value))?;
        if written { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl SingleThreadResume for Guest {
    // Signals mean nothing to a machine.
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Gone> {
        self.apply(true)?;
        self.control.call(|machine| {
            machine.resume();
        })
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Guest {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Gone> {
        self.apply(false)?;
        self.control.call(|machine| machine.step())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.add((addr, true))
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.remove((addr, true))
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.add((addr, false))
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.remove((addr, false))
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let watch = Guest::watch(addr, len, kind);
        if len == 0 || self.watches.len() >= POINTS {
            return Ok(false);
        }
        if !self.watches.contains(&watch) {
            self.watches.push(watch);
        }
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, addr: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let (watch, count) = (Guest::watch(addr, len, kind), self.watches.len());
        self.watches.retain(|other| *other != watch);
        Ok(self.watches.len() < count)
    }
}

impl MonitorCmd for Guest {
    fn handle_monitor_cmd(&mut self, cmd: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Gone> {
        let line = String::from_utf8_lossy(cmd).into_owned();
        let text = self.control.call(move |machine| execute(machine, &mut State::default(), &line))?;
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for Guest {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let rest = self.xml.as_bytes().get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let len = rest.len().min(length).min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// What gdbstub writes, until the server sends it.
#[derive(Debug, Default)]
struct Answers(Vec<u8>);

impl Connection for Answers {
    type Error = Infallible;

    fn write(&mut self, byte: u8) -> Result<(), Infallible> {
        self.0.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

type Machine = GdbStubStateMachine<'static, Guest, Answers>;

/// A debugger's session. The guest stops when it begins, as in QEMU.
pub(super) struct Gdb {
    guest: Guest,
    /// The guest ran before.
    ran: bool,
    /// `None` when the protocol was broken or the machine has ended.
    machine: Option<Machine>,
}

impl Gdb {
    /// A session with a debugger.
    pub(super) fn new(control: Arc<Control>) -> Gdb {
        let begun = control.call(|machine| {
            let ran = machine.state() == RunState::Running;
            machine.stop(RunState::Debug);
            (ran, machine.description())
        });
        let empty = || Description { architecture: "", features: Vec::new(), general: 0, pc: "" };
        let (ran, description) = begun.clone().unwrap_or_else(|Gone| (false, Arc::new(empty())));
        let xml = description_xml(&description);
        let (breakpoints, watches) = (Vec::new(), Vec::new());
        let mut guest = Guest { control, description, xml, breakpoints, watches, told: 0, applied: Default::default() };
        let machine = begun.ok().and_then(|_| GdbStub::new(Answers::default()).run_state_machine(&mut guest).ok());
        Gdb { guest, ran, machine }
    }

    /// Gives the protocol a byte; `None` when the session is over.
    fn byte(&mut self, byte: u8) -> Option<()> {
        self.guest.told = 0;
        let machine = self.machine.take()?;
        let (idle, next) = match machine {
            Machine::Idle(machine) => (true, machine.incoming_data(&mut self.guest, byte)),
            Machine::Running(machine) => (false, machine.incoming_data(&mut self.guest, byte)),
            other => (false, Ok(other)),
        };
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::debug!("gdb: {error}");
                return None;
            }
        };
        self.machine = Some(match next {
            Machine::CtrlCInterrupt(machine) => {
                self.guest.control.call(|machine| machine.stop(RunState::Debug)).ok()?;
                // It was stopped already: nobody waits to be told.
                let reason = (!idle).then_some(SingleThreadStopReason::Signal(Signal::SIGINT));
                machine.interrupt_handled(&mut self.guest, reason).ok()?
            }
            other => other,
        });
        Some(())
    }

    /// Sends what the protocol has written, and ends the session if it is over.
    fn settle(&mut self, out: &mut Vec<u8>) -> Flow {
        let Some(machine) = &mut self.machine else { return Flow::End };
        let conn = match machine {
            Machine::Idle(machine) => machine.borrow_conn(),
            Machine::Running(machine) => machine.borrow_conn(),
            Machine::CtrlCInterrupt(machine) => machine.borrow_conn(),
            Machine::Disconnected(machine) => machine.borrow_conn(),
        };
        out.append(&mut conn.0);
        let Machine::Disconnected(machine) = machine else { return Flow::Go };
        let reason = machine.get_reason();
        // Whoever has no machine left has nothing to take away from it.
        let _ = self.guest.clear();
        let _ = self.guest.control.call(move |machine| match reason {
            DisconnectReason::Kill => machine.quit(),
            _ => {
                machine.resume();
            }
        });
        Flow::End
    }

    fn stopped(&mut self, reason: StopReason) -> Option<()> {
        if !matches!(self.machine, Some(Machine::Running(_))) {
            return Some(());
        }
        // Another may have made it go on since.
        let Some(reason) = self.guest.reason(reason).ok()? else { return Some(()) };
        if let Some(Machine::Running(machine)) = self.machine.take() {
            self.machine = Some(machine.report_stop(&mut self.guest, reason).ok()?);
        }
        Some(())
    }
}

impl Session for Gdb {
    fn input(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        for &byte in bytes {
            if self.byte(byte).is_none() || self.settle(out) == Flow::End {
                return Flow::End;
            }
        }
        Flow::Go
    }

    fn notices(&mut self, notices: &[(Notice, SystemTime)], out: &mut Vec<u8>) -> Flow {
        for (notice, _) in notices {
            let told = match notice {
                Notice::Stop(reason) => self.stopped(*reason),
                Notice::Shutdown { .. } => {
                    if let Some(Machine::Running(machine)) = self.machine.take() {
                        let exited = SingleThreadStopReason::Exited(0);
                        self.machine = machine.report_stop(&mut self.guest, exited).ok();
                    }
                    Some(())
                }
                _ => Some(()),
            };
            if told.is_none() || self.settle(out) == Flow::End {
                return Flow::End;
            }
        }
        Flow::Go
    }

    fn turned_away(&mut self) {
        if self.ran {
            let _ = self.guest.control.call(|machine| machine.resume());
        }
    }

    fn closed(&mut self) {
        // The guest stays as it is, without what nobody would be told of.
        let _ = self.guest.clear();
    }
}
