//! `XEN_SYSCTL_readconsole`: the hypervisor's log, as `dmesg` shows it. `XEN_SYSCTL_debug_keys`: its debug keys.

use logic::guest::{In, Out};
use xen_abi::{
    errno::Errno,
    sysctl::{DebugKeys, ReadConsole, Sysctl},
};

use super::put;
use crate::{console, cpu::Context, debug_keys, guest::Series, memory::Asker};

/// Bytes copied at a time.
const CHUNK: usize = 256;

/// Copies from the console ring into the caller's buffer.
pub(super) fn read(cx: &mut Context<'_>, arg: &ReadConsole, raw: &mut Sysctl) -> Result<(), Errno> {
    let mut reply = *arg;
    let start = if arg.incremental != 0 { arg.index } else { console::ring_start(&mut cx.held) };
    let mut position = start;
    let mut copied = 0;
    let mut chunk = [0; CHUNK];
    let mut told = Series::<u8, Out>::new(arg.buffer);
    while copied < arg.count {
        let room = usize::try_from(arg.count - copied).map_or(CHUNK, |left| left.min(CHUNK));
        let Some(part) = chunk.get_mut(..room) else { break };
        let (from, length) = console::ring_read(position, part, &mut cx.held);
        let Some(bytes) = part.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        told.write_from(bytes)?;
        let length = u32::try_from(length).unwrap_or(0);
        copied += length;
        position = from.wrapping_add(length);
    }
    if arg.clear != 0 {
        console::ring_clear(&mut cx.held);
    }
    reply.count = copied;
    reply.index = position;
    put(raw, &reply)
}

/// Presses keys. Xen has no limit; more than this in one call is no one's wish.
pub(super) fn keys(cx: &mut Context<'_>, arg: &DebugKeys) -> Result<(), Errno> {
    const MOST: u32 = 64;
    if arg.nr_keys > MOST {
        return Err(Errno::E2BIG);
    }
    for (key, _) in Series::<u8, In>::new(arg.keys).zip(0..arg.nr_keys) {
        let key = key.read()?;
        let asker = Asker { vcpu: cx.vcpu, state: cx.state };
        debug_keys::handle(key, Some(asker), &mut cx.held);
    }
    Ok(())
}
