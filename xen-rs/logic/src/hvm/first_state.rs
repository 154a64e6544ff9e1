//! Whether the first state of a vCPU in a container holds together, as `VCPUOP_initialise` has it (Xen public header
//! `hvm/hvm_vcpu.h`): a processor would not have come to any other, and some cannot be entered.

use xen_abi::hvm::{VcpuHvmX86_32, VcpuHvmX86_64};

use crate::trap::is_canonical;

const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
/// VME to OSXMMEXCPT, UMIP, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET.
const CR4_KNOWN: u64 = 0xfff | 0b111 << 16 | 0b1111 << 20;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// The rights of a segment: type, S, DPL, P, AVL, L, D and G, in 12 bits.
#[derive(Clone, Copy)]
struct Rights(u16);

impl Rights {
    const CODE: u16 = 0x8;
    /// Of data; of code that it can be read.
    const WRITABLE: u16 = 0x2;
    /// 16-bit TSS and 32-bit TSS alike.
    const BUSY: u16 = 0x2;
    /// A system segment's type.
    const TSS: u16 = 0xb;

    const fn is_present(self) -> bool {
        self.0 & 1 << 7 != 0
    }

    const fn is_system(self) -> bool {
        self.0 & 1 << 4 == 0
    }

    const fn level(self) -> u16 {
        self.0 >> 5 & 3
    }

    const fn has(self, kind: u16) -> bool {
        self.0 & kind != 0
    }

    const fn in_pages(self) -> bool {
        self.0 & 1 << 11 != 0
    }

    /// Whether it is one that a segment register takes.
    const fn is_known(self) -> bool {
        self.0 >> 12 == 0 && !self.is_system() && self.is_present()
    }

    const fn is_code(self) -> bool {
        self.is_known() && self.has(Self::CODE)
    }

    const fn is_stack(self) -> bool {
        self.is_known() && !self.has(Self::CODE) && self.has(Self::WRITABLE)
    }

    /// For code of a level: nothing, or what can be read there.
    const fn is_data(self, level: u16) -> bool {
        let can_be_read = !self.has(Self::CODE) || self.has(Self::WRITABLE);
        self.0 == 0 || self.is_known() && can_be_read && self.level() <= level
    }

    const fn is_task(self) -> bool {
        self.0 >> 12 == 0 && self.is_system() && self.is_present() && (self.0 | Self::BUSY) & 0xf == Self::TSS
    }
}

/// A state of 32-bit mode, with or without paging.
#[must_use]
pub fn is_good_32(from: &VcpuHvmX86_32) -> bool {
    let code = Rights(from.cs_ar);
    let limit = if code.in_pages() { from.cs_limit << 12 | 0xfff } else { from.cs_limit };
    let stack = Rights(from.ss_ar);
    from.pad1 == 0
        && from.pad2 == [0; 3]
        && code.is_code()
        && from.eip <= limit
        && stack.is_stack()
        && stack.level() == code.level()
        && [from.ds_ar, from.es_ar].into_iter().all(|rights| Rights(rights).is_data(code.level()))
        && Rights(from.tr_ar).is_task()
        && u64::from(from.cr4) & !CR4_KNOWN == 0
        && (from.efer & EFER_LMA == 0 || from.efer & EFER_LME != 0)
}

/// A state of 64-bit mode.
#[must_use]
pub fn is_good_64(from: &VcpuHvmX86_64) -> bool {
    is_canonical(from.rip)
        && from.cr0 & CR0_PG != 0
        && from.cr4 & CR4_PAE != 0
        && from.cr4 & !CR4_KNOWN == 0
        && from.efer & EFER_LME != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat() -> VcpuHvmX86_32 {
        VcpuHvmX86_32 {
            cr0: 0x11,
            cs_limit: u32::MAX,
            cs_ar: 0xc9b,
            ds_ar: 0xc93,
            ss_ar: 0xc93,
            es_ar: 0xc93,
            tr_ar: 0x8b,
            ..Default::default()
        }
    }

    fn bad(change: impl FnOnce(&mut VcpuHvmX86_32)) -> bool {
        let mut state = flat();
        change(&mut state);
        !is_good_32(&state)
    }

    #[test]
    fn flat_segments_are_good() {
        assert!(is_good_32(&flat()));
        // Accessed and busy are set by whoever takes it.
        let fresh = VcpuHvmX86_32 { cs_ar: 0xc9a, ss_ar: 0xc92, ds_ar: 0, es_ar: 0, tr_ar: 0x89, ..flat() };
        assert!(is_good_32(&fresh));
    }

    #[test]
    fn a_processor_takes_no_other_segments() {
        assert!(bad(|state| state.tr_ar = 0));
        assert!(bad(|state| state.tr_ar = 0x0b));
        assert!(bad(|state| state.tr_ar = 0x93));
        assert!(bad(|state| state.tr_ar = 0x83));
        assert!(bad(|state| state.cs_ar = 0xc93));
        assert!(bad(|state| state.cs_ar = 0));
        assert!(bad(|state| state.cs_ar = 0x1c9b));
        assert!(bad(|state| state.ss_ar = 0xc91));
        assert!(bad(|state| state.ss_ar = 0xcf3));
        assert!(bad(|state| state.ds_ar = 0xc99));
        assert!(bad(|state| state.ds_ar = 0xcf3));
        assert!(bad(|state| state.es_ar = 0xc13));
    }

    #[test]
    fn nothing_contradicts_itself() {
        assert!(bad(|state| state.pad1 = 1));
        assert!(bad(|state| state.pad2[2] = 1));
        assert!(bad(|state| state.efer = EFER_LMA));
        assert!(bad(|state| state.cr4 = 1 << 13));
        assert!(bad(|state| (state.cs_ar, state.cs_limit, state.eip) = (0x49b, 0xfff, 0x1000)));
        assert!(!bad(|state| (state.cs_limit, state.eip) = (0, 0xfff)));
    }

    #[test]
    fn long_mode_has_paging() {
        let good = VcpuHvmX86_64 { cr0: 0x8000_0011, cr4: 0x20, efer: EFER_LME, ..Default::default() };
        assert!(is_good_64(&good));
        assert!(!is_good_64(&VcpuHvmX86_64 { cr0: 0x11, ..good }));
        assert!(!is_good_64(&VcpuHvmX86_64 { cr4: 0, ..good }));
        assert!(!is_good_64(&VcpuHvmX86_64 { cr4: 0x2020, ..good }));
        assert!(!is_good_64(&VcpuHvmX86_64 { efer: 0, ..good }));
        assert!(!is_good_64(&VcpuHvmX86_64 { rip: 1 << 47, ..good }));
    }
}
