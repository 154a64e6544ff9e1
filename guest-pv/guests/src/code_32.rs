//! A second processor of a domain in a hardware container, whose code is 32-bit: it makes hypercalls for the first one, without
//! paging or in compatibility mode.
//!
//! Unsafe: its code, mail, page tables and structures are in memory below 64 KiB that nobody else uses.
#![allow(clippy::cast_possible_truncation)] // Addresses and halves of numbers.

use crate::address_of;
use core::arch::x86_64::__cpuid_count;
use core::sync::atomic::{AtomicU32, Ordering};
use guest_pv::call::raw;
use guest_pv::mem;
use xen_abi::errno::Errno;
use xen_abi::hvm::{VCPU_HVM_MODE_32B, VcpuHvmContext, VcpuHvmX86_32};
use xen_abi::hypercall::{HYPERVISOR_SCHED_OP, HYPERVISOR_VCPU_OP};
use xen_abi::sched::SCHEDOP_YIELD;
use xen_abi::vcpu::{VCPUOP_INITIALISE, VCPUOP_UP};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the other processor's code is, what it is asked, its page tables, and memory for structures.
const CODE: u64 = 0x8000;
const MAIL: u64 = 0x9000;
/// A structure that a call points to.
pub const ARGUMENT: u64 = 0xa000;
/// Its page tables.
pub const TABLES: u64 = 0xb000;
/// A list that a structure points to.
pub const LIST: u64 = 0xe000;
/// Anything else.
pub const DATA: u64 = 0xf000;
/// Not a call: go to compatibility mode.
pub const CHANGE_MODE: u32 = 1;
/// Not a call: `wrmsr` with ecx, eax, edx.
pub const WRITE_MSR: u32 = 2;

/// Not a call: go to an address with eax, ecx and edi, and come back by `ret`.
const RUN: u32 = 3;

/// The other processor waits for a number that it has not answered, makes the call, and answers.
mod other {
    core::arch::global_asm!(
        ".pushsection .rodata.other, \"a\", @progbits",
        ".globl calls_32",
        ".globl calls_32_call",
        ".globl calls_32_end",
        ".code32",
        "calls_32:",
        "2: pause",
        "mov eax, dword ptr ds:[0x9000]",
        "cmp eax, dword ptr ds:[0x9004]",
        "je 2b",
        "cmp dword ptr ds:[0x9020], 1",
        "je 4f",
        "cmp dword ptr ds:[0x9020], 2",
        "je 6f",
        "ja 7f",
        "mov eax, dword ptr ds:[0x9008]",
        "mov ebx, dword ptr ds:[0x900c]",
        "mov ecx, dword ptr ds:[0x9010]",
        "mov edx, dword ptr ds:[0x9014]",
        "mov esi, dword ptr ds:[0x9018]",
        "mov edi, dword ptr ds:[0x901c]",
        ".byte 0x0f, 0x01",
        "calls_32_call:",
        ".byte 0xc1", // vmcall; d9 is vmmcall
        "mov dword ptr ds:[0x9008], eax",
        "jmp 5f",
        "6: mov ecx, dword ptr ds:[0x9008]",
        "mov eax, dword ptr ds:[0x900c]",
        "mov edx, dword ptr ds:[0x9010]",
        "wrmsr",
        "jmp 5f",
        "7: mov esp, 0x9800",
        "mov eax, dword ptr ds:[0x9008]",
        "mov ecx, dword ptr ds:[0x900c]",
        "mov edi, dword ptr ds:[0x9010]",
        "call dword ptr ds:[0x9014]",
        "mov dword ptr ds:[0x9008], eax",
        "pushfd",
        "pop dword ptr ds:[0x900c]",
        "jmp 5f",
        // CR4.PAE, CR3, EFER.LME, CR0.PG: this code is in compatibility mode then.
        "4: mov eax, cr4",
        "or eax, 0x20",
        "mov cr4, eax",
        "mov eax, 0xb000",
        "mov cr3, eax",
        "mov ecx, 0xc0000080",
        "rdmsr",
        "or eax, 0x100",
        "wrmsr",
        "mov eax, cr0",
        "or eax, 0x80000000",
        "mov cr0, eax",
        "5: mov eax, dword ptr ds:[0x9000]",
        "mov dword ptr ds:[0x9004], eax",
        "jmp 2b",
        "calls_32_end:",
        ".code64",
        ".popsection",
    );
    unsafe extern "C" {
        pub static calls_32: u8;
        pub static calls_32_call: u8;
        pub static calls_32_end: u8;
    }
}

fn low(address: u64) -> *mut u8 {
    (mem::DIRECT_MAP + address) as *mut u8
}

/// Writes a value at a low address.
pub fn put<T: IntoBytes + Immutable>(address: u64, value: &T) {
    // SAFETY: see the head of this file.
    unsafe { core::ptr::copy_nonoverlapping(value.as_bytes().as_ptr(), low(address), size_of::<T>()) };
}

/// Reads one.
pub fn get<T: FromBytes>(address: u64) -> T {
    // SAFETY: as above; any bytes are a `T`.
    unsafe { low(address).cast::<T>().read_unaligned() }
}

fn mail(word: u64) -> &'static AtomicU32 {
    // SAFETY: as above: both processors use these words.
    unsafe { AtomicU32::from_ptr(low(MAIL + word * 4).cast()) }
}

/// Puts its code and its page tables in place.
pub fn install() {
    // SAFETY: code as it lies in the image, and nobody is there.
    unsafe {
        let from = &raw const other::calls_32;
        let length = (&raw const other::calls_32_end).offset_from_unsigned(from);
        core::ptr::copy_nonoverlapping(from, low(CODE), length);
        if __cpuid_count(0, 0).ebx != u32::from_le_bytes(*b"Genu") {
            low(CODE).add((&raw const other::calls_32_call).offset_from_unsigned(from)).write(0xd9);
        }
        low(MAIL).write_bytes(0, 4096);
        low(TABLES).write_bytes(0, 3 * 4096);
    }
    // The first 2 MiB where they are.
    put(TABLES, &(TABLES + 0x1003));
    put(TABLES + 0x1000, &(TABLES + 0x2003));
    put(TABLES + 0x2000, &0x83u64);
}

/// How the other processor begins: flat, without paging.
pub fn flat() -> VcpuHvmX86_32 {
    let (limit, data) = (u32::MAX, 0xc93);
    VcpuHvmX86_32 {
        eip: CODE as u32,
        cr0: 0x11,
        cs_limit: limit,
        ds_limit: limit,
        ss_limit: limit,
        es_limit: limit,
        tr_limit: 0x67,
        cs_ar: 0xc9b,
        ds_ar: data,
        ss_ar: data,
        es_ar: data,
        tr_ar: 0x8b,
        ..Default::default()
    }
}

/// `VCPUOP_initialise` of the second processor.
///
/// # Errors
/// What the hypervisor says.
pub fn initialise(mode: u32, state: &(impl IntoBytes + Immutable)) -> Result<(), Errno> {
    let mut context = VcpuHvmContext { mode, ..Default::default() };
    context.cpu_regs.as_mut_bytes()[..size_of_val(state)].copy_from_slice(state.as_bytes());
    // SAFETY: its code is in place.
    let result = unsafe { raw(HYPERVISOR_VCPU_OP.into(), [VCPUOP_INITIALISE.into(), 1, address_of(&mut context)]) };
    Errno::from_ret(result).map_or(Ok(()), Err)
}

/// Starts it in 32-bit code without paging.
///
/// # Errors
/// What the hypervisor says.
pub fn start() -> Result<(), Errno> {
    initialise(VCPU_HVM_MODE_32B, &flat())?;
    // SAFETY: it begins with code that is in place.
    let result = unsafe { raw(HYPERVISOR_VCPU_OP.into(), [VCPUOP_UP.into(), 1]) };
    Errno::from_ret(result).map_or(Ok(()), Err)
}

/// Has the other processor do something; what it answers.
pub fn post(what: u32, values: [u32; 6]) -> u32 {
    for (word, value) in (2..).zip(values) {
        mail(word).store(value, Ordering::Relaxed);
    }
    mail(8).store(what, Ordering::Relaxed);
    let ticket = mail(0).fetch_add(1, Ordering::SeqCst) + 1;
    while mail(1).load(Ordering::SeqCst) != ticket {
        // No timer, whose event the first processor might not find. SAFETY: nothing but time passes.
        unsafe { raw(HYPERVISOR_SCHED_OP.into(), [SCHEDOP_YIELD.into(), 0]) };
    }
    mail(2).load(Ordering::Relaxed)
}

/// A call of its: the result.
///
/// # Errors
/// Its error.
pub fn call<const N: usize>(number: u32, args: [u32; N]) -> Result<u32, Errno> {
    let mut values = [number, 0, 0, 0, 0, 0];
    values[1..=N].copy_from_slice(&args);
    let result = post(0, values);
    match Errno::from_ret(i64::from(result.cast_signed()).cast_unsigned()) {
        Some(errno) => Err(errno),
        None => Ok(result),
    }
}

/// The same, with a structure that it points to, and which it may change.
///
/// # Errors
/// Its error.
pub fn with<T: IntoBytes + Immutable + FromBytes>(number: u32, command: u32, argument: &mut T) -> Result<u32, Errno> {
    put(ARGUMENT, argument);
    let result = call(number, [command, ARGUMENT as u32]);
    *argument = get(ARGUMENT);
    result
}

/// Has it run code that ends with `ret`, with eax, ecx and edi: eax and the flags afterwards.
pub fn run(code: u64, [eax, ecx, edi]: [u32; 3]) -> (u32, u32) {
    let eax = post(RUN, [eax, ecx, edi, code as u32, 0, 0]);
    (eax, mail(3).load(Ordering::Relaxed))
}
