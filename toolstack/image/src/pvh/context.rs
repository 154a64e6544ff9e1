//! The state of a PVH domain's vCPUs at the start, as records of the public `hvm/save.h`: what `sethvmcontext` takes.
//!
//! The header of a stream is the hypervisor's own: it is taken from what `gethvmcontext` said of the new domain.

use alloc::vec::Vec;

use xen_abi::hvm::{
    HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_END, HVM_SAVE_CODE_HEADER, HVM_SAVE_CODE_MTRR, HvmHwCpu, HvmHwMtrr,
    HvmSaveDescriptor, HvmSaveHeader,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// What the hypervisor said of a domain's state cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadContext;

/// Finds a record's content.
fn find(stream: &[u8], code: u16, instance: u16) -> Option<&[u8]> {
    let mut rest = stream;
    loop {
        let (descriptor, after) = HvmSaveDescriptor::read_from_prefix(rest).ok()?;
        let (content, next) = after.split_at_checked(usize::try_from(descriptor.length).ok()?)?;
        if descriptor.typecode == code && descriptor.instance == instance {
            return Some(content);
        }
        if descriptor.typecode == HVM_SAVE_CODE_END {
            return None;
        }
        rest = next;
    }
}

fn append<T: IntoBytes + Immutable>(stream: &mut Vec<u8>, typecode: u16, instance: u16, content: &T) {
    let length = u32::try_from(size_of::<T>()).unwrap_or(u32::MAX);
    stream.extend_from_slice(HvmSaveDescriptor { typecode, instance, length }.as_bytes());
    stream.extend_from_slice(content.as_bytes());
}

fn read<T: FromBytes + KnownLayout>(saved: &[u8], code: u16, instance: u16) -> Result<T, BadContext> {
    let content = find(saved, code, instance).ok_or(BadContext)?;
    T::read_from_bytes(content).map_err(|_| BadContext)
}

/// The stream that sets the state of all vCPUs. `saved` is what the hypervisor says of the domain now.
///
/// The first vCPU starts at `entry` with ebx at the start info; the others stay down, but have their memory types too:
/// write-back wherever nothing else is said, as firmware would have set them up. It is one stream because loading one takes
/// down all vCPUs whose registers it does not hold.
///
/// # Errors
/// `saved` cannot be read, or has no such vCPUs.
pub fn vcpu_states(saved: &[u8], vcpus: u16, entry: u64, start_info: u64) -> Result<Vec<u8>, BadContext> {
    const WRITE_BACK: u64 = 6;
    const ENABLE: u64 = 1 << 11;
    let mut stream = Vec::new();
    append(&mut stream, HVM_SAVE_CODE_HEADER, 0, &read::<HvmSaveHeader>(saved, HVM_SAVE_CODE_HEADER, 0)?);
    append(&mut stream, HVM_SAVE_CODE_CPU, 0, &first_vcpu(entry, start_info));
    for vcpu in 0..vcpus {
        let mut mtrr: HvmHwMtrr = read(saved, HVM_SAVE_CODE_MTRR, vcpu)?;
        mtrr.msr_mtrr_def_type = WRITE_BACK | ENABLE;
        append(&mut stream, HVM_SAVE_CODE_MTRR, vcpu, &mtrr);
    }
    append(&mut stream, HVM_SAVE_CODE_END, 0, &());
    Ok(stream)
}

/// 32-bit protected mode without paging, flat segments, ebx at the start info (`pvh.pandoc`).
fn first_vcpu(entry: u64, start_info: u64) -> HvmHwCpu {
    // Attributes as in a VMCB (APM vol. 2, 15.5.1): present, of the system or not, type; granularity and size above.
    const CODE: u32 = 0xc9b;
    const DATA: u32 = 0xc93;
    const TSS: u32 = 0x8b;
    const FLAT: u32 = u32::MAX;
    /// CR0.PE and CR0.ET.
    const CR0: u64 = 0x11;
    HvmHwCpu {
        rip: entry,
        rbx: start_info,
        // Bit 1 is always set.
        rflags: 2,
        cr0: CR0,
        cs_limit: FLAT,
        ds_limit: FLAT,
        es_limit: FLAT,
        ss_limit: FLAT,
        tr_limit: 0x67,
        cs_arbytes: CODE,
        ds_arbytes: DATA,
        es_arbytes: DATA,
        ss_arbytes: DATA,
        tr_arbytes: TSS,
        // The values after reset (SDM vol. 3B, 18.2).
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        ..HvmHwCpu::new_zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream as the hypervisor writes it, with the state of two vCPUs' memory types.
    fn saved() -> Vec<u8> {
        let mut saved = Vec::new();
        let header = HvmSaveHeader { magic: 0x5438_1286, version: 1, changeset: 7, cpuid: 0x800f12, gtsc_khz: 9 };
        append(&mut saved, HVM_SAVE_CODE_HEADER, 0, &header);
        for vcpu in 0..2 {
            let mtrr = HvmHwMtrr { msr_pat_cr: 0x7040600070406, msr_mtrr_cap: u64::from(vcpu), ..Default::default() };
            append(&mut saved, HVM_SAVE_CODE_MTRR, vcpu, &mtrr);
        }
        append(&mut saved, HVM_SAVE_CODE_END, 0, &());
        saved
    }

    #[test]
    fn what_is_set_has_the_hypervisors_header() {
        let saved = saved();
        let stream = vcpu_states(&saved, 2, 0x100_0000, 0x5000).unwrap();
        assert_eq!(read::<HvmSaveHeader>(&stream, HVM_SAVE_CODE_HEADER, 0).unwrap().changeset, 7);
        let cpu: HvmHwCpu = read(&stream, HVM_SAVE_CODE_CPU, 0).unwrap();
        assert_eq!((cpu.rip, cpu.rbx, cpu.cr0, cpu.tr_limit), (0x100_0000, 0x5000, 0x11, 0x67));
        let mtrr: HvmHwMtrr = read(&stream, HVM_SAVE_CODE_MTRR, 1).unwrap();
        assert_eq!((mtrr.msr_mtrr_def_type, mtrr.msr_pat_cr, mtrr.msr_mtrr_cap), (0x806, 0x7040600070406, 1));
        assert!(stream.ends_with(&[0; 8]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert_eq!(vcpu_states(&[], 0, 0, 0), Err(BadContext));
        assert_eq!(vcpu_states(&saved(), 3, 0, 0), Err(BadContext));
        for len in 0..saved().len() {
            let _ = vcpu_states(&saved()[..len], 2, 0, 0);
        }
        // A length that reaches past the end.
        assert_eq!(find(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 1, 0), None);
    }
}
