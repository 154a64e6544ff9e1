//! The Xen notes of an ELF kernel (`elfnote.h`): what the kernel tells whoever builds its domain.

use xen_abi::elfnote as n;

use crate::error::ImageError;

/// What the notes of one kernel said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes<'a> {
    /// Any note of owner "Xen" was there.
    pub found: bool,
    /// ENTRY: virtual address of the PV entry.
    pub entry: Option<u64>,
    /// HYPERCALL_PAGE: virtual address of the page to fill with hypercall stubs.
    pub hypercall_page: Option<u64>,
    /// VIRT_BASE: virtual address of pfn 0.
    pub virt_base: Option<u64>,
    /// PADDR_OFFSET: what to subtract from the ELF's physical addresses.
    pub paddr_offset: Option<u64>,
    /// HV_START_LOW: lowest address the hypervisor may occupy.
    pub hv_start_low: Option<u64>,
    /// INIT_P2M: virtual address where the p2m list is to be mapped.
    pub init_p2m: Option<u64>,
    /// MOD_START_PFN: the ramdisk need not be mapped.
    pub mod_start_pfn: bool,
    /// L1_MFN_VALID: mask and value of a valid L1 entry.
    pub l1_mfn_valid: Option<(u64, u64)>,
    /// SUSPEND_CANCEL: a suspend may be cancelled.
    pub suspend_cancel: bool,
    /// Bits of `XENFEAT_*` that the kernel can use.
    pub supported_features: u32,
    /// Bits of `XENFEAT_*` that the kernel needs.
    pub required_features: u32,
    /// PHYS32_ENTRY: physical address of the PVH entry.
    pub phys32_entry: Option<u64>,
    /// LOADER.
    pub loader: &'a str,
    /// GUEST_OS.
    pub guest_os: &'a str,
    /// GUEST_VERSION.
    pub guest_version: &'a str,
    /// XEN_VERSION.
    pub xen_version: &'a str,
    /// PAE_MODE.
    pub pae_mode: &'a str,
}

/// Names of the FEATURES note, by bit of `XENFEAT_*`.
const FEATURE_NAMES: &[(&str, u32)] = &[
    ("writable_page_tables", 0),
    ("writable_descriptor_tables", 1),
    ("auto_translated_physmap", 2),
    ("supervisor_mode_kernel", 3),
    ("pae_pgdir_above_4gb", 4),
    ("hvm_callback_vector", 8),
    ("dom0", 11),
];

impl<'a> Notes<'a> {
    /// Reads the notes of owner "Xen" in one PT_NOTE segment or SHT_NOTE section into `self`.
    ///
    /// # Errors
    /// A note whose value cannot be read. Notes of other owners are skipped; a cut-off end is ignored.
    pub fn read(&mut self, data: &'a [u8]) -> Result<(), ImageError> {
        let mut rest = data;
        // Xen pads to 4 bytes whatever the header's alignment says; so does everything that makes such notes.
        while let Some((name, desc, kind, next)) = next_note(rest) {
            rest = next;
            if name == b"Xen\0" {
                self.found = true;
                self.take(kind, desc)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, kind: u32, desc: &'a [u8]) -> Result<(), ImageError> {
        match kind {
            n::XEN_ELFNOTE_ENTRY => self.entry = Some(number("ENTRY", desc)?),
            n::XEN_ELFNOTE_HYPERCALL_PAGE => self.hypercall_page = Some(number("HYPERCALL_PAGE", desc)?),
            n::XEN_ELFNOTE_VIRT_BASE => self.virt_base = Some(number("VIRT_BASE", desc)?),
            n::XEN_ELFNOTE_PADDR_OFFSET => self.paddr_offset = Some(number("PADDR_OFFSET", desc)?),
            n::XEN_ELFNOTE_HV_START_LOW => self.hv_start_low = Some(number("HV_START_LOW", desc)?),
            n::XEN_ELFNOTE_INIT_P2M => self.init_p2m = Some(number("INIT_P2M", desc)?),
            n::XEN_ELFNOTE_MOD_START_PFN => self.mod_start_pfn = number("MOD_START_PFN", desc)? != 0,
            n::XEN_ELFNOTE_SUSPEND_CANCEL => self.suspend_cancel = number("SUSPEND_CANCEL", desc)? != 0,
            n::XEN_ELFNOTE_PHYS32_ENTRY => self.phys32_entry = Some(number("PHYS32_ENTRY", desc)?),
            n::XEN_ELFNOTE_SUPPORTED_FEATURES => {
                // Bits beyond the first 32 are of submaps that do not exist.
                let bits = number("SUPPORTED_FEATURES", desc)? & u64::from(u32::MAX);
                self.supported_features |= u32::try_from(bits).unwrap_or(0);
            }
            n::XEN_ELFNOTE_L1_MFN_VALID => {
                if let (Some(mask), Some(value)) =
                    (desc.first_chunk::<8>(), desc.get(8..).and_then(<[u8]>::first_chunk::<8>))
                {
                    self.l1_mfn_valid = Some((u64::from_le_bytes(*mask), u64::from_le_bytes(*value)));
                }
            }
            n::XEN_ELFNOTE_FEATURES => self.features(text("FEATURES", desc)?)?,
            n::XEN_ELFNOTE_LOADER => self.loader = text("LOADER", desc)?,
            n::XEN_ELFNOTE_GUEST_OS => self.guest_os = text("GUEST_OS", desc)?,
            n::XEN_ELFNOTE_GUEST_VERSION => self.guest_version = text("GUEST_VERSION", desc)?,
            n::XEN_ELFNOTE_XEN_VERSION => self.xen_version = text("XEN_VERSION", desc)?,
            n::XEN_ELFNOTE_PAE_MODE => self.pae_mode = text("PAE_MODE", desc)?,
            _ => {}
        }
        Ok(())
    }

    /// A list such as `!writable_page_tables|pae_pgdir_above_4gb`: "!" marks what the kernel needs.
    fn features(&mut self, list: &str) -> Result<(), ImageError> {
        for word in list.split('|').filter(|w| !w.is_empty()) {
            let (required, name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word),
            };
            let bit = FEATURE_NAMES.iter().find(|(known, _)| *known == name).map(|(_, bit)| 1u32 << bit);
            match bit {
                Some(bit) => {
                    self.supported_features |= bit;
                    if required {
                        self.required_features |= bit;
                    }
                }
                None if required => {
                    return Err(ImageError::BadNote { note: "FEATURES", what: "requires an unknown feature" });
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// A note's name, description and kind, and the bytes after it.
type Split<'a> = (&'a [u8], &'a [u8], u32, &'a [u8]);

fn next_note(data: &[u8]) -> Option<Split<'_>> {
    let (header, rest) = data.split_at_checked(12)?;
    let word = |at: usize| -> Option<u32> { header.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b)) };
    let (name_len, desc_len) = (usize::try_from(word(0)?).ok()?, usize::try_from(word(4)?).ok()?);
    let padded = |len: usize| len.checked_next_multiple_of(4);
    let name = rest.get(..name_len)?;
    let rest = rest.get(padded(name_len)?..)?;
    let desc = rest.get(..desc_len)?;
    // The last note of a section may lack its padding.
    let next = rest.get(padded(desc_len)?..).unwrap_or_default();
    Some((name, desc, word(8)?, next))
}

fn number(note: &'static str, desc: &[u8]) -> Result<u64, ImageError> {
    let mut bytes = [0; 8];
    match desc.len() {
        1 | 2 | 4 | 8 => {
            for (to, from) in bytes.iter_mut().zip(desc) {
                *to = *from;
            }
            Ok(u64::from_le_bytes(bytes))
        }
        _ => Err(ImageError::BadNote { note, what: "not a number of 1, 2, 4 or 8 bytes" }),
    }
}

fn text<'a>(note: &'static str, desc: &'a [u8]) -> Result<&'a str, ImageError> {
    let end = desc.iter().position(|b| *b == 0).unwrap_or(desc.len());
    core::str::from_utf8(desc.get(..end).unwrap_or_default())
        .map_err(|_| ImageError::BadNote { note, what: "not text" })
}
