//! An exception while another event is being delivered (SDM vol. 3A table 6-5; APM vol. 2 8.2.9).
//!
//! Besides being what processors do, this bounds how often a delivery can fail: after a guest's third fault in a row it is over,
//! and a guest whose handlers lie where no memory is does not leave its container for ever without executing anything.

/// What comes of the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// It is delivered in place of the first.
    Delivered,
    /// A double fault is delivered in place of both.
    DoubleFault,
    /// The processor shuts down.
    Shutdown,
}

const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;

/// Whether faults of this kind add up.
const fn is_contributory(vector: u8) -> bool {
    matches!(vector, 0 | 10..=13)
}

/// What an exception becomes while one with the vector `first` is being delivered. (While an interrupt is, it is delivered.)
#[must_use]
pub const fn second(first: u8, second: u8) -> Second {
    let faults = is_contributory(second) || second == PAGE_FAULT;
    match first {
        DOUBLE_FAULT if faults => Second::Shutdown,
        PAGE_FAULT if faults => Second::DoubleFault,
        first if is_contributory(first) && is_contributory(second) => Second::DoubleFault,
        _ => Second::Delivered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GP: u8 = 13;

    #[test]
    fn faults_add_up() {
        assert_eq!(second(GP, GP), Second::DoubleFault);
        assert_eq!(second(PAGE_FAULT, GP), Second::DoubleFault);
        assert_eq!(second(PAGE_FAULT, PAGE_FAULT), Second::DoubleFault);
        assert_eq!(second(GP, PAGE_FAULT), Second::Delivered);
        assert_eq!(second(DOUBLE_FAULT, GP), Second::Shutdown);
        assert_eq!(second(DOUBLE_FAULT, PAGE_FAULT), Second::Shutdown);
        assert_eq!(second(1, GP), Second::Delivered);
        assert_eq!(second(GP, 17), Second::Delivered);
    }

    /// Whichever faults a handler raises, there are few of them before the end.
    #[test]
    fn no_chain_of_faults_is_long() {
        for start in [0, 10, 11, 12, GP, PAGE_FAULT] {
            for next in [GP, PAGE_FAULT] {
                let (mut now, mut rounds) = (start, 0);
                loop {
                    rounds += 1;
                    match second(now, next) {
                        Second::Delivered => now = next,
                        Second::DoubleFault => now = DOUBLE_FAULT,
                        Second::Shutdown => break,
                    }
                    assert!(rounds < 4, "{start} {next}");
                }
            }
        }
    }
}
