//! The wall clock, which dom0 sets.

use logic::time::WallClock;
use xen_abi::{errno::Errno, platform as abi};

use super::Reply;
use crate::{cpu::Context, time};

const SECOND: u32 = 1_000_000_000;

/// `XENPF_settime32`.
pub(super) fn set_32(cx: &mut Context<'_>, op: &abi::SetTime32) -> Result<Reply, Errno> {
    set(cx, op.secs.into(), op.nsecs, op.system_time)
}

/// `XENPF_settime64`.
pub(super) fn set_64(cx: &mut Context<'_>, op: &abi::SetTime64) -> Result<Reply, Errno> {
    if op.mbz != 0 {
        return Err(Errno::EINVAL);
    }
    set(cx, op.secs, op.nsecs, op.system_time)
}

fn set(cx: &mut Context<'_>, seconds: u64, nanos: u32, system_time: u64) -> Result<Reply, Errno> {
    let seconds = seconds.saturating_add((nanos / SECOND).into());
    time::set_wall_clock(WallClock::new(seconds, nanos % SECOND, logic::time::Nanos(system_time), 0), &mut cx.held);
    Ok(Reply::Nothing)
}
