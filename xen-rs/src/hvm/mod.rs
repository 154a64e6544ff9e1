//! PVH guests: what the hypervisor keeps of a domain that runs in a container of the hardware's.

mod physmap;

pub use physmap::DomainPhysmap;

/// What a PVH domain has that a PV domain has not.
#[derive(Debug, Default)]
pub struct PvhDomain {
    /// Its memory as it sees it.
    pub physmap: DomainPhysmap,
}

impl PvhDomain {
    /// Of a new domain.
    #[must_use]
    pub const fn new() -> Self {
        Self { physmap: DomainPhysmap::new() }
    }
}
