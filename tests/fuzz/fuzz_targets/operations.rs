//! The numbers of operations: what a guest may ask for, and on whom.
#![no_main]
#![forbid(unsafe_code)]

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use logic::access::*;
use logic::control;
use xen_abi::{domctl::Domctl, errno::Errno, ids::DomId, sysctl::Sysctl};
use zerocopy::FromBytes;

const GUEST: Caller = Caller { id: DomId(3), privilege: Privilege::Guest };

/// A guest never gets hold of another domain, nor of an operation that is the control domain's.
fn try_all<Op: Operation>(number: u32, domain: DomId) {
    let Ok(allowed) = permit(GUEST, Op::asked(number)) else { return };
    assert_ne!(allowed.op().rule(), Rule::Control);
    match target(GUEST, &allowed, domain, Some) {
        Ok(target) => assert_eq!(*target, GUEST.id),
        Err(why) => assert_eq!(why, NoTarget::Forbidden),
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok((raw, _)) = Domctl::read_from_prefix(data)
        && let Ok(asked) = control::domctl(&raw)
    {
        // Some are refused only when it is known whom they are for.
        match permit(GUEST, asked) {
            Ok(allowed) => assert_eq!(target(GUEST, &allowed, raw.domain, Some).err(), Some(NoTarget::Forbidden)),
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        }
    }
    if let Ok((raw, _)) = Sysctl::read_from_prefix(data)
        && let Ok(asked) = control::sysctl(&raw)
    {
        assert_eq!(permit(GUEST, asked).err(), Some(Errno::EPERM));
    }
    let mut bytes = Bytes::new(data);
    while !bytes.is_empty() {
        let (number, domain) = (u32::from(bytes.u8()), DomId(bytes.u16()));
        try_all::<Hypercall>(number, domain);
        try_all::<MmuUpdateOp>(number, domain);
        try_all::<MmuextOp>(number, domain);
        try_all::<MemoryOp>(number, domain);
        try_all::<EventChannelOp>(number, domain);
        try_all::<GrantTableOp>(number, domain);
        try_all::<SchedOp>(number, domain);
        try_all::<VcpuOp>(number, domain);
        try_all::<PhysdevOp>(number, domain);
        try_all::<PlatformOp>(number, domain);
        try_all::<DomctlOp>(number, domain);
        try_all::<SysctlOp>(number, domain);
        try_all::<HvmOp>(number, domain);
        try_all::<McaOp>(number, domain);
        try_all::<ConsoleIo>(number, domain);
        try_all::<CallbackOp>(number, domain);
        try_all::<VmAssistCommand>(number, domain);
        try_all::<VersionQuestion>(number, domain);
    }
});
