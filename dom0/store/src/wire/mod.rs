//! Requests as bytes (`io/xs_wire.h`): what each carries, and what its answer carries.

mod arguments;

use crate::permission::Permissions;
use crate::store::{Outcome, Store};
use alloc::format;
use alloc::vec::Vec;
use arguments::{domain, number, one, strings};
use xen_abi::errno::Errno;
use xen_abi::ids::DomId;
use xen_abi::xs_wire::{
    XENSTORE_PAYLOAD_MAX, XS_CONTROL, XS_DIRECTORY, XS_DIRECTORY_PART, XS_ERROR, XS_GET_DOMAIN_PATH, XS_GET_PERMS,
    XS_INTRODUCE, XS_IS_DOMAIN_INTRODUCED, XS_MKDIR, XS_READ, XS_RELEASE, XS_RESET_WATCHES, XS_RESUME, XS_RM,
    XS_SET_PERMS, XS_SET_TARGET, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH, XS_WRITE, XsdSockmsg,
};

/// The errors that have a name on the wire; others are said to be `EINVAL`.
const NAMED: [Errno; 15] = [
    Errno::EINVAL,
    Errno::EACCES,
    Errno::EEXIST,
    Errno::EISDIR,
    Errno::ENOENT,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EIO,
    Errno::ENOTEMPTY,
    Errno::ENOSYS,
    Errno::EROFS,
    Errno::EBUSY,
    Errno::EAGAIN,
    Errno::EISCONN,
    Errno::E2BIG,
];

/// The answer of an operation that has nothing to say.
const OK: &[u8] = b"OK\0";

/// Carries out a request and queues its answer.
pub(crate) fn serve(store: &mut Store, who: DomId, header: XsdSockmsg, payload: &[u8]) {
    let answer = match carry_out(store, who, header, payload) {
        Ok(answer) if answer.len() > XENSTORE_PAYLOAD_MAX => Err(Errno::E2BIG),
        other => other,
    };
    let Ok(client) = store.client(who) else {
        return;
    };
    match &answer {
        Ok(answer) => client.answer(header, answer),
        Err(errno) => {
            let named = NAMED.into_iter().chain([Errno::EPERM]).find(|named| named == errno).unwrap_or(Errno::EINVAL);
            let text = format!("{}\0", named.name());
            client.answer(XsdSockmsg { type_: XS_ERROR, ..header }, text.as_bytes());
        }
    }
    if header.type_ == XS_WATCH
        && answer.is_ok()
        && let Ok([path, token]) = strings(payload)
    {
        store.first_event(who, path, token);
    }
}

fn carry_out(store: &mut Store, who: DomId, header: XsdSockmsg, payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let for_tools = matches!(
        header.type_,
        XS_CONTROL | XS_INTRODUCE | XS_RELEASE | XS_IS_DOMAIN_INTRODUCED | XS_RESUME | XS_SET_TARGET
    );
    let client = store.client(who)?;
    if for_tools && !client.identity.is_privileged() {
        return Err(Errno::EACCES);
    }
    let transaction = header.tx_id;
    let outside = matches!(header.type_, XS_WATCH | XS_UNWATCH);
    if transaction != 0 && !outside && !client.transactions.contains_key(&transaction) {
        return Err(Errno::ENOENT);
    }
    match header.type_ {
        XS_DIRECTORY => return Ok(store.directory_part(who, transaction, one(payload)?)?.names),
        XS_DIRECTORY_PART => return directory_part(store, who, transaction, payload),
        XS_READ => return Ok(store.read(who, transaction, one(payload)?)?.to_vec()),
        XS_GET_PERMS => return Ok(store.permissions(who, transaction, one(payload)?)?.to_wire()),
        XS_SET_PERMS => {
            let (path, permissions) = arguments::split(payload)?;
            store.set_permissions(who, transaction, path, &Permissions::parse(permissions)?)?;
        }
        XS_WRITE => {
            let (path, value) = arguments::split(payload)?;
            store.write(who, transaction, path, value)?;
        }
        XS_MKDIR => store.mkdir(who, transaction, one(payload)?)?,
        XS_RM => store.rm(who, transaction, one(payload)?)?,
        XS_WATCH => {
            let [path, token] = strings(payload)?;
            store.watch(who, path, token)?;
        }
        XS_UNWATCH => {
            let [path, token] = strings(payload)?;
            store.unwatch(who, path, token)?;
        }
        XS_RESET_WATCHES => store.reset_watches(who)?,
        XS_TRANSACTION_START => {
            if transaction != 0 {
                return Err(Errno::EBUSY);
            }
            return Ok(format!("{}\0", store.start_transaction(who)?).into_bytes());
        }
        XS_TRANSACTION_END => {
            let outcome = match one(payload)? {
                b"T" => Outcome::Commit,
                b"F" => Outcome::Abort,
                _ => return Err(Errno::EINVAL),
            };
            store.end_transaction(who, transaction, outcome)?;
        }
        XS_GET_DOMAIN_PATH => return Ok(format!("{}\0", crate::path::home(domain(one(payload)?)?)).into_bytes()),
        XS_IS_DOMAIN_INTRODUCED => {
            let dom = domain(one(payload)?)?;
            let answer: &[u8] = if dom == DomId::SELF || store.is_introduced(dom) { b"T\0" } else { b"F\0" };
            return Ok(answer.to_vec());
        }
        XS_RELEASE => store.release(domain(one(payload)?)?)?,
        XS_RESUME => {
            let dom = domain(one(payload)?)?;
            if dom == DomId(0) {
                return Err(Errno::EINVAL);
            }
            store.client(dom)?;
        }
        XS_SET_TARGET => {
            let [dom, target] = strings(payload)?;
            store.set_target(domain(dom)?, domain(target)?)?;
        }
        // Its tools are in the same program and need no requests for these.
        XS_CONTROL | XS_INTRODUCE => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOSYS),
    }
    Ok(OK.to_vec())
}

/// The names from an offset on, as many as fit, after the number that shows whether the list is still the same. The
/// end of the list is marked by an empty name.
fn directory_part(store: &mut Store, who: DomId, transaction: u32, payload: &[u8]) -> Result<Vec<u8>, Errno> {
    let [path, offset] = strings(payload)?;
    let part = store.directory_part(who, transaction, path)?;
    let mut answer = format!("{}\0", part.generation).into_bytes();
    let room = XENSTORE_PAYLOAD_MAX - answer.len() - 1;
    let offset = usize::try_from(number(offset)?).unwrap_or(usize::MAX);
    let rest = part.names.get(offset..).unwrap_or(&[]);
    let mut used = 0;
    for name in rest.split_inclusive(|&byte| byte == 0) {
        if used + name.len() > room {
            return Ok(answer);
        }
        used += name.len();
        answer.extend_from_slice(name);
    }
    answer.push(0);
    Ok(answer)
}
