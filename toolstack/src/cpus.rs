//! Sets of physical CPUs, as users write and read them (xl.cfg(5), "cpus").

use alloc::format;
use alloc::string::String;
use core::fmt;

/// 64 CPUs each.
const WORDS: usize = 8;

/// CPUs by number, up to 511.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSet(pub [u64; WORDS]);

impl CpuSet {
    /// How many CPUs a set can tell apart.
    pub const CAPACITY: u32 = 512;
    /// All of them: those that a machine has, and those that it has not.
    pub const ALL: Self = Self([u64::MAX; WORDS]);

    /// Whether a CPU is in it.
    #[must_use]
    pub fn has(&self, cpu: u32) -> bool {
        self.0.get(cpu as usize / 64).is_some_and(|word| word & (1 << (cpu % 64)) != 0)
    }

    /// How many CPUs are in it.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no CPU is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a CPU. One that is too high is left out.
    pub fn add(&mut self, cpu: u32) {
        if let Some(word) = self.0.get_mut(cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Takes a CPU out.
    pub fn remove(&mut self, cpu: u32) {
        if let Some(word) = self.0.get_mut(cpu as usize / 64) {
            *word &= !(1 << (cpu % 64));
        }
    }

    /// Reads `all`, `3`, `0-3`, `0-7,^4`, `nodes:0`, of a machine with so many CPUs.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str, nr_cpus: u32) -> Result<Self, String> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim) {
            let (part, add) = match part.strip_prefix('^') {
                Some(rest) => (rest, false),
                None => (part, true),
            };
            if part == "all" {
                set = if add { Self::ALL } else { Self::default() };
                continue;
            }
            // Machines with more than one node are not known of: the one has all CPUs.
            if let Some(nodes) = part.strip_prefix("nodes:").or_else(|| part.strip_prefix("node:")) {
                if !matches!(nodes, "0" | "0-0" | "all") {
                    return Err(format!("there is no node {nodes}, only 0"));
                }
                set = if add { Self::ALL } else { Self::default() };
                continue;
            }
            let number = |text: &str| {
                let number = text.trim().parse::<u32>().map_err(|_| format!("Invalid pcpu range: {part}."))?;
                if number < nr_cpus.min(Self::CAPACITY) {
                    Ok(number)
                } else {
                    Err(format!("there is no CPU {number}, only 0 to {}", nr_cpus.saturating_sub(1)))
                }
            };
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            for cpu in number(first)?..=number(last)? {
                if add {
                    set.add(cpu);
                } else {
                    set.remove(cpu);
                }
            }
        }
        Ok(set)
    }

    /// As xl shows it, for a machine with so many CPUs.
    #[must_use]
    pub const fn of(self, nr_cpus: u32) -> Shown {
        Shown { set: self, nr_cpus }
    }
}

/// A set to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    set: CpuSet,
    nr_cpus: u32,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut some = false;
        let mut cpu = 0;
        while cpu < self.nr_cpus {
            let first = cpu;
            while cpu < self.nr_cpus && self.set.has(cpu) {
                cpu += 1;
            }
            if (first, cpu) == (0, self.nr_cpus) {
                return f.write_str("all");
            }
            if cpu > first {
                f.write_str(if some { "," } else { "" })?;
                some = true;
                if cpu - first == 1 {
                    write!(f, "{first}")?;
                } else {
                    write!(f, "{first}-{}", cpu - 1)?;
                }
            }
            cpu += 1;
        }
        if some { Ok(()) } else { f.write_str("none") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn sets_are_read_and_shown() {
        for (text, shown) in [
            ("all", "all"),
            ("0-7", "all"),
            ("3", "3"),
            ("0-3,6", "0-3,6"),
            ("0-7,^4", "0-3,5-7"),
            ("all,^0", "1-7"),
            (" 1 , 2 - 3 ", "1-3"),
            ("1,^1", "none"),
            ("node:0", "all"),
            ("nodes:0,^3", "0-2,4-7"),
            ("2,^nodes:0", "none"),
        ] {
            assert_eq!(CpuSet::parse(text, 8).unwrap().of(8).to_string(), shown, "{text}");
        }
        assert_eq!(CpuSet::parse("8", 8).unwrap_err(), "there is no CPU 8, only 0 to 7");
        assert_eq!(CpuSet::parse("nodes:1-2", 8).unwrap_err(), "there is no node 1-2, only 0");
        for text in ["", "x", "1-", "-", "1;2"] {
            assert_eq!(CpuSet::parse(text, 8).unwrap_err(), format!("Invalid pcpu range: {text}."));
        }
    }
}
