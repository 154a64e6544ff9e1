//! CPU features by name, and which of them a guest may see.
//!
//! Numbers and classes are those of Xen's public header `arch-x86/cpufeatureset.h`: word * 32 + bit; a feature marked
//! `A` there is offered to every guest, `S` and `H` only to guests with paging of their own, unmarked ones to nobody.

/// Number of 32-bit words in a feature set.
pub const WORDS: usize = 19;

/// The words of a feature set, as `XEN_SYSCTL_get_cpu_featureset` reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSet(pub [u32; WORDS]);

/// A feature: word * 32 + bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(pub u16);

macro_rules! features {
    ($($name:ident = $word:literal, $bit:literal;)*) => {
        $(#[allow(missing_docs, reason = "the vendors' manuals and cpufeatureset.h name it")]
        pub const $name: Feature = Feature($word * 32 + $bit);)*
    };
}

features! {
    FPU = 0, 0; DE = 0, 2; PSE = 0, 3; TSC = 0, 4; PAE = 0, 6; MCE = 0, 7; APIC = 0, 9; SEP = 0, 11;
    MTRR = 0, 12; PGE = 0, 13; MMX = 0, 23; FXSR = 0, 24; SSE = 0, 25; SSE2 = 0, 26; HTT = 0, 28;
    SSE3 = 1, 0; PCLMULQDQ = 1, 1; MONITOR = 1, 3; EIST = 1, 7; SSSE3 = 1, 9; FMA = 1, 12; CX16 = 1, 13;
    PCID = 1, 17; SSE4_1 = 1, 19; SSE4_2 = 1, 20; X2APIC = 1, 21; TSC_DEADLINE = 1, 24; AESNI = 1, 25;
    XSAVE = 1, 26; OSXSAVE = 1, 27; AVX = 1, 28; F16C = 1, 29; HYPERVISOR = 1, 31;
    SYSCALL = 2, 11; NX = 2, 20; MMXEXT = 2, 22; FFXSR = 2, 25; PAGE1GB = 2, 26; RDTSCP = 2, 27; LM = 2, 29;
    AMD_3DNOWEXT = 2, 30; AMD_3DNOW = 2, 31;
    LAHF_LM = 3, 0; CMP_LEGACY = 3, 1; SVM = 3, 2; SSE4A = 3, 6; MISALIGNSSE = 3, 7; XOP = 3, 11;
    LWP = 3, 15; FMA4 = 3, 16; DBEXT = 3, 26;
    XSAVEOPT = 4, 0; XSAVEC = 4, 1; XGETBV1 = 4, 2; XSAVES = 4, 3;
    FSGSBASE = 5, 0; TSC_ADJUST = 5, 1; AVX2 = 5, 5; FDP_EXCP_ONLY = 5, 6; RTM = 5, 11; NO_FPU_SEL = 5, 13;
    MPX = 5, 14; AVX512F = 5, 16; AVX512DQ = 5, 17; AVX512_IFMA = 5, 21; AVX512PF = 5, 26; AVX512ER = 5, 27;
    AVX512CD = 5, 28; SHA = 5, 29; AVX512BW = 5, 30; AVX512VL = 5, 31;
    AVX512_VBMI = 6, 1; PKU = 6, 3; OSPKE = 6, 4; AVX512_VBMI2 = 6, 6; GFNI = 6, 8; VAES = 6, 9;
    VPCLMULQDQ = 6, 10; AVX512_VNNI = 6, 11; AVX512_BITALG = 6, 12; AVX512_VPOPCNTDQ = 6, 14; RDPID = 6, 22;
    ITSC = 7, 8;
    IBPB = 8, 12; IBRS = 8, 14; AMD_STIBP = 8, 15; STIBP_ALWAYS = 8, 17; AMD_SSBD = 8, 24; VIRT_SSBD = 8, 25;
    PSFD = 8, 28;
    AVX512_4VNNIW = 9, 2; AVX512_4FMAPS = 9, 3; AVX512_VP2INTERSECT = 9, 8; MD_CLEAR = 9, 10; IBRSB = 9, 26;
    STIBP = 9, 27; L1D_FLUSH = 9, 28; ARCH_CAPS = 9, 29; SSBD = 9, 31;
    AVX_VNNI = 10, 4; AVX512_BF16 = 10, 5;
    LFENCE_DISPATCH = 11, 2; VERW_CLEAR = 11, 5;
    INTEL_PSFD = 13, 0;
}

/// Features that the field has names for; all other bits are hidden from everyone.
pub const KNOWN: FeatureSet = FeatureSet([
    0xbfeb_fbff,
    0xfffe_f3ff,
    0xee50_0800,
    0x2469_bfff,
    0x0000_000f,
    0xffbf_ffff,
    0x3a40_5fdf,
    0x0000_0780,
    0x779f_d205,
    0xfc91_ef1c,
    0x0000_1c30,
    0xf800_0164,
    0x0000_0001,
    0x0000_0037,
    0,
    0x0004_0000,
    0x1fbe_ffff,
    0x4000_0000,
    0x0000_0006,
]);

/// Features of class `A`: a PV guest sees them when the host has them.
pub const PV: FeatureSet = FeatureSet([
    0x1fc9_cbf5,
    0xf6d8_3203,
    0xea50_0800,
    0x0421_09e3,
    0x0000_0007,
    0xfdaf_0b29,
    0x0240_5f43,
    0,
    0x6400_1005,
    0xac00_441c,
    0x0000_1c30,
    0x7800_0064,
    0,
    0x0000_0021,
    0,
    0,
    0x1d12_e173,
    0x4000_0000,
    0x0000_0006,
]);

/// What a PVH guest sees besides, when the host has it: the classes `S` and `H` as far as there is an emulation where one
/// is needed. VME, PSE, PGE, PSE36; PCID; 1 GiB pages; SMEP, INVPCID, SMAP; UMIP.
const PAGING: FeatureSet = {
    let mut words = [0; WORDS];
    words[0] = 1 << 1 | 1 << 3 | 1 << 13 | 1 << 17;
    words[1] = 1 << 17;
    words[2] = 1 << 26;
    words[5] = 1 << 7 | 1 << 10 | 1 << 20;
    words[6] = 1 << 2;
    FeatureSet(words)
};

/// What a PVH guest sees when the host has it.
pub const PVH: FeatureSet = {
    let mut words = PV.0;
    let mut i = 0;
    while i < WORDS {
        words[i] |= PAGING.0[i];
        i += 1;
    }
    FeatureSet(words)
};

/// Features that mean nothing without another one: when the first is absent, so are the others.
const DEPENDENCIES: &[(Feature, &[Feature])] = &[
    (FPU, &[MMX]),
    (PAE, &[LM, NX]),
    (TSC, &[TSC_DEADLINE, RDTSCP, TSC_ADJUST, ITSC]),
    (APIC, &[X2APIC, TSC_DEADLINE]),
    (MMX, &[MMXEXT, AMD_3DNOW]),
    (AMD_3DNOW, &[AMD_3DNOWEXT]),
    (FXSR, &[FFXSR, SSE]),
    (SSE, &[SSE2, MISALIGNSSE]),
    (SSE2, &[SSE3, LM, AESNI, PCLMULQDQ, SHA, GFNI]),
    (SSE3, &[SSSE3, SSE4A]),
    (SSSE3, &[SSE4_1]),
    (SSE4_1, &[SSE4_2]),
    (LM, &[CX16, PCID, LAHF_LM, PAGE1GB, PKU]),
    (XSAVE, &[XSAVEOPT, XSAVEC, XGETBV1, XSAVES, AVX, MPX, PKU]),
    (AVX, &[FMA, FMA4, F16C, AVX2, XOP]),
    (AVX2, &[AVX512F, VAES, VPCLMULQDQ, AVX_VNNI]),
    (
        AVX512F,
        &[
            AVX512DQ,
            AVX512_IFMA,
            AVX512PF,
            AVX512ER,
            AVX512CD,
            AVX512BW,
            AVX512VL,
            AVX512_4VNNIW,
            AVX512_4FMAPS,
            AVX512_VNNI,
            AVX512_VPOPCNTDQ,
            AVX512_VP2INTERSECT,
        ],
    ),
    (AVX512BW, &[AVX512_VBMI, AVX512_VBMI2, AVX512_BITALG, AVX512_BF16]),
    (IBRSB, &[STIBP, SSBD, INTEL_PSFD]),
    (IBRS, &[AMD_STIBP, AMD_SSBD, PSFD]),
    (AMD_STIBP, &[STIBP_ALWAYS]),
];

impl FeatureSet {
    /// Nothing.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Whether a feature is in the set.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.0.get(usize::from(feature.0 / 32)).is_some_and(|word| word >> (feature.0 % 32) & 1 != 0)
    }

    /// Adds or removes a feature.
    pub fn put(&mut self, feature: Feature, present: bool) {
        if let Some(word) = self.0.get_mut(usize::from(feature.0 / 32)) {
            let bit = 1 << (feature.0 % 32);
            *word = if present { *word | bit } else { *word & !bit };
        }
    }

    /// The words that live in IA32_ARCH_CAPABILITIES.
    #[allow(clippy::cast_possible_truncation, reason = "two halves")]
    pub const fn put_arch_capabilities(&mut self, value: u64) {
        self.0[16] = value as u32;
        self.0[17] = (value >> 32) as u32;
    }

    /// Features that are in both sets.
    #[must_use]
    pub fn intersect(mut self, other: &Self) -> Self {
        for (word, mask) in self.0.iter_mut().zip(other.0) {
            *word &= mask;
        }
        self
    }

    /// Drops unknown features and those whose ground is missing.
    pub fn make_consistent(&mut self) {
        *self = self.intersect(&KNOWN);
        // Each pass can expose one more level; the chains are shorter than the table.
        for _ in DEPENDENCIES {
            let before = *self;
            for (ground, dependent) in DEPENDENCIES {
                if !self.has(*ground) {
                    for feature in *dependent {
                        self.put(*feature, false);
                    }
                }
            }
            if before == *self {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn without_xsave_there_is_no_avx512() {
        let mut set = PV;
        set.put(XSAVE, false);
        set.make_consistent();
        for gone in [AVX, AVX2, AVX512F, AVX512BW, AVX512_VBMI2, FMA, VAES] {
            assert!(!set.has(gone), "{gone:?}");
        }
        assert!(set.has(SSE4_2));
    }

    #[test]
    fn the_offered_set_is_consistent() {
        let mut set = PV;
        set.make_consistent();
        assert_eq!(set, PV.intersect(&KNOWN));
    }

    /// The masks against the header they come from, where it is installed.
    #[test]
    fn masks_agree_with_the_public_header() {
        let Ok(text) = std::fs::read_to_string("/usr/include/xen/arch-x86/cpufeatureset.h") else {
            return;
        };
        let (mut known, mut offered) = (FeatureSet::EMPTY, FeatureSet::EMPTY);
        for line in text.lines().filter_map(|l| l.strip_prefix("XEN_CPUFEATURE(")) {
            let Some((_, rest)) = line.split_once(',') else {
                continue;
            };
            let Some((number, rest)) = rest.split_once(')') else {
                continue;
            };
            let Some((word, bit)) = number.split_once("*32+") else {
                continue;
            };
            let number: u16 = word.trim().parse::<u16>().unwrap() * 32 + bit.trim().parse::<u16>().unwrap();
            let Some((_, class)) = rest.split_once("/*") else {
                continue;
            };
            let class = class.split(' ').next().unwrap();
            known.put(Feature(number), true);
            offered.put(Feature(number), class.contains('A'));
        }
        assert_eq!(known, KNOWN);
        assert_eq!(offered, PV);
    }
}
