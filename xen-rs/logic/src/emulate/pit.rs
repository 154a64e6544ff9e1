//! The second channel of the programmable interval timer and its gate, which kernels calibrate clocks by (Intel 8254
//! data sheet; port 0x61 of the PC/AT). The control domain gets one of its own, computed from the time.

/// Ticks per nanosecond as a fraction of 2^64: the input has 1,193,182 Hz.
const TICKS_PER_NANO: u128 = (1_193_182 << 64) / 1_000_000_000;
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const REFRESH: u8 = 1 << 4;
const OUTPUT: u8 = 1 << 5;
/// The refresh bit changes about every 15 microseconds.
const REFRESH_SHIFT: u32 = 14;

/// Which byte of the counter comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    Low,
    High,
    #[default]
    LowThenHigh,
    /// The second half of [`Access::LowThenHigh`].
    ThenHigh,
}

/// Channel 2 of the timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pit {
    control: u8,
    mode: u8,
    read: Access,
    write: Access,
    low: u8,
    reload: u16,
    started: u64,
    latched: Option<u16>,
}

impl Pit {
    /// As after power-on.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            control: 0,
            mode: 0,
            read: Access::LowThenHigh,
            write: Access::LowThenHigh,
            low: 0,
            reload: 0,
            started: 0,
            latched: None,
        }
    }

    fn period(&self) -> u64 {
        if self.reload == 0 { 0x1_0000 } else { self.reload.into() }
    }

    fn ticks(&self, now: u64) -> u64 {
        if self.control & GATE == 0 {
            return 0;
        }
        // A division would cost more than what the guest measures.
        let nanos = u128::from(now.saturating_sub(self.started));
        u64::try_from((nanos * TICKS_PER_NANO) >> 64).unwrap_or(u64::MAX)
    }

    fn count(&self, now: u64) -> u16 {
        let ticks = self.ticks(now);
        let left = match self.mode {
            // One shot: it runs through zero and wraps.
            0 | 1 | 4 | 5 => self.period().wrapping_sub(ticks),
            3 => self.period() - (2 * ticks) % self.period(),
            _ => self.period() - ticks % self.period(),
        };
        #[allow(clippy::cast_possible_truncation, reason = "the counter has 16 bits")]
        {
            left as u16
        }
    }

    fn output(&self, now: u64) -> bool {
        let ticks = self.ticks(now);
        match self.mode {
            0 | 1 => ticks >= self.period(),
            3 => ticks % self.period() < self.period().div_ceil(2),
            _ => ticks % self.period() != self.period() - 1,
        }
    }

    /// Reads port 0x42, 0x43 or 0x61 at a time in nanoseconds.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        match port {
            0x42 => self.read_counter(now),
            0x61 => {
                let refresh = if now >> REFRESH_SHIFT & 1 != 0 { REFRESH } else { 0 };
                let output = if self.output(now) { OUTPUT } else { 0 };
                self.control & (GATE | SPEAKER) | refresh | output
            }
            _ => 0xff, // the control word cannot be read
        }
    }

    fn read_counter(&mut self, now: u64) -> u8 {
        let [low, high] = self.latched.unwrap_or_else(|| self.count(now)).to_le_bytes();
        let (byte, next) = match self.read {
            Access::Low => (low, Access::Low),
            Access::High => (high, Access::High),
            Access::LowThenHigh => (low, Access::ThenHigh),
            Access::ThenHigh => (high, Access::LowThenHigh),
        };
        if next != Access::ThenHigh {
            self.latched = None;
        }
        self.read = next;
        byte
    }

    /// Writes port 0x42, 0x43 or 0x61.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        match port {
            0x42 => self.write_counter(value, now),
            0x43 => self.command(value, now),
            0x61 => {
                if value & GATE != 0 && self.control & GATE == 0 {
                    self.started = now;
                }
                self.control = value & (GATE | SPEAKER);
            }
            _ => {}
        }
    }

    fn command(&mut self, value: u8, now: u64) {
        const CHANNEL_2: u8 = 2;
        if value >> 6 != CHANNEL_2 {
            return;
        }
        let access = match value >> 4 & 3 {
            0 => {
                self.latched = self.latched.or(Some(self.count(now)));
                return;
            }
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        (self.read, self.write, self.latched) = (access, access, None);
        // Modes 6 and 7 are 2 and 3.
        self.mode = match value >> 1 & 7 {
            mode @ 6.. => mode - 4,
            mode => mode,
        };
    }

    fn write_counter(&mut self, value: u8, now: u64) {
        let reload = match self.write {
            Access::Low => [value, 0],
            Access::High => [0, value],
            Access::LowThenHigh => {
                self.low = value;
                self.write = Access::ThenHigh;
                return;
            }
            Access::ThenHigh => {
                self.write = Access::LowThenHigh;
                [self.low, value]
            }
        };
        self.reload = u16::from_le_bytes(reload);
        self.started = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// What Linux does to calibrate the TSC quickly: mode 0, all ones, watch the high byte fall.
    #[test]
    fn the_high_byte_falls() {
        let mut pit = Pit::new();
        pit.write(0x61, 1, 0);
        pit.write(0x43, 0xb0, 0);
        pit.write(0x42, 0xff, 0);
        pit.write(0x42, 0xff, 0);
        let mut high = |now| {
            let _low = pit.read(0x42, now);
            pit.read(0x42, now)
        };
        assert_eq!(high(1000), 0xff);
        let step = SECOND * 256 / 1_193_182;
        assert_eq!(high(step + 2000), 0xfe);
        assert_eq!(high(10 * step + 2000), 0xf5);
    }

    /// And slowly: wait until the output rises.
    #[test]
    fn the_output_rises_at_the_end() {
        let mut pit = Pit::new();
        pit.write(0x61, 1, 0);
        pit.write(0x43, 0xb0, 0);
        pit.write(0x42, 0x00, 0);
        pit.write(0x42, 0x10, 0);
        let end = SECOND * 0x1000 / 1_193_182;
        assert_eq!(pit.read(0x61, end - 2000) & OUTPUT, 0);
        assert_eq!(pit.read(0x61, end + 2000) & OUTPUT, OUTPUT);
        assert_eq!(pit.read(0x61, 0) & 3, 1);
    }

    #[test]
    fn a_closed_gate_stops_it() {
        let mut pit = Pit::new();
        pit.write(0x43, 0xb4, 0);
        pit.write(0x42, 0x34, 0);
        pit.write(0x42, 0x12, 0);
        pit.write(0x43, 0x80, SECOND);
        assert_eq!([pit.read(0x42, SECOND), pit.read(0x42, SECOND)], [0x34, 0x12]);
    }
}
