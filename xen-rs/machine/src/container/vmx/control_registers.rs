//! CR0 and CR4 of a guest. Most bits are its own; a few are the machine's, and of those it sees what it wrote
//! (SDM vol. 3C, 26.3 and 24.8).

use super::capability;
use super::fields::{Field, entry};
use super::vmcs::{read, write};

const PE: u64 = 1;
const NE: u64 = 1 << 5;
const NW: u64 = 1 << 29;
const CD: u64 = 1 << 30;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;
const MCE: u64 = 1 << 6;
const VMXE: u64 = 1 << 13;
const PCIDE: u64 = 1 << 17;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;

/// Of CR0: native FPU errors are a condition of VMX, and the caches are everybody's.
const MASK0: u64 = NE | NW | CD;
/// Bits of CR0 there are: PE MP EM TS ET NE WP AM NW CD PG.
const KNOWN0: u64 = 0xe005_003f;
/// Of CR4 the guest's own: VME PVI TSD DE PSE PAE PGE PCE OSFXSR OSXMMEXCPT UMIP FSGSBASE PCIDE OSXSAVE SMEP SMAP. What the
/// CPU does not have it refuses itself. PKE is none of them: PKRU is not offered.
const OWN4: u64 = 0x0037_0fbf;

/// The write is a general protection fault.
pub(super) struct Fault;

/// Which bits are whose.
pub(super) fn write_masks() {
    write(Field::CR0_MASK, MASK0);
    write(Field::CR4_MASK, !OWN4);
}

/// CR0 as the guest sees it.
#[inline]
pub(super) fn cr0() -> u64 {
    read(Field::GUEST_CR0) & !MASK0 | read(Field::CR0_SHADOW) & MASK0
}

/// CR0 of a guest but for the bits that are not its own, none of which translates addresses.
#[inline]
pub(super) fn own_cr0() -> u64 {
    read(Field::GUEST_CR0)
}

/// CR4 of a guest without the bits that are not its own.
#[inline]
pub(super) fn own_cr4() -> u64 {
    read(Field::GUEST_CR4) & OWN4
}

/// CR4 as the guest sees it.
#[inline]
pub(super) fn cr4() -> u64 {
    read(Field::GUEST_CR4) & OWN4 | read(Field::CR4_SHADOW) & !OWN4
}

/// Sets both, with EFER: the state is to be consistent.
pub(super) fn set(cr0: u64, cr4: u64, efer: u64) {
    put_cr0(cr0);
    put_cr4(cr4);
    put_efer(efer);
}

fn put_cr0(value: u64) {
    write(Field::CR0_SHADOW, value);
    write(Field::GUEST_CR0, value & !(NW | CD) | NE);
}

fn put_cr4(value: u64) {
    let always = capability::get().map_or(0, |found| found.cr4[0]);
    write(Field::CR4_SHADOW, value);
    write(Field::GUEST_CR4, value | MCE | VMXE | always);
}

/// Sets EFER, and with its LMA the mode that the guest is entered in.
pub(super) fn put_efer(value: u64) {
    write(Field::GUEST_EFER, value);
    let controls = read(Field::ENTRY_CONTROLS);
    let long = u64::from(entry::LONG_MODE);
    write(Field::ENTRY_CONTROLS, if value & LMA != 0 { controls | long } else { controls & !long });
}

/// Whether the guest's page-directory pointers are registers now: paging of 32-bit code with 64-bit entries.
pub(super) fn has_pointers() -> bool {
    cr0() & PG != 0 && cr4() & PAE != 0 && read(Field::GUEST_EFER) & LMA == 0
}

/// The guest writes CR0, and one of our bits changes.
pub(super) fn write_cr0(value: u64, in_64bit_code: bool) -> Result<(), Fault> {
    let (old, efer) = (cr0(), read(Field::GUEST_EFER));
    let bad = value >> 32 != 0 || (value & PG != 0 && value & PE == 0) || (value & NW != 0 && value & CD == 0);
    if bad {
        return Err(Fault);
    }
    if (old ^ value) & PG != 0 {
        let mut new = efer & !LMA;
        if value & PG == 0 {
            // Neither from 64-bit code, nor with process contexts (SDM vol. 3A, 4.1.2).
            if in_64bit_code || cr4() & PCIDE != 0 {
                return Err(Fault);
            }
        } else if efer & LME != 0 {
            if cr4() & PAE == 0 || in_64bit_code {
                return Err(Fault);
            }
            new |= LMA;
        }
        put_efer(new);
    }
    put_cr0(value & KNOWN0 | 1 << 4);
    Ok(())
}

/// The guest writes CR4, and one of our bits changes.
pub(super) fn write_cr4(value: u64) -> Result<(), Fault> {
    let possible = capability::get().map_or(0, |found| found.cr4[1]);
    if value & !((OWN4 | MCE) & possible) != 0 {
        return Err(Fault);
    }
    let long = read(Field::GUEST_EFER) & LMA != 0;
    let contexts = value & !cr4() & PCIDE != 0;
    if (long && value & PAE == 0) || (contexts && (!long || read(Field::GUEST_CR3) & 0xfff != 0)) {
        return Err(Fault);
    }
    put_cr4(value);
    Ok(())
}
