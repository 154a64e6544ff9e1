//! Test reports in the Test Anything Protocol.
//!
//! A guest prints one `ok` or `not ok` line per claim, diagnostics after `#`, and the plan (`1..N`) last. A judge
//! compares the lines of two hypervisors, so descriptions hold nothing that differs from run to run.

use crate::boot::boot;
use crate::call::sysctl::debug_keys;
use crate::{print, println};
use core::fmt::{Arguments, Debug};

/// The report of one guest.
#[derive(Debug, Default)]
pub struct Tap {
    count: u32,
    failed: u32,
}

impl Tap {
    /// A report without results.
    pub fn new() -> Self {
        println!("TAP version 13");
        Self::default()
    }

    /// One claim. Returns whether it holds.
    pub fn ok(&mut self, holds: bool, what: &str) -> bool {
        self.count += 1;
        if !holds {
            self.failed += 1;
            print!("not ");
        }
        println!("ok {} - {what}", self.count);
        holds
    }

    /// The claim that two values are equal; prints both when they are not.
    pub fn is<T: PartialEq + Debug>(&mut self, got: T, want: T, what: &str) -> bool {
        let holds = self.ok(got == want, what);
        if !holds {
            println!("#      got: {got:?}\n# expected: {want:?}");
        }
        holds
    }

    /// A claim that cannot be tried here.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.count += 1;
        println!("ok {} - {what} # SKIP {why}", self.count);
    }

    /// A remark.
    pub fn note(&self, text: Arguments<'_>) {
        println!("# {text}");
    }

    /// Prints the plan, after the control domain has let the hypervisor recount its pages (debug key `f`, which Xen does not
    /// have): what it says goes to the hypervisor's console.
    pub fn finish(self) {
        if boot().is_initial_domain() {
            let _ = debug_keys(b"f");
        }
        println!("1..{}", self.count);
        if self.failed > 0 {
            println!("# failed {} of {}", self.failed, self.count);
        }
    }
}
