//! Memory: storms of mmap, mprotect and munmap on several threads of one address space, where every page that may not
//! be written is tried, and the fault it makes is counted.

use super::sys::{self, May, PAGE, Pages};
use super::tap::Tap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Faults that the handler has seen.
static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// Makes the page writable, so that what faulted goes on.
extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    if !sys::unprotect_page_of(sys::fault_address(info)) {
        std::process::abort();
    }
}

const THREADS: usize = 4;
const ROUNDS: usize = 60;
const COUNT: usize = 32;

pub fn run(tap: &mut Tap) {
    tap.claim(sys::on_signal(libc::SIGSEGV, on_fault, 0).is_ok(), "a handler for faults is taken");
    FAULTS.store(0, Ordering::Relaxed);
    let wrong: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || storm(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(ROUNDS)).sum()
    });
    tap.same(&wrong, &0, "4 threads map, protect, write and unmap, and every word is what was written");
    let wanted = THREADS * ROUNDS * (COUNT / 2 + COUNT / 4);
    tap.same(&FAULTS.load(Ordering::Relaxed), &wanted, "each write to a page that may not be written faults, once");
    tap.same(&forgotten(), &0, "what the kernel was told to forget reads as zero");
    tap.same(&large(), &0, "32 MiB written and read back, a word of each page");
}

/// How many rounds went wrong.
fn storm(thread: usize) -> usize {
    (0..ROUNDS).filter(|&round| round_of(thread, round).is_none_or(|wrong| wrong > 0)).count()
}

fn round_of(thread: usize, round: usize) -> Option<usize> {
    let pages = Pages::new(COUNT, round % 2 == 1).ok()?;
    let mark = |page: usize| (pages.address() + page * PAGE + round) as u64 ^ ((thread as u64) << 56);
    for page in 0..COUNT {
        pages.write(page * PAGE, mark(page));
    }
    // The odd half one by one, so that the kernel has to split and join its areas; then a quarter at once.
    for page in (1..COUNT).step_by(2) {
        pages.protect(page, 1, May::Read).ok()?;
    }
    for page in (1..COUNT).step_by(2) {
        pages.write(page * PAGE + 8, mark(page));
    }
    pages.protect(0, COUNT / 4, May::None).ok()?;
    for page in 0..COUNT / 4 {
        pages.write(page * PAGE + 16, mark(page));
    }
    let wrong = (0..COUNT).filter(|&page| pages.read(page * PAGE) != mark(page)).count();
    let late = (1..COUNT).step_by(2).filter(|&page| pages.read(page * PAGE + 8) != mark(page)).count();
    Some(wrong + late)
}

fn forgotten() -> usize {
    let Ok(pages) = Pages::new(COUNT, false) else { return COUNT };
    for page in 0..COUNT {
        pages.write(page * PAGE, 1);
    }
    if pages.forget().is_err() {
        return COUNT;
    }
    (0..COUNT).filter(|page| pages.read(page * PAGE) != 0).count()
}

fn large() -> usize {
    const PAGES: usize = (32 << 20) / PAGE;
    let Ok(pages) = Pages::new(PAGES, false) else { return PAGES };
    for page in 0..PAGES {
        pages.write(page * PAGE, page as u64 * 7);
    }
    (0..PAGES).filter(|&page| pages.read(page * PAGE) != page as u64 * 7).count()
}
