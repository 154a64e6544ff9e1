//! `mca` (`arch-x86/xen-mca.h`): machine checks, as the control domain fetches them, and the CPUs they can hit.

use crate::layout::{constants, structures};

constants! {
    /// What callers must put into [`Mc::interface_version`].
    pub const XEN_MCA_INTERFACE_VERSION: u32 = 0x01ec_c003;
    /// [`McFetch`].
    pub const XEN_MC_FETCH: u32 = 1 => "XEN_MC_fetch";
    pub const XEN_MC_NOTIFYDOMAIN: u32 = 2 => "XEN_MC_notifydomain";
    /// [`McPhyscpuinfo`].
    pub const XEN_MC_PHYSCPUINFO: u32 = 3 => "XEN_MC_physcpuinfo";
    pub const XEN_MC_MSRINJECT: u32 = 4 => "XEN_MC_msrinject";
    pub const XEN_MC_MCEINJECT: u32 = 5 => "XEN_MC_mceinject";
    pub const XEN_MC_INJECT_V2: u32 = 6 => "XEN_MC_inject_v2";
    /// [`McFetch::flags`], in: which queue.
    pub const MC_NONURGENT: u32 = 1 => "XEN_MC_NONURGENT";
    pub const MC_URGENT: u32 = 2 => "XEN_MC_URGENT";
    pub const MC_ACK: u32 = 4 => "XEN_MC_ACK";
    /// [`McFetch::flags`], out: nothing to fetch.
    pub const MC_NODATA: u32 = 2 => "XEN_MC_NODATA";
}

structures! {
    /// The argument: a header and a payload, whose start is one of those below.
    pub struct Mc = "struct xen_mc" {
        pub cmd: u32,
        /// [`XEN_MCA_INTERFACE_VERSION`].
        pub interface_version: u32,
        pub u: [u64; 18],
    }
    pub struct McFetch = "struct xen_mc_fetch" {
        pub flags: u32,
        pub _pad0: u32,
        pub fetch_id: u64,
        /// Virtual address.
        pub data: u64,
    }
    pub struct McPhyscpuinfo = "struct xen_mc_physcpuinfo" {
        /// In: room; out: CPUs there are.
        pub ncpus: u32,
        pub _pad0: u32,
        /// Virtual address of [`LogicalCpu`], or 0.
        pub info: u64,
    }
    pub struct McMsr = "struct mcinfo_msr" {
        pub reg: u64,
        pub value: u64,
    }
    pub struct LogicalCpu = "struct mcinfo_logical_cpu" {
        pub mc_cpunr: u32,
        pub mc_chipid: u32,
        pub mc_coreid: u16,
        pub mc_threadid: u16,
        pub mc_apicid: u32,
        pub mc_clusterid: u32,
        pub mc_ncores: u32,
        pub mc_ncores_active: u32,
        pub mc_nthreads: u32,
        pub mc_cpuid_level: i32,
        pub mc_family: u32,
        pub mc_vendor: u32,
        pub mc_model: u32,
        pub mc_step: u32,
        pub mc_vendorid: [u8; 16],
        pub mc_brandid: [u8; 64],
        pub mc_cpu_caps: [u32; 7],
        pub mc_cache_size: u32,
        pub mc_cache_alignment: u32,
        pub mc_nmsrvals: i32,
        pub _pad: u32,
        pub mc_msrvalues: [McMsr; 8],
    }
}
