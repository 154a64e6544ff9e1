//! The encodings are those of the GNU assembler.

use super::*;
use crate::emulate::arithmetic::Arithmetic::*;
use crate::emulate::arithmetic::SF;
use proptest::prelude::*;

/// Each byte of a register says which one it is.
fn regs() -> GuestRegs {
    let register = |number: u64| number * 0x1010_1010_1010_1010 + 0x0706_0504_0302_0100;
    GuestRegs {
        rax: register(0xa),
        rbx: register(0xb),
        rcx: register(0xc),
        rsp: register(5),
        r15: register(0xf),
        ..GuestRegs::default()
    }
}

type Row = (&'static str, &'static [u8], (Op, u64, u8));

const fn loads(to: Register, bytes: u8, of: u8) -> (Op, u64, u8) {
    (Op::Load { to, bytes, signed: false }, 0, of)
}

const fn extends(to: Register, bytes: u8, of: u8) -> (Op, u64, u8) {
    (Op::Load { to, bytes, signed: true }, 0, of)
}

/// Whatever the row says, behind prefixes that change nothing, in a longer text and cut off.
fn hold(size: AddressSize, rows: &[Row]) {
    for (text, code, (op, operand, bytes)) in rows {
        let decoded = decode(code, size, &regs()).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        assert_eq!((decoded.op, decoded.operand, decoded.bytes), (*op, *operand, *bytes), "{text}");
        assert_eq!(usize::from(decoded.length), code.len(), "{text}");
        let longer = [*code, &[0x90; 15]].concat();
        assert_eq!(decode(&longer, size, &regs()), Ok(decoded), "{text}");
        for length in 0..code.len() {
            assert_eq!(decode(&code[..length], size, &regs()), Err(Undecoded::Truncated), "{text}");
        }
        let prefixed = [&[0x3e, 0x26], *code].concat();
        let again = decode(&prefixed, size, &regs()).map(|same| (same.op, same.operand, same.bytes, same.length));
        assert_eq!(again, Ok((*op, *operand, *bytes, decoded.length + 2)), "{text}");
        let most = 15 - code.len();
        let full = [&[0x3e; 15][..most], code].concat();
        assert_eq!(decode(&full, size, &regs()).map(|full| full.length), Ok(15), "{text}");
        let over = [&[0x3e], &full[..]].concat();
        assert_eq!(decode(&over, size, &regs()), Err(Undecoded::Foreign), "{text}: longer than 15 bytes");
    }
}

#[test]
fn code_of_64_bits() {
    let rax = Register::new(0, 8, 0);
    let rcx = Register::new(1, 8, 0);
    let rdx = Register::new(2, 8, 0);
    let rbx = Register::new(3, 8, 0);
    let r9 = Register::new(9, 8, 0);
    let r10 = Register::new(10, 8, 0);
    let ch = Register::new(5, 1, 0);
    let rows: &[Row] = &[
        ("mov al, [rdi]", &[0x8a, 0x07], loads(rax, 1, 1)),
        ("mov cx, [rdi]", &[0x66, 0x8b, 0x0f], loads(rcx, 2, 2)),
        ("mov r9d, [rdi+8]", &[0x44, 0x8b, 0x4f, 0x08], loads(r9, 4, 4)),
        ("mov rax, [rdi+rax*4+0x1000]", &[0x48, 0x8b, 0x84, 0x87, 0x00, 0x10, 0x00, 0x00], loads(rax, 8, 8)),
        ("mov [rdi], ah", &[0x88, 0x27], (Op::Move, 0xa1, 1)),
        ("mov [rdi], spl", &[0x40, 0x88, 0x27], (Op::Move, 0x50, 1)),
        ("mov byte ptr [rdi], 0x80", &[0xc6, 0x07, 0x80], (Op::Move, 0x80, 1)),
        ("mov word ptr [rdi], 0x8001", &[0x66, 0xc7, 0x07, 0x01, 0x80], (Op::Move, 0x8001, 2)),
        (
            "mov dword ptr [rip+0x10], 0x12345678",
            &[0xc7, 0x05, 0x10, 0x00, 0x00, 0x00, 0x78, 0x56, 0x34, 0x12],
            (Op::Move, 0x1234_5678, 4),
        ),
        ("mov qword ptr [rdi], -2", &[0x48, 0xc7, 0x07, 0xfe, 0xff, 0xff, 0xff], (Op::Move, 0xffff_ffff_ffff_fffe, 8)),
        ("movabs al, [0x123456789abcdef0]", &[0xa0, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12], loads(rax, 1, 1)),
        (
            "movabs [0x123456789abcdef0], eax",
            &[0xa3, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12],
            (Op::Move, 0xa3a2_a1a0, 4),
        ),
        ("addr32 mov eax, [0xfee00020]", &[0x67, 0xa1, 0x20, 0x00, 0xe0, 0xfe], loads(rax, 4, 4)),
        ("mov eax, [edi+4]", &[0x67, 0x8b, 0x47, 0x04], loads(rax, 4, 4)),
        ("movzx eax, byte ptr [rdi]", &[0x0f, 0xb6, 0x07], loads(rax, 4, 1)),
        ("movzx r10d, word ptr [rdi]", &[0x44, 0x0f, 0xb7, 0x17], loads(r10, 4, 2)),
        ("movsx rax, byte ptr [rdi]", &[0x48, 0x0f, 0xbe, 0x07], extends(rax, 8, 1)),
        ("movsx cx, byte ptr [r12]", &[0x66, 0x41, 0x0f, 0xbe, 0x0c, 0x24], extends(rcx, 2, 1)),
        ("movsxd rdx, dword ptr [r13]", &[0x49, 0x63, 0x55, 0x00], extends(rdx, 8, 4)),
        ("test [rdi], cl", &[0x84, 0x0f], (Op::Test, 0xc0, 1)),
        ("test dword ptr [rdi], 0x10000", &[0xf7, 0x07, 0x00, 0x00, 0x01, 0x00], (Op::Test, 0x1_0000, 4)),
        ("test byte ptr [rdi], 4", &[0xf6, 0x07, 0x04], (Op::Test, 4, 1)),
        ("add [rdi], ecx", &[0x01, 0x0f], (Op::Change(Add), 0xc3c2_c1c0, 4)),
        ("or ecx, [rdi]", &[0x0b, 0x0f], (Op::Combine(Or, rcx), 0, 4)),
        ("adc byte ptr [rdi], 3", &[0x80, 0x17, 0x03], (Op::Change(Adc), 3, 1)),
        ("sbb word ptr [rdi], 0x1234", &[0x66, 0x81, 0x1f, 0x34, 0x12], (Op::Change(Sbb), 0x1234, 2)),
        ("and dword ptr [rdi], -2", &[0x83, 0x27, 0xfe], (Op::Change(And), 0xffff_fffe, 4)),
        ("and dword ptr [rdi], 0x7fffffff", &[0x81, 0x27, 0xff, 0xff, 0xff, 0x7f], (Op::Change(And), 0x7fff_ffff, 4)),
        ("sub ch, [rdi]", &[0x2a, 0x2f], (Op::Combine(Sub, ch), 0, 1)),
        (
            "xor qword ptr [rsp+0x10], 0x12345678",
            &[0x48, 0x81, 0x74, 0x24, 0x10, 0x78, 0x56, 0x34, 0x12],
            (Op::Change(Xor), 0x1234_5678, 8),
        ),
        ("cmp dword ptr [rdi], 0x55", &[0x83, 0x3f, 0x55], (Op::Change(Compare), 0x55, 4)),
        ("cmp [rdi], r15", &[0x4c, 0x39, 0x3f], (Op::Change(Compare), 0xf7f6_f5f4_f3f2_f1f0, 8)),
        ("not byte ptr [rdi]", &[0xf6, 0x17], (Op::Not, 0, 1)),
        ("neg dword ptr [rdi]", &[0xf7, 0x1f], (Op::Negate, 0, 4)),
        ("inc word ptr [rdi]", &[0x66, 0xff, 0x07], (Op::Increment, 0, 2)),
        ("dec qword ptr [rdi]", &[0x48, 0xff, 0x0f], (Op::Decrement, 0, 8)),
        ("xchg [rdi], ebx", &[0x87, 0x1f], (Op::Exchange(rbx), 0xb3b2_b1b0, 4)),
        ("xadd [rdi], ebx", &[0x0f, 0xc1, 0x1f], (Op::ExchangeAdd(rbx), 0xb3b2_b1b0, 4)),
        ("cmpxchg [rdi], ebx", &[0x0f, 0xb1, 0x1f], (Op::CompareExchange, 0xb3b2_b1b0, 4)),
        ("bt dword ptr [rdi], 5", &[0x0f, 0xba, 0x27, 0x05], (Op::Bit(Bit::Test), 5, 4)),
        ("btr qword ptr [rdi], 63", &[0x48, 0x0f, 0xba, 0x37, 0x3f], (Op::Bit(Bit::Reset), 63, 8)),
        ("bts [rdi], ecx", &[0x0f, 0xab, 0x0f], (Op::Bit(Bit::Set), 0xc3c2_c1c0, 4)),
        ("btc word ptr [rdi], 3", &[0x66, 0x0f, 0xba, 0x3f, 0x03], (Op::Bit(Bit::Complement), 3, 2)),
        ("lock or dword ptr [rdi], 1", &[0xf0, 0x83, 0x0f, 0x01], (Op::Change(Or), 1, 4)),
        ("lock dec dword ptr fs:[rdi]", &[0x64, 0xf0, 0xff, 0x0f], (Op::Decrement, 0, 4)),
        ("rep stosd", &[0xf3, 0xab], (Op::Move, 0xa3a2_a1a0, 4)),
        ("stosb", &[0xaa], (Op::Move, 0xa0, 1)),
        ("lodsw", &[0x66, 0xad], loads(rax, 2, 2)),
        ("movsq", &[0x48, 0xa5], (Op::Copy, 0, 8)),
        ("addr32 movsd", &[0x67, 0xa5], (Op::Copy, 0, 4)),
    ];
    hold(AddressSize::Long, rows);
}

#[test]
fn code_of_32_bits() {
    let rax = Register::new(0, 8, 0);
    let rcx = Register::new(1, 8, 0);
    let rdx = Register::new(2, 8, 0);
    let rows: &[Row] = &[
        ("mov eax, [0xfee00020]", &[0xa1, 0x20, 0x00, 0xe0, 0xfe], loads(rax, 4, 4)),
        ("mov [0xfee00020], al", &[0xa2, 0x20, 0x00, 0xe0, 0xfe], (Op::Move, 0xa0, 1)),
        ("mov ax, [0xfee00020]", &[0x66, 0xa1, 0x20, 0x00, 0xe0, 0xfe], loads(rax, 2, 2)),
        ("mov eax, [edi+esi*2-4]", &[0x8b, 0x44, 0x77, 0xfc], loads(rax, 4, 4)),
        ("mov eax, [ebp]", &[0x8b, 0x45, 0x00], loads(rax, 4, 4)),
        ("mov ecx, [bx+si]", &[0x67, 0x8b, 0x08], loads(rcx, 4, 4)),
        ("mov [bp+2], cl", &[0x67, 0x88, 0x4e, 0x02], (Op::Move, 0xc0, 1)),
        ("mov edx, [di+0x1234]", &[0x67, 0x8b, 0x95, 0x34, 0x12], loads(rdx, 4, 4)),
        ("mov dx, ds:[0x1234]", &[0x66, 0x8b, 0x15, 0x34, 0x12, 0x00, 0x00], loads(rdx, 2, 2)),
        ("mov dword ptr [ebx], 0x11223344", &[0xc7, 0x03, 0x44, 0x33, 0x22, 0x11], (Op::Move, 0x1122_3344, 4)),
        ("mov word ptr es:[ebx], 0x1122", &[0x26, 0x66, 0xc7, 0x03, 0x22, 0x11], (Op::Move, 0x1122, 2)),
        ("or dword ptr [ecx], 0x100", &[0x81, 0x09, 0x00, 0x01, 0x00, 0x00], (Op::Change(Or), 0x100, 4)),
        ("movzx ecx, byte ptr [ebx]", &[0x0f, 0xb6, 0x0b], loads(rcx, 4, 1)),
        ("cmp byte ptr [ebx], 7", &[0x80, 0x3b, 0x07], (Op::Change(Compare), 7, 1)),
        ("lock xchg [ebx], eax", &[0xf0, 0x87, 0x03], (Op::Exchange(rax), 0xa3a2_a1a0, 4)),
        ("rep movsd", &[0xf3, 0xa5], (Op::Copy, 0, 4)),
        ("addr16 stosb", &[0x67, 0xaa], (Op::Move, 0xa0, 1)),
    ];
    hold(AddressSize::Double, rows);
}

#[test]
fn code_of_16_bits() {
    let rax = Register::new(0, 8, 0);
    let rcx = Register::new(1, 8, 0);
    let rows: &[Row] = &[
        ("mov eax, [bx]", &[0x66, 0x8b, 0x07], loads(rax, 4, 4)),
        ("mov ax, [bx+si+1]", &[0x8b, 0x40, 0x01], loads(rax, 2, 2)),
        ("mov [bp+di+0x100], al", &[0x88, 0x83, 0x00, 0x01], (Op::Move, 0xa0, 1)),
        ("mov ax, ds:[0x1234]", &[0xa1, 0x34, 0x12], loads(rax, 2, 2)),
        ("mov ecx, ds:[0x1234]", &[0x66, 0x8b, 0x0e, 0x34, 0x12], loads(rcx, 4, 4)),
        ("mov eax, dword ptr [edi]", &[0x67, 0x66, 0x8b, 0x07], loads(rax, 4, 4)),
        (
            "mov eax, dword ptr [edi+ecx*8+0x1000]",
            &[0x67, 0x66, 0x8b, 0x84, 0xcf, 0x00, 0x10, 0x00, 0x00],
            loads(rax, 4, 4),
        ),
        ("and word ptr [bx], 0x1ff", &[0x81, 0x27, 0xff, 0x01], (Op::Change(And), 0x1ff, 2)),
        ("and dword ptr [bx], 0x1ff", &[0x66, 0x81, 0x27, 0xff, 0x01, 0x00, 0x00], (Op::Change(And), 0x1ff, 4)),
        ("movsx eax, word ptr [si]", &[0x66, 0x0f, 0xbf, 0x04], extends(rax, 4, 2)),
        ("stosw", &[0xab], (Op::Move, 0xa1a0, 2)),
        ("addr32 lodsd", &[0x67, 0x66, 0xad], loads(rax, 4, 4)),
    ];
    hold(AddressSize::Word, rows);
}

#[test]
fn strings_say_what_they_use() {
    let long = |code: &[u8]| decode(code, AddressSize::Long, &regs()).map(|found| found.elements);
    let all = Elements { repeated: true, address: AddressSize::Double, source: Some(Segment::Gs), destination: true };
    assert_eq!(long(&[0x65, 0x67, 0xf3, 0xa4]), Ok(Some(all)));
    let stores = Elements { repeated: false, address: AddressSize::Long, source: None, ..all };
    assert_eq!(long(&[0xaa]), Ok(Some(stores)));
    let loads = Elements { source: Some(Segment::Ds), destination: false, ..stores };
    assert_eq!(long(&[0xad]), Ok(Some(loads)));
}

#[test]
fn everything_else_is_refused() {
    let foreign: [&[u8]; 14] = [
        &[0x8b, 0xc0],             // between registers
        &[0xc7, 0x0f, 0, 0, 0, 0], // no such form
        &[0xff, 0x37],             // push
        &[0xff, 0x17],             // call
        &[0xf7, 0x27],             // mul
        &[0xc1, 0x27, 1],          // shl
        &[0x8c, 0x07],             // mov from a segment register
        &[0x8d, 0x07],             // lea
        &[0xa6],                   // cmps
        &[0xae],                   // scas
        &[0x0f, 0xc7, 0x0f],       // cmpxchg8b
        &[0x0f, 0xba, 0x07, 1],    // no such form
        &[0x0f, 0x6f, 0x07],       // movq
        &[0x90],
    ];
    for code in foreign {
        let code = [code, &[0; 8]].concat();
        assert_eq!(decode(&code, AddressSize::Long, &regs()), Err(Undecoded::Foreign), "{code:x?}");
    }
    assert_eq!(decode(&[0x63, 0x07, 0, 0], AddressSize::Double, &regs()), Err(Undecoded::Foreign), "arpl");
    assert_eq!(
        decode(&[0x48, 0x8b, 0x07, 0, 0, 0, 0], AddressSize::Double, &regs()),
        Err(Undecoded::Foreign),
        "dec eax"
    );
    for code in [&[0xf0, 0x8b, 0x07][..], &[0xf0, 0x89, 0x07], &[0xf0, 0x39, 0x07], &[0xf0, 0x85, 0x07], &[0xf0, 0xab]]
    {
        assert_eq!(decode(code, AddressSize::Long, &regs()), Err(Undecoded::Locked), "{code:x?}");
    }
}

#[test]
fn effects() {
    let run = |code: &[u8], old| decode(code, AddressSize::Long, &regs()).map(|found| found.apply(old, &regs()));
    let regs = regs();
    let none = Effect { memory: None, register: None, rflags: 0 };
    let loaded = |value| Ok(Effect { register: Some((Gpr(0), value)), ..none });
    assert_eq!(run(&[0x8a, 0x07], 0x1234), loaded(regs.rax & !0xff | 0x34));
    assert_eq!(run(&[0x8b, 0x07], u64::MAX), loaded(0xffff_ffff));
    assert_eq!(run(&[0x48, 0x0f, 0xbe, 0x07], 0x80), loaded(u64::MAX << 7));
    assert_eq!(run(&[0x0f, 0xbe, 0x07], 0x80), loaded(0xffff_ff80));
    assert_eq!(
        run(&[0x2a, 0x27], 0xa2),
        Ok(Effect {
            register: Some((Gpr(0), regs.rax | 0xff00)),
            rflags: arithmetic::sub(1, 0xa1, 0xa2, 0, 0).1,
            ..none
        })
    );
    let compared = run(&[0x83, 0x3f, 0x55], 0x55).map(|effect| (effect.memory, effect.register, effect.rflags & ZF));
    assert_eq!(compared, Ok((None, None, ZF)));
    let negated = run(&[0xf7, 0x1f], 1).map(|effect| (effect.memory, effect.rflags & (CF | SF)));
    assert_eq!(negated, Ok((Some(0xffff_ffff), CF | SF)));
}

proptest! {
    /// What decodes is not longer than an instruction may be, and nothing behind it counts.
    #[test]
    fn lengths(code in prop::collection::vec(any::<u8>(), 0..20), which in 0..3usize) {
        let size = [AddressSize::Word, AddressSize::Double, AddressSize::Long][which];
        if let Ok(found) = decode(&code, size, &regs()) {
            let length = usize::from(found.length);
            prop_assert!((1..=15).contains(&length) && length <= code.len());
            prop_assert_eq!(decode(&code[..length], size, &regs()), Ok(found));
            prop_assert_eq!(decode(&code[..length - 1], size, &regs()), Err(Undecoded::Truncated));
        }
    }
}
