//! What the toolstack asks of the hypervisor, as one trait. The program above implements it with hypercalls; tests
//! implement it with a table.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use xen_abi::arch_x86::{CpuidLeaf, MsrEntry, VcpuGuestContext};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn, Port, VcpuId};
use xen_abi::memory::E820Entry;
use xen_abi::physdev::PciDevice;
use xen_abi::sysctl::{CpuTopo, MemInfo};

use crate::config::Uuid;
use crate::cpus::CpuSet;

/// A domain to be made (`XEN_DOMCTL_createdomain`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDomain {
    /// Its handle.
    pub uuid: Uuid,
    /// Its kind.
    pub kind: Kind,
    /// The most vCPUs.
    pub max_vcpus: u32,
    /// The highest event channel.
    pub max_evtchn_port: u32,
    /// Frames of the grant table; negative for the hypervisor's default.
    pub max_grant_frames: i32,
    /// Frames of the map-track array; negative for the hypervisor's default.
    pub max_maptrack_frames: i32,
    /// The newest version of grant tables.
    pub max_grant_version: u32,
    /// Its pool of CPUs.
    pub pool: u32,
}

/// What a new domain runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Paravirtualised.
    Pv,
    /// A hardware container with a local APIC.
    Pvh {
        /// Nested page tables, which the hypervisor has to have then.
        nested_paging: bool,
    },
}

/// What a domain's CPUs are to its programs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuPolicy {
    /// What CPUID says.
    pub leaves: Vec<CpuidLeaf>,
    /// What MSRs say.
    pub msrs: Vec<MsrEntry>,
}

/// A domain as it is (`XEN_DOMCTL_getdomaininfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DomainInfo {
    /// Its number.
    pub id: DomId,
    /// `XEN_DOMINF_*`.
    pub flags: u32,
    /// Pages it has.
    pub tot_pages: u64,
    /// Pages it may have.
    pub max_pages: u64,
    /// Pages claimed for it.
    pub outstanding_pages: u64,
    /// The frame of its shared info.
    pub shared_info_frame: Mfn,
    /// Time it ran, nanoseconds.
    pub cpu_time: u64,
    /// vCPUs that are up.
    pub online_vcpus: u32,
    /// Its highest vCPU.
    pub max_vcpu_id: u32,
    /// Its handle.
    pub uuid: Uuid,
    /// Its CPU pool.
    pub cpupool: u32,
}

impl DomainInfo {
    /// `XEN_DOMINF_dying`.
    pub const DYING: u32 = 1 << 0;
    /// `XEN_DOMINF_hvm_guest`.
    pub const HVM: u32 = 1 << 1;
    /// `XEN_DOMINF_shutdown`.
    pub const SHUTDOWN: u32 = 1 << 2;
    /// `XEN_DOMINF_paused`.
    pub const PAUSED: u32 = 1 << 3;
    /// `XEN_DOMINF_blocked`.
    pub const BLOCKED: u32 = 1 << 4;
    /// `XEN_DOMINF_running`.
    pub const RUNNING: u32 = 1 << 5;

    /// Whether a flag is set.
    #[must_use]
    pub const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Why it shut down (`SHUTDOWN_*`), if it did.
    #[must_use]
    pub fn shutdown_reason(&self) -> Option<u32> {
        self.is(Self::SHUTDOWN).then_some((self.flags >> 16) & 0xff)
    }
}

/// The machine (`XEN_SYSCTL_physinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are the structure's of sysctl.h")]
pub struct PhysInfo {
    pub threads_per_core: u32,
    pub cores_per_socket: u32,
    pub nr_cpus: u32,
    pub max_cpu_id: u32,
    pub nr_nodes: u32,
    pub cpu_khz: u32,
    pub capabilities: u32,
    pub total_pages: u64,
    pub free_pages: u64,
    pub scrub_pages: u64,
    pub outstanding_pages: u64,
    pub hw_cap: [u32; 8],
}

impl PhysInfo {
    /// `XEN_SYSCTL_PHYSCAP_gnttab_v2`.
    pub const GNTTAB_V2: u32 = 1 << 9;
    /// `XEN_SYSCTL_PHYSCAP_hvm`: hardware containers.
    pub const HVM: u32 = 1 << 0;
    /// `XEN_SYSCTL_PHYSCAP_hap`: nested page tables.
    pub const HAP: u32 = 1 << 3;
}

/// The hypervisor's account of itself (`xen_version`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are those that `info` prints")]
pub struct VersionInfo {
    pub major: u32,
    pub minor: u32,
    pub extra: String,
    pub capabilities: String,
    pub changeset: String,
    pub commandline: String,
    pub page_size: u32,
    pub virt_start: u64,
    pub compiler: String,
    pub compile_by: String,
    pub compile_domain: String,
    pub compile_date: String,
    /// In hexadecimal.
    pub build_id: String,
}

/// A vCPU as it is (`XEN_DOMCTL_getvcpuinfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the fields are the structure's of domctl.h")]
pub struct VcpuInfo {
    pub online: bool,
    pub blocked: bool,
    pub running: bool,
    /// Nanoseconds.
    pub cpu_time: u64,
    pub cpu: u32,
}

/// Where a vCPU is to run; what is not given stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    /// It must run on one of these.
    pub hard: Option<CpuSet>,
    /// It had better run on one of these.
    pub soft: Option<CpuSet>,
    /// What becomes of a pin that the vCPU's own kernel asked for.
    pub pinned: Pinned,
}

/// What becomes of a vCPU's temporary pin (`XEN_VCPUAFFINITY_FORCE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinned {
    /// It stays, and stands in the way.
    Kept,
    /// It is lifted.
    Lifted,
}

/// What to put into a domain's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many zeros.
    Zeros(usize),
}

impl Fill<'_> {
    /// How many bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Zeros(len) => *len,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The hypervisor, as the toolstack needs it. Every method is one hypercall or a few that belong together.
#[allow(clippy::missing_errors_doc, reason = "the hypervisor's errors are passed on as they are")]
pub trait XenCalls {
    /// `createdomain`. Any free number is taken.
    fn create_domain(&mut self, new: &NewDomain) -> Result<DomId, Errno>;
    /// `destroydomain`. `EAGAIN` asks to be called again: there was too much to do in one go.
    fn destroy_domain(&mut self, dom: DomId) -> Result<(), Errno>;
    /// `pausedomain`.
    fn pause_domain(&mut self, dom: DomId) -> Result<(), Errno>;
    /// `unpausedomain`.
    fn unpause_domain(&mut self, dom: DomId) -> Result<(), Errno>;
    /// `sched_op` `remote_shutdown`: the domain is marked as shut down for this reason.
    fn remote_shutdown(&mut self, dom: DomId, reason: u32) -> Result<(), Errno>;
    /// sysctl `getdomaininfolist`: at most `max` domains, from the number `first` on, by number.
    fn domain_list(&mut self, first: DomId, max: usize) -> Result<Vec<DomainInfo>, Errno>;
    /// domctl `getvcpuinfo`.
    fn vcpu_info(&mut self, dom: DomId, vcpu: VcpuId) -> Result<VcpuInfo, Errno>;

    /// domctl `getvcpuaffinity`: hard and soft.
    fn vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId) -> Result<(CpuSet, CpuSet), Errno>;
    /// domctl `setvcpuaffinity`.
    fn set_vcpu_affinity(&mut self, dom: DomId, vcpu: VcpuId, affinity: &Affinity) -> Result<(), Errno>;
    /// domctl `sendtrigger`, with `XEN_DOMCTL_SENDTRIGGER_*`.
    fn send_trigger(&mut self, dom: DomId, trigger: u32, vcpu: VcpuId) -> Result<(), Errno>;

    /// `max_vcpus`.
    fn set_max_vcpus(&mut self, dom: DomId, count: u32) -> Result<(), Errno>;
    /// `max_mem`.
    fn set_max_mem(&mut self, dom: DomId, kib: u64) -> Result<(), Errno>;
    /// `settscinfo`, with `XEN_CPUID_TSC_MODE_*`.
    fn set_tsc_mode(&mut self, dom: DomId, mode: u32) -> Result<(), Errno>;
    /// `settimeoffset`: by how many seconds its wall clock is ahead.
    fn set_time_offset(&mut self, dom: DomId, seconds: i64) -> Result<(), Errno>;
    /// `set_address_size`.
    fn set_address_size(&mut self, dom: DomId, bits: u32) -> Result<(), Errno>;
    /// memory_op `set_memory_map`.
    fn set_memory_map(&mut self, dom: DomId, map: &[E820Entry]) -> Result<(), Errno>;
    /// domctl `set_paging_mempool_size`: bytes for tables of the hypervisor's own. Long work, which continues by itself.
    fn set_paging_pool(&mut self, dom: DomId, bytes: u64) -> Result<(), Errno>;
    /// `hvm_op` `set_param`, with `HVM_PARAM_*`.
    fn set_hvm_param(&mut self, dom: DomId, index: u32, value: u64) -> Result<(), Errno>;
    /// domctl `gethvmcontext`: records as in the public `hvm/save.h`.
    fn hvm_context(&mut self, dom: DomId) -> Result<Vec<u8>, Errno>;
    /// domctl `sethvmcontext`.
    fn set_hvm_context(&mut self, dom: DomId, records: &[u8]) -> Result<(), Errno>;
    /// domctl `get_cpu_policy`.
    fn cpu_policy(&mut self, dom: DomId) -> Result<CpuPolicy, Errno>;
    /// domctl `set_cpu_policy`.
    fn set_cpu_policy(&mut self, dom: DomId, policy: &CpuPolicy) -> Result<(), Errno>;
    /// `hypercall_init`.
    fn fill_hypercall_page(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno>;
    /// `setvcpucontext`.
    fn set_vcpu_context(&mut self, dom: DomId, vcpu: VcpuId, context: &VcpuGuestContext) -> Result<(), Errno>;

    /// memory_op `populate_physmap`: gives the domain an extent of `1 << order` pages at each of `pfns`, and says in
    /// `mfns` where they begin. Returns how many it gave; fewer than asked where memory ran out.
    fn populate(&mut self, dom: DomId, order: u32, pfns: &[Pfn], mfns: &mut [Mfn]) -> Result<usize, Errno>;
    /// Writes to frames of the domain, taken as one run: maps them for as long as it takes.
    fn write_frames(&mut self, dom: DomId, frames: &[Mfn], offset: usize, fill: Fill<'_>) -> Result<(), Errno>;
    /// memory_op `maximum_gpfn`: the highest number of a page of the domain's.
    fn highest_frame(&mut self, dom: DomId) -> Result<u64, Errno>;
    /// domctl `getpageframeinfo3`: replaces frames of the machine, or of a PVH domain's own numbering, 1024 at most, by what the
    /// domain uses them as.
    fn frame_types(&mut self, dom: DomId, frames: &mut [u64]) -> Result<(), Errno>;
    /// The number after the machine's last frame of memory.
    fn frame_limit(&mut self) -> Result<u64, Errno>;
    /// Which of its domain's pages a frame is, by the machine-to-physical table; `None` for what is no page of another domain's.
    fn pfn_of(&mut self, frame: Mfn) -> Option<Pfn>;
    /// Appends the content of frames of the domain.
    fn read_frames(&mut self, dom: DomId, frames: &[Mfn], content: &mut Vec<u8>) -> Result<(), Errno>;
    /// domctl `getvcpucontext`.
    fn vcpu_context(&mut self, dom: DomId, vcpu: VcpuId) -> Result<Box<VcpuGuestContext>, Errno>;
    /// mmuext_op `PIN_L4_TABLE`.
    fn pin_root(&mut self, dom: DomId, frame: Mfn) -> Result<(), Errno>;

    /// event_channel_op `alloc_unbound`: a channel of `dom` that `remote` may bind to.
    fn alloc_unbound(&mut self, dom: DomId, remote: DomId) -> Result<Port, Errno>;
    /// Writes at the start of the domain's grant table, got by memory_op `acquire_resource`.
    fn write_grant_table(&mut self, dom: DomId, bytes: &[u8]) -> Result<(), Errno>;

    /// sysctl `physinfo`.
    fn phys_info(&mut self) -> Result<PhysInfo, Errno>;
    /// sysctl `cputopoinfo`: of each CPU its core, socket and node.
    fn cpu_topology(&mut self) -> Result<Vec<CpuTopo>, Errno>;
    /// sysctl `numainfo`: of each node its memory, and its distances.
    fn numa(&mut self) -> Result<Vec<(MemInfo, Vec<u32>)>, Errno>;
    /// domctl `getnodeaffinity`: the nodes that the domain's memory had better come from, as a set of numbers.
    fn node_affinity(&mut self, dom: DomId) -> Result<CpuSet, Errno>;
    /// sysctl `pcitopoinfo`: of each PCI device that is known here its node (`XEN_INVALID_NODE_ID`, `XEN_INVALID_DEV`).
    fn device_nodes(&mut self) -> Result<Vec<(PciDevice, u32)>, Errno>;
    /// `xen_version`.
    fn version(&mut self) -> Result<VersionInfo, Errno>;
    /// sysctl `sched_id`: `XEN_SCHEDULER_*`.
    fn scheduler(&mut self) -> Result<u32, Errno>;
    /// domctl `scheduler_op` `getinfo`, for the domain's scheduler (`XEN_SCHEDULER_*`).
    fn share(&mut self, dom: DomId, scheduler: u32) -> Result<Share, Errno>;
    /// domctl `scheduler_op` `putinfo`.
    fn set_share(&mut self, dom: DomId, scheduler: u32, share: Share) -> Result<(), Errno>;
    /// sysctl `scheduler_op` `getinfo`, of a pool with that scheduler.
    fn schedule(&mut self, pool: u32, scheduler: u32) -> Result<Schedule, Errno>;
    /// sysctl `scheduler_op` `putinfo`.
    fn set_schedule(&mut self, pool: u32, scheduler: u32, schedule: Schedule) -> Result<(), Errno>;
    /// sysctl `cpupool_op` `info`: the pool of a number, or the next one. `ENOENT`: there is no further one.
    fn pool_info(&mut self, from: u32) -> Result<PoolInfo, Errno>;
    /// sysctl `cpupool_op` `freeinfo`: CPUs in no pool.
    fn free_cpus(&mut self) -> Result<CpuSet, Errno>;
    /// The other operations of sysctl `cpupool_op`; the pool's number.
    fn change_pool(&mut self, change: PoolChange) -> Result<u32, Errno>;
    /// sysctl `readconsole`: all that is in the console ring.
    fn read_console(&mut self, clear: Clear) -> Result<Vec<u8>, Errno>;
    /// sysctl `debug_keys`.
    fn debug_keys(&mut self, keys: &str) -> Result<(), Errno>;

    /// One domain, or `ESRCH`.
    fn domain_info(&mut self, dom: DomId) -> Result<DomainInfo, Errno> {
        self.domain_list(dom, 1)?.into_iter().find(|info| info.id == dom).ok_or(Errno::ESRCH)
    }
}

/// What can be set of a pool's scheduler (sysctl `scheduler_op`). Credit2 has the rate limit alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How long one runs while others wait.
    pub time_slice_ms: u32,
    /// How long one runs at least.
    pub rate_limit_us: u32,
    /// How long one that has run stays where it is.
    pub migration_delay_us: u32,
}

/// A pool of CPUs (sysctl `cpupool_op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its number.
    pub id: u32,
    /// `XEN_SCHEDULER_*`.
    pub scheduler: u32,
    /// Domains in it.
    pub domains: u32,
    /// Its CPUs.
    pub cpus: CpuSet,
}

/// What to do with a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolChange {
    /// A new one, with a scheduler.
    Create(u32),
    /// It goes.
    Destroy(u32),
    /// It gets a CPU.
    Add(u32, u32),
    /// It loses one. `EAGAIN` is asked again.
    Remove(u32, u32),
    /// A domain moves to it.
    Move(u32, DomId),
}

/// A domain's share of the CPUs (domctl `scheduler_op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Relative to other domains'.
    pub weight: u16,
    /// The most, in percent of one CPU; 0: as much as there is.
    pub cap: u16,
}

/// Whether reading the console ring empties it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    /// It stays.
    No,
    /// It is emptied.
    Yes,
}
