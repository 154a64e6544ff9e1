//! The real-time clock of the PC (MC146818 data sheet): read once, at the start.
//!
//! Unsafe: I/O instructions.

use super::port::{inb, outb};

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
/// Status A: the registers are about to change.
const UPDATING: u8 = 1 << 7;
/// Status B: plain numbers instead of BCD.
const BINARY: u8 = 1 << 2;
/// Status B: 24 hours.
const FULL_DAY: u8 = 1 << 1;
/// Hours: afternoon, where a day has twice 12 hours.
const AFTERNOON: u8 = 1 << 7;

fn register(number: u8) -> u8 {
    // SAFETY: index and data port of the clock. Bit 7 of the index keeps NMI enabled when clear.
    unsafe {
        outb(0x70, number);
        inb(0x71)
    }
}

fn snapshot() -> [u8; 6] {
    // A missing clock reads all ones: do not wait for it for ever.
    for _ in 0..100_000 {
        if register(STATUS_A) & UPDATING == 0 {
            break;
        }
    }
    [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(register)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, years from 1970 on.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March put the leap day at the end.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = y / 4 - y / 100 + y / 400;
    // 719,468: days from the first of March of year 0 to 1970-01-01.
    y * 365 + leaps + (153 * m + 2) / 5 + day - 1 - 719_468
}

/// Seconds since 1970 by the clock, taken as UTC and as of this century.
#[must_use]
pub fn read() -> u64 {
    let mut fields = snapshot();
    // Twice the same: no change in between.
    for _ in 0..10 {
        let again = snapshot();
        if again == fields {
            break;
        }
        fields = again;
    }
    let mode = register(STATUS_B);
    let afternoon = mode & FULL_DAY == 0 && fields[2] & AFTERNOON != 0;
    if mode & FULL_DAY == 0 {
        fields[2] &= !AFTERNOON;
    }
    let [second, minute, mut hour, day, month, year] =
        fields.map(|field| if mode & BINARY != 0 { field } else { (field >> 4) * 10 + (field & 0xf) }).map(u64::from);
    if mode & FULL_DAY == 0 {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let (month, day) = (month.clamp(1, 12), day.clamp(1, 31));
    ((days(2000 + year, month, day) * 24 + hour) * 60 + minute) * 60 + second
}

#[cfg(test)]
mod tests {
    use super::days;

    #[test]
    fn known_days() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 2, 29), 11_016);
        assert_eq!(days(2000, 3, 1), 11_017);
        assert_eq!(days(2026, 11, 20), 20_777);
    }
}
