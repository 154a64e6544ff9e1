//! Random hypercalls. Each call has a shape of its own, so that most get past the first checks.
//!
//! Unsafe: hypercalls with whatever arguments.
#![allow(clippy::cast_possible_truncation)] // Numbers are cut to size on purpose.

use super::{CALLS, Hostile};
use core::sync::atomic::Ordering;
use guest_pv::call::raw;
use guest_pv::{Mode, grants, mode, traps};
use xen_abi::domctl::XEN_DOMCTL_INTERFACE_VERSION;
use xen_abi::hypercall::*;
use xen_abi::platform::XENPF_INTERFACE_VERSION;
use xen_abi::sysctl::XEN_SYSCTL_INTERFACE_VERSION;

/// A call: its number and its arguments.
type Call = (u32, [u64; 5]);

/// What ends or stops the caller when it succeeds. Everything else is fair.
fn is_the_end(number: u32, args: &[u64; 5]) -> bool {
    match number {
        // block, shutdown, remote_shutdown, shutdown_code, watchdog; and a poll without a deadline
        HYPERVISOR_SCHED_OP => !matches!(args[0], 0 | 7..),
        HYPERVISOR_SCHED_OP_COMPAT => args[0] != 0,
        // down
        HYPERVISOR_VCPU_OP => args[0] == 2,
        // What a console prints would be mistaken for a report.
        HYPERVISOR_CONSOLE_IO => true,
        _ => false,
    }
}

/// Whether the call may take handlers away; a multicall that runs on into empty entries does.
fn changes_handlers(number: u32) -> bool {
    matches!(
        number,
        HYPERVISOR_MULTICALL
            | HYPERVISOR_SET_TRAP_TABLE
            | HYPERVISOR_SET_CALLBACKS
            | HYPERVISOR_CALLBACK_OP
            | HYPERVISOR_NMI_OP
    )
}

impl Hostile {
    /// Makes one hypercall.
    pub fn call(&mut self) {
        let (number, args) = self.make();
        if is_the_end(number, &args) || (self.privileged && stops_the_machine(number, &args, &self.buffers[2])) {
            return;
        }
        self.calls += 1;
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: this guest answers for nothing.
        unsafe { raw(number.into(), args) };
        if self.handlers_change {
            // Without them the next trap would be the last.
            traps::init();
            self.handlers_change = false;
        }
    }

    fn make(&mut self) -> Call {
        let call = self.choose();
        let (number, _) = call;
        self.handlers_change |= changes_handlers(number);
        call
    }

    fn choose(&mut self) -> Call {
        if mode() == Mode::Pvh && !self.chance.rarely(20) {
            return self.choose_in_container();
        }
        match self.chance.below(100) {
            0..14 => self.mmu_update(),
            14..28 => self.mmuext(),
            28..36 => self.update_va_mapping(),
            36..44 => self.memory(),
            44..58 => self.grant(),
            58..68 => self.event(),
            68..74 => self.vcpu(),
            74..80 => self.multicall(),
            80..97 => self.small(),
            _ => self.wild(),
        }
    }

    /// Its page tables are no affair of the hypervisor's, but its physical map is.
    fn choose_in_container(&mut self) -> Call {
        match self.chance.below(100) {
            0..18 => self.memory(),
            18..36 => self.grant(),
            36..48 => self.event(),
            48..58 => self.vcpu(),
            58..64 => self.multicall(),
            64..78 => self.hvm(),
            78..96 => self.small(),
            _ => self.wild(),
        }
    }

    fn hvm(&mut self) -> Call {
        let command = self.chance.one(&[0, 0, 0, 1, 1, 23, 23, 2, 15, 21, 26]);
        let words = match command {
            // set_param, get_param: a domain, an index, a value
            0 | 1 => [self.domain() | self.chance.below(42) << 32, self.word(), 0],
            // set_evtchn_upcall_vector
            23 => [self.chance.below(5) | self.chance.below(256) << 32, 0, 0],
            _ => [self.word(), self.word(), self.word()],
        };
        let pointer = self.fill(2, &words);
        (HYPERVISOR_HVM_OP, [command, if self.chance.rarely(16) { self.pointer() } else { pointer }, 0, 0, 0])
    }

    fn mmu_update(&mut self) -> Call {
        let count = 1 + self.chance.below(8);
        let mut words = [0; 16];
        for pair in words.chunks_exact_mut(2) {
            pair[0] = self.slot();
            pair[1] = self.entry();
        }
        let pointer = self.fill(2, &words);
        let count = if self.chance.rarely(64) { self.half() } else { count };
        let domain = if self.chance.rarely(8) { self.domain() | self.domain() << 16 } else { 0x7ff0 };
        let done = if self.chance.rarely(8) { self.pointer() } else { 0 };
        (HYPERVISOR_MMU_UPDATE, [pointer, count, done, domain, 0])
    }

    fn mmuext(&mut self) -> Call {
        let count = 1 + self.chance.below(4);
        let mut words = [0; 12];
        for op in words.chunks_exact_mut(3) {
            // Pinning and unpinning is where the page types move.
            let command = if self.chance.rarely(2) { self.chance.below(5) } else { self.chance.below(22) };
            // A new root for the kernel that is accepted is the end.
            let command = if command == 5 && !self.chance.rarely(50) { 0 } else { command };
            op[0] = command;
            op[1] = if self.chance.rarely(5) { self.address() } else { self.mfn() };
            op[2] = if self.chance.rarely(3) { self.word() } else { self.chance.below(32) };
        }
        let pointer = self.fill(2, &words);
        let count = if self.chance.rarely(64) { self.half() } else { count };
        let domain = if self.chance.rarely(8) { self.domain() } else { 0x7ff0 };
        (HYPERVISOR_MMUEXT_OP, [pointer, count, if self.chance.rarely(8) { self.pointer() } else { 0 }, domain, 0])
    }

    fn update_va_mapping(&mut self) -> Call {
        let (va, entry) = (self.address() & !0xfff, self.entry());
        let flags = if self.chance.rarely(8) { self.word() } else { self.chance.below(8) };
        let other = self.chance.rarely(8);
        let number = if other { HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN } else { HYPERVISOR_UPDATE_VA_MAPPING };
        (number, [va, entry, flags, self.domain(), 0])
    }

    fn memory(&mut self) -> Call {
        let frames: [u64; 16] = core::array::from_fn(|_| self.mfn());
        let list = self.fill(1, &frames);
        let command = self.chance.below(30);
        // Memory given back does not come again by itself: seldom.
        let command = if command == 1 && !self.chance.rarely(8) { 3 } else { command };
        let few = if self.chance.rarely(16) { self.word() } else { self.chance.below(4) };
        let order = if self.chance.rarely(8) { self.half() } else { 0 };
        let words = match command {
            // exchange: two reservations
            11 => [list, few, order, self.domain(), list + 64, few, order, self.domain(), 0, 0, 0, 0],
            0..7 => [list, few, order, self.domain(), 0, 0, 0, 0, 0, 0, 0, 0],
            // add_to_physmap, remove_from_physmap
            7 => {
                let space = self.chance.below(6);
                [
                    self.domain() | self.chance.below(3) << 16 | space << 32,
                    self.half(),
                    self.mfn(),
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]
            }
            15 => [self.domain(), self.mfn(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => core::array::from_fn(|_| self.word()),
        };
        let pointer = self.fill(2, &words);
        let continued = if self.chance.rarely(16) { self.half() << 6 } else { 0 };
        (HYPERVISOR_MEMORY_OP, [command | continued, pointer, 0, 0, 0])
    }

    fn grant(&mut self) -> Call {
        let command = self.chance.below(14);
        let mut words = [0; 32];
        for word in &mut words {
            *word = match self.chance.below(5) {
                0 => self.address() & !0xfff,
                1 => self.chance.below(32) | self.domain() << 32,
                2 => self.chance.below(64),
                3 => self.half() | self.half() << 32,
                _ => self.word(),
            };
        }
        if command == 0 && !self.chance.rarely(4) {
            // map: host_addr, flags, ref, domain
            let flags = if self.chance.rarely(4) { self.half() } else { 2 | self.chance.below(2) << 2 };
            words[0] = if self.chance.rarely(4) { self.slot() } else { self.address() & !0xfff };
            words[1] = flags | self.chance.below(16) << 32;
            words[2] = self.domain();
        }
        let pointer = self.fill(2, &words);
        let count = if self.chance.rarely(32) { self.half() } else { 1 + self.chance.below(4) };
        (HYPERVISOR_GRANT_TABLE_OP, [command, pointer, count, 0, 0])
    }

    /// Writes an entry of our grant table (version 1: flags, domain, frame).
    pub fn write_grant(&mut self) {
        let Ok(table) = grants::table_frame(0) else { return };
        let flags = self.chance.one(&[0, 1, 1, 1, 5, 2, 3, 0xffff]);
        let entry = flags | (self.domain() & 0xffff) << 16 | (self.mfn() & 0xffff_ffff) << 32;
        // The first eight are the console's and xenstore's.
        table.store_u64(64 + 8 * self.chance.below(24) as usize, entry);
    }

    fn event(&mut self) -> Call {
        let command = self.chance.below(15);
        // Closing all ports, ours to the console too, is for the last act.
        let last = if mode() == Mode::Pvh { 5000 } else { 200 };
        let command = if matches!(command, 10 | 14) && !self.chance.rarely(last) { 4 } else { command };
        let port = |hostile: &mut Self| 3 + hostile.chance.below(24);
        let words = match command {
            // bind_interdomain, alloc_unbound, reset: domains first
            0 => [self.domain() | port(self) << 32, 0, 0],
            6 => [self.domain() | self.domain() << 16, 0, 0],
            // bind_virq, bind_ipi, bind_vcpu
            1 | 7 => [self.chance.below(28) | self.chance.below(5) << 32, 0, 0],
            8 | 13 => [port(self) | self.chance.below(18) << 32, 0, 0],
            2 | 3 | 4 | 9 => [port(self), self.half(), 0],
            5 => [self.domain() | port(self) << 32, 0, 0],
            11 => [self.mfn(), self.chance.below(4096) | self.chance.below(4) << 32, 0],
            12 => [self.mfn(), 0, 0],
            _ => [self.word(), self.word(), self.word()],
        };
        let pointer = self.fill(2, &words);
        (HYPERVISOR_EVENT_CHANNEL_OP, [command, pointer, 0, 0, 0])
    }

    fn vcpu(&mut self) -> Call {
        let words: [u64; 16] = core::array::from_fn(|_| self.word());
        self.fill(2, &words);
        let vcpu = if self.chance.rarely(8) { self.half() } else { self.chance.below(4) };
        let pointer = self.pointer();
        (HYPERVISOR_VCPU_OP, [self.chance.below(16), vcpu, pointer, 0, 0])
    }

    fn multicall(&mut self) -> Call {
        let mut words = [0; 32];
        for entry in words.chunks_exact_mut(8) {
            // Their pointers share one buffer, so that all but the last are filled for another call.
            let (number, args) = match self.chance.below(5) {
                0 => self.update_va_mapping(),
                1 => self.mmuext(),
                2 => self.small(),
                3 => self.event(),
                _ => self.mmu_update(),
            };
            let ends = is_the_end(number, &args) || self.privileged;
            self.handlers_change |= changes_handlers(number);
            entry[0] = if ends { u64::from(HYPERVISOR_XEN_VERSION) } else { number.into() };
            entry[2..7].copy_from_slice(&args);
        }
        let pointer = self.fill(1, &words);
        let count = if self.chance.rarely(64) { self.half() } else { 1 + self.chance.below(4) };
        // An empty entry is set_trap_table, which forgets them all.
        self.handlers_change |= count > 4;
        (HYPERVISOR_MULTICALL, [pointer, count, 0, 0, 0])
    }

    fn small(&mut self) -> Call {
        let words: [u64; 8] = core::array::from_fn(|_| self.word());
        self.fill(2, &words);
        let (a, b, pointer) = (self.word(), self.word(), self.pointer());
        let few = self.chance.below(12);
        match self.chance.below(17) {
            0 => {
                let frames: [u64; 14] = core::array::from_fn(|_| self.mfn());
                (HYPERVISOR_SET_GDT, [self.fill(2, &frames), self.chance.below(8000), 0, 0, 0])
            }
            1 => (HYPERVISOR_UPDATE_DESCRIPTOR, [self.slot(), b, 0, 0, 0]),
            2 => (HYPERVISOR_SET_DEBUGREG, [few, a, 0, 0, 0]),
            3 => (HYPERVISOR_GET_DEBUGREG, [few, 0, 0, 0, 0]),
            4 => (HYPERVISOR_SET_SEGMENT_BASE, [self.chance.below(5), a, 0, 0, 0]),
            5 => (HYPERVISOR_VM_ASSIST, [self.chance.below(3), self.chance.below(40), 0, 0, 0]),
            6 => (HYPERVISOR_PHYSDEV_OP, [self.chance.below(33), pointer, 0, 0, 0]),
            7 => (HYPERVISOR_XEN_VERSION, [few, pointer, 0, 0, 0]),
            8 => (HYPERVISOR_SET_TIMER_OP, [a, 0, 0, 0, 0]),
            9 => (HYPERVISOR_FPU_TASKSWITCH, [self.chance.below(3), 0, 0, 0, 0]),
            10 => (HYPERVISOR_STACK_SWITCH, [self.half(), a, 0, 0, 0]),
            11 => (HYPERVISOR_SCHED_OP, [few, pointer, 0, 0, 0]),
            12 => (HYPERVISOR_HVM_OP, [self.chance.below(27), pointer, 0, 0, 0]),
            13 if self.chance.rarely(20) => (HYPERVISOR_CALLBACK_OP, [few, pointer, 0, 0, 0]),
            14 if self.chance.rarely(50) => (HYPERVISOR_SET_TRAP_TABLE, [pointer, 0, 0, 0, 0]),
            _ => self.ruling(),
        }
    }

    /// The calls of the control domain; an ordinary one is refused at the door.
    fn ruling(&mut self) -> Call {
        let (number, version, commands) = self.chance.one(&[
            (HYPERVISOR_DOMCTL, XEN_DOMCTL_INTERFACE_VERSION, 88),
            (HYPERVISOR_SYSCTL, XEN_SYSCTL_INTERFACE_VERSION, 30),
            (HYPERVISOR_PLATFORM_OP, XENPF_INTERFACE_VERSION, 66),
        ]);
        let mut words: [u64; 16] = core::array::from_fn(|_| self.word());
        let version = if self.chance.rarely(32) { self.half() } else { version.into() };
        words[0] = self.chance.below(commands) | version << 32;
        // What is created is seldom ours: so take numbers from the start.
        words[1] = if self.chance.rarely(4) { self.domain() } else { self.chance.below(6) };
        let pointer = self.fill(2, &words);
        (number, [if self.chance.rarely(32) { self.pointer() } else { pointer }, 0, 0, 0, 0])
    }

    /// Any number with anything.
    fn wild(&mut self) -> Call {
        let words: [u64; 32] = core::array::from_fn(|_| self.word());
        self.fill(2, &words);
        let number = if self.chance.rarely(8) { self.half() as u32 } else { self.chance.below(64) as u32 };
        // A frame for iret that is not one is the end.
        let number = if number == HYPERVISOR_IRET && !self.chance.rarely(40) { HYPERVISOR_XEN_VERSION } else { number };
        self.handlers_change |= number == HYPERVISOR_MULTICALL;
        let few = self.chance.below(32);
        let first = if self.chance.rarely(2) { few } else { self.word() };
        (number, [first, self.pointer(), self.word(), self.word(), self.word()])
    }
}

/// What the control domain may do to the machine as a whole, and is believed.
fn stops_the_machine(number: u32, args: &[u64; 5], buffer: &guest_pv::mem::Frame) -> bool {
    let head = |at: usize| u32::from_le_bytes(buffer.bytes()[at..at + 4].try_into().unwrap_or_default());
    match number {
        // settime, sleep, CPUs on and off, memory, idle cores
        HYPERVISOR_PLATFORM_OP => matches!(head(0), 17 | 51 | 56..=60 | 62),
        // debug keys, CPUs on and off, pages offline, CPU pools
        HYPERVISOR_SYSCTL => matches!(head(0), 7 | 12..=15 | 18),
        HYPERVISOR_KEXEC_OP | HYPERVISOR_MCA => true,
        HYPERVISOR_PHYSDEV_OP | HYPERVISOR_PHYSDEV_OP_COMPAT => !matches!(args[0], 5..=8),
        _ => false,
    }
}
