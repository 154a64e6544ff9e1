//! The values of options: numbers, sizes, levels, ports.

use super::*;

pub(super) fn key(part: &str) -> &str {
    part.split('=').next().unwrap_or(part).trim_start_matches("no-")
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "yes" | "on" | "true" | "enable" => Some(true),
        "0" | "no" | "off" | "false" | "disable" => Some(false),
        _ => None,
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A size with an optional suffix; without one it counts KiB, as Xen reads it.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'b' | 'B') => (&text[..at], 0),
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        (at, 't' | 'T') => (&text[..at], 40),
        _ => (text, 10),
    };
    // A hexadecimal number may end in b: only decimal ones take that suffix.
    if shift == 0 && text.starts_with("0x") {
        return number(text)?.checked_mul(1 << 10);
    }
    number(digits)?.checked_mul(1 << shift)
}

pub(super) fn amount(text: &str) -> Option<Amount> {
    let (text, from_total) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut all = Amount { bytes: 0, percent: 0, from_total };
    for part in text.split('+') {
        if let Some(percent) = part.strip_suffix('%') {
            all.percent = percent.parse().ok().filter(|p| *p < 100)?;
        } else {
            all.bytes = all.bytes.checked_add(size(part)?)?;
        }
    }
    Some(all)
}

pub(super) fn dom0_memory(text: &str) -> Option<Dom0Memory> {
    let mut memory = Dom0Memory::default();
    for part in text.split(',') {
        if let Some(rest) = part.strip_prefix("min:") {
            memory.min = Some(amount(rest)?);
        } else if let Some(rest) = part.strip_prefix("max:") {
            memory.max = Some(amount(rest)?);
        } else {
            memory.size = Some(amount(part)?);
        }
    }
    Some(memory)
}

impl Amount {
    /// The amount in bytes on a host with `total` bytes.
    #[must_use]
    pub fn bytes_of(&self, total: u64) -> u64 {
        let share = total / 100 * u64::from(self.percent);
        let plain = self.bytes.saturating_add(share).min(total);
        if self.from_total { total - plain } else { plain }
    }
}

pub(super) fn vcpus(text: &str) -> Option<(u32, u32)> {
    let (min, max) = match text.split_once('-') {
        Some((min, "")) => (min.parse().ok()?, u32::MAX),
        Some(("", max)) => (1, max.parse().ok()?),
        Some((min, max)) => (min.parse().ok()?, max.parse().ok()?),
        None => {
            let n = text.parse().ok()?;
            (n, n)
        }
    };
    (min <= max && max > 0).then_some((min.max(1), max))
}

pub(super) fn level(text: &str) -> Option<Level> {
    Some(match text {
        "none" => Level::None,
        "error" => Level::Error,
        "warning" => Level::Warning,
        "info" => Level::Info,
        "debug" | "all" => Level::Debug,
        _ => return None,
    })
}

pub(super) fn log_level(text: &str) -> Option<LogLevel> {
    match text.split_once('/') {
        Some((always, limited)) => {
            let always = level(always)?;
            Some(LogLevel { always, limited: level(limited)?.max(always) })
        }
        None => level(text).map(|both| LogLevel { always: both, limited: both }),
    }
}

pub(super) fn serial(text: &str) -> Option<Serial> {
    let mut port = Serial::default();
    let mut parts = text.split(',');
    let rate = parts.next()?;
    // "115200/1843200" names the clock as well.
    let baud = rate.split('/').next()?;
    if !baud.is_empty() && baud != "auto" {
        port.baud = Some(baud.parse().ok().filter(|b| *b >= 50)?);
    }
    if let Some(format) = parts.next().filter(|f| !f.is_empty()) {
        let mut chars = format.chars();
        port.data_bits = u8::try_from(chars.next()?.to_digit(10)?).ok().filter(|n| (5..=8).contains(n))?;
        port.parity = chars.next().filter(|c| "noems".contains(*c))?;
        port.stop_bits = u8::try_from(chars.next()?.to_digit(10)?).ok().filter(|n| (1..=2).contains(n))?;
        if chars.next().is_some() {
            return None;
        }
    }
    if let Some(base) = parts.next().filter(|p| !p.is_empty()) {
        if base == "pci" || base == "amt" {
            return None;
        }
        port.port = Some(number(base)?.try_into().ok()?);
    }
    if let Some(irq) = parts.next().filter(|p| !p.is_empty()) {
        port.irq = Some(number(irq)?.try_into().ok()?);
    }
    Some(port)
}
