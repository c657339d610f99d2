//! A RISC-V vCPU as debuggers see it.

use std::fmt::Write;

use super::cpu::Cpu;
use super::csr::{self, Kind};
use super::disasm::{F_NAMES, X_NAMES};
use super::paging;
use super::state::privilege;
use crate::common::debug::{DebugCpu, Description, Feature, Register, Tables};

const FLOAT_TYPES: &str = concat!(
    r#"<union id="riscv_double"><field name="float" type="ieee_single"/>"#,
    r#"<field name="double" type="ieee_double"/></union>"#,
);

// Numbers of the first register of each kind.
const PC: usize = 32;
const F0: usize = 33;
const PRIVILEGE: usize = 65;
const CSR0: usize = 66;

/// CSRs shown by `info registers`, in QEMU's order.
const SHOWN: [&str; 16] = [
    "mhartid", "mstatus", "mip", "mie", "mideleg", "medeleg", "mtvec", "stvec", "mepc", "sepc", "mcause", "scause",
    "mtval", "stval", "mscratch", "sscratch",
];

/// Numbers of the CSRs that debuggers are told of: all but the long rows of events and of memory protection.
fn csrs() -> impl Iterator<Item = u16> {
    csr::TABLE.iter().filter(|row| row.count == 1).map(|row| row.number)
}

fn description() -> Description {
    let kind = |name: &str| match name {
        "ra" => "code_ptr",
        "sp" | "gp" | "tp" | "s0" => "data_ptr",
        _ => "int",
    };
    // gdb's name of s0.
    let name = |name: &'static str| if name == "s0" { "fp" } else { name };
    let mut base: Vec<Register> = X_NAMES.map(|x| Register::new(name(x), 64, kind(x))).to_vec();
    base.push(Register::new("pc", 64, "code_ptr"));
    let float = F_NAMES.map(|f| Register::new(f, 64, "riscv_double")).to_vec();
    let control = csrs().filter_map(csr::name).map(|n| Register::new(n, 64, "int").in_group("csr")).collect();
    let feature = |name, types, registers| Feature { name, types, registers };
    Description {
        architecture: "riscv:rv64",
        features: vec![
            feature("org.gnu.gdb.riscv.cpu", "", base),
            feature("org.gnu.gdb.riscv.fpu", FLOAT_TYPES, float),
            feature("org.gnu.gdb.riscv.virtual", "", vec![Register::new("priv", 8, "int").in_group("general")]),
            feature("org.gnu.gdb.riscv.csr", "", control),
        ],
        general: F0,
        pc: "pc",
    }
}

impl Cpu {
    fn read_csr(&mut self, number: u16) -> Option<u64> {
        let (row, place) = csr::lookup(number)?;
        Some(match row.kind {
            Kind::Fixed(value) => value,
            Kind::Plain { offset, .. } => {
                let bytes = bytemuck::bytes_of(&self.state).get(usize::from(offset)..)?.get(..8)?;
                u64::from_ne_bytes(bytes.try_into().ok()?)
            }
            Kind::Special(read, _) => read(self, place),
        })
    }

    fn write_csr(&mut self, number: u16, value: u64) -> bool {
        let Some((row, place)) = csr::lookup(number) else { return false };
        match row.kind {
            Kind::Fixed(fixed) => return fixed == value,
            Kind::Plain { offset, mask } => {
                let bytes = bytemuck::bytes_of_mut(&mut self.state);
                let Some(word) = bytes.get_mut(usize::from(offset)..usize::from(offset) + 8) else { return false };
                word.copy_from_slice(&(value & mask).to_ne_bytes());
            }
            Kind::Special(_, write) => write(self, place, value),
        }
        true
    }
}

impl DebugCpu for Cpu {
    fn description() -> Description {
        description()
    }

    fn register(&mut self, number: usize) -> Option<u128> {
        let value = match number {
            0..PC => self.state.x[number],
            PC => self.state.pc,
            F0..PRIVILEGE => self.state.f[number - F0][0],
            PRIVILEGE => self.state.privilege,
            _ => {
                let csr = csrs().nth(number - CSR0)?;
                self.read_csr(csr)?
            }
        };
        Some(value.into())
    }

    fn set_register(&mut self, number: usize, value: u128) -> bool {
        let value = value as u64;
        match number {
            0..PC => self.state.set_x(number as u8, value),
            PC => self.state.pc = value & !1,
            F0..PRIVILEGE => self.state.f[number - F0][0] = value,
            PRIVILEGE => match value {
                privilege::USER | privilege::SUPERVISOR | privilege::MACHINE => self.state.privilege = value,
                _ => return false,
            },
            _ => {
                let Some(csr) = csrs().nth(number - CSR0) else { return false };
                if !self.write_csr(csr, value) {
                    return false;
                }
            }
        }
        self.update_mode();
        true
    }

    fn translate_debug(&mut self, addr: u64) -> Option<u64> {
        self.state.translate_debug(&self.mmu.ram, addr)
    }

    fn registers_text(&mut self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, " pc       {:016x}\n priv     {:x}", self.state.pc, self.state.privilege);
        for shown in SHOWN {
            let number = csrs().find(|&number| csr::name(number).is_some_and(|name| name == shown));
            let value = number.and_then(|number| self.read_csr(number)).unwrap_or(0);
            let _ = writeln!(out, " {shown:<8} {value:016x}");
        }
        let _ = writeln!(out, " satp     {:016x}", self.state.satp);
        let integer = X_NAMES.iter().zip(self.state.x).enumerate();
        let integer: Vec<String> =
            integer.map(|(i, (name, value))| format!(" {:<8} {value:016x}", format!("x{i}/{name}"))).collect();
        let float = F_NAMES.iter().zip(self.state.f).enumerate();
        let float: Vec<String> =
            float.map(|(i, (name, [value, _]))| format!(" {:<8} {value:016x}", format!("f{i}/{name}"))).collect();
        for line in integer.chunks(4).chain(float.chunks(4)) {
            let _ = writeln!(out, "{}", line.concat());
        }
        out
    }

    fn tables_text(&mut self, tables: Tables) -> String {
        paging::tables_text(&self.state, &self.mmu.ram, tables)
    }

    fn is_halted(&self) -> bool {
        self.state.halted != 0
    }

    fn address_bytes(&self) -> usize {
        8
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mimus_softmmu::{CodeSink, Dropped, Ram};
    use vm_memory::{GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::riscv::{Features, NoDevices};

    struct NoCode;

    impl CodeSink for NoCode {
        fn code_written(&self, _: u64, _: u64) -> Dropped {
            Dropped::NONE
        }
    }

    fn cpu() -> Box<Cpu> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        Cpu::new(Arc::new(Ram::new(memory)), Arc::new(NoCode), Box::new(NoDevices), Features::default())
    }

    #[test]
    fn registers_have_the_numbers_of_the_description() {
        let (mut cpu, description) = (cpu(), Cpu::description());
        for (name, number) in [("zero", 0), ("fp", 8), ("pc", PC), ("ft0", F0), ("priv", PRIVILEGE), ("fflags", CSR0)] {
            assert_eq!(description.number(name), Some(number), "{name}");
        }
        for number in (1..PRIVILEGE).chain(description.number("mscratch")) {
            assert!(cpu.set_register(number, 0x1234_5678_9abc_def0));
            assert_eq!(cpu.register(number), Some(0x1234_5678_9abc_def0), "{number}");
        }
        assert!(cpu.set_register(0, 7) && cpu.register(0) == Some(0));
        assert!(!cpu.set_register(PRIVILEGE, 2));
        assert!(cpu.set_register(PRIVILEGE, 1) && cpu.mode.privilege() == 1);
        let count = description.registers().count();
        assert!((0..count).all(|number| cpu.register(number).is_some()) && cpu.register(count).is_none());
        let number = description.number("mhartid").unwrap();
        assert_eq!(cpu.register(number), Some(0));
    }

    #[test]
    fn addresses_are_translated_without_a_mark() {
        let mut cpu = cpu();
        let ram = cpu.mmu.ram.clone();
        // Sv39: 1 GiB at 0, then a table of 4 KiB pages at 0x4000_0000, the second of which is mapped.
        let put = |at: u64, value: u64| assert_eq!(ram.cas_u64(at, 0, value), Some(true));
        put(0x1000, 0xf);
        put(0x1008, 0x2000 >> 2 | 1);
        put(0x2000, 0x3000 >> 2 | 1);
        put(0x3008, 0x8000 >> 2 | 0x1b);
        cpu.state.satp = 8 << 60 | 1;
        assert_eq!(cpu.translate_debug(0x1234_5678), Some(0x1234_5678), "machine mode");
        assert!(cpu.set_register(PRIVILEGE, 1));
        assert_eq!(cpu.translate_debug(0x1234_5678), Some(0x1234_5678));
        assert_eq!(cpu.translate_debug(0x4000_1abc), Some(0x8abc));
        assert_eq!(cpu.translate_debug(0x4000_2000), None);
        assert_eq!(cpu.translate_debug(1 << 40), None);
        assert_eq!(ram.read_u64(0x3008), Some(0x8000 >> 2 | 0x1b));
        let text = cpu.tables_text(Tables::Ranges);
        assert!(text.contains("0000000040001000 0000000000008000 0000000000001000 r-xu---"), "{text}");
        assert!(text.contains("0000000000000000 0000000000000000 0000000040000000 rwx----"), "{text}");
    }
}
