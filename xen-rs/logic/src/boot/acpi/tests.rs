//! Tables as the specification draws them, and as no firmware would leave them.

use super::*;
use proptest::prelude::*;

/// Low memory of 1 MiB with tables in it.
#[derive(Clone)]
struct Machine(Vec<u8>);

impl Physical for &Machine {
    fn byte(self, at: u64) -> u8 {
        usize::try_from(at).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }
}

const ROOT: usize = 0xf_1230;
const XSDT: usize = 0x2000;
const RSDT: usize = 0x2800;
const MADT: usize = 0x3000;
const FADT: usize = 0x4000;
const DSDT: usize = 0x5000;
const MCFG: usize = 0x6000;
const HPET: usize = 0x7000;

/// An address or a length of four bytes.
fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_le_bytes()
}

impl Machine {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Makes an area add up by one of its bytes.
    fn sum(&mut self, at: usize, length: usize, checksum: usize) {
        self.0[at + checksum] = 0;
        let sum = self.0[at..at + length].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        self.0[at + checksum] = sum.wrapping_neg();
    }

    /// A table of a body.
    fn table(&mut self, at: usize, signature: &[u8; 4], body: &[u8]) {
        let length = 36 + body.len();
        self.put(at, signature);
        self.put(at + 4, &word(length));
        self.put(at + 36, body);
        self.sum(at, length, 9);
    }

    fn new() -> Self {
        let mut machine = Machine(alloc::vec![0; 1 << 20]);
        machine.put(ROOT, b"RSD PTR ");
        machine.put(ROOT + 15, &[2]);
        machine.put(ROOT + 16, &word(RSDT));
        machine.put(ROOT + 20, &36u32.to_le_bytes());
        machine.put(ROOT + 24, &(XSDT as u64).to_le_bytes());
        machine.sum(ROOT, 20, 8);
        machine.sum(ROOT, 36, 32);
        let all = [MADT, FADT, MCFG, HPET];
        machine.table(XSDT, b"XSDT", &all.map(|at| (at as u64).to_le_bytes()).concat());
        machine.table(RSDT, b"RSDT", &all.map(word).concat());
        let mut madt = Vec::from([0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        madt.extend([0, 8, 1, 4, 0, 0, 0, 0]);
        madt.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
        madt.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        madt.extend([2, 10, 0, 9, 9, 0, 0, 0, 0xf, 0]);
        machine.table(MADT, b"APIC", &madt);
        let mut fadt = [0u8; 244 - 36];
        let mut put = |offset: usize, bytes: &[u8]| fadt[offset - 36..offset - 36 + bytes.len()].copy_from_slice(bytes);
        put(40, &word(DSDT));
        put(64, &0x604u32.to_le_bytes());
        put(76, &0x608u32.to_le_bytes());
        put(91, &[4]);
        put(112, &(1u32 << 10).to_le_bytes());
        put(116, &[1, 8, 0, 0, 0xf9, 0x0c]);
        put(128, &[6]);
        machine.table(FADT, b"FACP", &fadt);
        machine.table(DSDT, b"DSDT", b"\x10\x08_S5_\x12\x06\x04\x0a\x05\x01\x00\x00");
        let region = [0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0];
        machine.table(MCFG, b"MCFG", &[&[0; 8][..], &region].concat());
        machine.table(HPET, b"HPET", &[1, 2, 3, 4, 0, 64, 0, 0, 0, 0, 0xd0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0]);
        machine
    }

    fn read(&self, root: Option<u64>) -> (Platform, Vec<Complaint>) {
        let mut complaints = Vec::new();
        let platform = read(root, self, |complaint| complaints.push(complaint));
        (platform, complaints)
    }
}

fn whole() -> Platform {
    Platform {
        apic_ids: [0, 0x100].into(),
        processor_ids: [0, 7].into(),
        local_apic: 0xfee0_0000,
        io_apics: [IoApic { phys: 0xfec0_0000, first_gsi: 0 }].into(),
        overrides: [Override { isa: 9, gsi: 9, level: true, low: true }].into(),
        config_regions: [ConfigRegion { phys: 0xb000_0000, segment: 0, buses: 0..=255 }].into(),
        pm_timer: Some((0x608, false)),
        hpet: Some(0xfed0_0000),
        power_off: Some(PowerOff { pm1a: 0x604, pm1b: None, types: [5, 1] }),
        reset: Some((0xcf9, 6)),
    }
}

#[test]
fn by_the_book() {
    let machine = Machine::new();
    assert_eq!(machine.read(None), (whole(), Vec::new()), "found where a BIOS puts it");
    assert_eq!(machine.read(Some(ROOT as u64)), (whole(), Vec::new()), "named by the loader");
    assert_eq!(machine.read(Some(0x10)), (whole(), Vec::new()), "a loader that is wrong");
}

#[test]
fn of_the_first_version() {
    let mut machine = Machine::new();
    machine.put(ROOT + 15, &[0]);
    machine.sum(ROOT, 20, 8);
    machine.put(XSDT, b"none");
    assert_eq!(machine.read(None), (whole(), Vec::new()));
}

#[test]
fn nothing() {
    let machine = Machine(alloc::vec![0; 4096]);
    assert_eq!(machine.read(None), (Platform::default(), [Complaint::NoRoot].into()));
}

#[test]
fn one_wrong_table_is_left_alone() {
    let mut machine = Machine::new();
    machine.put(HPET + 40, &[9]);
    machine.put(MCFG + 4, &[0xff; 4]);
    let expected = Platform { hpet: None, config_regions: Vec::new(), ..whole() };
    let complaints = [Complaint::Length(*b"MCFG", MCFG as u64), Complaint::Checksum(*b"HPET", HPET as u64)];
    assert_eq!(machine.read(None), (expected, complaints.into()));
}

#[test]
fn entries_that_do_not_fit() {
    for length in [0, 1, 200] {
        let mut machine = Machine::new();
        let mut madt = Vec::from([0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
        madt.extend([0, 8, 0, 3, 1, 0, 0, 0]);
        madt.extend([0, length, 0, 4, 1, 0, 0, 0]);
        machine.table(MADT, b"APIC", &madt);
        let (platform, complaints) = machine.read(None);
        assert_eq!(platform.apic_ids, [3]);
        assert_eq!(complaints, [Complaint::Entry(*b"APIC", 52)]);
    }
}

#[test]
fn addresses_that_cannot_be() {
    let mut machine = Machine::new();
    machine.table(MADT, b"APIC", &[1, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
    let (platform, complaints) = machine.read(None);
    assert_eq!(platform.local_apic, LOCAL_APIC);
    assert_eq!(complaints, [Complaint::Address(*b"APIC", 0xfee0_0001)]);
}

proptest! {
    /// Whatever is changed: it comes to an end, and what is found is little.
    #[test]
    fn anything(changes in prop::collection::vec((0x2000..0x7100usize, any::<u8>()), 0..20), mend in any::<bool>()) {
        let mut machine = Machine::new();
        for (at, byte) in changes {
            machine.0[at] = byte;
        }
        if mend {
            for at in [XSDT, RSDT, MADT, FADT, DSDT, MCFG, HPET] {
                let length = u32::from_le_bytes([0, 1, 2, 3].map(|i| machine.0[at + 4 + i])) as usize;
                if (36..0x1000).contains(&length) {
                    machine.sum(at, length, 9);
                }
            }
        }
        let (platform, complaints) = machine.read(None);
        prop_assert!(platform.apic_ids.len() <= MAX_PROCESSORS && platform.apic_ids.len() == platform.processor_ids.len());
        // A longer root table names up to 256 tables, and any of them may be wrong.
        prop_assert!(complaints.len() < 256 + 10);
    }
}
