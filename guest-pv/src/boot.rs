//! What the domain builder told us: `start_info`, copied once and kept for good.
//!
//! Unsafe: the domain builder leaves `start_info` at an address in a register.

use core::str;
use spin::Once;
use xen_abi::ids::{Mfn, Port};
use xen_abi::start::{SIF_INITDOMAIN, SIF_MOD_START_PFN, StartInfo};

/// Fields of `start_info` (public `xen.h`), in our own types.
#[derive(Clone, Debug)]
pub struct Boot {
    /// "xen-3.0-x86_64" and zeros.
    pub magic: [u8; 32],
    /// Pages given to the domain: pseudo-physical frames `0..nr_pages` exist.
    pub nr_pages: u64,
    /// Machine address of the shared info page.
    pub shared_info: u64,
    /// `SIF_*` flags.
    pub flags: u32,
    /// Machine frame of the xenstore ring page; 0 in the first domain.
    pub store_mfn: Mfn,
    /// Event channel of the xenstore ring.
    pub store_evtchn: Port,
    /// Machine frame of the console ring page; 0 in the first domain.
    pub console_mfn: Mfn,
    /// Event channel of the console ring.
    pub console_evtchn: Port,
    /// Virtual address of the root page table.
    pub pt_base: u64,
    /// Number of page-table frames at `pt_base`.
    pub nr_pt_frames: u64,
    /// Virtual address of the list of machine frames.
    pub mfn_list: u64,
    /// First pseudo-physical frame of the boot module (ramdisk); meaningless when `mod_len` is 0.
    pub mod_pfn: u64,
    /// Bytes of the boot module.
    pub mod_len: u64,
    pub(crate) cmd_line: [u8; 1024],
}

static BOOT: Once<Boot> = Once::new();

/// The start-of-day information.
///
/// # Panics
/// Before the entry code has run; a guest's own code never sees that.
pub fn boot() -> &'static Boot {
    BOOT.get().expect("start_info is read first of all")
}

impl Boot {
    /// Is this the domain that the hypervisor built itself?
    pub fn is_initial_domain(&self) -> bool {
        self.flags & SIF_INITDOMAIN != 0
    }

    /// The command line, up to its terminating zero.
    pub fn command_line(&self) -> &str {
        let end = self.cmd_line.iter().position(|&byte| byte == 0).unwrap_or(self.cmd_line.len());
        str::from_utf8(&self.cmd_line[..end]).unwrap_or("")
    }

    /// The value of the word `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.command_line().split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Reads `start_info`.
///
/// # Safety
/// `info` is the pointer that the domain builder passed to the entry point, and nothing has been overwritten yet.
pub(crate) unsafe fn init(info: *const StartInfo) {
    // SAFETY: by the contract above it points to a mapped start_info of this ABI.
    let info = unsafe { info.read() };
    let mod_pfn = if info.flags & SIF_MOD_START_PFN != 0 {
        info.mod_start
    } else {
        info.mod_start.wrapping_sub(crate::mem::DIRECT_MAP) >> 12
    };
    let initial = info.flags & SIF_INITDOMAIN != 0;
    keep(Boot {
        magic: info.magic,
        nr_pages: info.nr_pages,
        shared_info: info.shared_info,
        flags: info.flags,
        store_mfn: if initial { Mfn(0) } else { info.store_mfn },
        store_evtchn: if initial { Port(0) } else { info.store_evtchn },
        console_mfn: if initial { Mfn(0) } else { info.console_mfn },
        console_evtchn: if initial { Port(0) } else { info.console_evtchn },
        pt_base: info.pt_base,
        nr_pt_frames: info.nr_pt_frames,
        mfn_list: info.mfn_list,
        mod_pfn,
        mod_len: info.mod_len,
        cmd_line: info.cmd_line,
    });
}

/// Keeps it for good.
pub(crate) fn keep(boot: Boot) {
    BOOT.call_once(|| boot);
}
