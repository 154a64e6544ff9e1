//! The hypercall page of a PVH guest: an entry of 32 bytes for each call, by the instruction of this vendor.

use alloc::{sync::Arc, vec::Vec};
use logic::{lock::Held, page::Writable};
use machine::{
    container::{Vendor, vendor},
    mem::pv_pte,
};
use xen_abi::{errno::Errno, hypercall::HYPERVISOR_IRET, ids::Gfn};

use crate::{cpu::Context, domain::Domain, memory};

/// Fills a page of the caller's.
pub fn write(cx: &mut Context<'_>, gfn: Gfn) -> Result<(), Errno> {
    let domain = cx.domain.clone();
    fill(&domain, gfn, &mut cx.held)?;
    super::latch_width(cx);
    Ok(())
}

/// Fills a page of a domain's (`XEN_DOMCTL_hypercall_init`, or the MSR).
pub fn fill(domain: &Arc<Domain>, gfn: Gfn, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let pvh = domain.pvh().ok_or(Errno::EINVAL)?;
    let mfn = pvh.physmap.find(gfn, held).ok_or(Errno::EINVAL)?.mfn;
    let mut deferred = Vec::new();
    let mut mm = memory::mmu(held.again(), domain, &mut deferred);
    let page = mm.get_ref::<Writable>(mfn, domain.id).map_err(|_| Errno::EINVAL)?;
    pv_pte::write_bytes(&page, 0, &content());
    mm.put_ref(page);
    Ok(())
}

fn content() -> [u8; 4096] {
    let call: [u8; 3] = match vendor() {
        Some(Vendor::Vmx) => [0x0f, 0x01, 0xc1],
        _ => [0x0f, 0x01, 0xd9],
    };
    let mut page = [0xcc; 4096];
    for (number, entry) in (0u32..).zip(page.chunks_exact_mut(32)) {
        let number_bytes = number.to_le_bytes();
        // `iret` is not for guests in containers: ud2. Else mov eax, number; vmmcall; ret.
        let code: &[&[u8]] =
            if number == HYPERVISOR_IRET { &[&[0x0f, 0x0b]] } else { &[&[0xb8], &number_bytes, &call, &[0xc3]] };
        for (to, from) in entry.iter_mut().zip(code.iter().copied().flatten()) {
            *to = *from;
        }
    }
    page
}
