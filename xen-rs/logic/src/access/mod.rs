//! Who may call what.
//!
//! Each hypercall with sub-operations has a table (`operations!`, one file per call in [`table`]): number, name, [`Rule`],
//! and for those not served the error. From the table come the decoder, the check and docs/HYPERCALLS.md.
//!
//! A guest's number becomes [`Asked`], of which nothing can be read but by [`permit`]. So what a handler matches on has
//! passed its check:
//!
//! ```
//! use logic::access::{Caller, DomctlOp, Operation, Privilege, permit};
//! use xen_abi::{domctl::XEN_DOMCTL_PAUSEDOMAIN, errno::Errno, ids::DomId};
//!
//! let dom0 = Caller { id: DomId(0), privilege: Privilege::Control };
//! let guest = Caller { id: DomId(1), privilege: Privilege::Guest };
//! let allowed = permit(dom0, DomctlOp::asked(XEN_DOMCTL_PAUSEDOMAIN)).unwrap();
//! assert_eq!(allowed.op(), DomctlOp::PauseDomain);
//! assert_eq!(permit(guest, DomctlOp::asked(XEN_DOMCTL_PAUSEDOMAIN)).unwrap_err(), Errno::EPERM);
//! ```
//!
//! Without the check there is nothing to match on:
//!
//! ```compile_fail,E0308
//! use logic::access::{DomctlOp, Operation};
//! match DomctlOp::asked(3) {
//!     DomctlOp::PauseDomain => {}
//!     _ => {}
//! }
//! ```
//!
//! and nothing but the check makes what a handler wants to see:
//!
//! ```compile_fail,E0451
//! use logic::access::{Allowed, DomctlOp};
//! let forged = Allowed { op: DomctlOp::PauseDomain };
//! ```

mod rule;
mod target;
#[macro_use]
mod operations;
pub mod table;

use xen_abi::{errno::Errno, ids::DomId};

pub use operations::{Family, Operation, Row, Status};
pub use rule::Rule;
pub use table::*;
pub use target::{NoTarget, Target, target};

/// What a domain may ask for beyond what concerns itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Only what concerns itself.
    Guest,
    /// Everything: the control domain, which is also the hardware domain.
    Control,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Its number.
    pub id: DomId,
    /// What it may ask for.
    pub privilege: Privilege,
}

/// A number that a guest asked for, looked up in its table. What it is, only [`permit`] tells.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Asked<Op> {
    op: Result<Op, Errno>,
    rule: Rule,
}

/// An operation that its caller may ask for. Where its rule speaks of a domain, that is found by [`target`].
#[derive(Clone, Copy, Debug)]
pub struct Allowed<Op> {
    op: Op,
}

impl<Op: Operation> Allowed<Op> {
    /// The operation.
    #[inline(always)]
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }
}

/// Applies the rule of what was asked for to the caller: `EPERM`, as from Xen's default policy, or the error of an
/// operation that is not served.
#[inline(always)]
pub fn permit<Op: Operation>(caller: Caller, asked: Asked<Op>) -> Result<Allowed<Op>, Errno> {
    if asked.rule == Rule::Control && caller.privilege != Privilege::Control {
        return Err(Errno::EPERM);
    }
    asked.op.map(|op| Allowed { op })
}
