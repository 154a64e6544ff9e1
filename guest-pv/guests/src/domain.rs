//! A second domain, as small as one can be: a few pages and some instructions. It is for what ends a domain, or what only a
//! domain without privileges can try; the control domain makes it, lets it run, and looks at what is left.

use alloc::boxed::Box;
use alloc::vec::Vec;
use guest_pv::alloc;
use guest_pv::call::{domctl, memory};
use guest_pv::mem::table::{ACCESSED, DIRTY, PRESENT, TABLE, USER, WRITE};
use guest_pv::mem::{Access, Mapping};
use guest_pv::time;
use xen_abi::Errno;
use xen_abi::arch_x86::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext};
use xen_abi::domctl::{CreateDomain, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT};
use xen_abi::ids::{DomId, Mfn, VcpuId};
use zerocopy::FromZeros;

/// Where its code is, which it may read and execute.
pub const CODE: u64 = 0x40_0000;
/// Its stack page, which it may write to.
pub const STACK: u64 = 0x40_1000;
/// The end of its stack. What follows is [`DATA`].
pub const STACK_TOP: u64 = 0x40_2000;
/// A page for results.
pub const DATA: u64 = 0x40_2000;
/// The first address where nothing is mapped.
pub const HOLE: u64 = 0x40_3000;
/// The page of results again, read-only.
pub const READ_ONLY: u64 = 0x40_4000;
/// A page for arguments.
pub const ARGUMENTS: u64 = 0x40_6000;
/// Its last-level table, read-only.
pub const L1_TABLE: u64 = 0x40_5000;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The domain is shut down, with a reason (`SHUTDOWN_*`).
    Shutdown(u32),
    /// It has not ended in time.
    Running,
    /// The hypervisor did not take its state.
    Refused(Errno),
}

/// It crashed.
pub const CRASHED: End = End::Shutdown(xen_abi::sched::SHUTDOWN_CRASH);

#[derive(Clone, Copy)]
enum Page {
    L4,
    L3,
    L2,
    L1,
    Code,
    Stack,
    Data,
    UserL4,
    Arguments,
}

const PAGES: usize = 9;

/// A hypercall that a domain is to make: number, five arguments, and its result.
pub type Call = [u64; 7];

/// The domain. Destroyed when dropped.
#[derive(Debug)]
pub struct Tiny {
    /// Its number.
    pub id: DomId,
    frames: Vec<u64>,
}

/// What a small domain is created with.
#[must_use]
pub fn small() -> CreateDomain {
    CreateDomain {
        max_vcpus: 1,
        max_evtchn_port: 1023,
        max_grant_frames: 4,
        max_maptrack_frames: 4,
        grant_opts: 1,
        ..Default::default()
    }
}

impl Tiny {
    /// A domain with so many vCPUs whose code page begins with `code`. Nothing runs yet.
    ///
    /// # Panics
    /// When the hypervisor refuses a step.
    pub fn new(code: &[u8]) -> Self {
        let id = domctl::create_domain(DomId(0), &small()).expect("a domain can be created");
        domctl::max_vcpus(id, 1).expect("with a vCPU");
        domctl::max_mem(id, 4096).expect("and a limit of memory");
        domctl::set_address_size(id, 64).expect("of 64 bits");
        let mut frames: Vec<u64> = (0..PAGES as u64).collect();
        let filled = memory::populate_physmap(id, &mut frames, 0, 0).expect("there is memory");
        assert_eq!(filled, PAGES, "there is memory for all pages");
        let tiny = Self { id, frames };
        let all = tiny.map(&tiny.frames);
        all.zero(0, PAGES * 4096);
        let entry = |table: Page, index: usize, value: u64| {
            all.store_u64(table as usize * 4096 + index * 8, value);
        };
        let frame = |page: Page| tiny.mfn(page).0 << 12;
        let leaf = PRESENT | USER | ACCESSED;
        entry(Page::L4, 0, frame(Page::L3) | TABLE);
        entry(Page::UserL4, 0, frame(Page::L3) | TABLE);
        entry(Page::L3, 0, frame(Page::L2) | TABLE);
        entry(Page::L2, (CODE >> 21) as usize, frame(Page::L1) | TABLE);
        entry(Page::L1, 0, frame(Page::Code) | leaf);
        entry(Page::L1, 1, frame(Page::Stack) | leaf | WRITE | DIRTY);
        entry(Page::L1, 2, frame(Page::Data) | leaf | WRITE | DIRTY);
        entry(Page::L1, 4, frame(Page::Data) | leaf);
        entry(Page::L1, 5, frame(Page::L1) | leaf);
        entry(Page::L1, 6, frame(Page::Arguments) | leaf | WRITE | DIRTY);
        all.write(Page::Code as usize * 4096, code);
        drop(all);
        tiny
    }

    fn mfn(&self, page: Page) -> Mfn {
        Mfn(self.frames[page as usize])
    }

    fn map(&self, frames: &[u64]) -> Mapping {
        Mapping::foreign(self.id, frames, Access::ReadWrite).expect("a foreign page can be mapped")
    }

    /// The machine frame of the kernel's root.
    pub fn root(&self) -> Mfn {
        self.mfn(Page::L4)
    }

    /// The state that it starts with: in its kernel at the beginning of the code, without any handler.
    pub fn context(&self) -> Box<VcpuGuestContext> {
        let mut context = Box::new(VcpuGuestContext::new_zeroed());
        context.flags = VGCF_IN_KERNEL | VGCF_ONLINE;
        let regs = &mut context.user_regs;
        regs.rip = CODE;
        regs.rsp = STACK_TOP;
        regs.rflags = 0x202;
        regs.cs = FLAT_KERNEL_CS;
        regs.ss = FLAT_KERNEL_SS;
        context.kernel_ss = FLAT_KERNEL_SS.into();
        context.kernel_sp = STACK_TOP;
        context.ctrlreg[3] = self.mfn(Page::L4).0 << 12;
        context.ctrlreg[1] = self.mfn(Page::UserL4).0 << 12 | 1;
        context.debugreg[6] = 0xffff_0ff0;
        context.debugreg[7] = 0x400;
        context
    }

    /// Runs it from a state until it is shut down, at most two seconds.
    pub fn run(&self, context: &VcpuGuestContext) -> End {
        if let Err(errno) = domctl::set_vcpu_context(self.id, VcpuId(0), context) {
            return End::Refused(errno);
        }
        if let Err(errno) = domctl::unpause_domain(self.id) {
            return End::Refused(errno);
        }
        for _ in 0..2000 {
            time::sleep(1_000_000);
            let flags = domctl::get_domain_info(self.id).map_or(0, |info| info.flags);
            if flags & XEN_DOMINF_SHUTDOWN != 0 {
                return End::Shutdown(flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK);
            }
        }
        End::Running
    }

    /// A domain that makes hypercalls from its kernel when it is given to [`Tiny::make`].
    pub fn caller() -> Self {
        Self::new(crate::code!(
            "mov ebx, 0x402000",
            "2:",
            "mov rax, [rbx]",
            "cmp rax, -1",
            "je 3f",
            "mov rdi, [rbx + 8]",
            "mov rsi, [rbx + 16]",
            "mov rdx, [rbx + 24]",
            "mov r10, [rbx + 32]",
            "mov r8, [rbx + 40]",
            "syscall",
            "mov [rbx + 48], rax",
            "add rbx, 56",
            "jmp 2b",
            "3:",
            "push 0",
            "mov edi, 2",
            "mov rsi, rsp",
            "mov eax, 29",
            "syscall",
        ))
    }

    /// Lets a [`Tiny::caller`] make hypercalls, at most 72, once; their results are filled in. `arguments` goes to
    /// [`ARGUMENTS`].
    ///
    /// # Panics
    /// When they are too many.
    pub fn make(&self, calls: &mut [Call], arguments: &[u8]) -> End {
        assert!(calls.len() <= 72, "a page has room for 72");
        let page = self.map(&[self.mfn(Page::Data).0]);
        for (index, call) in calls.iter().enumerate() {
            for (word, value) in call.iter().enumerate() {
                page.store_u64(index * 56 + word * 8, *value);
            }
        }
        page.store_u64(calls.len() * 56, u64::MAX);
        self.map(&[self.mfn(Page::Arguments).0]).write(0, arguments);
        let end = self.run(&self.context());
        for (index, call) in calls.iter_mut().enumerate() {
            call[6] = page.load_u64(index * 56 + 48);
        }
        end
    }

    /// The machine frame of its last-level table.
    pub fn l1(&self) -> Mfn {
        self.mfn(Page::L1)
    }

    /// The words at the beginning of the page of results.
    pub fn results<const N: usize>(&self) -> [u64; N] {
        self.words(Page::Data, 0)
    }

    /// The words at the beginning of the page of arguments.
    pub fn arguments<const N: usize>(&self) -> [u64; N] {
        self.words(Page::Arguments, 0)
    }

    /// Runs it from its first state with these bytes in the page of arguments.
    pub fn run_with(&self, arguments: &[u8]) -> End {
        self.map(&[self.mfn(Page::Arguments).0]).write(0, arguments);
        self.run(&self.context())
    }

    /// Words of its stack page.
    pub fn stack<const N: usize>(&self, offset: usize) -> [u64; N] {
        self.words(Page::Stack, offset)
    }

    fn words<const N: usize>(&self, page: Page, offset: usize) -> [u64; N] {
        let mapping = self.map(&[self.mfn(page).0]);
        core::array::from_fn(|index| mapping.load_u64(offset + index * 8))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        for _ in 0..1000 {
            match domctl::destroy_domain(self.id) {
                Err(Errno::EAGAIN | Errno::ERESTART) => {}
                _ => return,
            }
        }
    }
}

/// What becomes of a domain that runs `code`.
pub fn end_of(code: &[u8]) -> End {
    end_with(code, |_| {})
}

/// The same with a changed first state.
pub fn end_with(code: &[u8], change: impl FnOnce(&mut VcpuGuestContext)) -> End {
    let tiny = Tiny::new(code);
    let mut context = tiny.context();
    change(&mut context);
    tiny.run(&context)
}
