//! The device trees of the RISC-V boards `virt` and `spike` (Devicetree Specification 0.4; the bindings named by each `compatible`), with the
//! nodes in the places where QEMU has them.

use mimus_hw::virt::{
    CLINT, HTIF, LAST_IRQ, PLIC, RAM_BASE, RTC, RTC_IRQ, Region, TEST, TEST_PASS, TEST_RESET, TIME_HZ, UART, UART_IRQ,
    VIRTIO, VIRTIO_IRQ, VIRTIO_SLOTS, VirtModel,
};
use vm_fdt::{Error, FdtWriter};

/// What of a board its device tree depends on.
#[derive(Clone, Debug)]
pub struct TreeConfig<'a> {
    /// Which board.
    pub model: VirtModel,
    /// The program has words of its own for the host-target interface, instead of the registers of the board `spike`.
    pub own_htif: bool,
    /// RAM in bytes, from [`RAM_BASE`] on.
    pub ram_size: u64,
    /// Number of harts.
    pub harts: u32,
    /// What the harts implement, as `riscv,isa-extensions` lists it.
    pub extensions: &'a [&'a str],
    /// Bytes of a block of the cache-block instructions.
    pub cache_block: u32,
    /// The largest page tables that the harts walk, as `mmu-type` names them.
    pub mmu: &'a str,
    /// The kernel's command line.
    pub bootargs: &'a str,
    /// Where the initrd is: first and last address, the latter not included.
    pub initrd: Option<(u64, u64)>,
    /// Random numbers for the kernel.
    pub rng_seed: [u8; 32],
}

/// The interrupt controllers of the harts follow this one's phandle.
const PLIC_PHANDLE: u32 = 1;
const TEST_PHANDLE: u32 = 2;
/// Each hart has two phandles from here on: its own, and its interrupt controller's.
const HART_PHANDLES: u32 = 3;

/// Numbers of a hart's interrupts (RISC-V privileged architecture, "Machine Cause (mcause) Register").
const SOFTWARE: u32 = 3;
const TIMER: u32 = 7;
const EXTERNAL_M: u32 = 11;
const EXTERNAL_S: u32 = 9;

/// The clock of the serial port in Hz: what makes a divisor of 2 mean 115200 baud.
const UART_CLOCK: u32 = 3_686_400;

/// The flattened tree.
///
/// # Errors
///
/// What cannot be put into a tree, such as a NUL in the command line.
pub fn device_tree(config: &TreeConfig) -> Result<Vec<u8>, Error> {
    let mut tree = Tree(FdtWriter::new()?);
    let (compatible, model) = match config.model {
        VirtModel::Virt => ("riscv-virtio", "riscv-virtio,qemu"),
        VirtModel::Spike => ("ucbbar,spike-bare-dev", "ucbbar,spike-bare,qemu"),
    };
    tree.node("", |tree| {
        tree.cells(2, 2)?;
        tree.0.property_string("compatible", compatible)?;
        tree.0.property_string("model", model)?;
        tree.chosen(config)?;
        if config.model == VirtModel::Virt {
            tree.finisher()?;
        }
        tree.node(&format!("memory@{RAM_BASE:x}"), |tree| {
            tree.0.property_string("device_type", "memory")?;
            tree.reg(Region { base: RAM_BASE, size: config.ram_size })
        })?;
        tree.cpus(config)?;
        tree.node("soc", |tree| {
            tree.cells(2, 2)?;
            tree.0.property_string("compatible", "simple-bus")?;
            tree.0.property_null("ranges")?;
            if config.model == VirtModel::Virt {
                tree.devices(config)?;
            }
            tree.clint(config)
        })?;
        match config.model {
            VirtModel::Virt => Ok(()),
            VirtModel::Spike => tree.htif(config),
        }
    })?;
    tree.0.finish()
}

struct Tree(FdtWriter);

impl Tree {
    fn node(&mut self, name: &str, inside: impl FnOnce(&mut Tree) -> Result<(), Error>) -> Result<(), Error> {
        let node = self.0.begin_node(name)?;
        inside(self)?;
        self.0.end_node(node)
    }

    fn cells(&mut self, address: u32, size: u32) -> Result<(), Error> {
        self.0.property_u32("#address-cells", address)?;
        self.0.property_u32("#size-cells", size)
    }

    fn strings(&mut self, name: &str, values: &[&str]) -> Result<(), Error> {
        self.0.property_string_list(name, values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn reg(&mut self, region: Region) -> Result<(), Error> {
        self.0.property_array_u64("reg", &[region.base, region.size])
    }

    fn chosen(&mut self, config: &TreeConfig) -> Result<(), Error> {
        self.node("chosen", |tree| {
            if !config.bootargs.is_empty() {
                tree.0.property_string("bootargs", config.bootargs)?;
            }
            if let Some((start, end)) = config.initrd {
                tree.0.property_u64("linux,initrd-start", start)?;
                tree.0.property_u64("linux,initrd-end", end)?;
            }
            if config.model == VirtModel::Spike {
                return tree.0.property_string("stdout-path", "/htif");
            }
            tree.0.property_string("stdout-path", &format!("/soc/serial@{:x}", UART.base))?;
            tree.0.property("rng-seed", &config.rng_seed)
        })
    }

    /// How to switch the board off and reset it.
    fn finisher(&mut self) -> Result<(), Error> {
        for (name, compatible, value) in
            [("poweroff", "syscon-poweroff", TEST_PASS), ("reboot", "syscon-reboot", TEST_RESET)]
        {
            self.node(name, |tree| {
                tree.0.property_string("compatible", compatible)?;
                tree.0.property_u32("regmap", TEST_PHANDLE)?;
                tree.0.property_u32("offset", 0)?;
                tree.0.property_u32("value", value)
            })?;
        }
        Ok(())
    }

    fn htif(&mut self, config: &TreeConfig) -> Result<(), Error> {
        self.node("htif", |tree| {
            tree.0.property_string("compatible", "ucb,htif0")?;
            if config.own_htif { Ok(()) } else { tree.reg(HTIF) }
        })
    }

    fn cpus(&mut self, config: &TreeConfig) -> Result<(), Error> {
        self.node("cpus", |tree| {
            tree.cells(1, 0)?;
            tree.0.property_u32("timebase-frequency", TIME_HZ as u32)?;
            for hart in 0..config.harts {
                tree.hart(config, hart)?;
            }
            tree.node("cpu-map", |tree| {
                tree.node("cluster0", |tree| {
                    for hart in 0..config.harts {
                        tree.node(&format!("core{hart}"), |tree| tree.0.property_u32("cpu", HART_PHANDLES + 2 * hart))?;
                    }
                    Ok(())
                })
            })
        })
    }

    fn hart(&mut self, config: &TreeConfig, hart: u32) -> Result<(), Error> {
        self.node(&format!("cpu@{hart:x}"), |tree| {
            tree.0.property_string("device_type", "cpu")?;
            tree.0.property_u32("reg", hart)?;
            tree.0.property_string("status", "okay")?;
            tree.0.property_string("compatible", "riscv")?;
            tree.0.property_string("riscv,isa", &isa_string(config.extensions))?;
            tree.0.property_string("riscv,isa-base", "rv64i")?;
            tree.strings("riscv,isa-extensions", config.extensions)?;
            for (extension, property) in [("zicbom", "riscv,cbom-block-size"), ("zicboz", "riscv,cboz-block-size")] {
                if config.extensions.contains(&extension) {
                    tree.0.property_u32(property, config.cache_block)?;
                }
            }
            tree.0.property_string("mmu-type", config.mmu)?;
            tree.0.property_phandle(HART_PHANDLES + 2 * hart)?;
            tree.node("interrupt-controller", |tree| {
                tree.0.property_string("compatible", "riscv,cpu-intc")?;
                tree.0.property_null("interrupt-controller")?;
                tree.0.property_u32("#interrupt-cells", 1)?;
                tree.0.property_phandle(interrupts(hart))
            })
        })
    }

    /// A node of a device with one interrupt.
    fn device(&mut self, name: &str, compatible: &str, region: Region, interrupt: u32) -> Result<(), Error> {
        self.device_with(name, compatible, region, interrupt, |_| Ok(()))
    }

    fn device_with(
        &mut self,
        name: &str,
        compatible: &str,
        region: Region,
        interrupt: u32,
        more: impl FnOnce(&mut Tree) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.node(&format!("{name}@{:x}", region.base), |tree| {
            tree.0.property_string("compatible", compatible)?;
            tree.reg(region)?;
            tree.0.property_u32("interrupts", interrupt)?;
            tree.0.property_u32("interrupt-parent", PLIC_PHANDLE)?;
            more(tree)
        })
    }

    fn devices(&mut self, config: &TreeConfig) -> Result<(), Error> {
        self.device("rtc", "google,goldfish-rtc", RTC, RTC_IRQ)?;
        self.device_with("serial", "ns16550a", UART, UART_IRQ, |tree| {
            tree.0.property_u32("clock-frequency", UART_CLOCK)
        })?;
        self.node(&format!("test@{:x}", TEST.base), |tree| {
            tree.strings("compatible", &["sifive,test1", "sifive,test0", "syscon"])?;
            tree.reg(TEST)?;
            tree.0.property_phandle(TEST_PHANDLE)
        })?;
        // The last slot comes first, as it does in QEMU, where devices take the last slots first: the first disk is vda.
        for slot in (0..VIRTIO_SLOTS as u32).rev() {
            let region = Region { base: VIRTIO.base + u64::from(slot) * VIRTIO.size, ..VIRTIO };
            self.device("virtio_mmio", "virtio,mmio", region, VIRTIO_IRQ + slot)?;
        }
        self.node(&format!("plic@{:x}", PLIC.base), |tree| {
            tree.strings("compatible", &["sifive,plic-1.0.0", "riscv,plic0"])?;
            tree.reg(PLIC)?;
            tree.0.property_null("interrupt-controller")?;
            tree.0.property_u32("#address-cells", 0)?;
            tree.0.property_u32("#interrupt-cells", 1)?;
            tree.0.property_u32("riscv,ndev", LAST_IRQ)?;
            tree.0.property_array_u32("interrupts-extended", &lines(config, [EXTERNAL_M, EXTERNAL_S]))?;
            tree.0.property_phandle(PLIC_PHANDLE)
        })
    }

    fn clint(&mut self, config: &TreeConfig) -> Result<(), Error> {
        self.node(&format!("clint@{:x}", CLINT.base), |tree| {
            tree.strings("compatible", &["sifive,clint0", "riscv,clint0"])?;
            tree.reg(CLINT)?;
            tree.0.property_array_u32("interrupts-extended", &lines(config, [SOFTWARE, TIMER]))
        })
    }
}

/// Interrupts of these numbers at each hart.
fn lines(config: &TreeConfig, numbers: [u32; 2]) -> Vec<u32> {
    let line = |hart| numbers.into_iter().flat_map(move |number| [interrupts(hart), number]);
    (0..config.harts).flat_map(line).collect()
}

/// The phandle of a hart's interrupt controller.
fn interrupts(hart: u32) -> u32 {
    HART_PHANDLES + 2 * hart + 1
}

/// The older form of the list: single letters together, the others after underscores (RISC-V unprivileged architecture, "ISA
/// Extension Naming Conventions").
fn isa_string(extensions: &[&str]) -> String {
    let letters = extensions.iter().filter(|name| name.len() == 1).copied();
    let others = extensions.iter().filter(|name| name.len() > 1).flat_map(|name| ["_", name]);
    std::iter::once("rv64").chain(letters).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn word(bytes: &[u8], at: usize) -> usize {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    fn text(bytes: &[u8], at: usize) -> String {
        let end = at + bytes[at..].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[at..end].to_vec()).unwrap()
    }

    /// Properties by path (Devicetree Specification 0.4, chapter 5).
    fn parse(blob: &[u8]) -> BTreeMap<String, Vec<u8>> {
        assert_eq!((word(blob, 0), word(blob, 4)), (0xd00d_feed, blob.len()));
        let (mut at, strings) = (word(blob, 8), word(blob, 12));
        let (mut path, mut found) = (Vec::new(), BTreeMap::new());
        loop {
            let token = word(blob, at);
            at += 4;
            match token {
                1 => {
                    let name = text(blob, at);
                    at += (name.len() + 1).next_multiple_of(4);
                    path.push(name);
                }
                2 => drop(path.pop().unwrap()),
                3 => {
                    let (len, name) = (word(blob, at), text(blob, strings + word(blob, at + 4)));
                    at += 8;
                    let key = format!("{}/{name}", path.join("/"));
                    assert!(found.insert(key, blob[at..at + len].to_vec()).is_none());
                    at += len.next_multiple_of(4);
                }
                4 => {}
                9 => return found,
                other => panic!("token {other}"),
            }
        }
    }

    fn config() -> TreeConfig<'static> {
        TreeConfig {
            model: VirtModel::Virt,
            own_htif: false,
            ram_size: 512 << 20,
            harts: 2,
            extensions: &["i", "m", "a", "c", "zicboz", "sstc"],
            cache_block: 64,
            mmu: "riscv,sv57",
            bootargs: "console=ttyS0",
            initrd: Some((0x9000_0000, 0x9000_1000)),
            rng_seed: [7; 32],
        }
    }

    fn cells(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    #[test]
    fn the_tree_has_what_kernels_look_for() {
        let tree = parse(&device_tree(&config()).unwrap());
        let get = |path: &str| tree.get(path).unwrap_or_else(|| panic!("no {path} in {:#?}", tree.keys())).clone();
        let words: [(&str, &[u32]); 19] = [
            ("/memory@80000000/reg", &[0, 0x8000_0000, 0, 0x2000_0000]),
            ("/cpus/timebase-frequency", &[10_000_000]),
            ("/cpus/cpu@1/reg", &[1]),
            ("/cpus/cpu@0/riscv,cboz-block-size", &[64]),
            ("/cpus/cpu@1/interrupt-controller/phandle", &[6]),
            ("/cpus/cpu-map/cluster0/core1/cpu", &[5]),
            ("/soc/plic@c000000/interrupts-extended", &[4, 11, 4, 9, 6, 11, 6, 9]),
            ("/soc/plic@c000000/riscv,ndev", &[95]),
            ("/soc/plic@c000000/phandle", &[1]),
            ("/soc/clint@2000000/interrupts-extended", &[4, 3, 4, 7, 6, 3, 6, 7]),
            ("/soc/clint@2000000/reg", &[0, 0x200_0000, 0, 0x1_0000]),
            ("/soc/serial@10000000/interrupts", &[10]),
            ("/soc/serial@10000000/interrupt-parent", &[1]),
            ("/soc/rtc@101000/interrupts", &[11]),
            ("/soc/virtio_mmio@10001000/interrupts", &[1]),
            ("/soc/virtio_mmio@10008000/interrupts", &[8]),
            ("/soc/test@100000/phandle", &[2]),
            ("/poweroff/value", &[0x5555]),
            ("/chosen/linux,initrd-end", &[0, 0x9000_1000]),
        ];
        for (path, expected) in words {
            assert_eq!(get(path), cells(expected), "{path}");
        }
        let texts = [
            ("/chosen/bootargs", "console=ttyS0\0"),
            ("/chosen/stdout-path", "/soc/serial@10000000\0"),
            ("/cpus/cpu@0/riscv,isa", "rv64imac_zicboz_sstc\0"),
            ("/cpus/cpu@0/riscv,isa-extensions", "i\0m\0a\0c\0zicboz\0sstc\0"),
            ("/cpus/cpu@0/mmu-type", "riscv,sv57\0"),
            ("/soc/serial@10000000/compatible", "ns16550a\0"),
            ("/soc/test@100000/compatible", "sifive,test1\0sifive,test0\0syscon\0"),
        ];
        for (path, expected) in texts {
            assert_eq!(get(path), expected.as_bytes(), "{path}");
        }
        assert_eq!(get("/chosen/rng-seed"), [7; 32]);
        assert!(!tree.contains_key("/cpus/cpu@0/riscv,cbom-block-size"), "not implemented, so not there");
    }

    #[test]
    fn slots_come_last_first() {
        let blob = device_tree(&config()).unwrap();
        let find = |name: &[u8]| blob.windows(name.len()).position(|window| window == name).unwrap();
        assert!(find(b"virtio_mmio@10008000") < find(b"virtio_mmio@10001000"));
    }

    #[test]
    fn spike_has_timers_and_the_interface() {
        let spike = TreeConfig { model: VirtModel::Spike, ..config() };
        let tree = parse(&device_tree(&spike).unwrap());
        assert_eq!(tree["/compatible"], b"ucbbar,spike-bare-dev\0");
        assert_eq!(tree["/chosen/stdout-path"], b"/htif\0");
        assert_eq!(tree["/htif/compatible"], b"ucb,htif0\0");
        assert_eq!(tree["/htif/reg"], cells(&[0, 0x100_0000, 0, 0x1000]));
        assert_eq!(tree["/soc/clint@2000000/interrupts-extended"], cells(&[4, 3, 4, 7, 6, 3, 6, 7]));
        assert!(
            !tree
                .keys()
                .any(|key| ["plic", "serial", "virtio", "poweroff", "rtc"].iter().any(|gone| key.contains(gone)))
        );
        let own = parse(&device_tree(&TreeConfig { own_htif: true, ..spike }).unwrap());
        assert!(!own.contains_key("/htif/reg"), "where the program's words are is in the program");
    }

    #[test]
    fn a_command_line_with_a_nul_is_refused() {
        assert!(device_tree(&TreeConfig { bootargs: "a\0b", ..config() }).is_err());
        let tree = parse(&device_tree(&TreeConfig { bootargs: "", initrd: None, ..config() }).unwrap());
        assert!(!tree.contains_key("/chosen/bootargs") && !tree.contains_key("/chosen/linux,initrd-start"));
    }
}
