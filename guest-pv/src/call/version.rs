//! `xen_version`: who the hypervisor is (public `version.h`).
//!
//! Unsafe: a hypercall is told the address of a buffer.

use super::{check, command, raw};
use alloc::string::String;
use alloc::vec::Vec;
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_XEN_VERSION;
use xen_abi::version::{
    CapabilitiesInfo, ChangesetInfo, CommandLine, CompileInfo, ExtraVersion, FeatureInfo, PlatformParameters,
    XENVER_BUILD_ID, XENVER_CAPABILITIES, XENVER_CHANGESET, XENVER_COMMANDLINE, XENVER_COMPILE_INFO,
    XENVER_EXTRAVERSION, XENVER_GET_FEATURES, XENVER_GUEST_HANDLE, XENVER_PLATFORM_PARAMETERS, XENVER_VERSION,
};

/// Major and minor version.
///
/// # Errors
/// Those of the hypercall.
pub fn version() -> Result<(u16, u16), Errno> {
    // SAFETY: no memory is involved.
    let word = check(unsafe { raw(HYPERVISOR_XEN_VERSION.into(), [XENVER_VERSION.into(), 0]) })?;
    Ok(((word >> 16) as u16, word as u16))
}

/// A zero-terminated text of the hypervisor as a string.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The rest of the version, such as ".3-pre".
///
/// # Errors
/// Those of the hypercall.
pub fn extraversion() -> Result<String, Errno> {
    let mut buffer: ExtraVersion = [0; 16];
    // SAFETY: the hypervisor fills a buffer of the type that the command is defined with.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_EXTRAVERSION, &mut buffer) }?;
    Ok(text(&buffer))
}

/// The guest types that can run here.
///
/// # Errors
/// Those of the hypercall.
pub fn capabilities() -> Result<String, Errno> {
    let mut buffer: CapabilitiesInfo = [0; 1024];
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_CAPABILITIES, &mut buffer) }?;
    Ok(text(&buffer))
}

/// The source revision.
///
/// # Errors
/// Those of the hypercall.
pub fn changeset() -> Result<String, Errno> {
    let mut buffer: ChangesetInfo = [0; 64];
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_CHANGESET, &mut buffer) }?;
    Ok(text(&buffer))
}

/// The hypervisor's command line.
///
/// # Errors
/// Those of the hypercall.
pub fn command_line() -> Result<String, Errno> {
    let mut buffer: CommandLine = [0; 1024];
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_COMMANDLINE, &mut buffer) }?;
    Ok(text(&buffer))
}

/// How and when the hypervisor was compiled.
///
/// # Errors
/// Those of the hypercall.
pub fn compile_info() -> Result<CompileInfo, Errno> {
    let mut info = CompileInfo::default();
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_COMPILE_INFO, &mut info) }?;
    Ok(info)
}

/// Where the hypervisor's part of the address space begins.
///
/// # Errors
/// Those of the hypercall.
pub fn virt_start() -> Result<u64, Errno> {
    let mut info = PlatformParameters::default();
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_PLATFORM_PARAMETERS, &mut info) }?;
    Ok(info.virt_start)
}

/// 32 feature bits.
///
/// # Errors
/// Those of the hypercall.
pub fn features(submap_idx: u32) -> Result<u32, Errno> {
    let mut info = FeatureInfo { submap_idx, submap: 0 };
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_GET_FEATURES, &mut info) }?;
    Ok(info.submap)
}

/// This domain's handle (UUID).
///
/// # Errors
/// Those of the hypercall.
pub fn guest_handle() -> Result<[u8; 16], Errno> {
    let mut handle = [0; 16];
    // SAFETY: as above.
    unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_GUEST_HANDLE, &mut handle) }?;
    Ok(handle)
}

/// The hypervisor's build id; empty when it has none.
///
/// # Errors
/// Those of the hypercall.
pub fn build_id() -> Result<Vec<u8>, Errno> {
    const ROOM: u32 = 64;
    // A `BuildId` and room for an id.
    let mut buffer = [0u32; 1 + ROOM as usize / 4];
    buffer[0] = ROOM;
    // SAFETY: the hypervisor writes at most `ROOM` bytes after the header.
    let len = unsafe { command(HYPERVISOR_XEN_VERSION, XENVER_BUILD_ID, &mut buffer) }?;
    Ok(buffer[1..].iter().flat_map(|word| word.to_le_bytes()).take(len as usize).collect())
}
