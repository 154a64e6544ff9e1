//! Processes: forks that see their own copy of memory, programs started in a row and side by side, and pipes.

use super::sys::{self, Pages};
use super::tap::Tap;
use std::io::Read as _;
use std::process::{Command, Stdio};

/// The word that makes this program a child that ends with the status after it.
pub const CHILD: &str = "child";

pub fn run(tap: &mut Tap) {
    tap.same(&copies(40), &0, "40 forks see and change a copy of their own");
    tap.same(&started(60), &0, "60 programs run and end with the status they were given");
    tap.same(&at_once(16), &0, "16 programs at once do too");
    tap.same(&nested(8), &Some(8), "a fork of a fork of a fork, eight deep, is waited for by each");
    tap.same(&killed(), &Some(Err(libc::SIGKILL)), "a child that is killed is reported as that");
    tap.same(&piped(1 << 20), &(1 << 20), "a MiB comes through a pipe");
}

/// How many forks went wrong.
fn copies(count: usize) -> usize {
    let Ok(own) = Pages::new(64, false) else { return count };
    let Ok(shared) = Pages::new(1, true) else { return count };
    for at in (0..own.len()).step_by(512) {
        own.write(at, at as u64);
    }
    let child = || {
        let mut wrong = false;
        for at in (0..own.len()).step_by(512) {
            wrong |= own.read(at) != at as u64;
            own.write(at, !0);
        }
        shared.write(0, shared.read(0) + 1);
        u8::from(wrong)
    };
    let fine = (0..count).filter(|_| matches!(sys::fork(child).and_then(sys::wait), Ok(Ok(0)))).count();
    let kept = (0..own.len()).step_by(512).all(|at| own.read(at) == at as u64);
    if kept && shared.read(0) == count as u64 { count - fine } else { count }
}

fn child(status: usize) -> Option<std::process::Child> {
    Command::new("/proc/self/exe").args([CHILD, &status.to_string()]).stdin(Stdio::null()).spawn().ok()
}

fn ended(child: Option<std::process::Child>, status: usize) -> bool {
    let code = child.and_then(|mut child| child.wait().ok()).and_then(|status| status.code());
    code == i32::try_from(status).ok()
}

fn started(count: usize) -> usize {
    (0..count).filter(|&status| !ended(child(status), status)).count()
}

fn at_once(count: usize) -> usize {
    let children: Vec<_> = (0..count).map(child).collect();
    children.into_iter().enumerate().filter_map(|(status, child)| (!ended(child, status)).then_some(())).count()
}

/// Each adds one to the status of the next.
fn nested(depth: u8) -> Option<i32> {
    fn below(depth: u8) -> u8 {
        if depth == 0 {
            return 0;
        }
        match sys::fork(|| below(depth - 1)).and_then(sys::wait) {
            Ok(Ok(status)) => u8::try_from(status).unwrap_or(u8::MAX).saturating_add(1),
            _ => u8::MAX,
        }
    }
    Some(i32::from(below(depth)))
}

fn killed() -> Option<Result<i32, i32>> {
    let mut sleeper = Command::new("/bin/sleep").arg("1000").spawn().ok()?;
    let pid = libc::pid_t::try_from(sleeper.id()).ok()?;
    sys::kill(pid, libc::SIGKILL).ok()?;
    let ended = sys::wait(pid).ok();
    // It was waited for already; this only tidies up.
    let _ = sleeper.try_wait();
    ended
}

/// How many bytes of a stream arrive in order.
fn piped(size: usize) -> usize {
    let script = format!("head -c {size} /dev/zero");
    let child = Command::new("/bin/sh").args(["-c", &script]).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return 0 };
    let mut all = Vec::new();
    let read = child.stdout.take().map(|mut out| out.read_to_end(&mut all));
    let fine = matches!(child.wait(), Ok(status) if status.success());
    if fine && matches!(read, Some(Ok(_))) { all.iter().filter(|byte| **byte == 0).count() } else { 0 }
}
