//! Who may call what.
//!
//! A decoded operation becomes [`Allowed`] only here, after its [`Rule`] was looked at. A handler that takes an
//! `Allowed<Op>` therefore cannot be reached by a path that forgot the check, and nothing but a check makes one:
//!
//! ```compile_fail
//! use logic::access::Allowed;
//! let forged = Allowed { op: 7 };
//! ```

mod rule;

use xen_abi::{errno::Errno, ids::DomId};

pub use rule::Rule;

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

/// An operation that has a rule.
pub trait Operation {
    /// Who may ask for it.
    fn rule(&self) -> Rule;

    /// The domain it acts on, if it acts on one.
    fn target(&self) -> Option<DomId>;
}

/// A decoded operation that its caller may ask for.
#[derive(Debug)]
pub struct Allowed<Op> {
    op: Op,
}

impl<Op> Allowed<Op> {
    /// The operation.
    pub const fn op(&self) -> &Op {
        &self.op
    }

    /// The operation, to be carried out.
    pub fn into_op(self) -> Op {
        self.op
    }
}

/// Looks the rule of `op` up and applies it to the caller; the error is `EPERM`, as from Xen's default policy.
pub fn permit<Op: Operation>(caller: Caller, op: Op) -> Result<Allowed<Op>, Errno> {
    let allowed = match op.rule() {
        Rule::Control => caller.privilege == Privilege::Control,
        Rule::TargetOrControl => {
            caller.privilege == Privilege::Control || op.target().is_none_or(|target| target == caller.id)
        }
        Rule::Anyone => true,
    };
    if allowed { Ok(Allowed { op }) } else { Err(Errno::EPERM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Probe(Rule, Option<DomId>);

    impl Operation for Probe {
        fn rule(&self) -> Rule {
            self.0
        }
        fn target(&self) -> Option<DomId> {
            self.1
        }
    }

    #[test]
    fn rules_hold_for_guests_and_control() {
        let guest = Caller { id: DomId(3), privilege: Privilege::Guest };
        let control = Caller { id: DomId(0), privilege: Privilege::Control };
        let cases = [
            (Probe(Rule::Anyone, None), true),
            (Probe(Rule::Control, Some(DomId(3))), false),
            (Probe(Rule::TargetOrControl, Some(DomId(3))), true),
            (Probe(Rule::TargetOrControl, Some(DomId(4))), false),
        ];
        for (probe, guest_may) in cases {
            let (rule, target) = (probe.0, probe.1);
            assert_eq!(permit(guest, probe).is_ok(), guest_may, "{rule:?} {target:?}");
            assert!(permit(control, Probe(rule, target)).is_ok());
        }
    }
}
