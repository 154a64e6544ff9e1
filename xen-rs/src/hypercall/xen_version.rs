//! `HYPERVISOR_xen_version`: version, strings and features (public header `version.h`). With the version itself it is
//! the shortest call there is, which guests also make to have pending events delivered.

use core::sync::atomic::Ordering;

use logic::{
    access::VersionQuestion as Question,
    guest::{InOut, Out},
    hypercall::Outcome,
    num,
};
use xen_abi::{
    arch_x86::HYPERVISOR_VIRT_START,
    errno::Errno,
    features::{
        XENFEAT_AUTO_TRANSLATED_PHYSMAP, XENFEAT_DIRECT_MAPPED, XENFEAT_DOM0, XENFEAT_GNTTAB_MAP_AVAIL_BITS,
        XENFEAT_HIGHMEM_ASSIST, XENFEAT_HVM_CALLBACK_VECTOR, XENFEAT_HVM_PIRQS, XENFEAT_HVM_SAFE_PVCLOCK,
        XENFEAT_MEMORY_OP_VNODE_SUPPORTED, XENFEAT_MMU_PT_UPDATE_PRESERVE_AD, XENFEAT_NOT_DIRECT_MAPPED,
        XENFEAT_PAE_PGDIR_ABOVE_4GB, XENFEAT_WRITABLE_PAGE_TABLES,
    },
    version::{BuildId, CompileInfo, FeatureInfo, PlatformParameters, XENVER_VERSION},
    vm_assist::VMASST_TYPE_PAE_EXTENDED_CR3,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{cpu::Context, guest::Handle, sync::Once};

/// The ABI's version: major and minor.
pub const VERSION: (u16, u16) = (4, 17);
/// What follows the version.
const EXTRAVERSION: &str = ".0-xen-rs";
/// The name in reports.
pub const BANNER: &str = "Xen-4.17.0-xen-rs";
const CAPABILITIES: &str = "xen-3.0-x86_64 ";
/// Where there is hardware for PVH guests.
const PVH_CAPABILITIES: &str = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";
const DENIED: &str = "<denied>";
const PAGE_SIZE: u64 = 4096;

static COMMAND_LINE: Once<&'static str> = Once::new();

/// Remembers the hypervisor's command line for those who may read it.
pub fn set_command_line(line: &'static str) {
    COMMAND_LINE.call_once(|| line);
}

/// The answer to the question that guests ask to have their events delivered (`XENVER_version`).
#[inline(always)]
#[must_use]
pub fn at_once(command: u64) -> Option<u64> {
    (command & 0xffff_ffff == u64::from(XENVER_VERSION)).then_some(version())
}

/// The hypercall: rdi is the question, rsi points to where the answer goes.
pub fn xen_version(cx: &mut Context<'_>) -> Outcome {
    let [command, buffer, ..] = cx.args();
    match at_once(command) {
        Some(version) => Outcome::Done(version),
        None => answer(cx, command, buffer).into(),
    }
}

/// The version as the ABI packs it.
const fn version() -> u64 {
    (VERSION.0 as u64) << 16 | VERSION.1 as u64
}

fn answer(cx: &Context<'_>, command: u64, buffer: u64) -> Result<u64, Errno> {
    match cx.permit::<Question>(num::uint(command))?.op() {
        Question::Version => return Ok(version()),
        Question::Extraversion => tell(buffer, &text::<16>(EXTRAVERSION))?,
        Question::CompileInfo => tell(
            buffer,
            &CompileInfo {
                compiler: text("rustc"),
                compile_by: text("xen-rs"),
                compile_domain: text(""),
                compile_date: text(""),
            },
        )?,
        Question::Capabilities => tell(buffer, &text::<1024>(capabilities()))?,
        Question::Changeset => tell(buffer, &text::<64>(env!("CARGO_PKG_VERSION")))?,
        Question::PlatformParameters => tell(buffer, &PlatformParameters { virt_start: HYPERVISOR_VIRT_START })?,
        Question::GetFeatures => features(cx, Handle::new(buffer))?,
        // There is nothing to be written, and whoever expects that is told.
        Question::Pagesize if buffer != 0 => return Err(Errno::EINVAL),
        Question::Pagesize => return Ok(PAGE_SIZE),
        Question::GuestHandle => tell(buffer, &cx.domain.handle())?,
        Question::CommandLine => {
            let line = if cx.domain.is_control() { COMMAND_LINE.get().copied().unwrap_or("") } else { DENIED };
            tell(buffer, &text::<1024>(line))?;
        }
        Question::BuildId => return build_id(Handle::new(buffer)),
    }
    Ok(0)
}

/// Writes an answer that is no shorter for whom it is too long.
fn tell<T: IntoBytes + Immutable>(buffer: u64, answer: &T) -> Result<(), Errno> {
    Handle::<T, Out>::new(buffer).write(answer)
}

fn capabilities() -> &'static str {
    if machine::container::vendor().is_some() { PVH_CAPABILITIES } else { CAPABILITIES }
}

/// Writes the build id behind the length in the buffer; without a buffer the length alone is told.
fn build_id(buffer: Handle<BuildId, InOut>) -> Result<u64, Errno> {
    let id = machine::arch::x86_64::panic::build_id();
    if !buffer.is_null() {
        let (BuildId { len: room }, answer) = buffer.read()?;
        if room == 0 {
            return Err(Errno::EINVAL);
        }
        if (room as usize) < id.len() {
            return Err(Errno::ENOBUFS);
        }
        answer.behind().write(&id)?;
    }
    Ok(id.len() as u64)
}

fn features(cx: &Context<'_>, buffer: Handle<FeatureInfo, InOut>) -> Result<(), Errno> {
    let (mut info, answer) = buffer.read()?;
    if info.submap_idx != 0 {
        return Err(Errno::EINVAL);
    }
    if cx.domain.pvh().is_some() {
        info.submap = [
            XENFEAT_MEMORY_OP_VNODE_SUPPORTED,
            XENFEAT_WRITABLE_PAGE_TABLES,
            XENFEAT_AUTO_TRANSLATED_PHYSMAP,
            XENFEAT_HVM_SAFE_PVCLOCK,
            XENFEAT_HVM_CALLBACK_VECTOR,
            XENFEAT_NOT_DIRECT_MAPPED,
        ]
        .iter()
        .fold(0, |submap, feature| submap | 1 << feature);
        if cx.domain.is_control() {
            info.submap |= 1 << XENFEAT_DOM0 | 1 << XENFEAT_HVM_PIRQS;
        }
        return answer.write(&info);
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
    answer.write(&info)
}

/// A text in a field that ends with a zero.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *to = from;
    }
    field
}
