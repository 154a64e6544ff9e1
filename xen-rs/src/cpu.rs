//! What floor 3 keeps for each physical CPU, and the context that a handler works in.

use alloc::{boxed::Box, sync::Arc};

use logic::{
    access::{self, Allowed, NoTarget, Operation},
    lock::Held,
    regs::GuestRegs,
};
use xen_abi::{errno::Errno, ids::DomId};

use crate::{
    cpu_loop::CpuSched,
    domain::{self, Domain},
    vcpu::{Vcpu, VcpuState},
};

/// A physical CPU: its own data, and the vCPU it runs.
pub struct Cpu {
    /// What belongs to the CPU itself.
    pub local: CpuLocal,
    /// The vCPU whose registers are on this CPU's stack; `None` while idle.
    pub running: Option<Running>,
}

/// Data of one CPU that no other CPU touches.
pub struct CpuLocal {
    /// The CPU's number, dense from 0.
    pub id: u32,
    /// Its time and whose turn it is.
    pub sched: CpuSched,
}

/// A vCPU on a CPU: the CPU holds the domain alive and owns the vCPU's private state.
pub struct Running {
    /// The vCPU.
    pub vcpu: Arc<Vcpu>,
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Its private state.
    pub state: Box<VcpuState>,
}

/// What a handler gets: who calls, and everything it may change without a lock.
pub struct Context<'a> {
    /// This CPU.
    pub cpu: &'a mut CpuLocal,
    /// The calling vCPU, shared half.
    pub vcpu: &'a Arc<Vcpu>,
    /// The calling domain.
    pub domain: &'a Arc<Domain>,
    /// The calling vCPU, private half.
    pub state: &'a mut VcpuState,
    /// The guest's registers on this CPU's stack.
    pub regs: &'a mut GuestRegs,
    /// The right to take any lock.
    pub held: Held<'a, 0>,
}

/// A domain that the caller may act on.
pub type Target = access::Target<Arc<Domain>>;

impl Context<'_> {
    /// The operation of a guest's number, if the caller may ask for it.
    #[inline(always)]
    pub fn permit<Op: Operation>(&self, number: u32) -> Result<Allowed<Op>, Errno> {
        access::permit(self.domain.as_caller(), Op::asked(number))
    }

    /// The domain of a number that may be `DOMID_SELF`, if the caller may carry the operation out on it.
    #[inline(always)]
    pub fn target<Op: Operation>(&mut self, op: &Allowed<Op>, id: DomId) -> Result<Target, NoTarget> {
        let (caller, own, held) = (self.domain.as_caller(), self.domain, &mut self.held);
        access::target(caller, op, id, |id| if id == own.id { Some(own.clone()) } else { domain::find(id, held) })
    }
}

impl Cpu {
    /// A CPU that has nothing to run yet.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self { local: CpuLocal { id, sched: CpuSched::new(id) }, running: None }
    }

    /// The context of the running vCPU, or `None` while idle.
    pub fn context<'a>(&'a mut self, regs: &'a mut GuestRegs, held: Held<'a, 0>) -> Option<Context<'a>> {
        Some(self.running.as_mut()?.context(&mut self.local, regs, held))
    }
}

impl Running {
    /// The context of this vCPU, which runs on that CPU.
    #[inline(always)]
    pub fn context<'a>(&'a mut self, cpu: &'a mut CpuLocal, regs: &'a mut GuestRegs, held: Held<'a, 0>) -> Context<'a> {
        Context { cpu, vcpu: &self.vcpu, domain: &self.domain, state: &mut self.state, regs, held }
    }
}

impl Context<'_> {
    /// Hypercall arguments: rdi rsi rdx r10 r8 r9.
    #[inline(always)]
    #[must_use]
    pub const fn args(&self) -> [u64; 6] {
        self.regs.hypercall_args()
    }

    /// Sets the first arguments: what a handler that returns `Again` wants to find.
    #[inline(always)]
    pub fn set_args<const N: usize>(&mut self, args: [u64; N]) {
        const { assert!(N <= 6) };
        let mut all = self.args();
        for (to, from) in all.iter_mut().zip(args) {
            *to = from;
        }
        self.regs.set_hypercall_args(all);
    }

    /// Sets one argument.
    #[inline(always)]
    pub fn set_arg(&mut self, index: usize, value: u64) {
        let mut all = self.args();
        if let Some(argument) = all.get_mut(index) {
            *argument = value;
        }
        self.regs.set_hypercall_args(all);
    }
}
