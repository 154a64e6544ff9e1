//! What a PV kernel finds at start: `start_info` and dom0's console description (`xen.h`).

use crate::ids::{Mfn, Port};
use crate::layout::{constants, structures};

constants! {
    /// Bytes of [`StartInfo::cmd_line`].
    pub const MAX_GUEST_CMDLINE: usize = 1024;
    /// The domain is privileged.
    pub const SIF_PRIVILEGED: u32 = 1 << 0;
    /// The domain is the initial one.
    pub const SIF_INITDOMAIN: u32 = 1 << 1;
    /// `mod_start` is a list of [`MultibootModList`].
    pub const SIF_MULTIBOOT_MOD: u32 = 1 << 2;
    /// `mod_start` is a pseudo-physical frame number.
    pub const SIF_MOD_START_PFN: u32 = 1 << 3;
    /// The tools understand a virtually mapped P2M.
    pub const SIF_VIRT_P2M_4TOOLS: u32 = 1 << 4;
    /// Power-management options.
    pub const SIF_PM_MASK: u32 = 0xff << 8;
    pub const XEN_VGATYPE_TEXT_MODE_3: u8 = 0x03;
    pub const XEN_VGATYPE_VESA_LFB: u8 = 0x23;
    pub const XEN_VGATYPE_EFI_LFB: u8 = 0x70;
}

structures! {
    /// The page `rsi` points to when a PV kernel starts.
    pub struct StartInfo = "struct start_info" {
        /// `xen-<version>-<platform>`, zero-terminated.
        pub magic: [u8; 32],
        /// Frames of the domain.
        pub nr_pages: u64,
        /// Machine address of the shared page.
        pub shared_info: u64,
        /// `SIF_*`.
        pub flags: u32,
        pub _pad0: u32,
        /// Frame of the xenstore ring.
        pub store_mfn: Mfn,
        pub store_evtchn: Port,
        pub _pad1: u32,
        /// domU: frame of the console ring. dom0: [`Dom0Console`] in these 8 bytes.
        pub console_mfn: Mfn => "console.domU.mfn",
        /// domU: port of the console ring.
        pub console_evtchn: Port => "console.domU.evtchn",
        pub _pad2: u32,
        /// Virtual address of the page-table root.
        pub pt_base: u64,
        /// Frames of the initial page tables.
        pub nr_pt_frames: u64,
        /// Virtual address of the P2M list.
        pub mfn_list: u64,
        /// Virtual address of the module, or its pfn with [`SIF_MOD_START_PFN`].
        pub mod_start: u64,
        /// Bytes.
        pub mod_len: u64,
        /// Zero-terminated.
        pub cmd_line: [u8; MAX_GUEST_CMDLINE],
        /// First pfn of the P2M list where it lies outside of the initial mapping.
        pub first_p2m_pfn: u64,
        /// Frames of that list.
        pub nr_p2m_frames: u64,
    }
    /// dom0's view of the first 8 bytes of the console union.
    pub struct Dom0Console = "__typeof__(((struct start_info *)0)->console.dom0)" {
        /// Offset of [`VgaConsoleInfo`] from `start_info`, bytes.
        pub info_off: u32,
        /// Size of [`VgaConsoleInfo`], bytes.
        pub info_size: u32,
    }
    /// One module of a multiboot list; the last has `mod_start` 0.
    pub struct MultibootModList = "struct xen_multiboot_mod_list" {
        pub mod_start: u32,
        pub mod_end: u32,
        pub cmdline: u32,
        pub pad: u32,
    }
    /// The boot console; `u` holds a [`VgaTextMode3`] or a [`VgaVesaLfb`] according to `video_type`.
    pub struct VgaConsoleInfo = "struct dom0_vga_console_info" {
        /// `XEN_VGATYPE_*`.
        pub video_type: u8,
        pub _pad: [u8; 3],
        pub u: [u8; 36],
    }
    /// Text mode.
    pub struct VgaTextMode3 = "__typeof__(((struct dom0_vga_console_info *)0)->u.text_mode_3)" {
        /// Pixels.
        pub font_height: u16,
        pub cursor_x: u16,
        pub cursor_y: u16,
        pub rows: u16,
        pub columns: u16,
    }
    /// Linear frame buffer.
    pub struct VgaVesaLfb = "__typeof__(((struct dom0_vga_console_info *)0)->u.vesa_lfb)" {
        /// Pixels.
        pub width: u16,
        pub height: u16,
        pub bytes_per_line: u16,
        pub bits_per_pixel: u16,
        /// Physical address, low half.
        pub lfb_base: u32,
        /// Units of 64 KiB.
        pub lfb_size: u32,
        pub red_pos: u8,
        pub red_size: u8,
        pub green_pos: u8,
        pub green_size: u8,
        pub blue_pos: u8,
        pub blue_size: u8,
        pub rsvd_pos: u8,
        pub rsvd_size: u8,
        pub gbl_caps: u32,
        pub mode_attrs: u16,
        pub pad: u16,
        /// Physical address, high half.
        pub ext_lfb_base: u32,
    }
}

/// `magic` of this interface, without its terminator.
pub const START_MAGIC: &[u8] = b"xen-3.0-x86_64";
