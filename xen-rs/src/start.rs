//! The start of the hypervisor, phase by phase: options, memory, time, CPUs, dom0, and off it runs.

use alloc::boxed::Box;

use log::LevelFilter;
use logic::{
    boot::command_line::{self, Level, Options},
    lock::Held,
    sched::Settings,
};
use machine::{
    arch::x86_64::{cpu, power, smp},
    boot_info::BootInfo,
    mem::boot_frames::BootFrames,
};

use crate::{
    console,
    cpu::Cpu,
    cpu_loop,
    domain::{self, build_dom0},
    hypercall::xen_version,
    irq, memory, time, trap,
    upcalls::Xen,
};

/// All phases on the boot processor; returns to nobody.
pub fn start(boot: BootInfo, mut frames: BootFrames, mut held: Held<'_, 0>) -> ! {
    console::start();
    xen_version::set_command_line(boot.command_line);
    let options = options(boot.command_line);
    if options.console_to_ring {
        console::keep_control();
    }
    let image = build_dom0::unpack(&boot.modules, &mut frames);
    memory::init(&boot, frames, &mut held);
    if let Some(size) = options.ring_size {
        console::grow(size);
    }
    let limit = match options.max_cpus {
        _ if options.no_smp => 1,
        0 => u32::MAX,
        limit => limit,
    };
    let cpus = smp::start_secondaries(limit);
    trap::report_safety();
    log::info!("brought up {cpus} CPUs");
    log::info!("Using scheduler: {}", options.scheduler.name());
    cpu_loop::pools::start(options.scheduler, settings(&options), &mut held);
    time::start(options.clock_source);
    irq::start(&mut held);
    console::start_input(&mut held);
    let built = image.and_then(|image| {
        let dom0 = build_dom0::build(&boot.modules, &image, &options, &mut held)?;
        for memory in image.into_memory().chain(boot.modules) {
            memory::free_module(memory, &mut held);
        }
        Ok(dom0)
    });
    match built {
        Ok(dom0) => {
            domain::insert(dom0.clone(), &mut held);
            time::show_wall_clock(&dom0, &mut held);
            dom0.vcpus().iter().for_each(|vcpu| time::show_time(vcpu, &dom0.tsc));
            log::info!("*** Serial input to DOM0 (type 'CTRL-a' three times to switch input)");
            dom0.unpause_by_controller(&mut held);
        }
        Err(error) => {
            log::error!("could not construct dom0: {error}");
            power::stop_after_error();
        }
    }
    cpu::run::<Xen>(Box::new(Cpu::new(0)))
}

/// What every other CPU does once it is up.
pub fn start_secondary(number: u32) -> ! {
    cpu::run::<Xen>(Box::new(Cpu::new(number)))
}

/// What the command line makes of the first pool's scheduler, if its limits allow that.
fn settings(options: &Options) -> Settings {
    let usual = Settings::DEFAULT;
    let wanted = Settings {
        time_slice_ms: options.credit_slice_ms.unwrap_or(usual.time_slice_ms),
        rate_limit_us: options.rate_limit_us.unwrap_or(usual.rate_limit_us),
    };
    wanted.checked(options.scheduler).unwrap_or_else(|_| {
        log::warn!("command line: the scheduler's slice or rate limit is outside its limits");
        usual
    })
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
    options
}
