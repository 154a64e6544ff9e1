//! Newtypes for the numbers that name things, and the reserved domain identifiers (`xen.h`).

use crate::layout::constants;

/// Declares one transparent number.
macro_rules! id {
    ($( $(#[$meta:meta])* $name:ident($ty:ty); )*) => { $(
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        pub struct $name(pub $ty);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { core::fmt::Display::fmt(&self.0, f) }
        }
        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { core::fmt::LowerHex::fmt(&self.0, f) }
        }
    )* };
}

id! {
    /// `domid_t`: a domain, or one of the `DOMID_*` stand-ins.
    DomId(u16);
    /// Machine frame number: index of a 4 KiB page of real memory.
    Mfn(u64);
    /// Guest frame number: what the guest's page tables hold (a machine frame for PV, a guest-physical one for HVM).
    Gfn(u64);
    /// Pseudo-physical frame number: index into a PV guest's own numbering of its memory.
    Pfn(u64);
    /// `evtchn_port_t`: event channel of one domain.
    Port(u32);
    /// `grant_ref_t`: index into the granting domain's table.
    GrantRef(u32);
    /// `grant_handle_t`: names one active mapping in the mapping domain.
    GrantHandle(u32);
    /// Virtual CPU within a domain.
    VcpuId(u32);
}

constants! {
    /// First identifier no real domain can have.
    pub const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
    /// The caller.
    pub const DOMID_SELF: u16 = 0x7ff0;
    /// Owner of I/O memory, and of frames outside of RAM.
    pub const DOMID_IO: u16 = 0x7ff1;
    /// Owner of the hypervisor's own memory that is shared read-only or with privileged domains.
    pub const DOMID_XEN: u16 = 0x7ff2;
    /// Owner of shared (copy-on-write) pages.
    pub const DOMID_COW: u16 = 0x7ff3;
    /// No domain.
    pub const DOMID_INVALID: u16 = 0x7ff4;
    /// The idle domain.
    pub const DOMID_IDLE: u16 = 0x7fff;
    /// Bits of a domain identifier.
    pub const DOMID_MASK: u16 = 0x7fff;
}

impl DomId {
    /// [`DOMID_SELF`].
    pub const SELF: Self = Self(DOMID_SELF);
    /// [`DOMID_IO`].
    pub const IO: Self = Self(DOMID_IO);
    /// [`DOMID_XEN`].
    pub const XEN: Self = Self(DOMID_XEN);
    /// [`DOMID_COW`].
    pub const COW: Self = Self(DOMID_COW);
    /// [`DOMID_INVALID`].
    pub const INVALID: Self = Self(DOMID_INVALID);
    /// [`DOMID_IDLE`].
    pub const IDLE: Self = Self(DOMID_IDLE);
}
