//! What a PV kernel finds when it starts: the `start_info` page and the state of its first vCPU.

use xen_abi::arch_x86::{
    FLAT_KERNEL_CS64, FLAT_KERNEL_DS64, FLAT_KERNEL_SS64, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext,
};
use xen_abi::ids::{Mfn, Port};
use xen_abi::start::{MAX_GUEST_CMDLINE, SIF_MOD_START_PFN, START_MAGIC, StartInfo};
use zerocopy::FromZeros;

use crate::PAGE_SHIFT;
use crate::error::LayoutError;
use crate::layout::Plan;

/// The console that `start_info` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// dom0: where a description of the video console lies, relative to `start_info`; size 0 for none.
    Dom0 {
        /// Bytes from the start of `start_info`.
        info_off: u32,
        /// Bytes.
        info_size: u32,
    },
    /// domU: the console ring.
    DomU {
        /// Its page.
        mfn: Mfn,
        /// Its event channel.
        port: Port,
    },
}

/// What `start_info` says beyond the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartInputs<'a> {
    /// Machine address of the shared info page.
    pub shared_info: u64,
    /// `SIF_PRIVILEGED` and the like; `SIF_MOD_START_PFN` is added as the plan needs it.
    pub flags: u32,
    /// The xenstore ring's page (0 for dom0).
    pub store_mfn: Mfn,
    /// The xenstore ring's event channel (0 for dom0).
    pub store_port: Port,
    /// The console.
    pub console: Console,
    /// The command line.
    pub cmdline: &'a [u8],
}

impl Plan {
    /// The contents of `start_info`, to be written at the start of its (otherwise zero) page.
    ///
    /// # Errors
    /// The command line is too long.
    pub fn start_info(&self, inputs: &StartInputs<'_>) -> Result<StartInfo, LayoutError> {
        let mut info = StartInfo::new_zeroed();
        for (to, from) in info.magic.iter_mut().zip(START_MAGIC) {
            *to = *from;
        }
        info.nr_pages = self.pages;
        info.shared_info = inputs.shared_info;
        info.flags = inputs.flags;
        info.store_mfn = inputs.store_mfn;
        info.store_evtchn = inputs.store_port;
        match inputs.console {
            Console::Dom0 { info_off, info_size } => {
                // The union's other view: two 32-bit words where domU has its frame number.
                info.console_mfn = Mfn(u64::from(info_off) | u64::from(info_size) << 32);
            }
            Console::DomU { mfn, port } => {
                info.console_mfn = mfn;
                info.console_evtchn = port;
            }
        }
        info.pt_base = self.virt(self.root());
        info.nr_pt_frames = self.main.tables().pages;
        info.mfn_list = self.p2m.virt;
        if let Some(ramdisk) = self.ramdisk {
            info.mod_len = ramdisk.len;
            info.mod_start = if ramdisk.mapped {
                self.virt(ramdisk.span.first)
            } else {
                info.flags |= SIF_MOD_START_PFN;
                ramdisk.span.first.0
            };
        }
        if let Some(own) = self.p2m.own {
            info.first_p2m_pfn = self.p2m.list.first.0;
            info.nr_p2m_frames = self.p2m.list.pages + own.tables().pages;
        }
        // One byte stays zero.
        if inputs.cmdline.len() >= MAX_GUEST_CMDLINE {
            return Err(LayoutError::CommandLine { have: inputs.cmdline.len(), limit: MAX_GUEST_CMDLINE - 1 });
        }
        for (to, from) in info.cmd_line.iter_mut().zip(inputs.cmdline) {
            *to = *from;
        }
        Ok(info)
    }

    /// The state of vCPU 0. `root` is the machine frame of the page tables' root.
    #[must_use]
    pub fn vcpu_context(&self, root: Mfn) -> VcpuGuestContext {
        const RFLAGS_IF: u64 = 1 << 9;
        // The values after reset (SDM vol. 3B, 18.2).
        const DR6: u64 = 0xffff_0ff0;
        const DR7: u64 = 0x400;
        let mut context = VcpuGuestContext::new_zeroed();
        let stack_top = self.virt(self.stack).wrapping_add(1 << PAGE_SHIFT);
        let regs = &mut context.user_regs;
        regs.rip = self.entry;
        regs.rsp = stack_top;
        regs.rsi = self.virt(self.start_info);
        regs.rflags = RFLAGS_IF;
        regs.cs = FLAT_KERNEL_CS64;
        regs.ss = FLAT_KERNEL_SS64;
        regs.ds = FLAT_KERNEL_DS64;
        regs.es = FLAT_KERNEL_DS64;
        regs.fs = FLAT_KERNEL_DS64;
        regs.gs = FLAT_KERNEL_DS64;
        context.flags = VGCF_IN_KERNEL | VGCF_ONLINE;
        context.kernel_ss = u64::from(FLAT_KERNEL_SS64);
        context.kernel_sp = stack_top;
        context.ctrlreg[3] = root.0 << PAGE_SHIFT;
        context.debugreg[6] = DR6;
        context.debugreg[7] = DR7;
        context
    }
}
