//! What the guests with several vCPUs share: running a function on all of them, chance, and a record of what went wrong.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use guest_pv::smp;
use guest_pv::tap::Tap;
use spin::Mutex;
use xen_abi::ids::VcpuId;

/// vCPUs that these guests are run with.
pub const VCPUS: usize = COUNT as usize;
/// The same as the ABI counts them.
pub const COUNT: u32 = 4;

/// Runs `body` on all vCPUs at once, and returns when all have ended.
///
/// # Panics
/// When the domain has fewer vCPUs.
pub fn on_all(body: fn()) {
    let others = || (1..COUNT).map(VcpuId);
    for vcpu in others() {
        smp::start(vcpu, body).expect("the domain has four vCPUs");
    }
    body();
    for vcpu in others() {
        smp::join(vcpu).expect("it was started");
    }
}

/// Numbers that look random and are the same in each run: xorshift64*.
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, which is small.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit as u64) as usize
    }
}

/// Claims that all vCPUs check all the time: how many do not hold, and the first of them in words.
pub struct Watch {
    broken: AtomicU64,
    first: Mutex<([u8; 160], usize)>,
}

struct Text<'a>(&'a mut ([u8; 160], usize));

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (bytes, used) = &mut *self.0;
        for (to, from) in bytes[*used..].iter_mut().zip(text.bytes()) {
            *to = from;
            *used += 1;
        }
        Ok(())
    }
}

impl Watch {
    /// Nothing has gone wrong yet.
    #[expect(clippy::new_without_default, reason = "it is made in statics only")]
    pub const fn new() -> Self {
        Self { broken: AtomicU64::new(0), first: Mutex::new(([0; 160], 0)) }
    }

    /// One check.
    pub fn check(&self, holds: bool, what: fmt::Arguments<'_>) {
        if !holds && self.broken.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = write!(Text(&mut self.first.lock()), "vCPU {}: {what}", smp::index());
        }
    }

    /// Claims that all checks since the last verdict held. Called when only one vCPU runs.
    pub fn verdict(&self, tap: &mut Tap, claim: &str) {
        let broken = self.broken.swap(0, Ordering::SeqCst);
        let mut first = self.first.lock();
        if !tap.ok(broken == 0, claim) {
            let text = core::str::from_utf8(&first.0[..first.1]).unwrap_or("?");
            tap.note(format_args!("{broken} times; first {text}"));
        }
        first.1 = 0;
    }
}
