//! What monitors and debuggers do with a machine: `Controlled` for the run loop, on the vCPU's thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use mimus_frontend::debug::{DebugCpu, Description, Tables};
use mimus_frontend::guest::GuestCpu;
use mimus_softmmu::Watch;

use super::{Board, Pace, Runner};
use crate::config::{Actions, Config, MachineKind};
use crate::control::{Controlled, Kept, Notice, RunState, Space, StopReason};
use mimus_engine::stats::Stats;
use mimus_host::config::Disk;
use mimus_host::display::Console;

impl<B: Board> Runner<B> {
    /// Stops guest and clock.
    pub(super) fn pause(&mut self, state: RunState, reason: StopReason) {
        self.state = state;
        self.clock.run(false);
        self.vcpu.cpu.header().exit_request.store(1, Ordering::Release);
        self.control.tell(Notice::Stop(reason));
    }

    /// Goes on, for one instruction or for good.
    fn unpause(&mut self, pace: Pace) {
        self.pace = pace;
        self.state = RunState::Running;
        self.clock.run(true);
        self.timer.look();
        self.vcpu.cpu.header().exit_request.store(1, Ordering::Release);
        self.requests.disks.resume();
        self.control.tell(Notice::Resume);
    }

    /// The guest falls asleep. Its clock runs on: an alarm may wake it.
    pub(super) fn suspend(&mut self) {
        self.state = RunState::Suspended;
        self.vcpu.cpu.header().exit_request.store(1, Ordering::Release);
        self.control.tell(Notice::Suspend);
    }

    /// Lets a sleeping guest go on if something woke it; otherwise for how long nothing will.
    pub(super) fn sleep_on(&mut self) -> Result<Option<Duration>> {
        let (wakes, deadline) = self.board.wakes();
        if !wakes {
            return Ok(deadline.map(|due| Duration::from_nanos(due.saturating_sub(self.clock.now()))));
        }
        if !self.board.resume(&mut self.vcpu.cpu) {
            // It has left no way back.
            self.board.reset();
            self.load()?;
        }
        self.vcpu.moved();
        self.state = RunState::Running;
        self.control.tell(Notice::Wakeup);
        Ok(None)
    }

    /// Calls `f` with each byte's physical address while they are mapped; how many were.
    fn each_byte(&mut self, space: Space, addr: u64, len: usize, mut f: impl FnMut(&mut B::Cpu, usize, u64)) -> usize {
        let mut page = None;
        for i in 0..len {
            let at = addr.wrapping_add(i as u64);
            let gpa = match (space, page) {
                (Space::Physical, _) => at,
                (Space::Virtual, Some((known, gpa))) if at >> 12 == known => gpa | at & 0xfff,
                (Space::Virtual, _) => {
                    let Some(gpa) = self.vcpu.cpu.translate_debug(at) else { return i };
                    page = Some((at >> 12, gpa & !0xfff));
                    gpa
                }
            };
            f(&mut self.vcpu.cpu, i, gpa);
        }
        len
    }
}

impl<B: Board> Controlled for Runner<B> {
    fn kept(&mut self) -> &mut Kept {
        &mut self.kept
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn state(&self) -> RunState {
        self.state
    }

    fn stop(&mut self, state: RunState) {
        if self.state == RunState::Running {
            self.pause(state, StopReason::User);
        }
    }

    fn resume(&mut self) -> bool {
        if self.state == RunState::Shutdown || self.config.settings.no_machine {
            return false;
        }
        if !matches!(self.state, RunState::Running | RunState::Suspended) {
            self.unpause(Pace::Free);
        }
        true
    }

    fn step(&mut self) {
        if !matches!(self.state, RunState::Running | RunState::Shutdown | RunState::Suspended)
            && !self.config.settings.no_machine
        {
            self.unpause(Pace::One);
        }
    }

    fn reset(&mut self) {
        self.reset_wanted = true;
    }

    fn quit(&mut self) {
        self.requests.quit.store(true, Ordering::Release);
    }

    fn press_power_button(&mut self) -> bool {
        let pressed = self.board.press_power_button();
        if pressed {
            self.control.tell(Notice::Powerdown);
        }
        pressed
    }

    fn wake_up(&mut self) -> bool {
        self.state == RunState::Suspended && self.board.wake()
    }

    fn can_sleep(&self) -> bool {
        self.config.machine == MachineKind::Pc && self.config.sleeps()[0]
    }

    fn raise_nmi(&mut self) -> bool {
        self.board.raise_nmi(&mut self.vcpu)
    }

    fn description(&self) -> Arc<Description> {
        self.description.clone()
    }

    fn register(&mut self, number: usize) -> Option<u128> {
        self.vcpu.cpu.register(number)
    }

    fn set_register(&mut self, number: usize, value: u128) -> bool {
        let changed = self.vcpu.cpu.set_register(number, value);
        self.vcpu.moved();
        changed
    }

    fn linear_pc(&self) -> u64 {
        self.vcpu.cpu.linear_pc()
    }

    fn is_halted(&self) -> bool {
        self.vcpu.cpu.is_halted()
    }

    fn address_bytes(&self) -> usize {
        self.vcpu.cpu.address_bytes()
    }

    fn registers_text(&mut self) -> String {
        self.vcpu.cpu.registers_text()
    }

    fn tables_text(&mut self, tables: Tables) -> String {
        self.vcpu.cpu.tables_text(tables)
    }

    fn translate(&mut self, addr: u64) -> Option<u64> {
        self.vcpu.cpu.translate_debug(addr)
    }

    fn read(&mut self, space: Space, addr: u64, out: &mut [u8]) -> usize {
        let len = out.len();
        self.each_byte(space, addr, len, |cpu, i, gpa| {
            if let Some(byte) = out.get_mut(i) {
                *byte = cpu.read_physical(gpa);
            }
        })
    }

    fn write(&mut self, space: Space, addr: u64, bytes: &[u8]) -> usize {
        self.each_byte(space, addr, bytes.len(), |cpu, i, gpa| {
            if let Some(&byte) = bytes.get(i) {
                cpu.write_physical(gpa, byte);
            }
        })
    }

    fn disassemble(&mut self, bytes: &[u8], pc: u64) -> Vec<(u64, String)> {
        let text = self.vcpu.cpu.disassemble(bytes, pc);
        let insn = |line: &str| {
            let (addr, text) = line.trim().split_once(char::is_whitespace)?;
            Some((u64::from_str_radix(addr.strip_prefix("0x")?, 16).ok()?, text.trim().to_owned()))
        };
        text.lines().filter_map(insn).collect()
    }

    fn set_breakpoints(&mut self, addresses: &[u64]) {
        self.vcpu.set_breakpoints(addresses);
    }

    fn set_watchpoints(&mut self, list: Vec<Watch>) {
        self.vcpu.set_watchpoints(list);
    }

    fn port_read(&mut self, port: u16, size: u8) -> Option<u32> {
        self.board.port_read(&mut self.vcpu, port, size)
    }

    fn port_write(&mut self, port: u16, size: u8, value: u32) -> bool {
        self.board.port_write(&mut self.vcpu, port, size, value)
    }

    fn info(&mut self, topic: &str) -> Option<String> {
        self.board.info(topic)
    }

    fn change_medium(&mut self, drive: &str, disk: Option<Disk>, force: bool) -> Result<(), String> {
        self.board.change_medium(drive, disk, force)
    }

    fn set_link(&mut self, name: &str, up: bool) -> Result<(), String> {
        self.board.inventory().set_link(name, up)
    }

    fn forward(&mut self, network: Option<&str>, rule: &str, add: bool) -> Result<(), String> {
        self.board.inventory().forward(network, rule, add)
    }

    fn set_actions(&mut self, actions: &Actions) {
        self.config.no_reboot = actions.reboots.map_or(self.config.no_reboot, |reboots| !reboots);
        let settings = &mut self.config.settings;
        settings.no_shutdown = actions.ends.map_or(settings.no_shutdown, |ends| !ends);
        settings.panic = actions.panic.unwrap_or(settings.panic);
        settings.watchdog = actions.watchdog.unwrap_or(settings.watchdog);
    }

    fn stats(&mut self) -> Stats {
        Runner::stats(self)
    }

    fn send_keys(&mut self, keys: &[String], hold: u64) -> Result<(), String> {
        self.board.send_keys(keys, hold)
    }

    fn screen(&mut self, ppm: bool) -> Result<Vec<u8>, String> {
        self.board.screen(ppm)
    }

    fn console(&self) -> Option<Console> {
        self.board.console().cloned()
    }

    fn vnc_address(&self) -> Option<SocketAddr> {
        self.displays.vnc.as_ref()?.address()
    }

    fn set_vnc_password(&mut self, password: &str) -> Result<(), String> {
        let server = self.displays.vnc.as_ref().ok_or("there is no VNC server")?;
        let asks = server.set_password(password);
        asks.then_some(()).ok_or_else(|| "the VNC server asks for no password: start it with password=on".to_owned())
    }
}
