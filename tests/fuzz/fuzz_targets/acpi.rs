//! ACPI tables, as anything: reading them comes to an end, and what is found is little.
//!
//! An input is a few small tables behind each other. Their places and checksums are made right, so that what is in them is
//! looked at; one byte says which of that is left out.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use logic::boot::acpi::{Physical, read};

const SIGNATURES: [[u8; 4]; 6] = [*b"APIC", *b"FACP", *b"MCFG", *b"HPET", *b"DSDT", *b"RSDT"];
const ROOT: usize = 0xe_0000;

/// Low memory.
#[derive(Clone, Copy)]
struct Memory<'a>(&'a [u8]);

impl Physical for Memory<'_> {
    fn byte(self, at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }
}

/// Makes an area add up by one of its bytes.
fn mend(memory: &mut [u8], at: usize, length: usize, checksum: usize) {
    let Some(area) = memory.get_mut(at..at + length) else { return };
    let sum = area.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_sub(area[checksum]);
    area[checksum] = sum.wrapping_neg();
}

fuzz_target!(|data: &[u8]| {
    let Some((leave, data)) = data.split_first() else { return };
    let mut memory = vec![0; ROOT + 64];
    let mut at = 0x1000;
    let (mut tables, mut dsdt) = (Vec::new(), 0);
    for part in data.split(|byte| *byte == 0xa5).take(8) {
        let Some((kind, body)) = part.split_first() else { continue };
        let signature = SIGNATURES[usize::from(*kind) % SIGNATURES.len()];
        let length = 36 + body.len();
        memory[at..at + 4].copy_from_slice(&signature);
        let said = if leave & 1 == 0 { length } else { usize::from(*kind) };
        memory[at + 4..at + 8].copy_from_slice(&(said as u32).to_le_bytes());
        memory[at + 36..at + length].copy_from_slice(body);
        if signature == *b"DSDT" {
            dsdt = at;
        } else if signature == *b"FACP" && length >= 44 && leave & 2 == 0 {
            memory[at + 40..at + 44].copy_from_slice(&(dsdt as u32).to_le_bytes());
        }
        mend(&mut memory, at, length, 9);
        tables.extend((at as u32).to_le_bytes());
        at += length.next_multiple_of(16);
    }
    memory[at..at + 4].copy_from_slice(b"RSDT");
    memory[at + 4..at + 8].copy_from_slice(&(36 + tables.len() as u32).to_le_bytes());
    memory[at + 36..at + 36 + tables.len()].copy_from_slice(&tables);
    mend(&mut memory, at, 36 + tables.len(), 9);
    memory[ROOT..ROOT + 8].copy_from_slice(b"RSD PTR ");
    memory[ROOT + 16..ROOT + 20].copy_from_slice(&(at as u32).to_le_bytes());
    mend(&mut memory, ROOT, 20, 8);
    let mut complaints = 0;
    let platform = read((leave & 4 != 0).then_some(at as u64), Memory(&memory), |_| complaints += 1);
    assert_eq!(platform.apic_ids.len(), platform.processor_ids.len());
    assert!(platform.apic_ids.len() <= 4096 && platform.io_apics.len() <= 256 && platform.overrides.len() <= 256);
    assert!(platform.config_regions.iter().all(|region| region.buses.start() <= region.buses.end()));
    assert_eq!(platform.local_apic & 0xfff, 0);
    assert!(complaints < 4096);
});
