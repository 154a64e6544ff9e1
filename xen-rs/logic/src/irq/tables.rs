//! Where the messages of devices are programmed: the MSI-X tables, and the pages of pending bits beside them.
//!
//! While the hypervisor programs a table its domain may look at it but not write there: what is written is where interrupts
//! go. As in Xen an entry in use, or `PHYSDEVOP_prepare_msix`, begins that, for all that lies on the same pages.

use core::ops::Range;

use alloc::vec::Vec;
use xen_abi::errno::Errno;

/// The frames of one device's table, and those of its pending bits.
pub type Frames = [Range<u64>; 2];

/// A device with a table.
#[derive(Debug)]
struct Known {
    device: u32,
    uses: u32,
    frames: Frames,
}

/// The tables in use.
#[derive(Debug, Default)]
pub struct Tables(Vec<Known>);

impl Tables {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One more use of a device's table, which lies there: where it was at the first one counts. `ENOMEM`.
    pub fn begin(&mut self, device: u32, frames: Frames) -> Result<(), Errno> {
        if let Some(known) = self.0.iter_mut().find(|known| known.device == device) {
            known.uses = known.uses.checked_add(1).ok_or(Errno::ENOMEM)?;
            return Ok(());
        }
        self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.0.push(Known { device, uses: 1, frames });
        Ok(())
    }

    /// One use less.
    pub fn end(&mut self, device: u32) {
        let Some(at) = self.0.iter().position(|known| known.device == device) else { return };
        if let Some(known) = self.0.get_mut(at) {
            known.uses -= 1;
            if known.uses == 0 {
                self.0.swap_remove(at);
            }
        }
    }

    /// How many uses a device's table has.
    #[must_use]
    pub fn uses(&self, device: u32) -> u32 {
        self.0.iter().find(|known| known.device == device).map_or(0, |known| known.uses)
    }

    /// Whether something of a table in use lies in a frame.
    #[must_use]
    pub fn has(&self, frame: u64) -> bool {
        self.0.iter().any(|known| known.frames.iter().any(|range| range.contains(&frame)))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_kept_as_long_as_it_has_a_use() {
        let mut tables = Tables::new();
        tables.begin(8, [0x100..0x102, 0x108..0x109]).unwrap();
        tables.begin(8, [0x200..0x201, 0x201..0x202]).unwrap();
        assert!([0x100, 0x101, 0x108].iter().all(|frame| tables.has(*frame)));
        assert!(
            [0xff, 0x102, 0x107, 0x109, 0x200].iter().all(|frame| !tables.has(*frame)),
            "it moved, or is another's"
        );
        tables.end(8);
        assert!(tables.has(0x100) && tables.uses(8) == 1);
        tables.end(8);
        assert!(!tables.has(0x100) && tables.is_empty() && tables.uses(8) == 0);
        tables.end(8);
    }

    #[test]
    fn a_page_with_two_tables_is_kept_for_either() {
        let mut tables = Tables::new();
        tables.begin(8, [0x100..0x101, 0x100..0x101]).unwrap();
        tables.begin(16, [0x100..0x101, 0x101..0x102]).unwrap();
        tables.end(8);
        assert!(tables.has(0x100) && tables.has(0x101));
        tables.end(16);
        assert!(!tables.has(0x100));
    }
}
