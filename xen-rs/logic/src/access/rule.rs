//! The rules an operation can have. Which operation has which stands beside its decoder, in one `match`.

/// Who may ask for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Any domain.
    Anyone,
    /// The domain it acts on, and the control domain.
    TargetOrControl,
    /// The control domain alone.
    Control,
}
