//! A domain of the guest's own, for what concerns two domains: it has memory and never runs.

use guest_pv::call::domctl;
use xen_abi::Errno;
use xen_abi::domctl::CreateDomain;
use xen_abi::ids::DomId;

/// A paused domain with one vCPU; destroyed when dropped.
#[derive(Debug)]
pub struct Child(DomId);

impl Child {
    /// A domain that may have so many pages and has none.
    ///
    /// # Panics
    /// When the hypervisor has no room for it.
    pub fn new(pages: u64) -> Self {
        let config = CreateDomain {
            max_vcpus: 1,
            max_evtchn_port: 1023,
            max_grant_frames: 8,
            max_maptrack_frames: 8,
            grant_opts: 1,
            ..Default::default()
        };
        let child = Self(domctl::create_domain(DomId(0), &config).expect("there is room for a small domain"));
        domctl::max_mem(child.0, pages * 4).expect("any limit can be set");
        domctl::max_vcpus(child.0, 1).expect("it was created for one");
        child
    }

    /// Its number.
    pub fn id(&self) -> DomId {
        self.0
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        while let Err(Errno::EAGAIN | Errno::ERESTART) = domctl::destroy_domain(self.0) {}
    }
}
