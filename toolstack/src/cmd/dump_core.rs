//! `dump-core`: a domain's memory and registers as a file, for `crash` and the like.

use alloc::format;
use alloc::vec::Vec;

use xen_abi::domctl::{XEN_DOMCTL_PFINFO_BROKEN, XEN_DOMCTL_PFINFO_LTAB_MASK};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn, VcpuId};

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status, target};
use crate::calls::DomainInfo;
use crate::core_file::{Core, Numbering, PAGE};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "dump-core",
    usage: "<Domain> <filename>",
    about: "Core dump the specified domain (paused meanwhile, but for -L)",
    flags: &[flag('L', "live", "Do not pause the domain")],
    needs: 2,
    run,
};

/// Frames that are asked about in one hypercall: the most that Xen takes.
const BATCH: usize = 1024;
/// A domain is not looked at whose file would fit only if this part of its memory, or less, was in use.
const MOSTLY_EMPTY: u64 = 8;
/// Up to there, and so much further as the domain's memory is four times over, a PVH domain's pages are looked for: 64 GiB.
const FURTHEST: u64 = 1 << 24;
/// What stands for a page that is not there, at the end of the list: `XC_CORE_INVALID_PFN` and `XC_CORE_INVALID_GMFN`.
const NO_PAGE: (Pfn, Mfn) = (Pfn(u64::MAX), Mfn(u64::MAX));
/// Pages that are copied at a time.
const PAGES: usize = 64;

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let dom = match target::resolve(host, options.arg(0).unwrap_or_default()) {
        Ok(dom) => dom,
        Err(status) => return status,
    };
    if dom == DomId(0) {
        host.print_error("domain 0 cannot dump itself\n");
        return FAILURE;
    }
    let name = options.arg(1).unwrap_or_default();
    let stops = !options.has('L');
    if stops && let Err(errno) = host.pause_domain(dom) {
        target::failed(host, "pausing", dom, errno);
        return refused(host);
    }
    let dumped = dump(host, dom, name);
    if stops && let Err(errno) = host.unpause_domain(dom) {
        // It may have been destroyed meanwhile.
        return target::failed(host, "unpausing", dom, errno);
    }
    match dumped {
        Ok(pages) => {
            host.print(&format!("{name}: {pages} pages of domain {dom}\n"));
            SUCCESS
        }
        // The user knows.
        Err(Errno::EINTR) => FAILURE,
        Err(Errno::EOPNOTSUPP | Errno::ENOSPC) => {
            host.print_error("dump-core: there is no room for the file here; use \"xrs dump-core\" on the host\n");
            refused(host)
        }
        Err(Errno::EINVAL) => {
            host.print_error(&format!("dump-core: {name} is no absolute path of a file\n"));
            refused(host)
        }
        Err(errno) => {
            target::failed(host, "dumping", dom, errno);
            refused(host)
        }
    }
}

fn refused(host: &mut dyn Host) -> Status {
    // The number is libxl's ERROR_FAIL.
    host.print_error("core dump failed (rc=-3)\n");
    FAILURE
}

/// Writes a domain's core to a file of the host's; says how many pages it has.
///
/// # Errors
/// `ENOSPC` where there is no room for it, `EINTR` when the user does not want it any more, and the hypervisor's own.
pub fn dump(host: &mut dyn Host, dom: DomId, name: &str) -> Result<usize, Errno> {
    let info = host.domain_info(dom)?;
    // Memory is seldom empty for the most part.
    if info.tot_pages.saturating_mul(PAGE as u64) / MOSTLY_EMPTY > host.room() {
        return Err(Errno::ENOSPC);
    }
    let numbering = if info.is(DomainInfo::HVM) { Numbering::Own } else { Numbering::Machine };
    let pages = match numbering {
        Numbering::Machine => machine_pages(host, dom)?,
        Numbering::Own => own_pages(host, &info)?,
    };
    let mut contexts = Vec::new();
    for vcpu in 0..=info.max_vcpu_id {
        // A vCPU that was never brought up has none.
        if let Ok(context) = host.vcpu_context(dom, VcpuId(vcpu)) {
            contexts.push(context);
        }
    }
    let mut shared_info = Vec::new();
    // The format can do without.
    let _ = host.read_frames(dom, &[info.shared_info_frame], &mut shared_info);
    let version = host.version()?;
    let (contexts, shared_info) = (&*contexts, &*shared_info);
    let core = Core { version: &version, contexts, shared_info, numbering, pages: pages.len() };
    host.save(name)?;
    save(host, &core.before_pages())?;
    let mut content = Vec::with_capacity(PAGES * PAGE);
    let mut there = Vec::new();
    there.try_reserve_exact(pages.len()).map_err(|_| Errno::ENOMEM)?;
    for some in pages.chunks(PAGES) {
        content.clear();
        read(host, dom, some, &mut content, &mut there)?;
        // Pages of zeros are said in a word, so each is said alone.
        content.chunks(PAGE).try_for_each(|page| save(host, page))?;
    }
    let holes = pages.len() - there.len();
    for _ in 0..holes {
        save(host, &[0; PAGE])?;
    }
    let end = core.after_pages(there.iter().copied().chain(core::iter::repeat_n(NO_PAGE, holes)));
    end.ok_or(Errno::ENOMEM)?.chunks(PAGES * PAGE).try_for_each(|part| save(host, part))?;
    Ok(there.len())
}

fn save(host: &mut dyn Host, bytes: &[u8]) -> Result<(), Errno> {
    if host.save_bytes(bytes) {
        return Ok(());
    }
    Err(if host.room() == u64::MAX { Errno::EINTR } else { Errno::ENOSPC })
}

/// Copies pages and adds those that could be copied to `there`. A frame that cannot be mapped is left out, as libxc does: it is
/// broken, or the domain has given it back since it was asked about.
fn read(
    host: &mut dyn Host,
    dom: DomId,
    pages: &[(Pfn, Mfn)],
    content: &mut Vec<u8>,
    there: &mut Vec<(Pfn, Mfn)>,
) -> Result<(), Errno> {
    let frames: Vec<Mfn> = pages.iter().map(|(_, mfn)| *mfn).collect();
    if host.read_frames(dom, &frames, content).is_ok() {
        there.extend(pages);
        return Ok(());
    }
    content.clear();
    for page in pages {
        let before = content.len();
        match host.read_frames(dom, &[page.1], content) {
            Ok(()) => there.push(*page),
            Err(_) => content.truncate(before),
        }
    }
    // A domain that is gone has no content at all.
    host.domain_info(dom).and_then(|info| if info.is(DomainInfo::DYING) { Err(Errno::ESRCH) } else { Ok(()) })
}

/// All pages of a PV domain by their numbers in it. What the domain says of itself may be wrong, or missing, so the
/// machine-to-physical table names the frames, and the hypervisor is asked whose they are. Not about every frame of the
/// machine: Xen logs each that is not the domain's.
fn machine_pages(host: &mut dyn Host, dom: DomId) -> Result<Vec<(Pfn, Mfn)>, Errno> {
    let end = host.frame_limit()?;
    let mut pages = Vec::new();
    let mut asked = Vec::with_capacity(BATCH);
    for mfn in (0..end).map(Mfn) {
        asked.extend(host.pfn_of(mfn).map(|pfn| (pfn, mfn)));
        if asked.len() == BATCH {
            keep_its_own(host, dom, &mut asked, &mut pages)?;
        }
    }
    keep_its_own(host, dom, &mut asked, &mut pages)?;
    pages.sort_unstable_by_key(|(pfn, _)| *pfn);
    Ok(pages)
}

/// All pages of a domain that numbers them itself. There are large holes between them, and the domain can put a page as far up
/// as it likes, so the search has an end.
fn own_pages(host: &mut dyn Host, info: &DomainInfo) -> Result<Vec<(Pfn, Mfn)>, Errno> {
    let end =
        host.highest_frame(info.id)?.saturating_add(1).min(info.tot_pages.saturating_mul(4).saturating_add(FURTHEST));
    let (mut pages, mut asked) = (Vec::new(), Vec::with_capacity(BATCH));
    for first in (0..end).step_by(BATCH) {
        asked.extend((first..end).take(BATCH).map(|number| (Pfn(number), Mfn(number))));
        keep_its_own(host, info.id, &mut asked, &mut pages)?;
    }
    Ok(pages)
}

/// Adds those of the frames that are the domain's.
fn keep_its_own(
    host: &mut dyn Host,
    dom: DomId,
    asked: &mut Vec<(Pfn, Mfn)>,
    pages: &mut Vec<(Pfn, Mfn)>,
) -> Result<(), Errno> {
    let mut types: Vec<u64> = asked.iter().map(|(_, mfn)| mfn.0).collect();
    host.frame_types(dom, &mut types)?;
    let its_own = |kind: &u64| kind & u64::from(XEN_DOMCTL_PFINFO_LTAB_MASK) < u64::from(XEN_DOMCTL_PFINFO_BROKEN);
    pages.try_reserve(asked.len()).map_err(|_| Errno::ENOMEM)?;
    pages.extend(asked.drain(..).zip(&types).filter(|(_, kind)| its_own(kind)).map(|(page, _)| page));
    Ok(())
}
