//! `tsc_mode`.

use alloc::format;
use alloc::string::ToString;

use super::domain::Reader;
use super::error::ConfigError;
use super::syntax::{Located, Value};

/// What a guest reads by RDTSC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TscMode {
    /// Emulated where needed.
    #[default]
    Default,
    /// Always emulated.
    AlwaysEmulate,
    /// Never.
    Native,
}

/// A mode that Xen 4.17 has no more, and its number.
const REMOVED: (&str, u64) = ("native_paravirt", 3);

impl TscMode {
    const NAMES: [(&str, Self); 3] =
        [("default", Self::Default), ("always_emulate", Self::AlwaysEmulate), ("native", Self::Native)];

    /// The hypervisor's number for it, which is xl.cfg's old one as well.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Default => 0,
            Self::AlwaysEmulate => 1,
            Self::Native => 2,
        }
    }

    /// By name; by number with a warning.
    pub(super) fn read(from: &mut Reader) -> Result<Self, ConfigError> {
        const KEY: &str = "tsc_mode";
        let Some(Located { value, place }) = from.get(KEY).cloned() else { return Ok(Self::Default) };
        let number = match &value {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.trim().parse().ok(),
            Value::List(_) => None,
        };
        let removed = match (&value, number) {
            (_, Some(number)) => number == REMOVED.1,
            (Value::Text(name), None) => name == REMOVED.0,
            _ => false,
        };
        if removed {
            let message = format!("{KEY}=\"{}\" was removed from Xen: \"native\" is what is left of it", REMOVED.0);
            return Err(ConfigError { place, message });
        }
        let Some(number) = number else { return from.word(KEY, &Self::NAMES, Self::Default) };
        match Self::NAMES.iter().find(|(_, mode)| u64::from(mode.number()) == number) {
            Some((name, mode)) => {
                let message = format!("{KEY} as a number is deprecated: {KEY}=\"{name}\"");
                from.warnings.push(ConfigError { place, message });
                Ok(*mode)
            }
            None => Err(super::domain::wrong(&place, KEY, "0 to 2", &number.to_string())),
        }
    }
}
