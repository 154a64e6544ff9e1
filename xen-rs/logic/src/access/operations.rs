//! What a table of operations is made of, and the macro that turns one into a type.

use xen_abi::errno::Errno;

use super::{Asked, Rule};

/// An operation of one hypercall. Implemented by `operations!` alone.
pub trait Operation: Copy + 'static {
    /// The table it stands in.
    const FAMILY: Family;

    /// Looks a guest's number up.
    fn asked(number: u32) -> Asked<Self>;

    /// Who may ask for it.
    fn rule(self) -> Rule;
}

/// The table of one hypercall.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The hypercall.
    pub name: &'static str,
    /// Xen's public header that describes it.
    pub header: &'static str,
    /// Its operations.
    pub rows: &'static [Row],
    /// The error of any other number.
    pub others: Errno,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number.
    pub number: u32,
    /// The number's name in the public header, in upper case.
    pub name: &'static str,
    /// Who may ask for it.
    pub rule: Rule,
    /// Whether it is there.
    pub status: Status,
    /// What there is to add.
    pub note: &'static str,
}

/// Whether an operation is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is.
    Served,
    /// It answers with this error.
    Refused(Errno),
}

impl<Op> Asked<Op> {
    #[inline(always)]
    pub(super) const fn new(op: Result<Op, Errno>, rule: Rule) -> Self {
        Asked { op, rule }
    }
}

/// Declares the operations of a hypercall: an enum of those that are served, its decoder, and the rows.
///
/// A number that is served has a variant, so a dispatcher without an arm for it does not compile, and a handler of
/// something that is not in the table has nothing to be called by.
macro_rules! operations {
    (
        $(#[$doc:meta])*
        $Op:ident = $name:literal in $header:literal, others: $others_rule:ident $others:ident;
        served { $($Variant:ident = $number:ident, $rule:ident $(, $note:literal)?;)* }
        refused { $($refused:ident, $refused_rule:ident, $errno:ident, $why:literal;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named after the numbers of the public header")]
        pub enum $Op {
            $($Variant,)*
        }

        impl $Op {
            /// Who may ask for it.
            #[inline(always)]
            #[must_use]
            pub const fn who(self) -> $crate::access::Rule {
                match self {
                    $(Self::$Variant => $crate::access::Rule::$rule,)*
                }
            }

            /// The proof for an operation that everyone may ask for, without a look at the caller: for the paths that
            /// count instructions. To be called in a `const`, so that an operation of another rule does not compile.
            #[must_use]
            pub const fn open_to_all(self) -> $crate::access::Allowed<Self> {
                use $crate::access::{Allowed, Rule};
                assert!(matches!(self.who(), Rule::Anyone | Rule::Offered), "its rule lets not everyone in");
                Allowed { op: self }
            }
        }

        impl $crate::access::Operation for $Op {
            const FAMILY: $crate::access::Family = $crate::access::Family {
                name: $name,
                header: $header,
                rows: &[
                    $($crate::access::Row {
                        number: $number,
                        name: stringify!($number),
                        rule: $crate::access::Rule::$rule,
                        status: $crate::access::Status::Served,
                        note: concat!($($note)?),
                    },)*
                    $($crate::access::Row {
                        number: $refused,
                        name: stringify!($refused),
                        rule: $crate::access::Rule::$refused_rule,
                        status: $crate::access::Status::Refused(xen_abi::errno::Errno::$errno),
                        note: $why,
                    },)*
                ],
                others: xen_abi::errno::Errno::$others,
            };

            #[inline(always)]
            fn asked(number: u32) -> $crate::access::Asked<Self> {
                use xen_abi::errno::Errno;
                use $crate::access::{Asked, Rule};
                match number {
                    $($number => Asked::new(Ok(Self::$Variant), Rule::$rule),)*
                    $($refused => Asked::new(Err(Errno::$errno), Rule::$refused_rule),)*
                    _ => Asked::new(Err(Errno::$others), Rule::$others_rule),
                }
            }

            #[inline(always)]
            fn rule(self) -> $crate::access::Rule {
                self.who()
            }
        }
    };
}
