//! The rules an operation can have. Which operation has which stands in its row of the table.

/// Who may ask for an operation, and on whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Any domain, on itself.
    Anyone,
    /// Any domain, on itself and on what another domain has offered it: a port, a grant. The offer is the check.
    Offered,
    /// Any domain on itself, the control domain on every one. Decided when the domain is found.
    TargetOrControl,
    /// The control domain, on another. Decided when the domain is found.
    ControlOfOther,
    /// The control domain alone.
    Control,
}

impl Rule {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Rule::Anyone => "any domain, on itself",
            Rule::Offered => "any domain, on itself and what it was offered",
            Rule::TargetOrControl => "any domain on itself, the control domain on any",
            Rule::ControlOfOther => "the control domain, on another",
            Rule::Control => "the control domain",
        }
    }
}
