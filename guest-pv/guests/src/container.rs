//! A second domain in a hardware container, as small as one can be: three pages and some 32-bit instructions without paging. The
//! control domain makes it, lets it run, and looks at what is left.

use guest_pv::alloc::vec;
use guest_pv::alloc::vec::Vec;
use guest_pv::call::{domctl, memory};
use guest_pv::mem::{Access, Mapping};
use guest_pv::time;
use xen_abi::Errno;
use xen_abi::arch_x86::{ArchDomainConfig, XEN_X86_EMU_LAPIC};
use xen_abi::domctl::{
    CreateDomain, XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_SETVCPUAFFINITY, XEN_DOMINF_SHUTDOWN,
    XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT, XEN_VCPUAFFINITY_HARD,
};
use xen_abi::hvm::{
    HVM_SAVE_CODE_CPU, HVM_SAVE_CODE_END, HVM_SAVE_CODE_HEADER, HVM_SAVE_CODE_MTRR, HvmHwCpu, HvmHwMtrr,
    HvmSaveDescriptor, HvmSaveHeader,
};
use xen_abi::ids::{DomId, VcpuId};
use xen_abi::memory::XENMAPSPACE_SHARED_INFO;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::domain::{End, small};

/// Where its code is.
pub const CODE: u64 = 0x10_0000;
/// A page for results and arguments.
pub const DATA: u64 = 0x10_1000;
/// The page that it shares with the hypervisor.
pub const SHARED: u64 = 0x10_2000;

/// The domain. Destroyed when dropped.
#[derive(Debug)]
pub struct Boxed {
    /// Its number.
    pub id: DomId,
    /// [`CODE`].
    pub code: Mapping,
    /// [`DATA`].
    pub data: Mapping,
}

impl Boxed {
    /// A domain with one vCPU whose code page begins with `code`. Nothing runs yet. `None`: there is no such hardware.
    ///
    /// # Panics
    /// When the hypervisor refuses a step.
    pub fn new(code: &[u8]) -> Option<Self> {
        let config = CreateDomain {
            flags: XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP,
            arch: ArchDomainConfig { emulation_flags: XEN_X86_EMU_LAPIC, ..Default::default() },
            ..small()
        };
        let id = domctl::create_domain(DomId(0), &config).ok()?;
        domctl::max_vcpus(id, 1).expect("with a vCPU");
        domctl::max_mem(id, 4096).expect("and a limit of memory");
        while let Err(errno) = domctl::set_paging_mempool_size(id, 2 << 20) {
            assert!(matches!(errno, Errno::EAGAIN | Errno::ERESTART), "memory for tables: {errno:?}");
        }
        let mut frames = [CODE, DATA].map(|address| address >> 12);
        let filled = memory::populate_physmap(id, &mut frames, 0, 0).expect("there is memory");
        assert_eq!(filled, frames.len(), "there is memory for all pages");
        memory::add_to_physmap(id, XENMAPSPACE_SHARED_INFO, 0, SHARED >> 12).expect("a shared page");
        let map = |address: u64| {
            Mapping::foreign(id, &[address >> 12], Access::ReadWrite).expect("a foreign page can be mapped")
        };
        let (page, data) = (map(CODE), map(DATA));
        page.zero(0, 4096);
        page.write(0, code);
        data.zero(0, 4096);
        Some(Self { id, code: page, data })
    }

    /// At the beginning of its code, in 32-bit protected mode without paging, but for a change.
    fn set_first_state(&self, change: impl FnOnce(&mut HvmHwCpu)) -> Result<(), Errno> {
        let mut saved = vec![0; domctl::get_hvm_context(self.id, &mut []).expect("its state has a size")];
        domctl::get_hvm_context(self.id, &mut saved).expect("its state can be read");
        let mtrr = HvmHwMtrr { msr_mtrr_def_type: 0x806, ..find(&saved, HVM_SAVE_CODE_MTRR) };
        let mut stream = Vec::new();
        append(&mut stream, HVM_SAVE_CODE_HEADER, &find::<HvmSaveHeader>(&saved, HVM_SAVE_CODE_HEADER));
        let mut state = first_state();
        change(&mut state);
        append(&mut stream, HVM_SAVE_CODE_CPU, &state);
        append(&mut stream, HVM_SAVE_CODE_MTRR, &mtrr);
        append(&mut stream, HVM_SAVE_CODE_END, &());
        domctl::set_hvm_context(self.id, &stream)
    }

    /// Lets it run from the beginning of its code.
    ///
    /// # Panics
    /// When it may not.
    pub fn start(&self) {
        self.start_with(|_| {}).expect("its state can be set");
    }

    /// The same with a changed first state.
    ///
    /// # Errors
    /// What the hypervisor says of such a state.
    ///
    /// # Panics
    /// When it may not run.
    pub fn start_with(&self, change: impl FnOnce(&mut HvmHwCpu)) -> Result<(), Errno> {
        self.set_first_state(change)?;
        domctl::unpause_domain(self.id).expect("it may run");
        Ok(())
    }

    /// Lets its vCPU run on this CPU only.
    ///
    /// # Panics
    /// When there is no such CPU.
    pub fn move_to(&self, cpu: u32) {
        let mut hard = (1u64 << cpu).to_le_bytes();
        let (command, flags) = (XEN_DOMCTL_SETVCPUAFFINITY, XEN_VCPUAFFINITY_HARD);
        domctl::affinity(command, self.id, VcpuId(0), flags, &mut hard, &mut [0; 8]).expect("it may run there");
    }

    /// Whether the word at an offset of [`DATA`] is no longer 0 within five seconds.
    pub fn has_said(&self, offset: usize) -> bool {
        (0..5000).any(|_| {
            time::sleep(1_000_000);
            self.data.load_u64(offset) != 0
        })
    }

    /// How it ended, within five seconds.
    pub fn end(&self) -> End {
        for _ in 0..5000 {
            let flags = domctl::get_domain_info(self.id).map_or(0, |info| info.flags);
            if flags & XEN_DOMINF_SHUTDOWN != 0 {
                return End::Shutdown(flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK);
            }
            time::sleep(1_000_000);
        }
        End::Running
    }
}

impl Drop for Boxed {
    fn drop(&mut self) {
        for _ in 0..1000 {
            match domctl::destroy_domain(self.id) {
                Err(Errno::EAGAIN | Errno::ERESTART) => {}
                _ => return,
            }
        }
    }
}

/// A record of a state; the first of its kind.
fn find<T: FromBytes + KnownLayout>(stream: &[u8], code: u16) -> T {
    let mut rest = stream;
    loop {
        let (descriptor, after) = HvmSaveDescriptor::read_from_prefix(rest).expect("a descriptor");
        let (content, next) = after.split_at(descriptor.length as usize);
        if descriptor.typecode == code {
            return T::read_from_bytes(content).expect("a record of its length");
        }
        rest = next;
    }
}

fn append<T: IntoBytes + Immutable>(stream: &mut Vec<u8>, typecode: u16, content: &T) {
    let length = u32::try_from(size_of::<T>()).expect("records are small");
    stream.extend_from_slice(HvmSaveDescriptor { typecode, instance: 0, length }.as_bytes());
    stream.extend_from_slice(content.as_bytes());
}

fn first_state() -> HvmHwCpu {
    // Attributes as in a VMCB (APM vol. 2, 15.5.1).
    const CODE_SEGMENT: u32 = 0xc9b;
    const DATA_SEGMENT: u32 = 0xc93;
    const FLAT: u32 = u32::MAX;
    HvmHwCpu {
        rip: CODE,
        rflags: 2,
        // PE and ET.
        cr0: 0x11,
        cs_limit: FLAT,
        ds_limit: FLAT,
        es_limit: FLAT,
        ss_limit: FLAT,
        tr_limit: 0x67,
        cs_arbytes: CODE_SEGMENT,
        ds_arbytes: DATA_SEGMENT,
        es_arbytes: DATA_SEGMENT,
        ss_arbytes: DATA_SEGMENT,
        tr_arbytes: 0x8b,
        dr6: 0xffff_0ff0,
        dr7: 0x400,
        ..HvmHwCpu::new_zeroed()
    }
}
