//! What a domain's frames are used as: for tools that copy its memory.

use logic::{guest::InOut, page::Kind};
use machine::mem::frame_table;
use xen_abi::{
    domctl as abi,
    errno::Errno,
    ids::{DomId, Gfn, Mfn},
};

use super::Reply;
use crate::{cpu::Target, guest::Series, hypercall::Context};

/// Frames in a call, as in Xen.
const MOST: u64 = 1024;
/// Frames that are copied at a time.
const CHUNK: usize = 64;

/// `XEN_DOMCTL_getpageframeinfo3`: the array's frames, numbered by a PVH domain's own memory, are replaced by their types.
/// `E2BIG`: too many; `EFAULT`: what was answered before stays.
pub(super) fn types(cx: &mut Context<'_>, target: &Target, arg: &abi::GetPageFrameInfo3) -> Result<Reply, Errno> {
    if arg.num > MOST {
        return Err(Errno::E2BIG);
    }
    let mut left = usize::try_from(arg.num).map_err(|_| Errno::E2BIG)?;
    let mut array = Series::<u64, InOut>::new(arg.array);
    let mut frames = [0_u64; CHUNK];
    while left > 0 {
        let count = left.min(CHUNK);
        let chunk = frames.get_mut(..count).ok_or(Errno::EINVAL)?;
        let mut answers = array.read_into(chunk)?;
        for frame in chunk.iter_mut() {
            let mfn = match target.pvh() {
                Some(pvh) => pvh.physmap.find(Gfn(*frame), &mut cx.held).map(|found| found.mfn),
                None => Some(Mfn(*frame)),
            };
            *frame = mfn.map_or(abi::XEN_DOMCTL_PFINFO_XTAB, |mfn| type_of(mfn, target.id)).into();
        }
        answers.write_from(chunk)?;
        left -= count;
    }
    Ok(Reply::Nothing)
}

/// A frame that is not the domain's, or is the hypervisor's own on its behalf, has no type.
fn type_of(mfn: Mfn, owner: DomId) -> u32 {
    let Some(frame) = frame_table::frames().ram(mfn) else {
        return abi::XEN_DOMCTL_PFINFO_XTAB;
    };
    if !frame.info().is_owned_by(owner) || frame.info().is_special() {
        return abi::XEN_DOMCTL_PFINFO_XTAB;
    }
    let word = frame.word();
    let table = match word.kind() {
        Kind::L1 => abi::XEN_DOMCTL_PFINFO_L1TAB,
        Kind::L2 => abi::XEN_DOMCTL_PFINFO_L2TAB,
        Kind::L3 => abi::XEN_DOMCTL_PFINFO_L3TAB,
        Kind::L4 => abi::XEN_DOMCTL_PFINFO_L4TAB,
        Kind::None | Kind::SegDesc | Kind::Writable => abi::XEN_DOMCTL_PFINFO_NOTAB,
    };
    table | if word.is_pinned() { abi::XEN_DOMCTL_PFINFO_LPINTAB } else { 0 }
}
