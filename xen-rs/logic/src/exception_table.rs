//! Which instructions may fault, and where it goes on then.
//!
//! The assembler writes an entry as two distances, each from its own field, because nobody knows yet where the table will
//! lie. [`settle`] makes them distances from the table, by which they can be sorted; [`find`] is what a fault costs.

/// An instruction that may fault, and where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fixup {
    instruction: i32,
    target: i32,
}

/// Makes a table out of what the assembler wrote. Once.
pub fn settle(table: &mut [Fixup]) {
    let fields = table.iter_mut().flat_map(|entry| [&mut entry.instruction, &mut entry.target]);
    for (field, place) in fields.zip((0..).step_by(size_of::<i32>())) {
        *field = field.wrapping_add(place);
    }
    table.sort_unstable_by_key(|entry| entry.instruction);
}

/// Where to go on after a fault at `instruction`, if one was to be expected there. `start`: the table's address.
#[must_use]
pub fn find(table: &[Fixup], start: u64, instruction: u64) -> Option<u64> {
    let distance = i32::try_from(instruction.wrapping_sub(start).cast_signed()).ok()?;
    let at = table.binary_search_by_key(&distance, |entry| entry.instruction).ok()?;
    table.get(at).map(|entry| start.wrapping_add_signed(entry.target.into()))
}

#[cfg(all(test, not(loom)))]
mod unit {
    use super::*;
    use std::vec::Vec;

    const START: u64 = 0xffff_82d0_4010_0000;

    /// As the assembler writes it.
    fn written(places: &[(u64, u64)]) -> Vec<Fixup> {
        let distance = |to: u64, from: u64| i32::try_from(to.wrapping_sub(from).cast_signed()).unwrap();
        let entry = |(at, &(instruction, target)): (u64, &(u64, u64))| Fixup {
            instruction: distance(instruction, START + at * 8),
            target: distance(target, START + at * 8 + 4),
        };
        (0..).zip(places).map(entry).collect()
    }

    #[test]
    fn each_instruction_has_its_target() {
        // In the text before the table, out of order, and one beyond it.
        let places = [
            (START - 0x8000, START - 0x100),
            (START - 0x10_0000, START - 0xff),
            (START + 0x2000, START - 0x8000),
            (START - 0x7fff, START - 1),
        ];
        let mut table = written(&places);
        settle(&mut table);
        for (instruction, target) in places {
            assert_eq!(find(&table, START, instruction), Some(target));
        }
        for other in [START - 0x8001, START - 0x7ffe, START, 0, u64::MAX, START.wrapping_sub(1 << 31), 1 << 63] {
            assert_eq!(find(&table, START, other), None, "{other:#x}");
        }
        assert_eq!(find(&[], START, START), None);
    }
}
