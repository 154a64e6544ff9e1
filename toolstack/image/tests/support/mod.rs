//! Makes small kernels to order.
#![allow(dead_code, reason = "each test file uses its part")]

pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
pub const INIT_P2M: u64 = 0x80_0000_0000;

pub fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(4u32.to_le_bytes());
    out.extend(u32::try_from(desc.len()).unwrap().to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend(b"Xen\0");
    out.extend(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// The notes of a Linux kernel, without those of `skip`.
pub fn linux_notes(skip: &[u32]) -> Vec<u8> {
    let all: &[(u32, Vec<u8>)] = &[
        (6, b"linux\0".to_vec()),
        (7, b"2.6\0".to_vec()),
        (5, b"xen-3.0\0".to_vec()),
        (3, VIRT_BASE.to_le_bytes().to_vec()),
        (15, INIT_P2M.to_le_bytes().to_vec()),
        (1, (VIRT_BASE + 0x10_0000).to_le_bytes().to_vec()),
        (10, b"!writable_page_tables|pae_pgdir_above_4gb\0".to_vec()),
        (17, 0x8801u32.to_le_bytes().to_vec()),
        (9, b"yes\0".to_vec()),
        (8, b"generic\0".to_vec()),
        (13, [1u64.to_le_bytes(), 1u64.to_le_bytes()].concat()),
        (16, 1u64.to_le_bytes().to_vec()),
        (12, 0xffff_8000_0000_0000u64.to_le_bytes().to_vec()),
        (4, 0u64.to_le_bytes().to_vec()),
        (18, 0x10_0040u32.to_le_bytes().to_vec()),
    ];
    all.iter().filter(|(kind, _)| !skip.contains(kind)).flat_map(|(kind, desc)| note(*kind, desc)).collect()
}

pub struct Load {
    pub paddr: u64,
    pub data: Vec<u8>,
    pub memsz: u64,
}

/// An ELF64 with these segments and one PT_NOTE.
pub fn elf(loads: &[Load], notes: &[u8]) -> Vec<u8> {
    let phnum = loads.len() + 1;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend(2u16.to_le_bytes());
    out.extend(62u16.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(0x10_0000u64.to_le_bytes());
    out.extend(64u64.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    for word in [64u16, 56, u16::try_from(phnum).unwrap(), 64, 0, 0] {
        out.extend(word.to_le_bytes());
    }
    segments(out, 56 * phnum, loads, notes, |kind, words| {
        [kind, 7].map(u32::to_le_bytes).concat().into_iter().chain(words.map(u64::to_le_bytes).concat()).collect()
    })
}

/// The same as an ELF32, for a machine.
pub fn elf_32(loads: &[Load], notes: &[u8], machine: u16) -> Vec<u8> {
    let phnum = loads.len() + 1;
    let mut out = b"\x7fELF\x01\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([2u16, machine].map(u16::to_le_bytes).concat());
    out.extend([1u32, 0x10_0000, 52, 0, 0].map(u32::to_le_bytes).concat());
    out.extend([52u16, 32, u16::try_from(phnum).unwrap(), 40, 0, 0].map(u16::to_le_bytes).concat());
    segments(out, 32 * phnum, loads, notes, |kind, words| {
        let [offset, vaddr, paddr, filesz, memsz, align] = words.map(|word| u32::try_from(word).unwrap());
        [kind, offset, vaddr, paddr, filesz, memsz, 7, align].map(u32::to_le_bytes).concat()
    })
}

/// Behind an ELF header: the program headers, which `header` makes of their type and of p_offset, p_vaddr, p_paddr,
/// p_filesz, p_memsz and p_align, and what they speak of.
fn segments(
    mut out: Vec<u8>,
    headers: usize,
    loads: &[Load],
    notes: &[u8],
    header: impl Fn(u32, [u64; 6]) -> Vec<u8>,
) -> Vec<u8> {
    let mut offset = out.len() + headers;
    // p_vaddr is nonsense on purpose: loaders go by p_paddr.
    let mut add = |kind, paddr, filesz: usize, memsz| {
        out.extend(header(kind, [offset as u64, 0, paddr, filesz as u64, memsz, 4]));
        offset += filesz;
    };
    for load in loads {
        add(1, load.paddr, load.data.len(), load.memsz);
    }
    add(4, 0, notes.len(), notes.len() as u64);
    for load in loads {
        out.extend(&load.data);
    }
    out.extend(notes);
    out
}

/// A kernel of `bytes` at 1 MiB.
pub fn small_kernel(bytes: u64, skip: &[u32]) -> Vec<u8> {
    let data = (0..4096u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
    elf(&[Load { paddr: 0x10_0000, data, memsz: bytes }], &linux_notes(skip))
}

/// A bzImage around a payload (which ends with its unpacked length).
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1024];
    out[0x1f1] = 1;
    out[0x1fe] = 0x55;
    out[0x1ff] = 0xaa;
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206] = 15;
    out[0x207] = 2;
    out[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    out[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    out.extend([0xcc; 16]);
    out.extend(payload);
    out
}
