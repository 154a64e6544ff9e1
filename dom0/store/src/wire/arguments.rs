//! Strings in a request's payload, each ended by a zero.

use xen_abi::errno::Errno;
use xen_abi::ids::DomId;

/// The only string of a payload.
pub fn one(payload: &[u8]) -> Result<&[u8], Errno> {
    let [text] = strings(payload)?;
    Ok(text)
}

/// Exactly so many strings; bytes behind the last zero do not count where there is more than one string.
pub fn strings<const N: usize>(payload: &[u8]) -> Result<[&[u8]; N], Errno> {
    let end = payload.iter().rposition(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
    if N == 1 && end + 1 != payload.len() {
        return Err(Errno::EINVAL);
    }
    let mut parts = payload.get(..end).unwrap_or(&[]).split(|&byte| byte == 0);
    let mut found = [&[][..]; N];
    for text in &mut found {
        *text = parts.next().ok_or(Errno::EINVAL)?;
    }
    if parts.next().is_some() { Err(Errno::EINVAL) } else { Ok(found) }
}

/// A string, and all that follows its zero.
pub fn split(payload: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let end = payload.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
    Ok((payload.get(..end).unwrap_or(&[]), payload.get(end + 1..).unwrap_or(&[])))
}

/// A decimal number.
pub fn number(text: &[u8]) -> Result<u64, Errno> {
    core::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Errno::EINVAL)
}

/// The number of a domain.
pub fn domain(text: &[u8]) -> Result<DomId, Errno> {
    u16::try_from(number(text)?).map(DomId).map_err(|_| Errno::EINVAL)
}
