//! Where a woken vCPU goes.

/// A set of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuMask(pub u64);

impl CpuMask {
    /// Every CPU.
    pub const ALL: CpuMask = CpuMask(u64::MAX);

    /// One CPU; none beyond 63.
    #[must_use]
    pub const fn one(cpu: u32) -> CpuMask {
        CpuMask(if cpu < u64::BITS { 1 << cpu } else { 0 })
    }

    /// Whether a CPU is in it.
    #[must_use]
    pub const fn has(self, cpu: u32) -> bool {
        self.0 & CpuMask::one(cpu).0 != 0
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: CpuMask) -> CpuMask {
        CpuMask(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: CpuMask) -> CpuMask {
        CpuMask(self.0 | other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: CpuMask) -> CpuMask {
        CpuMask(self.0 & !other.0)
    }

    /// Whether none is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest.
    #[must_use]
    pub const fn first(self) -> Option<u32> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros()) }
    }

    /// Its CPUs, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        // Bit by bit as they are set: a CPU wakes somebody by looking through such a set.
        let mut left = self.0;
        core::iter::from_fn(move || {
            let cpu = CpuMask(left).first()?;
            left &= left - 1;
            Some(cpu)
        })
    }
}

/// The CPU for a vCPU that ran on `last` and may run on `affinity`: `last` if that is idle, else an idle one, else the
/// one on which the fewest wait, `last` among equals. When `affinity` names no CPU that is online it is ignored.
#[must_use]
pub fn place(last: u32, affinity: CpuMask, online: CpuMask, idle: CpuMask, load: impl Fn(u32) -> usize) -> u32 {
    let allowed = match affinity.and(online) {
        CpuMask(0) => online,
        some => some,
    };
    let free = allowed.and(idle);
    if free.has(last) {
        return last;
    }
    if let Some(cpu) = free.first() {
        return cpu;
    }
    allowed.iter().min_by_key(|cpu| (load(*cpu), *cpu != last)).unwrap_or(last)
}
