//! `console_io`: the hypervisor's own console. For the initial domain (and for every domain of a debug hypervisor).
//!
//! Unsafe: a hypercall is told the address of a buffer.

use super::{check, raw};
use xen_abi::console::{CONSOLEIO_READ, CONSOLEIO_WRITE};
use xen_abi::errno::Errno;
use xen_abi::hypercall::HYPERVISOR_CONSOLE_IO;

/// Writes text.
///
/// # Errors
/// Those of the hypercall.
pub fn write(bytes: &[u8]) -> Result<(), Errno> {
    let args = [u64::from(CONSOLEIO_WRITE), bytes.len() as u64, bytes.as_ptr() as u64];
    // SAFETY: the hypervisor only reads from the buffer, which is as long as we say.
    check(unsafe { raw(HYPERVISOR_CONSOLE_IO.into(), args) }).map(drop)
}

/// Reads what has been typed; returns how many bytes there were.
///
/// # Errors
/// Those of the hypercall.
pub fn read(buffer: &mut [u8]) -> Result<usize, Errno> {
    let args = [u64::from(CONSOLEIO_READ), buffer.len() as u64, buffer.as_mut_ptr() as u64];
    // SAFETY: the hypervisor writes at most the given length into a buffer we hold exclusively.
    let count = check(unsafe { raw(HYPERVISOR_CONSOLE_IO.into(), args) })?;
    Ok(count as usize)
}
