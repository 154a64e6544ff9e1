//! The domain that an operation names, with the proof that the caller may act on it.

use core::ops::Deref;

use xen_abi::{errno::Errno, ids::DomId};

use super::{Allowed, Caller, Operation, Privilege, Rule};

/// A domain that the caller may act on. Only [`target`] makes one, so a handler that takes a `Target` cannot be handed a
/// domain that was merely found:
///
/// ```
/// use logic::access::{Caller, NoTarget, Operation, Privilege, SchedOp, Target, permit, target};
/// use xen_abi::{ids::DomId, sched::SCHEDOP_REMOTE_SHUTDOWN};
///
/// fn shut_down(domain: &Target<DomId>) -> DomId {
///     **domain
/// }
/// let find = |id: DomId| (id.0 < 3).then_some(id);
/// let guest = Caller { id: DomId(1), privilege: Privilege::Guest };
/// let dom0 = Caller { id: DomId(0), privilege: Privilege::Control };
/// let asked = SchedOp::asked(SCHEDOP_REMOTE_SHUTDOWN);
/// let allowed = permit(dom0, asked).unwrap();
/// assert_eq!(shut_down(&target(dom0, &allowed, DomId(2), find).unwrap()), DomId(2));
/// assert_eq!(target(guest, &allowed, DomId(2), find).unwrap_err(), NoTarget::Forbidden);
/// assert_eq!(target(guest, &allowed, DomId(7), find).unwrap_err(), NoTarget::Unknown);
/// ```
///
/// ```compile_fail,E0308
/// use logic::access::Target;
/// use xen_abi::ids::DomId;
/// fn shut_down(domain: &Target<DomId>) {}
/// shut_down(&DomId(2));
/// ```
#[derive(Debug)]
pub struct Target<D>(D);

impl<D> Deref for Target<D> {
    type Target = D;
    #[inline(always)]
    fn deref(&self) -> &D {
        &self.0
    }
}

/// Why there is no domain to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTarget {
    /// None has this number.
    Unknown,
    /// The caller may not act on it.
    Forbidden,
}

impl From<NoTarget> for Errno {
    fn from(why: NoTarget) -> Self {
        match why {
            NoTarget::Unknown => Errno::ESRCH,
            NoTarget::Forbidden => Errno::EPERM,
        }
    }
}

/// The domain of number `id` for an operation, found by `find` (which is asked for the caller's own number too).
/// `DOMID_SELF` means the caller. As in Xen a domain is looked for before the right to it is.
#[inline(always)]
pub fn target<Op: Operation, D>(
    caller: Caller,
    allowed: &Allowed<Op>,
    id: DomId,
    find: impl FnOnce(DomId) -> Option<D>,
) -> Result<Target<D>, NoTarget> {
    let id = if id == DomId::SELF { caller.id } else { id };
    let domain = find(id).ok_or(NoTarget::Unknown)?;
    let control = caller.privilege == Privilege::Control;
    let may = match allowed.op().rule() {
        Rule::Anyone | Rule::Offered => id == caller.id,
        Rule::TargetOrControl => control || id == caller.id,
        Rule::ControlOfOther => control && id != caller.id,
        Rule::Control => control,
    };
    if may { Ok(Target(domain)) } else { Err(NoTarget::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{DomctlOp, EventChannelOp, SchedOp};

    #[test]
    fn rules_hold_for_guests_and_control() {
        const OWN: DomId = DomId(3);
        const OTHER: DomId = DomId(4);
        let guest = Caller { id: OWN, privilege: Privilege::Guest };
        let control = Caller { id: OWN, privilege: Privilege::Control };
        fn may<Op: Operation>(op: Op, who: Caller) -> [bool; 3] {
            [OWN, DomId::SELF, OTHER].map(|id| target(who, &Allowed { op }, id, Some).is_ok())
        }
        assert_eq!(may(EventChannelOp::Status, guest), [true, true, false]);
        assert_eq!(may(EventChannelOp::Status, control), [true, true, true]);
        assert_eq!(may(EventChannelOp::Send, control), [true, true, false]);
        assert_eq!(may(SchedOp::RemoteShutdown, guest), [false, false, false]);
        assert_eq!(may(SchedOp::RemoteShutdown, control), [false, false, true]);
        assert_eq!(may(DomctlOp::PauseDomain, guest), [false, false, false]);
        assert_eq!(may(DomctlOp::PauseDomain, control), [true, true, true]);
    }
}
