//! The FIFO layout of a domain's events: its pages, and how a domain comes to it and leaves it again.
//!
//! The pages are the guest's own, held as writable data for as long as the layout is in use. Senders find them without a
//! lock; so they go back only when every CPU has passed a point without access to them.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    mem::{offset_of, size_of},
    sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering},
};

use logic::{
    event::{
        self, PORTS_FIFO,
        fifo::{ControlBlock, EventWord, FifoMemory, Priority, Queues, WORDS_PER_PAGE},
    },
    hypercall::Outcome,
    lock::{Held, rank},
    width::Width,
};
use machine::mem::{
    heap,
    shared::{Quiesced, SharedPage, SharedSlot, SharedView},
};
use xen_abi::{
    errno::Errno,
    event_channel::EvtchnFifoControlBlock,
    ids::{Mfn, Port, VcpuId},
};

use super::tell;
use crate::{
    cpu_loop::breathe,
    domain::Domain,
    memory::{self, mmu},
    sync::{Lock, Once},
};

/// Pages of the array when it is complete.
const PAGES: u32 = PORTS_FIFO / WORDS_PER_PAGE;

/// Which layout a domain uses.
pub(super) struct Layout {
    /// One of those below, with [`NARROW`]; changed under the lock of the domain's table.
    mode: AtomicU8,
    /// Made when the domain first asks for it.
    memory: Once<Memory>,
}

/// The 2-level layout.
const TWO_LEVEL: u8 = 0;
/// The FIFO layout.
const FIFO: u8 = 1;
/// On the way back: no port is bound, and the pages are being given up.
const ENDING: u8 = 2;
/// The kernel's words have 32 bits, whatever the layout.
const NARROW: u8 = 4;

impl Layout {
    pub(super) const fn new() -> Self {
        Self { mode: AtomicU8::new(TWO_LEVEL), memory: Once::new() }
    }

    #[inline(always)]
    pub(super) fn fifo(&self) -> Option<&Memory> {
        if self.mode.load(Ordering::Acquire) & !NARROW == FIFO { self.memory.get() } else { None }
    }

    #[inline(always)]
    pub(super) fn now(&self) -> event::Layout<'_, Memory> {
        let mode = self.mode.load(Ordering::Acquire);
        if mode == TWO_LEVEL {
            return event::Layout::Bits(Width::Long64);
        }
        match self.memory.get() {
            Some(memory) if mode & FIFO != 0 => event::Layout::Fifo(memory),
            _ => event::Layout::Bits(width_of(mode)),
        }
    }

    pub(super) fn width(&self) -> Width {
        width_of(self.mode.load(Ordering::Acquire))
    }

    pub(super) fn set_width(&self, width: Width) {
        let narrow = if width == Width::Long32 { NARROW } else { 0 };
        self.mode.store(self.mode.load(Ordering::Relaxed) & !NARROW | narrow, Ordering::SeqCst);
    }

    /// Which of the layouts it is, whatever the width.
    fn kind(&self) -> u8 {
        self.mode.load(Ordering::Relaxed) & !NARROW
    }

    fn set_kind(&self, kind: u8) {
        self.mode.store(self.mode.load(Ordering::Relaxed) & NARROW | kind, Ordering::SeqCst);
    }
}

const fn width_of(mode: u8) -> Width {
    if mode & NARROW != 0 { Width::Long32 } else { Width::Long64 }
}

/// What a domain shares with the hypervisor.
pub struct Memory {
    array: Box<[SharedSlot]>,
    /// How many pages of the array there are.
    pages: AtomicU32,
    vcpus: Box<[VcpuMemory]>,
}

struct VcpuMemory {
    control: SharedSlot,
    offset: AtomicUsize,
    queues: Lock<Queues, { rank::LEAF }>,
}

impl Memory {
    fn new(vcpus: u32) -> Result<Self, Errno> {
        fn filled<T>(count: u32, value: impl FnMut() -> T) -> Result<Box<[T]>, Errno> {
            let count = usize::try_from(count).map_err(|_| Errno::ENOMEM)?;
            let mut all = Vec::new();
            all.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
            all.resize_with(count, value);
            Ok(all.into_boxed_slice())
        }
        let vcpu =
            || VcpuMemory { control: SharedSlot::new(), offset: AtomicUsize::new(0), queues: Lock::new(Queues::new()) };
        Ok(Self { array: filled(PAGES, SharedSlot::new)?, pages: AtomicU32::new(0), vcpus: filled(vcpus, vcpu)? })
    }

    fn vcpu(&self, vcpu: VcpuId) -> Option<&VcpuMemory> {
        self.vcpus.get(usize::try_from(vcpu.0).ok()?)
    }

    fn slots(&self) -> impl Iterator<Item = &SharedSlot> {
        self.array.iter().chain(self.vcpus.iter().map(|vcpu| &vcpu.control))
    }

    /// As new, but for the pages.
    fn reset(&self) {
        self.pages.store(0, Ordering::Relaxed);
        self.vcpus.iter().for_each(|vcpu| vcpu.queues.lock_leaf(|queues| *queues = Queues::new()));
    }
}

/// A word of the array.
#[derive(Clone, Copy)]
pub struct Word<'a> {
    page: SharedView<'a>,
    at: usize,
}

impl EventWord for Word<'_> {
    #[inline]
    fn load(self) -> u32 {
        self.page.load32(self.at)
    }
    #[inline]
    fn set(self, bits: u32) -> u32 {
        self.page.or32(self.at, bits)
    }
    #[inline]
    fn clear(self, bits: u32) -> u32 {
        self.page.and32(self.at, !bits)
    }
    #[inline]
    fn replace(self, old: u32, new: u32) -> Result<(), u32> {
        self.page.compare_exchange32(self.at, old, new)
    }
}

/// A control block.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    page: SharedView<'a>,
    base: usize,
}

impl ControlBlock for Control<'_> {
    fn set_head(self, queue: Priority, port: Port) {
        let heads = self.base + offset_of!(EvtchnFifoControlBlock, head);
        self.page.store32(heads + queue.index() * size_of::<u32>(), port.0);
    }
    fn test_and_set_ready(self, queue: Priority) -> bool {
        let bit = 1 << queue.index();
        self.page.or32(self.base + offset_of!(EvtchnFifoControlBlock, ready), bit) & bit != 0
    }
}

impl FifoMemory for Memory {
    type Word<'a> = Word<'a>;
    type Control<'a> = Control<'a>;

    #[inline]
    fn word(&self, port: Port) -> Option<Word<'_>> {
        let page = self.array.get((port.0 / WORDS_PER_PAGE) as usize)?.view()?;
        Some(Word { page, at: (port.0 % WORDS_PER_PAGE) as usize * size_of::<u32>() })
    }

    #[inline]
    fn control(&self, vcpu: VcpuId) -> Option<Control<'_>> {
        let vcpu = self.vcpu(vcpu)?;
        Some(Control { page: vcpu.control.view()?, base: vcpu.offset.load(Ordering::Relaxed) })
    }

    #[inline]
    fn with_queues<V>(&self, vcpu: VcpuId, f: impl FnOnce(&mut Queues) -> V) -> Option<V> {
        Some(self.vcpu(vcpu)?.queues.lock_leaf(f))
    }
}

/// A page of the domain's that the hypervisor may write: EINVAL if it is none.
fn hold(domain: &Arc<Domain>, mfn: Mfn, held: &mut Held<'_, 0>) -> Result<SharedPage, Errno> {
    let mut deferred = Vec::new();
    let mfn = domain.frame_of(mfn.0, held).ok_or(Errno::EINVAL)?;
    mmu(held.again(), domain, &mut deferred).hold_writable(mfn, domain.id).map(SharedPage::new).ok_or(Errno::EINVAL)
}

fn give_back(domain: &Arc<Domain>, page: SharedPage, held: &mut Held<'_, 0>) {
    let mut deferred = Vec::new();
    let mut mm = mmu(held.again(), domain, &mut deferred);
    mm.end_shared(page.into_frame());
    // It was writable, never a table: nothing is put off.
    let _ = memory::finish(&mut mm);
}

/// `EVTCHNOP_init_control`: a vCPU's control block. The first one turns the domain to the FIFO layout.
pub fn init_control(
    domain: &Arc<Domain>,
    vcpu: VcpuId,
    mfn: Mfn,
    offset: u32,
    held: &mut Held<'_, 0>,
) -> Result<Outcome, Errno> {
    domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let offset = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
    if offset > 4096 - size_of::<EvtchnFifoControlBlock>() || !offset.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    memory::feed_heap(held);
    let page = hold(domain, mfn, held)?;
    let layout = &domain.events.layout;
    let mut begins = false;
    let refused = {
        let (_table, _held) = domain.events.table.lock(held);
        let enter = |page: SharedPage| {
            let Some(memory) = layout.memory.get() else { return Err((page, Errno::ENOMEM)) };
            let Some(vcpu) = memory.vcpu(vcpu) else { return Err((page, Errno::ENOENT)) };
            if vcpu.control.mfn().is_some() {
                return Err((page, Errno::EINVAL));
            }
            vcpu.offset.store(offset, Ordering::Relaxed);
            vcpu.control.fill(page).map_err(|page| (page, Errno::EINVAL))
        };
        match layout.kind() {
            ENDING => Err((page, None)),
            FIFO => enter(page).map_err(|(page, errno)| (page, Some(errno))),
            _ => match prepare(layout, domain.max_vcpus()).map_err(Some) {
                Err(errno) => Err((page, errno)),
                Ok(()) => enter(page).map_err(|(page, errno)| (page, Some(errno))).inspect(|()| {
                    layout.set_kind(FIFO);
                    // Whoever found the old layout has set its bits by now.
                    let _ = Quiesced::wait();
                    begins = true;
                }),
            },
        }
    };
    let mut first = begins.then_some(0);
    while let Some(from) = first {
        breathe(held);
        let (mut table, mut held) = domain.events.table.lock(held);
        // Another vCPU may have ended the layout meanwhile.
        first = layout.fifo().and_then(|_| table.begin_fifo(&**domain, from, |notify| tell(domain, notify, &mut held)));
    }
    let Err((page, errno)) = refused else { return Ok(Outcome::OK) };
    give_back(domain, page, held);
    errno.map_or(Ok(Outcome::Again), Err)
}

/// Makes a domain's memory for the layout: once, and it stays.
fn prepare(layout: &Layout, vcpus: u32) -> Result<(), Errno> {
    if layout.memory.get().is_none() {
        if heap::is_low() {
            return Err(Errno::ENOMEM);
        }
        let memory = Memory::new(vcpus)?;
        layout.memory.call_once(|| memory);
    }
    Ok(())
}

/// `EVTCHNOP_expand_array`: one more page of words. EOPNOTSUPP in the 2-level layout, ENOSPC when the array is complete.
pub fn expand_array(domain: &Arc<Domain>, mfn: Mfn, held: &mut Held<'_, 0>) -> Result<Outcome, Errno> {
    let layout = &domain.events.layout;
    match layout.fifo() {
        Some(memory) if memory.pages.load(Ordering::Relaxed) >= PAGES => return Err(Errno::ENOSPC),
        Some(_) => {}
        None if layout.kind() == ENDING => return Ok(Outcome::Again),
        None => return Err(Errno::EOPNOTSUPP),
    }
    let page = hold(domain, mfn, held)?;
    let refused = {
        let (_table, _held) = domain.events.table.lock(held);
        let fill = |page: SharedPage| {
            let Some(memory) = layout.fifo() else { return Err(page) };
            let index = memory.pages.load(Ordering::Relaxed);
            let Some(slot) = memory.array.get(index as usize) else { return Err(page) };
            slot.fill(page)?;
            memory.pages.store(index + 1, Ordering::Relaxed);
            Ok(index)
        };
        fill(page)
    };
    let page = match refused {
        Ok(index) => {
            let first = index * WORDS_PER_PAGE;
            for first in (first..first + WORDS_PER_PAGE).step_by(event::PORTS_PER_ROUND as usize) {
                breathe(held);
                let (_table, mut held) = domain.events.table.lock(held);
                event::collect_saved(&**domain, first, |notify| tell(domain, notify, &mut held));
            }
            return Ok(Outcome::OK);
        }
        Err(page) => page,
    };
    // The layout ended meanwhile, or another CPU added the last page: the next try says which.
    give_back(domain, page, held);
    Ok(Outcome::Again)
}

/// The end of `EVTCHNOP_reset`: back to the 2-level layout. EAGAIN while ports are bound.
pub fn end(domain: &Arc<Domain>, held: &mut Held<'_, 0>) -> Result<(), Errno> {
    let layout = &domain.events.layout;
    {
        let (table, _held) = domain.events.table.lock(held);
        if table.active() != 0 {
            return Err(Errno::EAGAIN);
        }
        if layout.kind() != FIFO {
            return Ok(());
        }
        layout.set_kind(ENDING);
    }
    retire(layout, |page| give_back(domain, page, held));
    let (_table, _held) = domain.events.table.lock(held);
    layout.set_kind(TWO_LEVEL);
    Ok(())
}

/// The frames of the pages that the hypervisor holds for the layout.
pub(super) fn frames(layout: &Layout, each: impl FnMut(Mfn)) {
    let slots = layout.memory.get().into_iter().flat_map(Memory::slots);
    slots.filter_map(SharedSlot::mfn).for_each(each);
}

/// Takes all pages away from senders and hands them to `end`.
pub(super) fn retire(layout: &Layout, end: impl FnMut(SharedPage)) {
    let Some(memory) = layout.memory.get() else { return };
    memory.slots().for_each(SharedSlot::close);
    let quiesced = Quiesced::wait();
    memory.slots().filter_map(|slot| slot.take(&quiesced)).for_each(end);
    memory.reset();
}
