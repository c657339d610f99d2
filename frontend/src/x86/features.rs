//! CPU features by their names, with where CPUID tells of them.
//!
//! Words and bits are those of SDM vol. 2A, CPUID, and of the AMD64 manual, vol. 3, appendix E. The names are QEMU's.

use serde::{Deserialize, Serialize};

use super::cpuid;
use super::state::Cr4;

/// A word of feature bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Word {
    /// CPUID leaf 1, EDX.
    Leaf1Edx,
    /// CPUID leaf 1, ECX.
    Leaf1Ecx,
    /// CPUID leaf 6, EAX.
    Leaf6Eax,
    /// CPUID leaf 7, subleaf 0, EBX.
    Leaf7Ebx,
    /// CPUID leaf 7, subleaf 0, ECX.
    Leaf7Ecx,
    /// CPUID leaf 7, subleaf 0, EDX.
    Leaf7Edx,
    /// CPUID leaf 7, subleaf 1, EAX.
    Leaf7Sub1Eax,
    /// CPUID leaf 7, subleaf 1, EDX.
    Leaf7Sub1Edx,
    /// CPUID leaf 0xd, subleaf 1, EAX.
    LeafDSub1Eax,
    /// CPUID leaf 0x8000_0001, EDX.
    Extended1Edx,
    /// CPUID leaf 0x8000_0001, ECX.
    Extended1Ecx,
    /// CPUID leaf 0x8000_0007, EDX.
    Extended7Edx,
    /// CPUID leaf 0x8000_0008, EBX.
    Extended8Ebx,
    /// CPUID leaf 0x8000_0021, EAX.
    Extended21Eax,
    /// CPUID leaf 0x8000_000a, EDX.
    SvmEdx,
    /// CPUID leaf 0xc000_0001, EDX.
    Centaur1Edx,
    /// IA32_ARCH_CAPABILITIES.
    ArchCapabilities,
    /// Elsewhere; the number is no bit.
    Other,
}

/// Number of [`Word`]s.
pub const WORDS: usize = Word::Other as usize + 1;

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct FeatureSet([u32; WORDS]);

impl FeatureSet {
    /// Every feature that the CPU has.
    pub fn offered() -> FeatureSet {
        let mut set = FeatureSet::default();
        for (word, bits) in cpuid::OFFERED {
            set.0[*word as usize] = *bits;
        }
        // Bits that have no name are nobody's to choose.
        set.common(&FEATURES.iter().fold(FeatureSet::default(), |all, feature| all.with(feature)))
    }

    /// The set with `feature` in it.
    #[must_use]
    pub fn with(mut self, feature: &Feature) -> FeatureSet {
        self.0[feature.word as usize] |= 1 << feature.bit;
        self
    }

    /// The set with `feature` not in it.
    #[must_use]
    pub fn without(mut self, feature: &Feature) -> FeatureSet {
        self.0[feature.word as usize] &= !(1 << feature.bit);
        self
    }

    /// What is in this set and in `other`.
    #[must_use]
    pub fn common(&self, other: &FeatureSet) -> FeatureSet {
        FeatureSet(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn except(&self, other: &FeatureSet) -> FeatureSet {
        FeatureSet(std::array::from_fn(|word| self.0[word] & !other.0[word]))
    }

    /// Whether `feature` is in it.
    pub fn has(&self, feature: &Feature) -> bool {
        self.0[feature.word as usize] >> feature.bit & 1 != 0
    }

    /// The features in it, in the order of [`FEATURES`].
    pub fn iter(&self) -> impl Iterator<Item = &'static Feature> {
        FEATURES.iter().filter(|feature| self.has(feature))
    }

    /// The bits of CR4 that exist with features in the set only, by a table of those.
    pub fn register_bits(&self, table: &[(Word, u8, Cr4)]) -> Cr4 {
        let gone = table.iter().filter(|(word, bit, _)| self.word(*word) >> bit & 1 != 0);
        gone.fold(Cr4::empty(), |bits, (.., with_it)| bits | *with_it)
    }

    /// The bits of `word`.
    pub fn word(&self, word: Word) -> u32 {
        self.0[word as usize]
    }
}

/// A feature.
#[derive(Debug)]
pub struct Feature {
    /// The word that tells of it.
    pub word: Word,
    /// The bit there.
    pub bit: u8,
    /// Its name.
    pub name: &'static str,
    /// Its other names, with blanks between.
    aliases: &'static str,
}

impl Feature {
    /// The feature of this name. Underscores are as good as dashes.
    pub fn named(name: &str) -> Option<&'static Feature> {
        let name = name.replace('_', "-");
        FEATURES
            .iter()
            .find(|feature| feature.name == name || feature.aliases.split_ascii_whitespace().any(|alias| alias == name))
    }

    /// Whether a guest that is not to see it does not: CPUID tells of it.
    pub fn can_be_hidden(&self) -> bool {
        !matches!(self.word, Word::ArchCapabilities | Word::Other)
    }
}

const fn row(word: Word, bit: u8, name: &'static str, aliases: &'static str) -> Feature {
    Feature { word, bit, name, aliases }
}

/// Every feature that has a name.
#[rustfmt::skip]
pub static FEATURES: &[Feature] = &[
    row(Word::Leaf1Edx, 0, "fpu", ""),
    row(Word::Leaf1Edx, 1, "vme", ""),
    row(Word::Leaf1Edx, 2, "de", ""),
    row(Word::Leaf1Edx, 3, "pse", ""),
    row(Word::Leaf1Edx, 4, "tsc", ""),
    row(Word::Leaf1Edx, 5, "msr", ""),
    row(Word::Leaf1Edx, 6, "pae", ""),
    row(Word::Leaf1Edx, 7, "mce", ""),
    row(Word::Leaf1Edx, 8, "cx8", ""),
    row(Word::Leaf1Edx, 9, "apic", ""),
    row(Word::Leaf1Edx, 11, "sep", ""),
    row(Word::Leaf1Edx, 12, "mtrr", ""),
    row(Word::Leaf1Edx, 13, "pge", ""),
    row(Word::Leaf1Edx, 14, "mca", ""),
    row(Word::Leaf1Edx, 15, "cmov", ""),
    row(Word::Leaf1Edx, 16, "pat", ""),
    row(Word::Leaf1Edx, 17, "pse36", ""),
    row(Word::Leaf1Edx, 18, "pn", ""),
    row(Word::Leaf1Edx, 19, "clflush", ""),
    row(Word::Leaf1Edx, 21, "ds", ""),
    row(Word::Leaf1Edx, 22, "acpi", ""),
    row(Word::Leaf1Edx, 23, "mmx", ""),
    row(Word::Leaf1Edx, 24, "fxsr", ""),
    row(Word::Leaf1Edx, 25, "sse", ""),
    row(Word::Leaf1Edx, 26, "sse2", ""),
    row(Word::Leaf1Edx, 27, "ss", ""),
    row(Word::Leaf1Edx, 28, "ht", ""),
    row(Word::Leaf1Edx, 29, "tm", ""),
    row(Word::Leaf1Edx, 30, "ia64", ""),
    row(Word::Leaf1Edx, 31, "pbe", ""),
    row(Word::Leaf1Ecx, 0, "pni", "sse3"),
    row(Word::Leaf1Ecx, 1, "pclmulqdq", "pclmuldq"),
    row(Word::Leaf1Ecx, 2, "dtes64", ""),
    row(Word::Leaf1Ecx, 3, "monitor", ""),
    row(Word::Leaf1Ecx, 4, "ds-cpl", ""),
    row(Word::Leaf1Ecx, 5, "vmx", ""),
    row(Word::Leaf1Ecx, 6, "smx", ""),
    row(Word::Leaf1Ecx, 7, "est", ""),
    row(Word::Leaf1Ecx, 8, "tm2", ""),
    row(Word::Leaf1Ecx, 9, "ssse3", ""),
    row(Word::Leaf1Ecx, 10, "cid", ""),
    row(Word::Leaf1Ecx, 12, "fma", ""),
    row(Word::Leaf1Ecx, 13, "cx16", ""),
    row(Word::Leaf1Ecx, 14, "xtpr", ""),
    row(Word::Leaf1Ecx, 15, "pdcm", ""),
    row(Word::Leaf1Ecx, 17, "pcid", ""),
    row(Word::Leaf1Ecx, 18, "dca", ""),
    row(Word::Leaf1Ecx, 19, "sse4.1", "sse4-1"),
    row(Word::Leaf1Ecx, 20, "sse4.2", "sse4-2"),
    row(Word::Leaf1Ecx, 21, "x2apic", ""),
    row(Word::Leaf1Ecx, 22, "movbe", ""),
    row(Word::Leaf1Ecx, 23, "popcnt", ""),
    row(Word::Leaf1Ecx, 24, "tsc-deadline", ""),
    row(Word::Leaf1Ecx, 25, "aes", ""),
    row(Word::Leaf1Ecx, 26, "xsave", ""),
    row(Word::Leaf1Ecx, 28, "avx", ""),
    row(Word::Leaf1Ecx, 29, "f16c", ""),
    row(Word::Leaf1Ecx, 30, "rdrand", ""),
    row(Word::Leaf1Ecx, 31, "hypervisor", ""),
    row(Word::Leaf6Eax, 2, "arat", ""),
    row(Word::Leaf7Ebx, 0, "fsgsbase", ""),
    row(Word::Leaf7Ebx, 1, "tsc-adjust", ""),
    row(Word::Leaf7Ebx, 2, "sgx", ""),
    row(Word::Leaf7Ebx, 3, "bmi1", ""),
    row(Word::Leaf7Ebx, 4, "hle", ""),
    row(Word::Leaf7Ebx, 5, "avx2", ""),
    row(Word::Leaf7Ebx, 7, "smep", ""),
    row(Word::Leaf7Ebx, 8, "bmi2", ""),
    row(Word::Leaf7Ebx, 9, "erms", ""),
    row(Word::Leaf7Ebx, 10, "invpcid", ""),
    row(Word::Leaf7Ebx, 11, "rtm", ""),
    row(Word::Leaf7Ebx, 14, "mpx", ""),
    row(Word::Leaf7Ebx, 16, "avx512f", ""),
    row(Word::Leaf7Ebx, 17, "avx512dq", ""),
    row(Word::Leaf7Ebx, 18, "rdseed", ""),
    row(Word::Leaf7Ebx, 19, "adx", ""),
    row(Word::Leaf7Ebx, 20, "smap", ""),
    row(Word::Leaf7Ebx, 21, "avx512ifma", ""),
    row(Word::Leaf7Ebx, 22, "pcommit", ""),
    row(Word::Leaf7Ebx, 23, "clflushopt", ""),
    row(Word::Leaf7Ebx, 24, "clwb", ""),
    row(Word::Leaf7Ebx, 25, "intel-pt", ""),
    row(Word::Leaf7Ebx, 26, "avx512pf", ""),
    row(Word::Leaf7Ebx, 27, "avx512er", ""),
    row(Word::Leaf7Ebx, 28, "avx512cd", ""),
    row(Word::Leaf7Ebx, 29, "sha-ni", ""),
    row(Word::Leaf7Ebx, 30, "avx512bw", ""),
    row(Word::Leaf7Ebx, 31, "avx512vl", ""),
    row(Word::Leaf7Ecx, 1, "avx512vbmi", ""),
    row(Word::Leaf7Ecx, 2, "umip", ""),
    row(Word::Leaf7Ecx, 3, "pku", ""),
    row(Word::Leaf7Ecx, 5, "waitpkg", ""),
    row(Word::Leaf7Ecx, 6, "avx512vbmi2", ""),
    row(Word::Leaf7Ecx, 8, "gfni", ""),
    row(Word::Leaf7Ecx, 9, "vaes", ""),
    row(Word::Leaf7Ecx, 10, "vpclmulqdq", ""),
    row(Word::Leaf7Ecx, 11, "avx512vnni", ""),
    row(Word::Leaf7Ecx, 12, "avx512bitalg", ""),
    row(Word::Leaf7Ecx, 14, "avx512-vpopcntdq", ""),
    row(Word::Leaf7Ecx, 16, "la57", ""),
    row(Word::Leaf7Ecx, 22, "rdpid", ""),
    row(Word::Leaf7Ecx, 24, "bus-lock-detect", ""),
    row(Word::Leaf7Ecx, 25, "cldemote", ""),
    row(Word::Leaf7Ecx, 27, "movdiri", ""),
    row(Word::Leaf7Ecx, 28, "movdir64b", ""),
    row(Word::Leaf7Ecx, 30, "sgxlc", ""),
    row(Word::Leaf7Ecx, 31, "pks", ""),
    row(Word::Leaf7Edx, 2, "avx512-4vnniw", ""),
    row(Word::Leaf7Edx, 3, "avx512-4fmaps", ""),
    row(Word::Leaf7Edx, 4, "fsrm", ""),
    row(Word::Leaf7Edx, 8, "avx512-vp2intersect", ""),
    row(Word::Leaf7Edx, 10, "md-clear", ""),
    row(Word::Leaf7Edx, 14, "serialize", ""),
    row(Word::Leaf7Edx, 16, "tsx-ldtrk", ""),
    row(Word::Leaf7Edx, 19, "arch-lbr", ""),
    row(Word::Leaf7Edx, 22, "amx-bf16", ""),
    row(Word::Leaf7Edx, 23, "avx512-fp16", ""),
    row(Word::Leaf7Edx, 24, "amx-tile", ""),
    row(Word::Leaf7Edx, 25, "amx-int8", ""),
    row(Word::Leaf7Edx, 26, "spec-ctrl", ""),
    row(Word::Leaf7Edx, 27, "stibp", ""),
    row(Word::Leaf7Edx, 28, "flush-l1d", ""),
    row(Word::Leaf7Edx, 29, "arch-capabilities", ""),
    row(Word::Leaf7Edx, 30, "core-capability", ""),
    row(Word::Leaf7Edx, 31, "ssbd", ""),
    row(Word::Leaf7Sub1Eax, 0, "sha512", ""),
    row(Word::Leaf7Sub1Eax, 1, "sm3", ""),
    row(Word::Leaf7Sub1Eax, 2, "sm4", ""),
    row(Word::Leaf7Sub1Eax, 4, "avx-vnni", ""),
    row(Word::Leaf7Sub1Eax, 5, "avx512-bf16", ""),
    row(Word::Leaf7Sub1Eax, 7, "cmpccxadd", ""),
    row(Word::Leaf7Sub1Eax, 10, "fzrm", ""),
    row(Word::Leaf7Sub1Eax, 11, "fsrs", ""),
    row(Word::Leaf7Sub1Eax, 12, "fsrc", ""),
    row(Word::Leaf7Sub1Eax, 17, "fred", ""),
    row(Word::Leaf7Sub1Eax, 18, "lkgs", ""),
    row(Word::Leaf7Sub1Eax, 19, "wrmsrns", ""),
    row(Word::Leaf7Sub1Eax, 21, "amx-fp16", ""),
    row(Word::Leaf7Sub1Eax, 23, "avx-ifma", ""),
    row(Word::Leaf7Sub1Eax, 26, "lam", ""),
    row(Word::Leaf7Sub1Edx, 4, "avx-vnni-int8", ""),
    row(Word::Leaf7Sub1Edx, 5, "avx-ne-convert", ""),
    row(Word::Leaf7Sub1Edx, 8, "amx-complex", ""),
    row(Word::Leaf7Sub1Edx, 10, "avx-vnni-int16", ""),
    row(Word::Leaf7Sub1Edx, 14, "prefetchiti", ""),
    row(Word::Leaf7Sub1Edx, 19, "avx10", ""),
    row(Word::LeafDSub1Eax, 0, "xsaveopt", ""),
    row(Word::LeafDSub1Eax, 1, "xsavec", ""),
    row(Word::LeafDSub1Eax, 2, "xgetbv1", ""),
    row(Word::LeafDSub1Eax, 3, "xsaves", ""),
    row(Word::LeafDSub1Eax, 4, "xfd", ""),
    row(Word::Extended1Edx, 11, "syscall", ""),
    row(Word::Extended1Edx, 20, "nx", "xd"),
    row(Word::Extended1Edx, 22, "mmxext", ""),
    row(Word::Extended1Edx, 25, "fxsr-opt", "ffxsr"),
    row(Word::Extended1Edx, 26, "pdpe1gb", ""),
    row(Word::Extended1Edx, 27, "rdtscp", ""),
    row(Word::Extended1Edx, 29, "lm", "i64"),
    row(Word::Extended1Edx, 30, "3dnowext", ""),
    row(Word::Extended1Edx, 31, "3dnow", ""),
    row(Word::Extended1Ecx, 0, "lahf-lm", ""),
    row(Word::Extended1Ecx, 1, "cmp-legacy", ""),
    row(Word::Extended1Ecx, 2, "svm", ""),
    row(Word::Extended1Ecx, 3, "extapic", ""),
    row(Word::Extended1Ecx, 4, "cr8legacy", ""),
    row(Word::Extended1Ecx, 5, "abm", ""),
    row(Word::Extended1Ecx, 6, "sse4a", ""),
    row(Word::Extended1Ecx, 7, "misalignsse", ""),
    row(Word::Extended1Ecx, 8, "3dnowprefetch", ""),
    row(Word::Extended1Ecx, 9, "osvw", ""),
    row(Word::Extended1Ecx, 10, "ibs", ""),
    row(Word::Extended1Ecx, 11, "xop", ""),
    row(Word::Extended1Ecx, 12, "skinit", ""),
    row(Word::Extended1Ecx, 13, "wdt", ""),
    row(Word::Extended1Ecx, 15, "lwp", ""),
    row(Word::Extended1Ecx, 16, "fma4", ""),
    row(Word::Extended1Ecx, 17, "tce", ""),
    row(Word::Extended1Ecx, 19, "nodeid-msr", ""),
    row(Word::Extended1Ecx, 21, "tbm", ""),
    row(Word::Extended1Ecx, 22, "topoext", ""),
    row(Word::Extended1Ecx, 23, "perfctr-core", ""),
    row(Word::Extended1Ecx, 24, "perfctr-nb", ""),
    row(Word::Extended7Edx, 8, "invtsc", ""),
    row(Word::Extended8Ebx, 0, "clzero", ""),
    row(Word::Extended8Ebx, 2, "xsaveerptr", ""),
    row(Word::Extended8Ebx, 4, "rdpru", ""),
    row(Word::Extended8Ebx, 9, "wbnoinvd", ""),
    row(Word::Extended8Ebx, 12, "ibpb", ""),
    row(Word::Extended8Ebx, 14, "ibrs", ""),
    row(Word::Extended8Ebx, 15, "amd-stibp", ""),
    row(Word::Extended8Ebx, 17, "stibp-always-on", ""),
    row(Word::Extended8Ebx, 24, "amd-ssbd", ""),
    row(Word::Extended8Ebx, 25, "virt-ssbd", ""),
    row(Word::Extended8Ebx, 26, "amd-no-ssb", ""),
    row(Word::Extended8Ebx, 28, "amd-psfd", ""),
    row(Word::Extended8Ebx, 29, "btc-no", ""),
    row(Word::Extended21Eax, 0, "no-nested-data-bp", ""),
    row(Word::Extended21Eax, 2, "lfence-always-serializing", ""),
    row(Word::Extended21Eax, 6, "null-sel-clr-base", ""),
    row(Word::Extended21Eax, 8, "auto-ibrs", ""),
    row(Word::SvmEdx, 0, "npt", ""),
    row(Word::SvmEdx, 1, "lbrv", ""),
    row(Word::SvmEdx, 2, "svm-lock", ""),
    row(Word::SvmEdx, 3, "nrip-save", ""),
    row(Word::SvmEdx, 4, "tsc-scale", ""),
    row(Word::SvmEdx, 5, "vmcb-clean", ""),
    row(Word::SvmEdx, 6, "flushbyasid", ""),
    row(Word::SvmEdx, 7, "decodeassists", ""),
    row(Word::SvmEdx, 10, "pause-filter", ""),
    row(Word::SvmEdx, 12, "pfthreshold", ""),
    row(Word::SvmEdx, 13, "avic", ""),
    row(Word::SvmEdx, 15, "v-vmsave-vmload", ""),
    row(Word::SvmEdx, 16, "vgif", ""),
    row(Word::SvmEdx, 25, "vnmi", ""),
    row(Word::SvmEdx, 28, "svme-addr-chk", ""),
    row(Word::Centaur1Edx, 2, "xstore", ""),
    row(Word::Centaur1Edx, 3, "xstore-en", ""),
    row(Word::Centaur1Edx, 6, "xcrypt", ""),
    row(Word::Centaur1Edx, 7, "xcrypt-en", ""),
    row(Word::Centaur1Edx, 8, "ace2", ""),
    row(Word::Centaur1Edx, 9, "ace2-en", ""),
    row(Word::Centaur1Edx, 10, "phe", ""),
    row(Word::Centaur1Edx, 11, "phe-en", ""),
    row(Word::Centaur1Edx, 12, "pmm", ""),
    row(Word::Centaur1Edx, 13, "pmm-en", ""),
    row(Word::ArchCapabilities, 0, "rdctl-no", ""),
    row(Word::ArchCapabilities, 1, "ibrs-all", ""),
    row(Word::ArchCapabilities, 2, "rsba", ""),
    row(Word::ArchCapabilities, 3, "skip-l1dfl-vmentry", ""),
    row(Word::ArchCapabilities, 4, "ssb-no", ""),
    row(Word::ArchCapabilities, 5, "mds-no", ""),
    row(Word::ArchCapabilities, 6, "pschange-mc-no", ""),
    row(Word::ArchCapabilities, 7, "tsx-ctrl", ""),
    row(Word::ArchCapabilities, 8, "taa-no", ""),
    row(Word::ArchCapabilities, 13, "sbdr-ssdp-no", ""),
    row(Word::ArchCapabilities, 14, "fbsdp-no", ""),
    row(Word::ArchCapabilities, 15, "psdp-no", ""),
    row(Word::ArchCapabilities, 24, "pbrsb-no", ""),
    row(Word::ArchCapabilities, 26, "gds-no", ""),
    row(Word::ArchCapabilities, 27, "rfds-no", ""),
    row(Word::Other, 0, "intel-pt-lip", ""),
    row(Word::Other, 1, "full-width-write", ""),
    row(Word::Other, 2, "split-lock-detect", ""),
    row(Word::Other, 3, "sgx1", ""),
    row(Word::Other, 4, "sgx2", ""),
    row(Word::Other, 5, "sgx-debug", ""),
    row(Word::Other, 6, "sgx-exinfo", ""),
    row(Word::Other, 7, "sgx-kss", ""),
    row(Word::Other, 8, "sgx-mode64", ""),
    row(Word::Other, 9, "sgx-provisionkey", ""),
    row(Word::Other, 10, "sgx-tokenkey", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_places_are_unique() {
        let (mut names, mut places) = (HashSet::new(), HashSet::new());
        for feature in FEATURES {
            assert!(feature.bit < 32 && places.insert((feature.word as usize, feature.bit)), "{}", feature.name);
            let aliases = feature.aliases.split(' ').filter(|alias| !alias.is_empty());
            for name in std::iter::once(feature.name).chain(aliases) {
                assert!(names.insert(name), "{name}");
                assert!(std::ptr::eq(Feature::named(name).unwrap(), feature), "{name}");
            }
        }
        assert!(std::ptr::eq(Feature::named("sse4_1").unwrap(), Feature::named("sse4.1").unwrap()));
        assert!(Feature::named("").is_none());
    }

    #[test]
    fn sets_have_what_was_put_into_them() {
        let feature = |name| Feature::named(name).unwrap();
        let set = FeatureSet::default().with(feature("smap")).with(feature("avx"));
        assert_eq!(set.iter().map(|feature| feature.name).collect::<Vec<_>>(), ["avx", "smap"]);
        let offered = FeatureSet::offered();
        assert!(offered.has(feature("smap")) && !offered.has(feature("avx")));
        assert_eq!(set.common(&offered), FeatureSet::default().with(feature("smap")));
        assert_eq!(set.except(&offered), set.without(feature("smap")));
        assert_eq!(set.word(Word::Leaf7Ebx), 1 << 20);
    }
}
