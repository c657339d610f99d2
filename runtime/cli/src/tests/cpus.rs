//! Command lines about what executes guest code: accelerators, CPU models, numbers of vCPUs.

use mimus_frontend::x86::features::{Feature, FeatureSet};

use super::*;
use mimus_frontend::x86::cpuid::Identity;

#[test]
fn the_first_accelerator_that_can_be_had_counts() {
    let jit = || Accel::Jit(JitConfig::default());
    let kvm: &[&str] = &["no KVM: translating instead"];
    let rows: &[(&str, Accel, &[&str])] = &[
        ("-accel tcg", jit(), &[]),
        ("-accel tcg,thread=multi,split-wx=on", jit(), &[]),
        ("-accel tcg,tb-size=32", Accel::Jit(JitConfig { tb_size_mib: Some(32), ..JitConfig::default() }), &[]),
        ("-accel kvm", jit(), kvm),
        ("-enable-kvm", jit(), kvm),
        ("-enable-kvm -accel interp", Accel::Interp, &[]),
        ("-M accel=kvm", jit(), kvm),
        ("-M pc,accel=kvm:tcg,kernel_irqchip=on", jit(), kvm),
        ("-machine accel=kvm:interp", Accel::Interp, kvm),
        ("-M accel=tcg:kvm", jit(), &[]),
        ("-accel kvm,kernel-irqchip=split -accel hvf -accel tcg", jit(), &["no KVM, no HVF: translating instead"]),
        ("-accel tcg -accel kvm", jit(), &[]),
        ("-accel whpx", jit(), &["no WHPX: translating instead"]),
    ];
    for (line, accel, warnings) in rows {
        let config = config_of(line);
        assert_eq!(&config.accel, accel, "{line}");
        assert_eq!(config.warnings, *warnings, "{line}");
    }
    assert!(config_of("-singlestep").one_insn_per_tb && config_of("-accel tcg,one-insn-per-tb=on").one_insn_per_tb);
    assert!(!config_of("-accel tcg").one_insn_per_tb);
    refused(&[
        ("-accel kvm -M accel=kvm", "-accel: cannot be combined with -machine accel="),
        ("-accel tcg,thread=many", "-accel tcg: thread: 'many' is not supported yet: single or multi"),
        ("-accel kvm:tcg", "-accel: 'kvm:tcg' is not an accelerator (supported: jit, tcg, interp)"),
    ]);
}

/// The features that CPUID does not tell of.
fn hidden(line: &str) -> Vec<&'static str> {
    config_of(line).cpu_features.hidden.iter().map(|feature| feature.name).collect()
}

#[test]
fn every_model_is_what_there_is_of_it() {
    for line in [
        "-cpu max",
        "-cpu host",
        "-cpu host,migratable=off",
        "-cpu max,-avx,avx2=off,kvm=off,check",
        "-cpu host,-svm,hv-time=off",
    ] {
        let config = config_of(line);
        assert_eq!((hidden(line), config.warnings), (vec![], vec![]), "{line}");
    }
    assert_eq!(hidden("-cpu max,-smap,sse4_2=off,umip=no"), ["sse4.2", "smap", "umip"]);
    assert_eq!(hidden("-cpu max,-smap,+smap"), [""; 0]);
    // A sign counts more than what stands behind it.
    assert_eq!(hidden("-cpu max,-smap,smap=on"), ["smap"]);
    assert_eq!(hidden("-cpu max,-invtsc,-hypervisor"), ["hypervisor", "invtsc"]);
    let kvm64 = [
        "pcid",
        "sse4.1",
        "sse4.2",
        "ssse3",
        "popcnt",
        "movbe",
        "tsc-deadline",
        "fsgsbase",
        "tsc-adjust",
        "erms",
        "invpcid",
        "umip",
        "pdpe1gb",
        "rdtscp",
        "lahf-lm",
        "vme",
    ];
    let mut told = hidden("-cpu kvm64,+smep,+smap");
    let mut expected = kvm64.to_vec();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert_eq!(config_of("-cpu kvm64,+smep,+smap").warnings, [""; 0]);
    let warnings = |line: &str| config_of(line).warnings.join("\n");
    assert_eq!(warnings("-cpu qemu64,+ssse3"), "-cpu qemu64: the guest does without svm");
    assert_eq!(
        warnings("-cpu Haswell-noTSX,vmx=on,hv-relaxed,tsc-frequency=5,-rdctl-no"),
        "-cpu Haswell-noTSX: the guest does without pclmulqdq vmx fma x2apic aes xsave avx f16c rdrand bmi1 avx2 bmi2 \
         xsaveopt abm -rdctl-no hv-relaxed tsc-frequency=5"
    );
    assert!(warnings("-cpu SapphireRapids-v2").contains("amx-tile"));
    assert!(!warnings("-cpu EPYC,vendor=AuthenticAMD,topoext=off").contains("vendor"));
    assert!(config_of("-cpu max,+la57").cpu_features.la57);
    assert_eq!(
        config_of("-cpu base,+lm,enforce")
            .cpu_features
            .hidden
            .common(&FeatureSet::default().with(Feature::named("lm").unwrap())),
        FeatureSet::default()
    );
    refused(&[
        ("-cpu qemu64,enforce", "-cpu qemu64: enforce: the guest does without svm"),
        ("-cpu max,smap=x", "-cpu max: smap: 'x' is not known here: on or off"),
        (
            "-cpu max,+smop,-xyzzy",
            "-cpu max: 'smop' is not a feature or property; did you mean 'smep'? (-cpu help lists all)\n\
             -cpu max: 'xyzzy' is not a feature or property (-cpu help lists all)",
        ),
        ("-cpu model=max", "-cpu: 'model=max' does not begin with a CPU model (-cpu help lists all)"),
    ]);
}

#[test]
fn the_list_of_models_is_laid_out_as_qemus() {
    let text = printed("-cpu help");
    assert!(text.starts_with("Available CPUs:\nx86 486-v1\nx86 486 "), "{text}");
    assert!(text.lines().any(|line| line == "x86 Haswell               (alias of Haswell-v1)"), "{text}");
    assert!(text.contains("\n\nRecognized CPUID flags:\n  3dnow 3dnowext 3dnowprefetch "), "{text}");
    assert_eq!(printed("-cpu ?"), text);
}

#[test]
fn one_vcpu_of_however_many() {
    let told = |line: &str| config_of(line).warnings.join("\n");
    for (line, cpus) in [
        ("1", 1),
        ("4", 4),
        ("cpus=4", 4),
        ("2,sockets=2,cores=1,threads=1", 2),
        ("cores=2", 2),
        ("cores=1,threads=1", 1),
        ("1,maxcpus=8", 1),
        ("8,sockets=1,dies=2,cores=2,threads=2,clusters=1", 8),
        ("2,maxcpus=8,cores=4", 2),
        ("3 -smp cpus=2", 2),
    ] {
        let expected = match cpus {
            1 => String::new(),
            n => format!("-smp: one vCPU instead of {n}: more are not supported yet"),
        };
        assert_eq!(told(&format!("-smp {line}")), expected, "{line}");
    }
    refused(&[
        ("-smp 3,cores=2", "-smp: sockets (1) * dies (1) * cores (2) * threads (1) is not maxcpus (3)"),
        ("-smp 8,maxcpus=4", "-smp: cpus (8) is more than maxcpus (4)"),
        ("-smp 2,sockets=2,cores=2", "-smp: sockets (2) * dies (1) * cores (2) * threads (0) is not maxcpus (2)"),
        ("-smp 300", "-smp: 300 vCPUs are more than the 255 of this machine"),
        ("-smp 1,clusters=2", "-smp: clusters: '2' is not known here: only '1' is supported yet"),
    ]);
}

#[test]
fn what_a_cpu_is_called() {
    let identity = |line: &str| config_of(line).cpu_features.identity;
    let named = identity("-cpu qemu64,vendor=AuthenticAMD,family=23,model=1,stepping=2,model-id=A");
    assert_eq!((named.vendor, named.signature, named.brand), (*b"AuthenticAMD", 0x0080_0f12, Identity::brand("A")));
    assert_eq!(identity("-cpu EPYC"), Identity::default());
    let wrong = |name: &str, value: &str| {
        format!("-cpu max: {name}: '{value}' is not one (vendors have 12 characters, names up to 48)")
    };
    refused(&[
        ("-cpu max,vendor=AMD", &wrong("vendor", "AMD")),
        ("-cpu max,family=271", &wrong("family", "271")),
        ("-cpu max,model=256", &wrong("model", "256")),
        ("-cpu max,stepping=16", &wrong("stepping", "16")),
    ]);
}
