//! CPU models by the names that QEMU has for them, with their features.
//!
//! What QEMU 7.2 has is what it answers to `query-cpu-model-expansion`; what later versions have is from Intel's and AMD's
//! manuals, as far as it has a name here.

/// A model.
pub(super) struct Model {
    /// Its names, with blanks between. One that ends in `*` stands for all that begin so.
    pub names: &'static str,
    /// The model that it is like; none if empty.
    like: &'static str,
    /// Features that it has and that one has not.
    on: &'static str,
    /// Features that it has not and that one has.
    off: &'static str,
}

impl Model {
    /// The model of this name.
    pub fn named(name: &str) -> Option<&'static Model> {
        let is = |known: &str| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => known == name,
        };
        MODELS.iter().find(|model| model.names.split(' ').any(is))
    }

    /// The names of its features.
    pub fn features(&self) -> Vec<&'static str> {
        // Each is like one further up, so this ends.
        let mut features = Model::named(self.like).map(Model::features).unwrap_or_default();
        features.retain(|feature| self.off.split_whitespace().all(|off| off != *feature));
        features.extend(self.on.split_whitespace());
        features
    }
}

const fn model(names: &'static str, like: &'static str, on: &'static str, off: &'static str) -> Model {
    Model { names, like, on, off }
}

/// Every model there is, apart from those that are whatever there is.
#[rustfmt::skip]
pub(super) static MODELS: &[Model] = &[
    model("486-v1 486", "", "fpu pse hypervisor", ""),
    model("pentium-v1 pentium", "486-v1", "de tsc msr mce cx8 apic mmx", ""),
    model("pentium2-v1 pentium2", "pentium-v1", "pae sep mtrr pge mca cmov pat pse36 fxsr", ""),
    model("pentium3-v1 pentium3", "pentium2-v1", "sse", ""),
    model("n270-v1 n270", "pentium3-v1", "clflush acpi sse2 ss pni monitor ssse3 movbe nx lahf-lm", "pse36"),
    model("coreduo-v1 coreduo", "n270-v1", "", "ssse3 movbe lahf-lm"),
    model("core2duo-v1 core2duo", "n270-v1", "pse36 cx16 syscall lm", "movbe"),
    model("athlon-v1 athlon", "pentium3-v1", "sse2 mmxext 3dnowext 3dnow", ""),
    model("kvm32-v1 kvm32", "pentium3-v1", "clflush sse2 pni", ""),
    model("qemu32-v1 qemu32", "pentium3-v1", "sse2 pni", "mtrr mca pse36"),
    model("kvm64-v1 kvm64", "kvm32-v1", "cx16 syscall nx lm", ""),
    model("qemu64-v1 qemu64", "kvm64-v1", "lahf-lm svm", ""),
    model("phenom-v1 phenom", "qemu64-v1", "monitor popcnt mmxext fxsr-opt pdpe1gb rdtscp 3dnowext 3dnow abm sse4a npt", ""),
    model("Conroe-v1 Conroe", "qemu64-v1", "ssse3", "cx16 svm"),
    model("Penryn-v1 Penryn", "Conroe-v1", "cx16 sse4.1", ""),
    model("Nehalem-v1 Nehalem", "Penryn-v1", "sse4.2 popcnt", ""),
    model("Nehalem-v2 Nehalem-IBRS", "Nehalem-v1", "spec-ctrl", ""),
    model("Westmere-v1 Westmere", "Nehalem-v1", "pclmulqdq aes arat", ""),
    model("Westmere-v2 Westmere-IBRS", "Westmere-v1", "spec-ctrl", ""),
    model("SandyBridge-v1 SandyBridge", "Westmere-v1", "x2apic tsc-deadline xsave avx xsaveopt rdtscp", ""),
    model("SandyBridge-v2 SandyBridge-IBRS", "SandyBridge-v1", "spec-ctrl", ""),
    model("IvyBridge-v1 IvyBridge", "SandyBridge-v1", "f16c rdrand fsgsbase smep erms", ""),
    model("IvyBridge-v2 IvyBridge-IBRS", "IvyBridge-v1", "spec-ctrl", ""),
    model("Haswell-v1 Haswell", "IvyBridge-v1", "fma pcid movbe bmi1 hle avx2 bmi2 invpcid rtm abm", ""),
    model("Haswell-v2 Haswell-noTSX", "Haswell-v1", "", "hle rtm"),
    model("Haswell-v3 Haswell-IBRS", "Haswell-v1", "spec-ctrl", ""),
    model("Haswell-v4 Haswell-noTSX-IBRS", "Haswell-v3", "", "hle rtm"),
    model("Broadwell-v1 Broadwell", "Haswell-v1", "rdseed adx smap 3dnowprefetch", ""),
    model("Broadwell-v2 Broadwell-noTSX", "Broadwell-v1", "", "hle rtm"),
    model("Broadwell-v3 Broadwell-IBRS", "Broadwell-v1", "spec-ctrl", ""),
    model("Broadwell-v4 Broadwell-noTSX-IBRS", "Broadwell-v3", "", "hle rtm"),
    model("Skylake-Client-v1 Skylake-Client", "Broadwell-v1", "xsavec xgetbv1", ""),
    model("Skylake-Client-v2 Skylake-Client-IBRS", "Skylake-Client-v1", "spec-ctrl", ""),
    model("Skylake-Client-v3 Skylake-Client-noTSX-IBRS", "Skylake-Client-v2", "", "hle rtm"),
    model("Skylake-Client-v4", "Skylake-Client-v3", "xsaves", ""),
    model("Skylake-Server-v1 Skylake-Server", "Skylake-Client-v1", "avx512f avx512dq clflushopt clwb avx512cd avx512bw avx512vl pku pdpe1gb", ""),
    model("Skylake-Server-v2 Skylake-Server-IBRS", "Skylake-Server-v1", "spec-ctrl", "clflushopt"),
    model("Skylake-Server-v3 Skylake-Server-noTSX-IBRS", "Skylake-Server-v2", "", "hle rtm"),
    model("Skylake-Server-v4", "Skylake-Server-v3", "", ""),
    model("Skylake-Server-v5", "Skylake-Server-v3", "xsaves", ""),
    model("Cascadelake-Server-v1 Cascadelake-Server", "Skylake-Server-v1", "avx512vnni spec-ctrl ssbd", ""),
    model("Cascadelake-Server-v2", "Cascadelake-Server-v1", "arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no", ""),
    model("Cascadelake-Server-v3 Cascadelake-Server-noTSX", "Cascadelake-Server-v2", "", "hle rtm"),
    model("Cascadelake-Server-v4", "Cascadelake-Server-v3", "", ""),
    model("Cascadelake-Server-v5", "Cascadelake-Server-v3", "xsaves", ""),
    model("Cooperlake-v1 Cooperlake", "Cascadelake-Server-v2", "stibp avx512-bf16 pschange-mc-no taa-no", ""),
    model("Cooperlake-v2", "Cooperlake-v1", "xsaves", ""),
    model("Icelake-Server-v1 Icelake-Server", "Cascadelake-Server-v1", "avx512vbmi umip avx512vbmi2 gfni vaes vpclmulqdq avx512bitalg avx512-vpopcntdq la57 wbnoinvd", ""),
    model("Icelake-Server-v2 Icelake-Server-noTSX", "Icelake-Server-v1", "", "hle rtm"),
    model("Icelake-Server-v3", "Icelake-Server-v2", "arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no", ""),
    model("Icelake-Server-v4", "Icelake-Server-v3", "avx512ifma sha-ni rdpid fsrm", ""),
    model("Icelake-Server-v5", "Icelake-Server-v4", "xsaves", ""),
    model("Icelake-Server-v6", "Icelake-Server-v5", "", ""),
    model("KnightsMill-v1 KnightsMill", "Broadwell-v2", "ss avx512f avx512pf avx512er avx512cd avx512-vpopcntdq avx512-4vnniw avx512-4fmaps pdpe1gb", "pcid invpcid smap"),
    model("Denverton-v1 Denverton", "Skylake-Client-v3", "monitor mpx clflushopt sha-ni arch-capabilities ssbd pdpe1gb rdctl-no skip-l1dfl-vmentry", "fma pcid avx f16c bmi1 avx2 bmi2 invpcid adx abm"),
    model("Denverton-v2", "Denverton-v1", "", "monitor mpx"),
    model("Denverton-v3", "Denverton-v2", "xsaves", ""),
    model("Snowridge-v1 Snowridge", "Denverton-v1", "clwb umip gfni cldemote movdiri movdir64b core-capability split-lock-detect", "rdctl-no skip-l1dfl-vmentry"),
    model("Snowridge-v2", "Snowridge-v1", "", "mpx"),
    model("Snowridge-v3", "Snowridge-v2", "xsaves", ""),
    model("Snowridge-v4", "Snowridge-v3", "", "core-capability split-lock-detect"),
    model("Opteron_G1-v1 Opteron_G1", "kvm64-v1", "", "cx16"),
    model("Opteron_G2-v1 Opteron_G2", "qemu64-v1", "", ""),
    model("Opteron_G3-v1 Opteron_G3", "qemu64-v1", "monitor popcnt rdtscp abm sse4a misalignsse", ""),
    model("Opteron_G4-v1 Opteron_G4", "Westmere-v1", "xsave avx pdpe1gb rdtscp svm abm sse4a misalignsse 3dnowprefetch xop fma4 npt nrip-save", "arat"),
    model("Opteron_G5-v1 Opteron_G5", "Opteron_G4-v1", "fma f16c tbm", ""),
    model("EPYC-v1 EPYC", "Skylake-Client-v1", "monitor clflushopt sha-ni mmxext fxsr-opt pdpe1gb svm cr8legacy sse4a misalignsse osvw topoext npt nrip-save", "pcid x2apic tsc-deadline hle erms invpcid rtm"),
    model("EPYC-v2 EPYC-IBPB", "EPYC-v1", "ibpb", ""),
    model("EPYC-v3", "EPYC-v2", "xsaves perfctr-core clzero xsaveerptr", ""),
    model("EPYC-Rome-v1 EPYC-Rome", "EPYC-v3", "clwb umip rdpid wbnoinvd amd-stibp", ""),
    model("EPYC-Rome-v2", "EPYC-Rome-v1", "ibrs amd-ssbd", ""),
    model("EPYC-Milan-v1 EPYC-Milan", "EPYC-Rome-v2", "pcid erms invpcid pku fsrm svme-addr-chk", ""),
    model("Dhyana-v1 Dhyana", "EPYC-v2", "", "pclmulqdq aes sha-ni"),
    model("Dhyana-v2", "Dhyana-v1", "xsaves", ""),
    model("Icelake-Server-v7", "Icelake-Server-v6", "", ""),
    model("SapphireRapids-v1 SapphireRapids", "Icelake-Server-v6", "bus-lock-detect serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 avx-vnni avx512-bf16 xfd", ""),
    model("SapphireRapids-*", "SapphireRapids-v1", "", ""),
    model("GraniteRapids-v1 GraniteRapids GraniteRapids-*", "SapphireRapids-v1", "amx-fp16 prefetchiti", ""),
    model("SierraForest-v1 SierraForest SierraForest-*", "Snowridge-v4", "avx avx2 f16c fma bmi1 bmi2 adx pku vaes vpclmulqdq waitpkg serialize avx-vnni cmpccxadd fzrm fsrs fsrc avx-ifma avx-vnni-int8 avx-ne-convert", ""),
    model("ClearwaterForest-v1 ClearwaterForest ClearwaterForest-*", "SierraForest-v1", "sha512 sm3 sm4 avx-vnni-int16 prefetchiti", ""),
    model("EPYC-Genoa-v1 EPYC-Genoa EPYC-Genoa-*", "EPYC-Milan-v1", "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 gfni avx512vnni avx512bitalg avx512-vpopcntdq la57 avx512-bf16 stibp-always-on amd-psfd no-nested-data-bp lfence-always-serializing null-sel-clr-base auto-ibrs vnmi", ""),
    model("EPYC-Turin-v1 EPYC-Turin EPYC-Turin-*", "EPYC-Genoa-v1", "movdiri movdir64b avx-vnni", ""),
    model("EPYC-v4 EPYC-v5", "EPYC-v3", "", ""),
    model("EPYC-Rome-v3 EPYC-Rome-v4 EPYC-Rome-v5", "EPYC-Rome-v2", "", ""),
    model("EPYC-Milan-v2 EPYC-Milan-v3", "EPYC-Milan-v1", "", ""),
    model("YongFeng-v1 YongFeng YongFeng-*", "Haswell-v4", "rdseed adx smap clflushopt sha-ni umip", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use mimus_frontend::x86::features::Feature;
    use std::collections::HashSet;

    #[test]
    fn models_are_made_of_what_is_known() {
        let mut names: HashSet<&str> = HashSet::from([""]);
        for model in MODELS {
            assert!(names.contains(model.like), "{} is like {}", model.names, model.like);
            assert!(model.names.split(' ').all(|name| names.insert(name)), "{} is there twice", model.names);
            for name in model.features() {
                assert_eq!(Feature::named(name).map(|feature| feature.name), Some(name), "{}", model.names);
            }
        }
        assert!(Model::named("Haswell").unwrap().features().contains(&"rtm"));
        assert!(!Model::named("Haswell-noTSX").unwrap().features().contains(&"rtm"));
        assert!(Model::named("GraniteRapids-v3").unwrap().features().contains(&"amx-fp16"));
        assert!(Model::named("Has").is_none() && Model::named("").is_none());
    }
}
