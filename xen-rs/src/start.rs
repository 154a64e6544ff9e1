//! The start of the hypervisor, phase by phase: options, memory, CPUs, time, dom0, and off it runs.

use log::LevelFilter;
use logic::boot::command_line::{self, Level, Options};
use machine::{boot_info::BootInfo, mem::boot_frames::BootFrames};

/// All phases; returns to nobody.
pub fn start(boot: BootInfo, frames: BootFrames) -> ! {
    let _options = options(boot.command_line);
    log::info!("{} modules, {} bytes free", boot.modules.len(), frames.free_bytes());
    panic!("nothing to run");
}

/// Reads the command line; what is unknown in it is reported and does not matter.
fn options(line: &str) -> Options {
    let options = command_line::parse(line, |complaint| log::warn!("command line: {complaint}"));
    log::set_max_level(match options.log.always {
        Level::None => LevelFilter::Off,
        Level::Error => LevelFilter::Error,
        Level::Warning => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
    });
    if options.dom0_pvh {
        log::warn!("command line: dom0=pvh is not supported yet, dom0 is built as a PV domain");
    }
    options
}
