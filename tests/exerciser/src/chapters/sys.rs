//! The few calls of the kernel that the standard library has no name for.
//!
//! Unsafe: foreign calls; each is given memory of its own that outlives it.

#![allow(unsafe_code, reason = "foreign calls")]

use std::ffi::c_void;
use std::io::{Error, Result};
use std::time::Duration;

/// A call's result as the standard library's.
pub fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// The kernel's version.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The CPUs that this process may run on.
pub fn cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is a set; the kernel fills it within the size given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    };
    // SAFETY: the number is within the set.
    (0..libc::CPU_SETSIZE.unsigned_abs() as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Keeps this thread on a CPU.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: as above; the number came from `cpus`.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(result).map(drop)
}

/// The CPU that this thread is on.
pub fn cpu() -> usize {
    // SAFETY: no arguments.
    usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(usize::MAX)
}

/// A clock of the kernel, in nanoseconds.
pub fn clock(id: libc::clockid_t) -> i128 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(id, &raw mut now) };
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

pub fn monotonic() -> i128 {
    clock(libc::CLOCK_MONOTONIC)
}

pub fn realtime() -> i128 {
    clock(libc::CLOCK_REALTIME)
}

/// Installs a handler.
pub fn on_signal(
    signal: i32,
    handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void),
    flags: i32,
) -> Result<()> {
    // SAFETY: the handler has the type that SA_SIGINFO asks for, and stays for good.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | flags;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    check(result).map(drop)
}

/// SIGALRM to this process again and again; zero ends it.
pub fn alarm_every(period: Duration) -> Result<()> {
    let micros = libc::suseconds_t::from(period.subsec_micros());
    let value = libc::timeval { tv_sec: libc::time_t::try_from(period.as_secs()).unwrap_or(0), tv_usec: micros };
    let timer = libc::itimerval { it_interval: value, it_value: value };
    // SAFETY: the kernel reads one itimerval.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }).map(drop)
}

/// Pages of this process, given back when dropped.
pub struct Pages {
    at: *mut u8,
    len: usize,
}

// SAFETY: it is the only name of these pages.
unsafe impl Send for Pages {}

/// What may be done with pages.
#[derive(Clone, Copy)]
pub enum May {
    None,
    Read,
}

/// Size of a page.
pub const PAGE: usize = 4096;

impl Pages {
    /// Anonymous ones, private or shared with forks.
    pub fn new(count: usize, shared: bool) -> Result<Self> {
        let kind = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let len = count * PAGE;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so nothing that exists is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, kind | libc::MAP_ANONYMOUS, -1, 0) };
        if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self { at: at.cast(), len }) }
    }

    pub fn address(&self) -> usize {
        self.at as usize
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Changes what may be done with a range of pages.
    pub fn protect(&self, first: usize, count: usize, may: May) -> Result<()> {
        assert!((first + count) * PAGE <= self.len);
        let prot = match may {
            May::None => libc::PROT_NONE,
            May::Read => libc::PROT_READ,
        };
        // SAFETY: within these pages, of which no reference exists.
        check(unsafe { libc::mprotect(self.at.add(first * PAGE).cast(), count * PAGE, prot) }).map(drop)
    }

    /// Lets the kernel forget what is in them.
    pub fn forget(&self) -> Result<()> {
        // SAFETY: these pages, of which no reference exists.
        check(unsafe { libc::madvise(self.at.cast(), self.len, libc::MADV_DONTNEED) }).map(drop)
    }

    pub fn write(&self, at: usize, value: u64) {
        assert!(at + 8 <= self.len && at.is_multiple_of(8));
        // SAFETY: within these pages and aligned. Where it may not be written, the kernel says so by a signal.
        unsafe { self.at.add(at).cast::<u64>().write_volatile(value) }
    }

    pub fn read(&self, at: usize) -> u64 {
        assert!(at + 8 <= self.len && at.is_multiple_of(8));
        // SAFETY: as above.
        unsafe { self.at.add(at).cast::<u64>().read_volatile() }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: nobody else has a name for them.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

/// Makes the page of an address writable. For handlers: it calls nothing but the kernel.
pub fn unprotect_page_of(address: usize) -> bool {
    let page = address & !(PAGE - 1);
    // SAFETY: the address is one of `Pages`, whose users expect that.
    unsafe { libc::mprotect(page as *mut c_void, PAGE, libc::PROT_READ | libc::PROT_WRITE) == 0 }
}

/// Runs `child` in a copy of this process; its result is the copy's exit status.
pub fn fork(child: impl FnOnce() -> u8) -> Result<libc::pid_t> {
    // SAFETY: the copy has one thread, calls only what needs no lock that another thread may hold, and leaves by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let status = child();
            // SAFETY: ends the copy.
            unsafe { libc::_exit(i32::from(status)) }
        }
        pid => check(pid),
    }
}

/// Waits for a child: its exit status, or the signal that killed it.
pub fn wait(pid: libc::pid_t) -> Result<std::result::Result<i32, i32>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) { Ok(libc::WEXITSTATUS(status)) } else { Err(libc::WTERMSIG(status)) })
}

pub fn kill(pid: libc::pid_t, signal: i32) -> Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// This thread's number.
pub fn thread() -> libc::pid_t {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

/// A signal to a thread of this process.
pub fn signal_thread(thread: libc::pid_t, signal: i32) -> Result<()> {
    // SAFETY: numbers only.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
    check(i32::try_from(result).unwrap_or(-1)).map(drop)
}

/// A signal with a value, queued for this process.
pub fn queue(signal: i32, value: usize) -> Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::sigqueue(libc::getpid(), signal, libc::sigval { sival_ptr: value as *mut c_void }) }).map(drop)
}

/// The value that came with a signal.
pub fn queued_value(info: *const libc::siginfo_t) -> usize {
    // SAFETY: the kernel passes a siginfo_t to a handler.
    unsafe { (*info).si_value().sival_ptr as usize }
}

/// The address of a fault.
pub fn fault_address(info: *const libc::siginfo_t) -> usize {
    // SAFETY: as above.
    unsafe { (*info).si_addr() as usize }
}

/// Blocks or unblocks a signal for this thread.
pub fn block(signal: i32, blocked: bool) -> Result<()> {
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: a set of this function's own.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut())
    };
    check(-result).map(drop)
}

/// Sleeps until a moment of the monotonic clock, without being early.
pub fn sleep_until(moment: i128) {
    let nanos = u32::try_from(moment % 1_000_000_000).unwrap_or(0);
    let until = libc::timespec {
        tv_sec: libc::time_t::try_from(moment / 1_000_000_000).unwrap_or(0),
        tv_nsec: libc::c_long::from(nanos),
    };
    loop {
        // SAFETY: the kernel reads one timespec.
        let result = unsafe {
            libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const until, std::ptr::null_mut())
        };
        if result != libc::EINTR {
            return;
        }
    }
}
