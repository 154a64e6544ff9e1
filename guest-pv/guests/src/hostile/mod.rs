//! A guest that means harm: random hypercalls, instructions and writes to page tables, with arguments that are often
//! nearly right. Everything comes from a seed, so a run can be repeated.
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

pub mod calls;
pub mod container;
pub mod instructions;
pub mod modes;
pub mod values;
pub mod watch;
pub mod wild;

use container::Registers;
use modes::Modes;

use crate::{make_read_only, make_writable, page, trap_of, update_va_mapping};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::mem::Frame;
use guest_pv::{Mode, boot, mode, println, smp, time, traps};
use spin::Mutex;
use values::Chance;
use watch::Watch;
use xen_abi::ids::VcpuId;

/// Hypercalls made by all vCPUs.
pub static CALLS: AtomicU64 = AtomicU64::new(0);
/// What else all vCPUs have done in a hardware container.
pub static DEEDS: AtomicU64 = AtomicU64::new(0);

/// Pages of each vCPU that are there to be misused.
const POOL: usize = 48;
/// How many calls a vCPU makes between two lines that say how far it is.
const REPORT: u64 = 2048;
/// How long a vCPU waits for the others, ticks of the TSC: a few seconds.
const PATIENCE: u64 = 5_000_000_000;

/// One vCPU's means.
pub struct Hostile {
    /// The source of all decisions.
    pub chance: Chance,
    /// Pages that change their use all the time.
    pub pool: [Frame; POOL],
    /// Arguments of hypercalls.
    pub buffers: [Frame; 3],
    /// Instructions to be executed.
    pub code: Frame,
    /// What they have for a stack in a hardware container.
    pub stack: Frame,
    /// Whether this is the control domain.
    pub privileged: bool,
    /// The call in hand may take our handlers away.
    pub handlers_change: bool,
    /// Calls made by this vCPU.
    pub calls: u64,
    /// In a hardware container: the registers to go back to.
    pub registers: Registers,
    /// And other modes, for vCPU 0.
    pub modes: Option<Modes>,
    /// A vCPU that is there for nothing else than them.
    pub victim: Option<u32>,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        // Pages of one vCPU lie together.
        static TAKING: Mutex<()> = Mutex::new(());
        let _taking = TAKING.lock();
        let mut chance = Chance::new(seed);
        let pool = core::array::from_fn(|_| page());
        hole().leak();
        let buffers = core::array::from_fn(|_| cliff());
        let (code, stack) = (page(), page());
        // A page that is mapped writable cannot become a page table.
        for frame in &pool {
            match chance.below(3) {
                0 => {}
                1 => make_read_only(frame),
                _ => drop(update_va_mapping(frame.address(), 0, 2)),
            }
        }
        let privileged = boot().is_initial_domain();
        let in_container = mode() == Mode::Pvh;
        Self {
            chance,
            pool,
            buffers,
            code,
            stack,
            privileged,
            handlers_change: false,
            calls: 0,
            registers: Registers::now(),
            modes: (in_container && smp::index() == 0).then(Modes::new),
            victim: modes::victim(number("vcpus", 1) as u32).filter(|_| in_container),
        }
    }

    /// Does something.
    fn step(&mut self) {
        if mode() == Mode::Pvh {
            if self.chance.rarely(2) {
                return self.deed();
            }
            if self.chance.rarely(100) {
                return self.anything();
            }
        }
        match self.chance.below(4000) {
            0..3440 => self.call(),
            3440..3920 => self.instruction(),
            3920..3999 => self.write_grant(),
            // Few live through that for long, but for those in containers.
            _ => self.anything(),
        }
    }
}

impl Hostile {
    /// Makes the pages that we work with ours again, or takes others.
    fn mend(&mut self) {
        if self.handlers_change || mode() == Mode::Pvh {
            traps::init();
            self.handlers_change = false;
        }
        // After the descriptor tables: those of another mode are nowhere in our page tables, and an NMI may come in between.
        if mode() == Mode::Pvh {
            self.registers.restore();
        }
        for buffer in self.buffers.iter_mut().chain([&mut self.code]) {
            if make_writable(buffer).is_err() {
                core::mem::replace(buffer, cliff()).leak();
            }
        }
    }
}

/// Makes the next page one that is not there, so that an array that never ends does end.
fn hole() -> Frame {
    let hole = page();
    update_va_mapping(hole.address(), 0, 2).expect("an own page can be unmapped");
    hole
}

/// A page before a hole.
fn cliff() -> Frame {
    loop {
        let (page, hole) = (page(), hole());
        if hole.leak().0 == page.pfn().0 + 1 {
            return page;
        }
        page.leak();
    }
}

fn number(option: &str, default: u64) -> u64 {
    boot().option(option).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The whole life of a vCPU.
fn live() {
    let (seed, vcpus) = (number("seed", 1), number("vcpus", 1));
    let calls = number("calls", 20_000) / vcpus;
    let me = smp::index() as u64;
    traps::use_own_stacks();
    wild::init();
    let mut hostile = Hostile::new(seed * 64 + me);
    let in_container = mode() == Mode::Pvh;
    // Some of those in containers do not live long.
    let report = if in_container { REPORT / 8 } else { REPORT };
    let mut next = report;
    let mut watch = in_container.then(Watch::default);
    while hostile.calls < calls {
        // Whatever it stumbles over is mended, and it goes on.
        if trap_of(|| hostile.step()).is_some() {
            hostile.mend();
        }
        if let Some(watch) = &mut watch {
            watch.step();
        }
        if me == 0 && hostile.calls >= next {
            next += report;
            println!("hostile: seed {seed} calls {}", CALLS.load(Ordering::Relaxed));
        }
    }
    // What the pages have become is none of the allocator's business.
    core::mem::forget(hostile);
    if let Some(watch) = watch {
        watch.stay();
    }
}

/// What the guest is for.
pub fn run() {
    let (seed, vcpus) = (number("seed", 1), number("vcpus", 1) as u32);
    println!("hostile: seed {seed} begins on {vcpus} vCPUs");
    // An NMI is one of the things that it can send to itself.
    traps::set_handler(2, Some(|_| ()));
    // One of them may be needed for something else.
    let living = if mode() == Mode::Pvh { modes::victim(vcpus).unwrap_or(vcpus) } else { vcpus };
    watch::begin(living);
    for vcpu in (1..living).map(VcpuId) {
        smp::start(vcpu, live).expect("the domain has that vCPU");
    }
    live();
    let end = time::tsc() + PATIENCE;
    for vcpu in (1..living).map(VcpuId) {
        while guest_pv::call::vcpu::is_up(vcpu) == Ok(true) && time::tsc() < end {
            smp::relax();
        }
    }
    println!("hostile: seed {seed} calls {}", CALLS.load(Ordering::Relaxed));
    if mode() == Mode::Pvh {
        println!("hostile: and {} other deeds", DEEDS.load(Ordering::Relaxed));
    }
    // The control domain has the hypervisor recount what is left of its pages.
    let _ = guest_pv::call::sysctl::debug_keys(b"f");
    println!("hostile: end");
}
