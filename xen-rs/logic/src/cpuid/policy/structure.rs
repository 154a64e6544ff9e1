//! What a guest is not told of the host's structure.

use super::{CACHE, COMMON_1D, EXTENDED_INTEL, Policy, TOPOLOGY};
use crate::cpuid::{Leaf, Vendor, features};

impl Policy {
    /// Clears what describes the host's structure, power and performance counters, and what is reserved.
    pub(super) fn clear_structure(&mut self) {
        self.basic[1].a &= 0x0fff_0fff;
        self.basic[1].b &= 0x00ff_ffff;
        for leaf in [5, 6, 8, 0xa, 0xb, 0xc] {
            self.basic[leaf] = Leaf::ZERO;
        }
        self.topology = [Leaf::ZERO; TOPOLOGY];
        self.extended[1].d &= !COMMON_1D;
        let power = &mut self.extended[7];
        *power = Leaf { d: power.d, ..Leaf::ZERO };
        self.extended[8].d = 0;
        // Four-level paging, whatever the CPU has.
        let linear = if self.features().has(features::LM) { 48 } else { 32 };
        self.extended[8].a = self.extended[8].a & !0xff00 | linear << 8;
        self.extended[0xa] = Leaf::ZERO;

        match self.vendor {
            Vendor::Intel | Vendor::Other => self.clear_structure_intel(),
            Vendor::Amd | Vendor::Hygon => self.clear_structure_amd(),
        }
        if self.extended[1].d & 1 << 26 == 0 {
            self.extended[0x19] = Leaf::ZERO; // TLBs of 1 GiB pages
        }
        let mut valid = true;
        for leaf in &mut self.cache {
            valid &= (1..=3).contains(&(leaf.a & 0x1f));
            if valid {
                leaf.a &= 0xffff_c3ff;
                leaf.d &= 7;
            } else {
                *leaf = Leaf::ZERO;
            }
        }
    }

    const fn clear_structure_intel(&mut self) {
        if self.basic[0].a >= 2 {
            self.basic[2].a = self.basic[2].a & !0xff | 1;
        }
        self.basic[3] = Leaf::ZERO;
        self.basic[9] = Leaf::ZERO;
        let max = self.extended[0].a & 0xffff;
        let max = if max > EXTENDED_INTEL { EXTENDED_INTEL } else { max };
        self.extended[0] = Leaf { a: 0x8000_0000 | max, ..Leaf::ZERO };
        self.extended[1].a = 0;
        self.extended[1].b = 0;
        self.extended[5] = Leaf::ZERO;
        self.extended[6] = Leaf { c: self.extended[6].c, ..Leaf::ZERO };
        self.extended[8].a &= 0xffff;
        self.extended[8].c = 0;
    }

    fn clear_structure_amd(&mut self) {
        for leaf in [2, 3, 9] {
            self.basic[leaf] = Leaf::ZERO;
        }
        self.cache = [Leaf::ZERO; CACHE];
        let name = self.basic[0];
        self.extended[0] = Leaf { a: self.extended[0].a, ..name };
        self.extended[1].a = self.basic[1].a;
        self.extended[1].b &= 0xff00_ffff;
        self.extended[1].d |= self.basic[1].d & COMMON_1D;
        self.extended[8].a &= 0xffff;
        self.extended[8].c &= 0x0003_f0ff;
        self.extended[9] = Leaf::ZERO;
        for leaf in &mut self.extended[0xb..=0x18] {
            *leaf = Leaf::ZERO;
        }
        for leaf in &mut self.extended[0x1b..=0x20] {
            *leaf = Leaf::ZERO;
        }
        self.extended[0x21].b = 0;
        self.extended[0x21].d = 0;
    }
}
