//! The start of the hypervisor, phase by phase: console, memory, CPUs, time, dom0, and off it runs.

use machine::{boot_info::BootInfo, mem::boot_frames::BootFrames};

/// All phases; returns to nobody.
pub fn start(boot: BootInfo, frames: BootFrames) -> ! {
    log::info!("{} modules, {} bytes free", boot.modules.len(), frames.free_bytes());
    panic!("nothing to run");
}
