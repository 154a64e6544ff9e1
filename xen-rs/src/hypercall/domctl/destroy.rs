//! Pausing, unpausing and destroying.

use logic::hypercall::Outcome;
use xen_abi::errno::Errno;

use super::Reply;
use crate::{
    cpu::{Context, Target},
    domain::teardown,
};

/// `XEN_DOMCTL_pausedomain`.
pub(super) fn pause(cx: &mut Context<'_>, target: &Target) -> Result<Reply, Errno> {
    if target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    target.pause_by_controller(&mut cx.held);
    Ok(Reply::Nothing)
}

/// `XEN_DOMCTL_unpausedomain`: `EINVAL` when the controller has not paused it.
pub(super) fn unpause(cx: &mut Context<'_>, target: &Target) -> Result<Reply, Errno> {
    if target.unpause_by_controller(&mut cx.held) { Ok(Reply::Nothing) } else { Err(Errno::EINVAL) }
}

/// `XEN_DOMCTL_destroydomain`: restartable; each round takes a bounded part of it away.
pub(super) fn destroy(cx: &mut Context<'_>, target: &Target) -> Result<Reply, Errno> {
    if target.id == cx.domain.id {
        return Err(Errno::EINVAL);
    }
    match teardown::step(target, &mut cx.held) {
        Outcome::Done(_) => Ok(Reply::Nothing),
        Outcome::Again => Ok(Reply::Again),
        Outcome::Fail(errno) => Err(errno),
    }
}
