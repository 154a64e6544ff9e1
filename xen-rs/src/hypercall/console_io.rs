//! `HYPERVISOR_console_io`: the hypervisor's own console.

use logic::{
    access::ConsoleIo,
    guest::{In, Out},
    hypercall::Outcome,
};
use xen_abi::{console as abi, errno::Errno};

use crate::{console, cpu::Context, guest::Series};

/// Bytes copied at a time.
const CHUNK: usize = 128;
/// Chunks that the control domain writes before it gets a chance to be interrupted. Lines of other guests are waited for
/// until the serial port takes them, so they come one chunk at a time.
const CONTROL_CHUNKS: usize = 8;

/// The hypercall: rdi is the operation, an unsigned int, rsi the length, rdx the buffer.
#[allow(clippy::cast_possible_truncation, reason = "the command is an unsigned int of the ABI")]
pub fn console_io(cx: &mut Context<'_>) -> Outcome {
    let [command, ..] = cx.args();
    let command = command as u32;
    // Debian's Xen lets only dom0 in; a hypervisor that was told to show everything shows guests' lines too.
    let shown = cx.domain.is_control()
        || (command == abi::CONSOLEIO_WRITE && log::log_enabled!(target: console::GUEST, log::Level::Debug));
    if !shown {
        return Outcome::Fail(Errno::EPERM);
    }
    match cx.permit(command).map(|op| op.op()) {
        Ok(ConsoleIo::Write) => write(cx),
        Ok(ConsoleIo::Read) => read(cx).into(),
        Err(errno) => Outcome::Fail(errno),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
fn write(cx: &mut Context<'_>) -> Outcome {
    let [_, count, mut va, ..] = cx.args();
    let mut left = count as u32;
    let mut chunk = [0; CHUNK];
    for _ in 0..if cx.domain.is_control() { CONTROL_CHUNKS } else { 1 } {
        let Some(part) = chunk.get_mut(..CHUNK.min(left as usize)) else { break };
        if part.is_empty() {
            return Outcome::OK;
        }
        if let Err(errno) = Series::<u8, In>::new(va).read_into(part) {
            return Outcome::Fail(errno);
        }
        let shown = show(cx, part);
        left -= shown as u32;
        va = va.wrapping_add(shown as u64);
        if shown < part.len() {
            break;
        }
    }
    if left == 0 {
        return Outcome::OK;
    }
    cx.set_arg(1, left.into());
    cx.set_arg(2, va);
    Outcome::Again
}

/// Shows dom0's text as it is, as much as can be written now; other guests' by the line. How much was taken.
fn show(cx: &mut Context<'_>, text: &[u8]) -> usize {
    if cx.domain.is_control() {
        return console::write_control(text);
    }
    let (mut line, _held) = cx.domain.console_line.lock(&mut cx.held);
    line.add(text, |line| log::debug!(target: console::GUEST, "(d{}) {line}", cx.domain.id));
    text.len()
}

#[allow(clippy::cast_possible_truncation, reason = "the count is an unsigned int of the ABI")]
fn read(cx: &mut Context<'_>) -> Result<u64, Errno> {
    let [_, count, va, ..] = cx.args();
    let room = i32::try_from(count as u32).map_err(|_| Errno::E2BIG)?;
    let mut chunk = [0; CHUNK];
    let room = usize::try_from(room).unwrap_or(0).min(CHUNK);
    let length = chunk.get_mut(..room).map_or(0, console::read_input);
    Series::<u8, Out>::new(va).write_from(chunk.get(..length).unwrap_or_default())?;
    Ok(length as u64)
}
