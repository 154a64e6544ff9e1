//! Fibers: work with a stack of its own that stops in the middle and is resumed later, on the same vCPU.
//!
//! Whoever resumes a fiber lends it a context for that time. The fiber reaches it through its [`Door`], and cannot keep
//! anything of it across a pause: [`Door::pause`] takes the door whole, so the borrow checker sees to that.
//!
//! Unsafe: stacks are switched.

use crate::mem::{Frame, Mapping, PAGE_BYTES};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;

/// Pages of a fiber's stack: as much as the main stack has.
const STACK_PAGES: usize = 32;

core::arch::global_asm!(
    // guest_pv_switch(save: *mut usize, load: usize): the registers that a callee preserves go onto this stack, and come
    // from the other. Nothing here uses the FPU.
    ".pushsection .text.guest_pv_switch, \"ax\", @progbits",
    ".globl guest_pv_switch",
    "guest_pv_switch:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rdi], rsp",
    "mov rsp, rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    // A new stack begins here: rbx holds what is to be run, r12 the function that runs it.
    ".globl guest_pv_fiber_start",
    "guest_pv_fiber_start:",
    "xor ebp, ebp",
    "mov rdi, rbx",
    "call r12",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    /// Saves the callee-saved registers and the stack pointer, and goes on where `load` was saved.
    fn guest_pv_switch(save: *mut usize, load: usize);
    /// Not to be called: the first return address of a new stack.
    fn guest_pv_fiber_start();
}

/// What a fiber does.
type Body<C> = Box<dyn FnOnce(&mut Door<C>)>;

/// What both sides know.
struct Shared<C: 'static> {
    /// The fiber's stack pointer while it is paused.
    inside: usize,
    /// The resumer's while the fiber runs.
    outside: usize,
    /// Lent by the resumer; valid while the fiber runs.
    context: *mut C,
    body: Option<Body<C>>,
    done: bool,
}

/// A stack: pages of our own, behind one that is not mapped.
struct Stack {
    mapping: Mapping,
    _frames: Vec<Frame>,
}

impl Stack {
    fn new() -> Option<Self> {
        let frames: Vec<Frame> = (0..STACK_PAGES).map(|_| Frame::zeroed()).collect::<Option<_>>()?;
        let mfns: Vec<u64> = frames.iter().map(|frame| frame.mfn().0).collect();
        Some(Self { mapping: Mapping::guarded(&mfns).ok()?, _frames: frames })
    }

    fn top(&self) -> *mut usize {
        (self.mapping.address() as usize + (STACK_PAGES + 1) * PAGE_BYTES) as *mut usize
    }
}

/// Whether a fiber goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It stopped in the middle.
    Paused,
    /// It has ended; it cannot be resumed any more.
    Done,
}

/// A fiber that has not ended. Dropped before its end, its stack is never used again.
pub struct Fiber<C: 'static> {
    /// From a box; the fiber's [`Door`] points there too.
    shared: *mut Shared<C>,
    stack: Option<Stack>,
}

impl<C> core::fmt::Debug for Fiber<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Fiber")
    }
}

impl<C: 'static> Fiber<C> {
    /// A fiber that begins with `body` once it is resumed. `None` when there is no memory for its stack.
    pub fn new(body: impl FnOnce(&mut Door<C>) + 'static) -> Option<Self> {
        let stack = Stack::new()?;
        let top = stack.top();
        // SAFETY: the stack is mapped, and nobody else uses it.
        Some(unsafe { Self::on(Some(stack), top, Box::new(body)) })
    }

    /// # Safety
    /// `top` is the aligned end of a stack that nobody uses, for as long as the fiber has not ended.
    unsafe fn on(stack: Option<Stack>, top: *mut usize, body: Body<C>) -> Self {
        let context = ptr::null_mut();
        let shared = Box::into_raw(Box::new(Shared { inside: 0, outside: 0, context, body: Some(body), done: false }));
        let begin = [
            0,                              // r15
            0,                              // r14
            0,                              // r13
            run::<C> as *const () as usize, // r12
            shared as usize,                // rbx
            0,                              // rbp
            guest_pv_fiber_start as *const () as usize,
            0, // so that the stack is aligned for the call
        ];
        // SAFETY: by the contract the words below `top` are free.
        unsafe {
            let bottom = top.sub(begin.len());
            bottom.cast::<[usize; 8]>().write(begin);
            (*shared).inside = bottom as usize;
        }
        Self { shared, stack }
    }

    /// Lets it run until it pauses or ends.
    pub fn resume(&mut self, context: &mut C) -> State {
        let shared = self.shared;
        // SAFETY: it is ours; the fiber does not run. `inside` is the stack pointer that the fiber had when it paused, or the one of its beginning. It runs
        // on this vCPU until it switches back to `outside`, and uses the context only until then, see `Door`.
        unsafe {
            if !(*shared).done {
                (*shared).context = context;
                guest_pv_switch(&raw mut (*shared).outside, (*shared).inside);
                (*shared).context = ptr::null_mut();
            }
            if (*shared).done { State::Done } else { State::Paused }
        }
    }
}

impl<C: 'static> Drop for Fiber<C> {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the fiber does not run; one in its middle never will again.
        let shared = unsafe { Box::from_raw(self.shared) };
        // What lives on the stack of a fiber in its middle may be pinned there.
        if !shared.done && shared.body.is_none() {
            core::mem::forget(self.stack.take());
        }
    }
}

/// The fiber's way to what it was lent.
pub struct Door<C: 'static> {
    shared: *mut Shared<C>,
}

impl<C> core::fmt::Debug for Door<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Door")
    }
}

impl<C: 'static> Door<C> {
    /// What the resumer lent.
    pub fn context(&mut self) -> &mut C {
        // SAFETY: the fiber runs, since its door is used (a door cannot be sent elsewhere, and its body alone has it), so
        // the resumer's exclusive borrow lasts. What is returned borrows the door, so it ends before the next pause.
        unsafe { &mut *(*self.shared).context }
    }

    /// Goes back to the resumer, until it resumes the fiber again.
    pub fn pause(&mut self) {
        // SAFETY: `outside` is the stack pointer of the resumer, which waits for this switch.
        unsafe { guest_pv_switch(&raw mut (*self.shared).inside, (*self.shared).outside) };
    }
}

/// The first function on a fiber's stack.
extern "C" fn run<C: 'static>(shared: *mut Shared<C>) -> ! {
    let mut door = Door { shared };
    // SAFETY: the box lives as long as the fiber, and the resumer does not touch it while the fiber runs.
    if let Some(body) = unsafe { (*shared).body.take() } {
        body(&mut door);
    }
    // SAFETY: as above; nothing is left on this stack that needs to be dropped.
    unsafe {
        (*shared).done = true;
        guest_pv_switch(&raw mut (*shared).inside, (*shared).outside);
    }
    unreachable!("a fiber that has ended is not resumed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use alloc::vec;

    fn fiber(body: impl FnOnce(&mut Door<Vec<u32>>) + 'static) -> Fiber<Vec<u32>> {
        let stack = Vec::leak(vec![0_u128; 1 << 16]);
        let top = stack.as_mut_ptr_range().end.cast::<usize>();
        // SAFETY: it is leaked, and this fiber's alone.
        unsafe { Fiber::on(None, top, Box::new(body)) }
    }

    #[test]
    fn fibers_take_turns() {
        let mut log = Vec::new();
        let mut fibers = [1, 2].map(|number| {
            fiber(move |door| {
                for step in 0..3 {
                    door.context().push(number * 10 + step);
                    door.pause();
                }
            })
        });
        for _ in 0..3 {
            for fiber in &mut fibers {
                assert_eq!(fiber.resume(&mut log), State::Paused);
            }
        }
        assert!(fibers.iter_mut().all(|fiber| fiber.resume(&mut log) == State::Done));
        assert!(fibers.iter_mut().all(|fiber| fiber.resume(&mut log) == State::Done));
        assert_eq!(log, [10, 20, 11, 21, 12, 22]);
    }

    #[test]
    fn the_context_may_be_another_each_time() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let mut fiber = fiber(|door| {
            door.context().push(1);
            door.pause();
            door.context().push(2);
        });
        fiber.resume(&mut one);
        fiber.resume(&mut two);
        assert_eq!((one, two), (vec![1], vec![2]));
    }

    #[test]
    fn what_a_fiber_holds_is_dropped_at_its_end() {
        let held = Rc::new(());
        let mut log = Vec::new();
        let inside = Rc::clone(&held);
        let mut ended = fiber(move |door| {
            let _inside = inside;
            door.pause();
        });
        ended.resume(&mut log);
        assert_eq!(Rc::strong_count(&held), 2);
        ended.resume(&mut log);
        assert_eq!(Rc::strong_count(&held), 1);
        let inside = Rc::clone(&held);
        drop(fiber(move |_| drop(inside)));
        assert_eq!(Rc::strong_count(&held), 1);
    }
}
