//! What kind of domain it is: `type`, and `builder`, its older name.

use alloc::format;
use alloc::string::ToString;

use super::domain::{Reader, wrong};
use super::error::{ConfigError, Place};
use super::syntax::Located;

/// The kind of domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainType {
    /// Paravirtualised.
    Pv,
    /// In a hardware container, without a device model.
    Pvh,
}

impl DomainType {
    /// libxl's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
        }
    }
}

/// A word, and the kind that it stands for; None for HVM.
type Word = (&'static str, Option<DomainType>);

/// The keys that say it, their words, and what to use.
const KEYS: [(&str, &[Word], &str); 2] = [
    ("type", &[("pv", Some(DomainType::Pv)), ("pvh", Some(DomainType::Pvh)), ("hvm", None)], "\"pv\" or \"pvh\""),
    ("builder", &[("generic", Some(DomainType::Pv)), ("hvm", None)], "\"generic\" (an older word for type=\"pv\")"),
];

impl Reader {
    /// The kind; a PV domain if nothing is said.
    pub(super) fn kind(&self) -> Result<DomainType, ConfigError> {
        let mut said: Option<(Option<DomainType>, &str, Place)> = None;
        for (key, words, expected) in KEYS {
            let Some(Located { value, place }) = self.text(key)? else { continue };
            let Some((_, kind)) = words.iter().find(|(word, _)| *word == value) else {
                return Err(wrong(&place, key, expected, &format!("\"{value}\"")));
            };
            if said.as_ref().is_some_and(|(before, ..)| before != kind) {
                let message = "Contradicting \"builder\" and \"type\" options specified.".to_string();
                return Err(ConfigError { place, message });
            }
            said = Some((*kind, key, place));
        }
        match said {
            None => Ok(DomainType::Pv),
            Some((Some(kind), ..)) => Ok(kind),
            Some((None, key, place)) => {
                let why = "needs a device model, and there is none: \"pv\" and \"pvh\" do not";
                Err(ConfigError { place, message: format!("{key} \"hvm\" {why}") })
            }
        }
    }
}
