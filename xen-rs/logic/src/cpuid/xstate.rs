//! The sizes of XSAVE areas (SDM vol. 1, 13.4; CPUID leaf 0xd).

/// Number of sub-leaves of leaf 0xd that are kept.
pub const COMPONENTS: usize = 63;
/// Legacy area and header.
pub const MINIMUM_SIZE: u32 = 512 + 64;
/// x87 and SSE: always there.
pub const FP_SSE: u64 = 3;

/// XCR0 bits.
pub mod xcr0 {
    /// x87.
    pub const X87: u64 = 1 << 0;
    /// SSE.
    pub const SSE: u64 = 1 << 1;
    /// AVX.
    pub const YMM: u64 = 1 << 2;
    /// MPX bounds and their configuration.
    pub const MPX: u64 = 3 << 3;
    /// AVX-512: masks, upper halves, upper registers.
    pub const AVX512: u64 = 7 << 5;
    /// Protection keys.
    pub const PKRU: u64 = 1 << 9;
}

/// One component as the host's CPU lays it out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Bytes.
    pub size: u32,
    /// Offset in the standard format.
    pub offset: u32,
    /// The compacted format aligns it to 64 bytes.
    pub aligned: bool,
}

/// Bytes of a standard-format area for the components of `xcr0`.
#[must_use]
pub fn standard_size(components: &[Component; COMPONENTS], xcr0: u64) -> u32 {
    let mut size = MINIMUM_SIZE;
    for (i, component) in components.iter().enumerate().skip(2) {
        if xcr0 >> i & 1 != 0 {
            size = size.max(component.offset.saturating_add(component.size));
        }
    }
    size
}

/// Bytes of a compacted-format area for the components of `xcr0 | xss`.
#[must_use]
pub fn compacted_size(components: &[Component; COMPONENTS], enabled: u64) -> u32 {
    let mut size = MINIMUM_SIZE;
    for (i, component) in components.iter().enumerate().skip(2) {
        if enabled >> i & 1 != 0 {
            if component.aligned {
                size = size.next_multiple_of(64);
            }
            size = size.saturating_add(component.size);
        }
    }
    size
}

/// Whether a guest may put the value into XCR0: only components it was offered, in combinations that the CPU takes.
#[must_use]
pub const fn xcr0_is_valid(value: u64, offered: u64) -> bool {
    let mpx = value & xcr0::MPX;
    let avx512 = value & xcr0::AVX512;
    value & !offered == 0
        && value & xcr0::X87 != 0
        && (value & xcr0::YMM == 0 || value & xcr0::SSE != 0)
        && (mpx == 0 || mpx == xcr0::MPX)
        && (avx512 == 0 || (avx512 == xcr0::AVX512 && value & xcr0::YMM != 0))
}

/// Gives the parts of a legacy region (SDM vol. 1, 10.5.1) their initial values that XSAVEOPT has not written, as they had them:
/// what `saved`, the low half of XSTATE_BV, has no bit for. MXCSR is always written.
pub fn clear_unsaved(legacy: &mut [u8; 512], saved: u32) {
    let (x87, rest) = legacy.split_at_mut(24);
    let (_, rest) = rest.split_at_mut(8);
    let (stack, rest) = rest.split_at_mut(128);
    let (xmm, _) = rest.split_at_mut(256);
    if saved & 1 == 0 {
        x87.fill(0);
        stack.fill(0);
        if let Some(control) = x87.first_chunk_mut() {
            *control = 0x037f_u16.to_le_bytes();
        }
    }
    if saved & 2 == 0 {
        xmm.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components() -> [Component; COMPONENTS] {
        let mut all = [Component::default(); COMPONENTS];
        all[2] = Component { size: 256, offset: 576, aligned: false };
        all[5] = Component { size: 64, offset: 1088, aligned: false };
        all[6] = Component { size: 512, offset: 1152, aligned: true };
        all[7] = Component { size: 1024, offset: 1664, aligned: false };
        all
    }

    #[test]
    fn sizes() {
        assert_eq!(standard_size(&components(), 3), 576);
        assert_eq!(standard_size(&components(), 7), 832);
        assert_eq!(standard_size(&components(), 0xe7), 2688);
        assert_eq!(compacted_size(&components(), 7), 832);
        assert_eq!(compacted_size(&components(), 0xe7), 832 + 64 + 512 + 1024);
    }

    #[test]
    fn what_was_not_saved_is_initial() {
        let old = [0x55; 512];
        let with = |saved| {
            let mut legacy = old;
            clear_unsaved(&mut legacy, saved);
            legacy
        };
        assert_eq!(with(3), old);
        let (sse, x87, neither) = (with(2), with(1), with(0));
        assert_eq!((&sse[..2], &sse[2..24], &sse[32..160]), (&[0x7f, 3][..], &[0; 22][..], &[0; 128][..]));
        assert_eq!((&sse[24..32], &sse[160..]), (&old[24..32], &old[160..]));
        assert_eq!((&x87[..160], &x87[160..416], &x87[416..]), (&old[..160], &[0; 256][..], &old[416..]));
        assert_eq!((&neither[..160], &neither[160..]), (&sse[..160], &x87[160..]));
    }

    #[test]
    fn combinations() {
        assert!(xcr0_is_valid(7, 0xe7));
        assert!(xcr0_is_valid(1, 0xe7));
        assert!(!xcr0_is_valid(0, 0xe7));
        assert!(!xcr0_is_valid(5, 0xe7), "AVX without SSE");
        assert!(!xcr0_is_valid(0x27, 0xe7), "a third of AVX-512");
        assert!(!xcr0_is_valid(0x207, 0xe7), "not offered");
        assert!(xcr0_is_valid(0xe7, 0xe7));
    }
}
