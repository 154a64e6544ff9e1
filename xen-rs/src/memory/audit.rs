//! A recount of a domain's page references, for debugging (debug key `f`): `logic::page::Audit`, told of what refers to pages
//! from outside the tables.

use alloc::{sync::Arc, vec::Vec};

use logic::{
    grant::Access,
    lock::Held,
    page::{Audit, Frame, Kind, Mistake},
};
use machine::mem::frame_table::frames;
use xen_abi::{
    errno::Errno,
    ids::{DomId, Mfn},
};

use super::{Mm, feed_heap, mmu};
use crate::{
    domain::{self, Domain},
    event,
    vcpu::{Vcpu, VcpuState},
};

/// Frames looked at in one go: a few hundred KiB of counts.
const PART: usize = 1 << 15;
/// Mistakes that are told one by one.
const TOLD: u64 = 16;

/// A vCPU that runs while its domain is looked at: the one that asked.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Which.
    pub vcpu: &'a Vcpu,
    /// Its state.
    pub state: &'a VcpuState,
}

/// What a recount has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Pages of the domain.
    pub pages: u64,
    /// Tables of all domains.
    pub tables: usize,
    /// Pages whose counts are wrong.
    pub wrong: u64,
}

/// Recounts the references to a domain's pages. `EBUSY`: a vCPU of it runs, other than the one that asks. `ENOMEM`.
pub fn audit(domain: &Arc<Domain>, asker: Option<Asker<'_>>, held: &mut Held<'_, 0>) -> Result<Report, Errno> {
    // One that waits is not to wake up in the middle of it.
    domain.pause(held);
    let report = recount(domain, asker, held);
    domain.unpause(held);
    report
}

fn recount(domain: &Arc<Domain>, asker: Option<Asker<'_>>, held: &mut Held<'_, 0>) -> Result<Report, Errno> {
    let asker = asker.filter(|asker| asker.vcpu.domain_id == domain.id);
    feed_heap(held);
    let tables = tables()?;
    let mut audit = Audit::new(PART)?;
    let mut report = Report { tables: tables.len(), ..Report::default() };
    for first in (0..frames().end().0).step_by(PART) {
        let mut part = audit.begin(Mfn(first));
        if !part.any(|mfn| frames().ram(Mfn(mfn)).is_some_and(|f| f.info().is_owned_by(domain.id))) {
            continue;
        }
        for vcpu in domain.vcpus() {
            match asker.filter(|asker| asker.vcpu.id == vcpu.id) {
                Some(asker) => of_vcpu(&mut audit, asker.state),
                None => of_vcpu(&mut audit, vcpu.parked.lock(held).0.as_ref().ok_or(Errno::EBUSY)?),
            }
        }
        event::shared_frames(domain, |mfn| {
            // Its own pages the hypervisor counts otherwise.
            if frames().ram(mfn).is_some_and(|f| !f.info().is_special()) {
                audit.found(mfn, Kind::Writable);
            }
        });
        of_devices(&mut audit, held);
        of_containers(&mut audit, held);
        let mut deferred = Vec::new();
        let mm: Mm<'_> = mmu(held.again(), domain, &mut deferred);
        tables.iter().for_each(|table| audit.table(&mm, *table));
        report.pages += audit.check(frames(), domain.id, |mistake| tell(&mut report.wrong, &mistake));
    }
    Ok(report)
}

fn tell(wrong: &mut u64, mistake: &Mistake) {
    *wrong += 1;
    if *wrong <= TOLD {
        log::error!("{mistake}");
    }
}

/// All tables of all domains: anyone's may refer to anyone's pages.
fn tables() -> Result<Vec<Frame<'static>>, Errno> {
    let mut tables = Vec::new();
    let all = (0..frames().end().0).filter_map(|mfn| frames().ram(Mfn(mfn)));
    for table in all.filter(|f| f.info().references() != 0 && f.word().kind().is_table()) {
        tables.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        tables.push(table);
    }
    Ok(tables)
}

fn of_vcpu(audit: &mut Audit, state: &VcpuState) {
    let roots = [state.paging.kernel_mfn(), state.paging.user_mfn()];
    roots.into_iter().flatten().for_each(|root| audit.found(root, Kind::L4));
    state.pv.gdt.pages.iter().for_each(|page| audit.found(page.mfn(), Kind::SegDesc));
    state.pv.ldt.frames().for_each(|page| audit.found(page, Kind::SegDesc));
    state.paging.deferred.iter().for_each(|deferred| audit.deferred(deferred, frames()));
}

/// What devices use by grants.
fn of_devices(audit: &mut Audit, held: &mut Held<'_, 0>) {
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        for (mfn, access) in domain.grants.maptrack.lock(held).0.of_devices() {
            audit.found(mfn, if access == Access::Write { Kind::Writable } else { Kind::None });
        }
        from = DomId(domain.id.0.saturating_add(1));
    }
}

/// What nested page tables map.
fn of_containers(audit: &mut Audit, held: &mut Held<'_, 0>) {
    let mut from = DomId(0);
    while let Some(domain) = domain::next_from(from, held) {
        if let Some(pvh) = domain.pvh() {
            pvh.physmap.each(held, |found| {
                let kind = if found.access.write { Kind::Writable } else { Kind::None };
                (found.mfn.0..found.mfn.0 + found.order.frames()).for_each(|mfn| audit.found(Mfn(mfn), kind));
            });
        }
        from = DomId(domain.id.0.saturating_add(1));
    }
}
