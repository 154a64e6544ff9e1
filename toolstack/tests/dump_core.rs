//! `dump-core`: the file is one that readers of Xen's format and of ELF understand.

mod support;

use elf::ElfBytes;
use elf::endian::LittleEndian;
use support::*;
use toolstack::cmd;

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

#[test]
fn a_core_holds_all_pages_and_says_which_is_which() {
    let mut machine = Machine::with_guest();
    assert_eq!(cmd::run(&mut machine, &["create", "-pq", "/files/debian.cfg"]), 0, "{}", machine.err);
    assert_eq!(cmd::run(&mut machine, &["dump-core", "debian", "/tmp/core"]), 0, "{}", machine.err);
    let (name, file) = machine.saved.take().unwrap();
    assert_eq!(name, "/tmp/core");
    let core = ElfBytes::<LittleEndian>::minimal_parse(&file).unwrap();
    assert_eq!((core.ehdr.e_type, core.ehdr.e_machine, core.ehdr.e_phnum), (4, 62, 0));
    let section = |name: &str| {
        let header = core.section_header_by_name(name).unwrap().unwrap_or_else(|| panic!("{name}"));
        core.section_data(&header).unwrap().0.to_vec()
    };
    let (pages, p2m) = (section(".xen_pages"), words(&section(".xen_p2m")));
    let owned = machine.frames.values().filter(|frame| frame.owner.0 == 1).count();
    assert_eq!((pages.len() / 4096, p2m.len() / 2), (owned, owned));
    for (page, entry) in pages.chunks(4096).zip(p2m.chunks(2)) {
        assert_eq!(entry[0], entry[1] ^ 0x5_0000);
        assert_eq!(page, machine.frame(xen_abi::ids::Mfn(entry[1])));
    }
    assert!(p2m.chunks(2).map(|entry| entry[0]).is_sorted());
    let context = machine.domains[&1].context.clone().unwrap();
    assert_eq!(section(".xen_prstatus"), zerocopy::IntoBytes::as_bytes(&*context));
    assert_eq!(section(".xen_shared_info").len(), 4096);
    let header = core.section_header_by_name(".note.Xen").unwrap().unwrap();
    let notes: Vec<_> = core.section_data_as_notes(&header).unwrap().collect();
    let kinds: Vec<u64> = notes
        .iter()
        .map(|note| match note {
            elf::note::Note::Unknown(note) => {
                assert_eq!(note.name, b"Xen\0");
                note.n_type
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [0x200_0000, 0x200_0001, 0x200_0002, 0x200_0003]);
    let elf::note::Note::Unknown(header) = &notes[1] else { panic!("the header") };
    assert_eq!(words(header.desc), [0xf00f_ebed, 1, owned as u64, 4096]);
    let elf::note::Note::Unknown(version) = &notes[2] else { panic!("the version") };
    assert_eq!(version.desc.len(), 1280);
    // It goes on where it was.
    assert_eq!(machine.domains[&1].pauses, 1);
}

/// A PVH domain's pages are numbered by itself, with large holes between them.
#[test]
fn a_core_of_a_pvh_domain_holds_all_pages_by_its_own_numbers() {
    let mut machine = Machine::with_guest();
    assert_eq!(machine.run("create -pq /files/debian.cfg type='pvh'"), 0, "{}", machine.err);
    let domain = machine.domains.get_mut(&1).unwrap();
    domain.context = Some(Box::default());
    // Where no page is the guest has put something of another domain's.
    machine.frames.insert(0x3_0000, Frame { owner: xen_abi::ids::DomId(7), bytes: None });
    assert_eq!(machine.run("dump-core debian /tmp/core"), 0, "{}", machine.err);
    let owned: Vec<u64> = machine.frames.iter().filter(|(_, frame)| frame.owner.0 == 1).map(|(gfn, _)| *gfn).collect();
    assert!(owned.contains(&0xfefff), "the console's ring");
    assert_eq!(machine.out, format!("/tmp/core: {} pages of domain 1\n", owned.len()));
    let (_, file) = machine.saved.take().unwrap();
    let core = ElfBytes::<LittleEndian>::minimal_parse(&file).unwrap();
    let section = |name: &str| {
        let header = core.section_header_by_name(name).unwrap().unwrap_or_else(|| panic!("{name}"));
        (core.section_data(&header).unwrap().0.to_vec(), header.sh_entsize)
    };
    assert!(core.section_header_by_name(".xen_p2m").unwrap().is_none());
    let ((pages, _), (numbers, entry)) = (section(".xen_pages"), section(".xen_pfn"));
    assert_eq!((words(&numbers), entry), (owned.clone(), 8));
    for (page, gfn) in pages.chunks(4096).zip(&owned) {
        assert_eq!(page, machine.frame(xen_abi::ids::Mfn(*gfn)), "{gfn:#x}");
    }
    assert_eq!(section(".xen_prstatus").0.len(), size_of::<xen_abi::arch_x86::VcpuGuestContext>());
    let header = core.section_header_by_name(".note.Xen").unwrap().unwrap();
    let notes: Vec<_> = core.section_data_as_notes(&header).unwrap().collect();
    let elf::note::Note::Unknown(header) = &notes[1] else { panic!("the header") };
    assert_eq!(words(header.desc), [0xf00f_ebee, 1, owned.len() as u64, 4096]);
    // A page at the end of all numbers does not keep the search going.
    machine.frames.insert(u64::MAX - 1, Frame { owner: xen_abi::ids::DomId(1), bytes: None });
    assert_eq!(machine.run("dump-core debian /tmp/core"), 0, "{}", machine.err);
    assert_eq!(machine.out, format!("/tmp/core: {} pages of domain 1\n", owned.len()));
}

#[test]
fn a_frame_that_cannot_be_mapped_is_a_hole() {
    let mut machine = Machine::with_guest();
    assert_eq!(cmd::run(&mut machine, &["create", "-pq", "/files/debian.cfg"]), 0, "{}", machine.err);
    let owned: Vec<u64> = machine.frames.iter().filter(|(_, frame)| frame.owner.0 == 1).map(|(mfn, _)| *mfn).collect();
    let broken = [owned[3], owned[200]];
    machine.broken = broken.iter().copied().map(xen_abi::ids::Mfn).collect();
    assert_eq!(cmd::run(&mut machine, &["dump-core", "debian", "/tmp/core"]), 0, "{}", machine.err);
    assert!(machine.out.contains(&format!("{} pages", owned.len() - 2)), "{}", machine.out);
    let (_, file) = machine.saved.take().unwrap();
    let core = ElfBytes::<LittleEndian>::minimal_parse(&file).unwrap();
    let section = |name: &str| {
        let header = core.section_header_by_name(name).unwrap().unwrap();
        core.section_data(&header).unwrap().0.to_vec()
    };
    let (pages, p2m) = (section(".xen_pages"), words(&section(".xen_p2m")));
    assert_eq!((pages.len() / 4096, p2m.len() / 2), (owned.len(), owned.len()), "the sections are as long as before");
    let (there, holes) = p2m.split_at(p2m.len() - 4);
    assert_eq!(holes, [u64::MAX; 4]);
    assert!(pages[pages.len() - 2 * 4096..].iter().all(|byte| *byte == 0));
    for (page, entry) in pages.chunks(4096).zip(there.chunks(2)) {
        assert!(!broken.contains(&entry[1]));
        assert_eq!(page, machine.frame(xen_abi::ids::Mfn(entry[1])));
    }
}

#[test]
fn what_cannot_be_dumped_is_said() {
    let mut machine = Machine::with_guest();
    assert_eq!(cmd::run(&mut machine, &["dump-core", "0", "/tmp/core"]), 1);
    assert_eq!(cmd::run(&mut machine, &["dump-core", "7", "/tmp/core"]), 1);
    assert!(machine.err.contains("no such domain"), "{}", machine.err);
    assert!(machine.saved.is_none());
}
