//! The table: a crate, and what its modules may use of one another.

/// Modules, and what each of them may use besides what is below itself. A module that no row has belongs to the one around it.
pub type Row = (&'static str, &'static str);

/// The name of a crate's root in rows.
pub const ROOT: &str = "crate";

/// Crates by their folders.
pub const TABLE: &[(&str, &[Row])] = &[
    ("ir", IR),
    ("softmmu", SOFTMMU),
    ("hw", HW),
    ("frontend", FRONTEND),
    ("backend", BACKEND),
    ("runtime/engine", ENGINE),
    ("runtime/host", HOST),
    ("runtime/machine", MACHINE),
    ("runtime/cli", CLI),
];

const IR: &[Row] = &[
    ("fp op packed", ""),
    ("vec", "op packed"),
    ("block", "op vec"),
    ("verify", "block op"),
    ("text", "block op vec verify"),
    ("interp", "block op vec"),
    ("passes", "block interp op vec"),
    // Blocks at random for the tests of all crates.
    ("testing", "block interp op vec verify"),
];

const SOFTMMU: &[Row] = &[
    ("access exclusive filter halt_polling header space", ""),
    ("kick", "halt_polling"),
    ("tlb", "filter header"),
    ("backing watch", "tlb"),
    ("vram", "access tlb"),
    // RAM tells its code watches of stores, by types of `mmu`.
    ("ram", "access backing exclusive mmu tlb vram"),
    ("page_tables", "ram"),
    ("dma", "ram tlb"),
    ("mmu", "access backing exclusive page_tables ram space tlb watch"),
    // The rest of `Mmu`.
    ("operand", "access mmu ram tlb"),
    ("update", "access mmu operand tlb"),
    ("bulk", "access mmu tlb"),
];

const HW: &[Row] = &[
    ("error time", ""),
    // What devices have of the host, and the handles by which they have it: a disk's jobs are made and answered by its handle.
    ("buffer keys net share", ""),
    ("block", "fabric"),
    ("fabric", "block buffer net time"),
    // Devices.
    ("acpi_pm clint debug dma ferr goldfish_rtc hpet htif pic pit plic sifive_test testdev uart", "fabric time"),
    ("i8042", "fabric keys"),
    // What they have to tell the machine are the PC's events, and what they tell a guest is in its ACPI tables.
    ("isa", "acpi_tables fabric pc"),
    ("ata", "block buffer fabric"),
    ("pci", "acpi_pm fabric lapic net"),
    ("ide", "ata block buffer pci"),
    ("e1000", "fabric net pci"),
    ("vga", "pci"),
    ("virtio", "block buffer fabric net pci share"),
    ("lapic", "fabric time"),
    ("ioapic", "lapic"),
    ("rtc", "ata fabric time pc"),
    // What firmware is told of a PC.
    ("mp_table", "ioapic lapic"),
    ("smbios", "pc"),
    ("acpi_tables", "acpi_pm fw_cfg hpet ioapic lapic mp_table pc pci rtc"),
    ("fw_cfg", "acpi_pm acpi_tables pc smbios"),
    // Boards, and the rows of what can be plugged into them.
    (
        "pc",
        "acpi_pm debug dma error fabric ferr fw_cfg hpet i8042 ioapic keys isa lapic net pci pic pit rtc testdev time uart",
    ),
    ("virt", "clint error fabric goldfish_rtc htif plic sifive_test uart virtio"),
    ("registry", "acpi_pm block clint e1000 fabric hpet ide ioapic isa net pc pci plic share testdev vga virt virtio"),
];

const FRONTEND: &[Row] = &[
    // Macros are at the root.
    ("common", ""),
    ("x86 riscv", "common crate"),
];

const BACKEND: &[Row] = &[
    ("coalesce error icache", ""),
    ("host", "error"),
    ("target", "host target::x64::x87"),
    ("lower", "coalesce compile error host target target::x64::stubs thunks"),
    ("compile", "error host lower target::x64::frame target::x64::listing"),
    ("permanent", "compile error exec"),
    (
        "thunks",
        "compile error exec host lower permanent target target::x64::frame target::x64::mxcsr target::x64::quick target::x64::stubs",
    ),
    ("exec", "target::x64::mxcsr thunks"),
    ("perf", "error exec"),
    ("arena", "compile error exec icache"),
    ("target::x64", ""),
    ("target::x64::frame target::x64::mxcsr target::x64::stubs target::x64::native target::x64::listing", ""),
    ("target::x64::x87", "target host"),
    ("target::x64::quick", "coalesce compile host target::x64::listing"),
];

const ENGINE: &[Row] = &[
    ("log slow kept::slots", ""),
    // What is kept is made of blocks of the cache, which takes it back.
    ("cache", "kept::slots kept::unit"),
    ("kept::unit", "cache kept::slots"),
    ("kept::file", "kept::unit"),
    ("kept", "cache kept::file kept::slots kept::unit"),
    ("compile", "cache kept kept::slots"),
    ("stats", "cache"),
    ("lockstep", "slow"),
    ("near", "cache"),
    ("vcpu", "cache compile kept::unit log near slow stats"),
    ("translator", "cache compile kept vcpu"),
];

const HOST: &[Row] = &[
    ("clock error signals wake", ""),
    ("devices", "display"),
    ("config", "chardev sandbox"),
    ("terminal", "config error signals wake"),
    ("block", "config error"),
    ("share", "config"),
    ("socket", "chardev config"),
    ("chardev", "config error socket terminal wake"),
    ("net", "config error sandbox socket wake"),
    ("display", "clock socket wake"),
    ("sandbox", "block config"),
];

const MACHINE: &[Row] = &[
    ("demo descriptors memory_map", ""),
    ("offers", "config"),
    ("config", "offers"),
    ("boot throttle", "config"),
    ("bus", "memory_map"),
    ("control", "config descriptors"),
    ("monitor", "config control descriptors machine offers"),
    ("machine", "boot bus config control demo memory_map monitor throttle"),
];

const CLI: &[Row] = &[
    ("error logging subjects suggest", ""),
    ("options", "subjects"),
    ("help surface", "options"),
    ("json", "error keyval"),
    ("keyval", "error json subjects suggest"),
    ("readconfig", "error options subjects"),
    ("argv", "error options readconfig subjects suggest"),
    ("family", "error keyval subjects suggest"),
    ("families", "family keyval subjects"),
    ("loader throttling", "error keyval"),
    // What an option means: each of these takes some of them.
    (
        "accel block chardev cpu disks display firmware globals isa monitors net objects process riscv settings share smp",
        "crate error families keyval subjects suggest",
    ),
    ("chardev", "argv"),
    ("chardev accel firmware net", "monitors"),
    ("isa monitors net process riscv settings", "chardev"),
    ("monitors process", "isa"),
    ("chardev net", "disks"),
    ("disks display isa share", "globals"),
    ("disks", "block"),
    ("disks objects", "throttling"),
    ("cpu", "help"),
    ("smp", "objects"),
    // What monitors ask for by name.
    ("catalogue", "crate cpu families keyval objects options riscv"),
];
