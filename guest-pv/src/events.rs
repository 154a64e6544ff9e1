//! Event channels, and the loop that a guest spends its life in.
//!
//! Upcalls stay masked (`evtchn_upcall_mask` = 1) while the guest runs; [`poll`] takes one pending port at a time, and
//! [`wait`] sleeps until there is one. The upcall that ends a sleep only masks events again. So nothing preempts
//! anything, and no wake-up is lost: `SCHEDOP_block` unmasks and looks for pending events in one step.
//!
//! All of this is the 2-level layout. A guest that wants the other one has [`fifo`], and then does without the rest.

pub mod fifo;

use crate::call::{event_channel, sched};
use crate::mem::{self, Access, Mapping, SharedBytes};
use crate::{pvh, smp, time};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use spin::Once;
use xen_abi::arch_x86::{shared_info, vcpu_info};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Pfn, Port, VcpuId};

static SHARED: Once<&'static SharedBytes> = Once::new();
/// For each vCPU, words of pending bits that have been announced to it and not been looked through yet.
static ANNOUNCED: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];
/// The port after the last one taken: the search goes round, so that no port starves another.
static NEXT: [AtomicU32; smp::MAX] = [const { AtomicU32::new(0) }; smp::MAX];

/// When each vCPU's timer will fire, as [`wait`] has set it; 0 where it has fired.
static ARMED: [AtomicU64; smp::MAX] = [const { AtomicU64::new(0) }; smp::MAX];

/// The ports that notify a vCPU other than 0, by vCPU and word; all other ports notify vCPU 0. A vCPU leaves the
/// others' ports alone.
static TAKEN: [[AtomicU64; 64]; smp::MAX] = [const { [const { AtomicU64::new(0) }; 64] }; smp::MAX];
/// All of these, by word: what is not vCPU 0's.
static OTHERS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Notes that a port notifies a vCPU.
fn assign(port: Port, vcpu: VcpuId) {
    let (word, bit) = ((port.0 / 64) as usize, 1 << (port.0 % 64));
    for (index, ports) in (0..).zip(&TAKEN).skip(1) {
        if index == vcpu.0 {
            ports[word].fetch_or(bit, Ordering::SeqCst);
        } else {
            ports[word].fetch_and(!bit, Ordering::SeqCst);
        }
    }
    if vcpu.0 == 0 {
        OTHERS[word].fetch_and(!bit, Ordering::SeqCst);
    } else {
        OTHERS[word].fetch_or(bit, Ordering::SeqCst);
    }
}

/// The bits of a word that belong to a vCPU.
fn ports_of(vcpu: usize, word: usize) -> u64 {
    match vcpu {
        0 => !OTHERS[word].load(Ordering::SeqCst),
        _ => TAKEN[vcpu][word].load(Ordering::SeqCst),
    }
}

/// Makes a port of ours notify this vCPU, and unmasks it.
fn adopt(port: Port) {
    assign(port, smp::this());
    unmask(port);
}

/// Where a vCPU's `vcpu_info` is in the shared page.
pub(crate) const fn vcpu_info_of(index: usize) -> usize {
    shared_info::VCPU_INFO + index * shared_info::VCPU_INFO_STRIDE
}

/// The shared info page.
///
/// # Panics
/// Before the runtime is up; a guest's own code never sees that.
pub fn shared() -> &'static SharedBytes {
    SHARED.get().expect("the shared info page is mapped early")
}

/// The address of this vCPU's last page fault.
pub fn cr2() -> u64 {
    if pvh::is_active() {
        return pvh::cr2();
    }
    SHARED.get().map_or(0, |shared| shared.load_u64(vcpu_info_of(smp::index()) + vcpu_info::ARCH_CR2))
}

/// Maps the shared info page and masks all ports.
pub(crate) fn init(shared_info_address: u64) {
    let shared = if pvh::is_active() {
        mem::shared_page(Pfn(shared_info_address >> 12))
    } else {
        let page = Mapping::own(&[shared_info_address >> 12], Access::ReadWrite);
        page.expect("the shared info page can be mapped").leak()
    };
    SHARED.call_once(|| shared);
    set_upcall_mask(true);
    for word in 0..64 {
        shared.store_u64(shared_info::EVTCHN_MASK + word * 8, u64::MAX);
    }
}

/// Masks or unmasks the upcall itself. A guest that unmasks it should have set a handler for
/// [`crate::traps::EVENT`], or look at [`poll`] again afterwards.
pub fn set_upcall_mask(masked: bool) {
    set_upcall_mask_of(smp::index(), masked);
}

/// [`set_upcall_mask`] of another vCPU, which does not run yet.
pub(crate) fn set_upcall_mask_of(vcpu: usize, masked: bool) {
    let mask = vcpu_info_of(vcpu) + vcpu_info::EVTCHN_UPCALL_MASK;
    shared().u8_at(mask).store(u8::from(masked), Ordering::SeqCst);
}

fn bit(array: usize, port: Port) -> (&'static AtomicU64, u64) {
    let word = shared().u64_at(array + (port.0 / 64) as usize * 8);
    (word, 1 << (port.0 % 64))
}

/// Is the port pending?
pub fn is_pending(port: Port) -> bool {
    let (word, bit) = bit(shared_info::EVTCHN_PENDING, port);
    word.load(Ordering::SeqCst) & bit != 0
}

/// Clears a port's pending bit; was it set?
pub fn clear(port: Port) -> bool {
    let (word, bit) = bit(shared_info::EVTCHN_PENDING, port);
    word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

/// Is the port masked?
pub fn is_masked(port: Port) -> bool {
    let (word, bit) = bit(shared_info::EVTCHN_MASK, port);
    word.load(Ordering::SeqCst) & bit != 0
}

/// Masks a port: it may become pending but is not announced.
pub fn mask(port: Port) {
    let (word, bit) = bit(shared_info::EVTCHN_MASK, port);
    word.fetch_or(bit, Ordering::SeqCst);
}

/// Unmasks a port; if it is pending it is announced now.
pub fn unmask(port: Port) {
    event_channel::unmask(port).expect("a port of ours can be unmasked");
}

/// Notifies the other end of a port.
///
/// # Errors
/// `EINVAL` when the port is not bound to anyone.
pub fn notify(port: Port) -> Result<(), Errno> {
    event_channel::send(port)
}

/// Binds a virtual interrupt (`VIRQ_*`) to this vCPU and unmasks its port.
///
/// # Errors
/// Those of the hypercall; `EEXIST` when it is bound already.
pub fn bind_virq(virq: u32) -> Result<Port, Errno> {
    event_channel::bind_virq(virq, smp::this()).inspect(|&port| adopt(port))
}

/// Binds a physical interrupt to this vCPU and unmasks its port.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_pirq(pirq: u32) -> Result<Port, Errno> {
    event_channel::bind_pirq(pirq).inspect(|&port| adopt(port))
}

/// Makes a port by which this domain notifies this vCPU, unmasked.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_ipi() -> Result<Port, Errno> {
    event_channel::bind_ipi(smp::this()).inspect(|&port| adopt(port))
}

/// Makes a port notify another vCPU.
///
/// # Errors
/// Those of the hypercall: `EINVAL` for the ports that belong to their vCPU.
pub fn bind_vcpu(port: Port, vcpu: VcpuId) -> Result<(), Errno> {
    event_channel::bind_vcpu(port, vcpu)?;
    assign(port, vcpu);
    Ok(())
}

/// Binds to a port that `remote` left open for this domain, and unmasks it. It is pending at once, as Xen does it.
///
/// # Errors
/// Those of the hypercall.
pub fn bind_interdomain(remote: DomId, remote_port: Port) -> Result<Port, Errno> {
    event_channel::bind_interdomain(remote, remote_port).inspect(|&port| unmask(port))
}

/// Allocates a port for `remote` to bind to, unmasked.
///
/// # Errors
/// Those of the hypercall.
pub fn alloc_unbound(remote: DomId) -> Result<Port, Errno> {
    event_channel::alloc_unbound(DomId::SELF, remote).inspect(|&port| unmask(port))
}

/// Masks and closes a port.
///
/// # Errors
/// Those of the hypercall.
pub fn close(port: Port) -> Result<(), Errno> {
    mask(port);
    event_channel::close(port)?;
    assign(port, VcpuId(0));
    clear(port);
    Ok(())
}

/// Finds the next pending and unmasked port, which the caller clears, or [announces](announce) again.
fn find() -> Option<Port> {
    let shared = shared();
    let me = smp::index();
    let info = vcpu_info_of(me);
    let upcall = shared.u8_at(info + vcpu_info::EVTCHN_UPCALL_PENDING);
    // Whoever announces something sets this last, and who blocks is told of it.
    if upcall.load(Ordering::SeqCst) == 0 && ANNOUNCED[me].load(Ordering::Relaxed) == 0 {
        return None;
    }
    upcall.store(0, Ordering::SeqCst);
    let fresh = shared.u64_at(info + vcpu_info::EVTCHN_PENDING_SEL).swap(0, Ordering::SeqCst);
    let mut announced = ANNOUNCED[me].load(Ordering::Relaxed) | fresh;
    let mut next = NEXT[me].load(Ordering::Relaxed);
    // Each round looks at one word; the first word may be looked at twice, since the search starts in its middle.
    while announced != 0 {
        let ahead = announced & u64::MAX.checked_shl(next / 64).unwrap_or(0);
        let word = if ahead != 0 { ahead } else { announced }.trailing_zeros();
        if word != next / 64 {
            next = word * 64;
        }
        let at = word as usize * 8;
        let pending = shared.u64_at(shared_info::EVTCHN_PENDING + at).load(Ordering::SeqCst)
            & !shared.u64_at(shared_info::EVTCHN_MASK + at).load(Ordering::SeqCst)
            & ports_of(me, word as usize);
        let ahead = pending & u64::MAX << (next % 64);
        if ahead != 0 {
            let bit = ahead.trailing_zeros();
            // What comes for a word that has nothing else is announced.
            if pending == 1 << bit {
                announced &= !(1 << word);
            }
            ANNOUNCED[me].store(announced, Ordering::Relaxed);
            return Some(Port(word * 64 + bit));
        }
        if pending == 0 {
            announced &= !(1 << word);
        }
        next = (word + 1) * 64 % 4096;
    }
    ANNOUNCED[me].store(0, Ordering::Relaxed);
    None
}

/// A port that was found is to be found again.
fn announce(port: Port) {
    ANNOUNCED[smp::index()].fetch_or(1 << (port.0 / 64), Ordering::Relaxed);
}

/// Takes the next pending port and clears its bit. The timer's own port is kept to ourselves.
pub fn poll() -> Option<Port> {
    loop {
        let port = find()?;
        NEXT[smp::index()].store((port.0 + 1) % 4096, Ordering::Relaxed);
        clear(port);
        if !time::is_timer(port) {
            return Some(port);
        }
        // It may fire a little early, and then is not set any more.
        ARMED[smp::index()].store(0, Ordering::Relaxed);
    }
}

/// Sleeps until a port is pending, or the system time `deadline` (ns) has come. Returns at once when a port is
/// pending already.
pub fn wait(deadline: Option<u64>) {
    let mut armed = 0;
    loop {
        match find() {
            Some(port) if time::is_timer(port) => {
                clear(port);
                armed = 0;
                ARMED[smp::index()].store(0, Ordering::Relaxed);
                // Another port may have been announced with it, and is not announced again.
                continue;
            }
            Some(port) => return announce(port),
            None => {}
        }
        if deadline.is_some_and(|deadline| !is_to_come(deadline, &mut armed)) {
            return;
        }
        block();
    }
}

/// [`wait`] for who polls afterwards whatever it was, be it the timer, and sets the one-shot timer in no other way than this
/// and that: where it will fire before the deadline anyway, it is not set again.
pub fn wait_on(deadline: Option<u64>) {
    if let Some(port) = find() {
        return announce(port);
    }
    let mut armed = ARMED[smp::index()].load(Ordering::Relaxed);
    if deadline.is_none_or(|deadline| is_to_come(deadline, &mut armed)) {
        block();
    }
}

/// Whether a deadline is to come; then the timer is set, which would fire at `armed`.
fn is_to_come(deadline: u64, armed: &mut u64) -> bool {
    let now = time::now();
    if now >= deadline {
        return false;
    }
    if !(now..=deadline).contains(armed) {
        *armed = deadline;
        ARMED[smp::index()].store(deadline, Ordering::Relaxed);
        time::set_timer(deadline);
    }
    true
}

fn block() {
    if pvh::is_active() {
        pvh::halt();
    } else {
        sched::block().expect("a vCPU can always block");
    }
    // The upcall that ended the sleep has masked events again, but there is none when the event was gone by then.
    set_upcall_mask(true);
}
