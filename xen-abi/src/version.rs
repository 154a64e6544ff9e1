//! `xen_version` (`version.h`): who the hypervisor is.

use crate::layout::{constants, structures};

constants! {
    /// Returns `major << 16 | minor`; argument ignored.
    pub const XENVER_VERSION: u32 = 0;
    /// Fills an [`ExtraVersion`].
    pub const XENVER_EXTRAVERSION: u32 = 1;
    /// Fills a [`CompileInfo`].
    pub const XENVER_COMPILE_INFO: u32 = 2;
    /// Fills a [`CapabilitiesInfo`].
    pub const XENVER_CAPABILITIES: u32 = 3;
    /// Fills a [`ChangesetInfo`].
    pub const XENVER_CHANGESET: u32 = 4;
    /// Fills a [`PlatformParameters`].
    pub const XENVER_PLATFORM_PARAMETERS: u32 = 5;
    /// In and out: a [`FeatureInfo`].
    pub const XENVER_GET_FEATURES: u32 = 6;
    /// Returns the page size in bytes.
    pub const XENVER_PAGESIZE: u32 = 7;
    /// Fills a `xen_domain_handle_t`: 16 bytes.
    pub const XENVER_GUEST_HANDLE: u32 = 8;
    /// Fills a [`CommandLine`].
    pub const XENVER_COMMANDLINE: u32 = 9;
    /// In and out: a [`BuildId`] followed by its bytes; returns the length when the handle is null.
    pub const XENVER_BUILD_ID: u32 = 10;
    /// Submaps of 32 features each.
    pub const XENFEAT_NR_SUBMAPS: u32 = 1;
}

/// `xen_extraversion_t`: zero-terminated.
pub type ExtraVersion = [u8; 16];
/// `xen_capabilities_info_t`: zero-terminated, such as `xen-3.0-x86_64`.
pub type CapabilitiesInfo = [u8; 1024];
/// `xen_changeset_info_t`: zero-terminated.
pub type ChangesetInfo = [u8; 64];
/// `xen_commandline_t`: zero-terminated.
pub type CommandLine = [u8; 1024];

structures! {
    /// How the hypervisor was built; zero-terminated strings.
    pub struct CompileInfo = "struct xen_compile_info" {
        pub compiler: [u8; 64],
        pub compile_by: [u8; 16],
        pub compile_domain: [u8; 32],
        pub compile_date: [u8; 32],
    }
    /// Where the hypervisor's part of a PV guest's address space starts.
    pub struct PlatformParameters = "struct xen_platform_parameters" {
        pub virt_start: u64,
    }
    /// Query of one submap of features.
    pub struct FeatureInfo = "struct xen_feature_info" {
        /// In: which submap.
        pub submap_idx: u32,
        /// Out: its 32 bits.
        pub submap: u32,
    }
    /// Header of the build id; the bytes follow.
    pub struct BuildId = "struct xen_build_id" {
        /// In: room in bytes after this header.
        pub len: u32,
    }
}
