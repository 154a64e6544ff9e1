//! `HYPERVISOR_xen_version`: version, strings and features (public header `version.h`). With the version itself it is
//! the shortest call there is, which guests also make to have pending events delivered.

use core::sync::atomic::Ordering;

use logic::hypercall::Outcome;
use xen_abi::{
    arch_x86::HYPERVISOR_VIRT_START,
    errno::Errno,
    features::{
        XENFEAT_DIRECT_MAPPED, XENFEAT_DOM0, XENFEAT_GNTTAB_MAP_AVAIL_BITS, XENFEAT_HIGHMEM_ASSIST,
        XENFEAT_MEMORY_OP_VNODE_SUPPORTED, XENFEAT_MMU_PT_UPDATE_PRESERVE_AD, XENFEAT_PAE_PGDIR_ABOVE_4GB,
    },
    version::{
        BuildId, CompileInfo, FeatureInfo, PlatformParameters, XENVER_BUILD_ID, XENVER_CAPABILITIES, XENVER_CHANGESET,
        XENVER_COMMANDLINE, XENVER_COMPILE_INFO, XENVER_EXTRAVERSION, XENVER_GET_FEATURES, XENVER_GUEST_HANDLE,
        XENVER_PAGESIZE, XENVER_PLATFORM_PARAMETERS, XENVER_VERSION,
    },
    vm_assist::VMASST_TYPE_PAE_EXTENDED_CR3,
};

use crate::{cpu::Context, guest, sync::Once};

/// The ABI's version: major and minor.
pub const VERSION: (u16, u16) = (4, 17);
/// What follows the version.
const EXTRAVERSION: &str = ".0-xen-rs";
/// The name in reports.
pub const BANNER: &str = "Xen-4.17.0-xen-rs";
const CAPABILITIES: &str = "xen-3.0-x86_64 ";
const DENIED: &str = "<denied>";
const PAGE_SIZE: u64 = 4096;

static COMMAND_LINE: Once<&'static str> = Once::new();

/// Remembers the hypervisor's command line for those who may read it.
pub fn set_command_line(line: &'static str) {
    COMMAND_LINE.call_once(|| line);
}

/// The hypercall: rdi is the question, rsi points to where the answer goes.
pub fn xen_version(cx: &mut Context<'_>) -> Outcome {
    let [command, buffer, ..] = cx.args;
    if command & 0xffff_ffff == u64::from(XENVER_VERSION) {
        return Outcome::Done(u64::from(VERSION.0) << 16 | u64::from(VERSION.1));
    }
    answer(cx, command, buffer).into()
}

fn answer(cx: &Context<'_>, command: u64, buffer: u64) -> Result<u64, Errno> {
    let command = u32::try_from(command & 0xffff_ffff).map_err(|_| Errno::ENOSYS)?;
    match command {
        XENVER_EXTRAVERSION => guest::write(buffer, &text::<16>(EXTRAVERSION))?,
        XENVER_COMPILE_INFO => guest::write(
            buffer,
            &CompileInfo {
                compiler: text("rustc"),
                compile_by: text("xen-rs"),
                compile_domain: text(""),
                compile_date: text(""),
            },
        )?,
        XENVER_CAPABILITIES => guest::write(buffer, &text::<1024>(CAPABILITIES))?,
        XENVER_CHANGESET => guest::write(buffer, &text::<64>(env!("CARGO_PKG_VERSION")))?,
        XENVER_PLATFORM_PARAMETERS => guest::write(buffer, &PlatformParameters { virt_start: HYPERVISOR_VIRT_START })?,
        XENVER_GET_FEATURES => features(cx, buffer)?,
        XENVER_PAGESIZE => return Ok(PAGE_SIZE),
        XENVER_GUEST_HANDLE => guest::write(buffer, &cx.domain.handle())?,
        XENVER_COMMANDLINE => {
            let line = if cx.domain.is_control() { COMMAND_LINE.get().copied().unwrap_or("") } else { DENIED };
            guest::write(buffer, &text::<1024>(line))?;
        }
        XENVER_BUILD_ID if cx.domain.is_control() => return build_id(buffer),
        XENVER_BUILD_ID => return Err(Errno::EPERM),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(0)
}

/// Writes the build id behind the length at `buffer`; without a buffer the length alone is told.
fn build_id(buffer: u64) -> Result<u64, Errno> {
    let id = machine::arch::x86_64::panic::build_id();
    if buffer != 0 {
        let room = guest::read::<BuildId>(buffer)?.len;
        if room == 0 {
            return Err(Errno::EINVAL);
        }
        if (room as usize) < id.len() {
            return Err(Errno::ENOBUFS);
        }
        guest::write(buffer.wrapping_add(size_of::<BuildId>() as u64), &id)?;
    }
    Ok(id.len() as u64)
}

fn features(cx: &Context<'_>, buffer: u64) -> Result<(), Errno> {
    let mut info = guest::read::<FeatureInfo>(buffer)?;
    if info.submap_idx != 0 {
        return Err(Errno::EINVAL);
    }
    let assist = cx.domain.vm_assist.load(Ordering::Relaxed);
    let bit = |feature: u32, on: bool| u32::from(on) << feature;
    info.submap = bit(XENFEAT_MEMORY_OP_VNODE_SUPPORTED, true)
        | bit(XENFEAT_PAE_PGDIR_ABOVE_4GB, assist & 1 << VMASST_TYPE_PAE_EXTENDED_CR3 != 0)
        | bit(XENFEAT_MMU_PT_UPDATE_PRESERVE_AD, true)
        | bit(XENFEAT_HIGHMEM_ASSIST, true)
        | bit(XENFEAT_GNTTAB_MAP_AVAIL_BITS, true)
        | bit(XENFEAT_DOM0, cx.domain.is_control())
        // Xen says so of every domain whose frame numbers are the machine's.
        | bit(XENFEAT_DIRECT_MAPPED, true);
    guest::write(buffer, &info)
}

/// A text in a field that ends with a zero.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from;
    }
    field
}
