//! Words of a guest's memory in registers: what the shortest ways through the hypervisor do instead of a copy.
//!
//! All of it is tried once: where it faults, [`super::guest_copy`] says whether it can be done at all.
//!
//! Unsafe: instructions that may fault on a guest's address, with an exception table.

use super::guest_copy::{self, is_guest_piece, write_slowly};
use core::arch::asm;
use core::marker::PhantomData;
use xen_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Accesses to a guest's addresses, one after the other, each with a label of its own. The one that faults ends them and
/// counts `$failed` up from 0.
macro_rules! guarded {
    ($failed:ident: $($label:literal $access:expr),*; $($operands:tt)*) => {
        asm!(
            "xor {failed:e}, {failed:e}",
            "770: .byte 0x0f, 0x1f, 0x00",
            $(concat!($label, ": ", $access),)*
            "3:",
            "771: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .text.fixup, \"ax\"",
            "4: inc {failed:e}",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            $(concat!(".long ", $label, "b - ., 4b - ."),)*
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 770b - ., 2",
            ".long 771b - ., 1",
            ".popsection",
            failed = out(reg) $failed, $($operands)*
            options(nostack)
        )
    };
}

/// Reads 32 bits from a guest.
#[inline(always)]
#[must_use]
pub fn read_at_once(from: u64) -> Option<u32> {
    if !is_guest_piece(from, 4) {
        return None;
    }
    let word: u64;
    // SAFETY: a read of a guest's address into a register; a fault is caught by the exception table, and leaves more there
    // than 32 bits.
    unsafe {
        asm!(
            "770: .byte 0x0f, 0x1f, 0x00",
            "2: mov {word:e}, [{from}]",
            "3:",
            "771: .byte 0x0f, 0x1f, 0x00",
            ".pushsection .text.fixup, \"ax\"",
            "4: mov {word}, -1",
            "jmp 3b",
            ".popsection",
            ".pushsection .ex_table, \"a\"",
            ".long 2b - ., 4b - .",
            ".popsection",
            ".pushsection .alt_table, \"a\"",
            ".long 770b - ., 2",
            ".long 771b - ., 1",
            ".popsection",
            from = in(reg) from, word = out(reg) word, options(nostack)
        );
    }
    u32::try_from(word).ok()
}

/// A write that has failed once.
#[cold]
#[inline(never)]
fn again<T: IntoBytes + Immutable>(to: u64, value: T) -> Result<(), Errno> {
    write_slowly(to, &value)
}

/// `N` bytes, not more than a page, of addresses that are the guest's. Whether there is memory is seen at each access.
#[derive(Clone, Copy, Debug)]
pub struct Piece<const N: u64>(u64);

impl<const N: u64> Piece<N> {
    /// The bytes from there on, if all are the guest's.
    #[inline(always)]
    #[must_use]
    pub fn new(va: u64) -> Option<Self> {
        const { assert!(N <= 4096) };
        is_guest_piece(va, N).then_some(Self(va))
    }

    /// The words at two of its places, if all of it can be read.
    #[inline(always)]
    #[must_use]
    pub fn words_at_once<const A: u64, const B: u64>(self) -> Option<(u64, u64)> {
        const { assert!(A + 8 <= N && B + 8 <= N) };
        let (a, b): (u64, u64);
        let failed: u64;
        // SAFETY: reads of a guest's addresses into registers; faults are caught by the exception table. With its first and
        // its last byte all of what is no longer than a page can be read.
        unsafe {
            guarded!(failed: "20" "mov {a}, [{va} + {last}]", "21" "mov {a}, [{va} + {at_a}]", "22" "mov {b}, [{va} + {at_b}]";
                va = in(reg) self.0, a = out(reg) a, b = out(reg) b,
                last = const N - 8, at_a = const A, at_b = const B,);
        }
        (failed == 0).then_some((a, b))
    }

    /// The words at three of its places, if they can be read.
    #[inline(always)]
    #[must_use]
    pub fn three_at_once<const A: u64, const B: u64, const C: u64>(self) -> Option<(u64, u64, u64)> {
        const { assert!(A + 8 <= N && B + 8 <= N && C + 8 <= N) };
        let (a, b, c): (u64, u64, u64);
        let failed: u64;
        // SAFETY: reads of a guest's addresses into registers; faults are caught by the exception table.
        unsafe {
            guarded!(failed: "20" "mov {a}, [{va} + {at_a}]", "21" "mov {b}, [{va} + {at_b}]", "22" "mov {c}, [{va} + {at_c}]";
                va = in(reg) self.0, a = out(reg) a, b = out(reg) b, c = out(reg) c,
                at_a = const A, at_b = const B, at_c = const C,);
        }
        (failed == 0).then_some((a, b, c))
    }

    /// The words at six of its places, if they can be read.
    #[inline(always)]
    #[must_use]
    pub fn six_at_once<const A: u64, const B: u64, const C: u64, const D: u64, const E: u64, const F: u64>(
        self,
    ) -> Option<[u64; 6]> {
        const { assert!(A + 8 <= N && B + 8 <= N && C + 8 <= N && D + 8 <= N && E + 8 <= N && F + 8 <= N) };
        let (a, b, c, d, e, f): (u64, u64, u64, u64, u64, u64);
        let failed: u64;
        // SAFETY: reads of a guest's addresses into registers; faults are caught by the exception table.
        unsafe {
            guarded!(failed: "20" "mov {a}, [{va} + {at_a}]", "21" "mov {b}, [{va} + {at_b}]",
                "22" "mov {c}, [{va} + {at_c}]", "23" "mov {d}, [{va} + {at_d}]",
                "24" "mov {e}, [{va} + {at_e}]", "25" "mov {f}, [{va} + {at_f}]";
                va = in(reg) self.0, a = out(reg) a, b = out(reg) b, c = out(reg) c,
                d = out(reg) d, e = out(reg) e, f = out(reg) f,
                at_a = const A, at_b = const B, at_c = const C, at_d = const D, at_e = const E, at_f = const F,);
        }
        (failed == 0).then_some([a, b, c, d, e, f])
    }

    /// Writes a word at a place of it, as [`write`] does.
    #[inline(always)]
    pub fn write_word<const AT: u64>(self, word: u64) -> Result<(), Errno> {
        const { assert!(AT + 8 <= N) };
        let failed: u64;
        // SAFETY: a write to a guest's address from a register; a fault is caught by the exception table.
        unsafe {
            guarded!(failed: "20" "mov [{va} + {at}], {word}"; va = in(reg) self.0, word = in(reg) word, at = const AT,);
        }
        if failed == 0 { Ok(()) } else { again(self.0.wrapping_add(AT), word) }
    }
}

impl<const N: u64> Piece<N> {
    /// Writes words at two of its places, as [`write`] does.
    #[inline(always)]
    pub fn write_words<const A: u64, const B: u64>(self, a: u64, b: u64) -> Result<(), Errno> {
        const { assert!(A + 8 <= N && B + 8 <= N) };
        let failed: u64;
        // SAFETY: writes to a guest's addresses from registers; a fault is caught by the exception table.
        unsafe {
            guarded!(failed: "20" "mov [{va} + {at_a}], {a}", "21" "mov [{va} + {at_b}], {b}";
                va = in(reg) self.0, a = in(reg) a, b = in(reg) b, at_a = const A, at_b = const B,);
        }
        if failed == 0 {
            return Ok(());
        }
        again(self.0.wrapping_add(A), a)?;
        again(self.0.wrapping_add(B), b)
    }

    /// [`Piece::write_word`] of 16 bits.
    #[inline(always)]
    pub fn write_half<const AT: u64>(self, half: u16) -> Result<(), Errno> {
        const { assert!(AT + 2 <= N) };
        let failed: u64;
        // SAFETY: a write to a guest's address from a register; a fault is caught by the exception table.
        unsafe {
            guarded!(failed: "20" "mov [{va} + {at}], {half:x}"; va = in(reg) self.0, half = in(reg) half, at = const AT,);
        }
        if failed == 0 { Ok(()) } else { again(self.0.wrapping_add(AT), half) }
    }
}

/// A structure of a guest's, as long as it says, which is read once and in registers.
#[derive(Debug)]
pub struct Whole<T, const N: u64>(Piece<N>, PhantomData<fn() -> T>);

/// Where what becomes of a structure that was read is told: in parts of it.
#[derive(Clone, Copy, Debug)]
pub struct Reply<T, const N: u64>(Piece<N>, PhantomData<fn() -> T>);

impl<T, const N: u64> Whole<T, N> {
    /// The structure at an address, and where its answer goes, if all of it is the guest's.
    #[inline(always)]
    #[must_use]
    pub fn new(va: u64) -> Option<(Self, Reply<T, N>)> {
        const { assert!(size_of::<T>() as u64 == N) };
        let piece = Piece::new(va)?;
        Some((Self(piece, PhantomData), Reply(piece, PhantomData)))
    }
}

impl<T, const N: u64> Reply<T, N> {
    /// Writes 16 bits of it, in a register.
    #[inline(always)]
    pub fn write_half<const AT: u64>(self, half: u16) -> Result<(), Errno> {
        self.0.write_half::<AT>(half)
    }

    /// Writes two words of it, in registers.
    #[inline(always)]
    pub fn write_words<const A: u64, const B: u64>(self, a: u64, b: u64) -> Result<(), Errno> {
        self.0.write_words::<A, B>(a, b)
    }
}

/// Reads of so many words by one after the other, into registers.
macro_rules! read_words {
    ($(#[$doc:meta])* $name:ident, $count:literal: $($word:ident $label:literal at $offset:literal),*) => {
        impl Piece<{ 8 * $count }> {
            /// All of it, if it can be read.
            #[inline(always)]
            #[must_use]
            pub fn all_at_once(self) -> Option<[u64; $count]> {
                $(let $word: u64;)*
                let failed: u64;
                // SAFETY: reads of a guest's addresses into registers; faults are caught by the exception table.
                unsafe {
                    guarded!(failed: $($label concat!("mov {", stringify!($word), "}, [{from} + ", $offset, "]")),*;
                        from = in(reg) self.0, $($word = out(reg) $word,)*);
                }
                (failed == 0).then_some([$($word),*])
            }
        }

        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $name(from: u64) -> Option<[u64; $count]> {
            Piece::<{ 8 * $count }>::new(from)?.all_at_once()
        }

        impl<T: FromBytes> Whole<T, { 8 * $count }> {
            /// All of it as words, if it can be read at once.
            #[inline(always)]
            #[must_use]
            pub fn words_at_once(self) -> Option<[u64; $count]> {
                self.0.all_at_once()
            }

            /// All of it, at once or by a copy.
            #[inline(always)]
            pub fn read(self) -> Result<T, Errno> {
                match self.0.all_at_once() {
                    // SAFETY: any bytes are a `T`, and there are as many (`Whole::new`).
                    Some(words) => Ok(unsafe { core::mem::transmute_copy(&words) }),
                    None => guest_copy::read(self.0.0),
                }
            }
        }
    };
}

read_words!(
    /// Reads a word from a guest.
    read_1_at_once, 1: a "20" at "0"
);
read_words!(
    /// Reads two words from a guest.
    read_2_at_once, 2: a "20" at "0", b "21" at "8"
);
read_words!(
    /// [`read_2_at_once`] of three words.
    read_3_at_once, 3: a "20" at "0", b "21" at "8", c "22" at "16"
);
read_words!(
    /// [`read_2_at_once`] of four words.
    read_4_at_once, 4: a "20" at "0", b "21" at "8", c "22" at "16", d "23" at "24"
);
read_words!(
    /// [`read_2_at_once`] of five words.
    read_5_at_once, 5: a "20" at "0", b "21" at "8", c "22" at "16", d "23" at "24", e "24" at "32"
);

/// Writes of so many words at one end, from registers.
macro_rules! write_words {
    ($(#[$doc:meta])* $name:ident, $count:literal from $from:expr; $($word:ident $label:literal $at:ident = $index:literal),*) => {
        impl<const N: u64> Piece<N> {
            $(#[$doc])*
            #[inline(always)]
            #[must_use]
            pub fn $name(self, words: [u64; $count]) -> bool {
                const { assert!(8 * $count <= N) };
                let [$($word),*] = words;
                let failed: u64;
                // SAFETY: writes to a guest's addresses from registers; faults are caught by the exception table.
                unsafe {
                    guarded!(failed: $($label concat!("mov [{va} + {", stringify!($at), "}], {", stringify!($word), "}")),*;
                        va = in(reg) self.0, $($word = in(reg) $word, $at = const $from + 8 * $index,)*);
                }
                failed == 0
            }
        }
    };
}

write_words!(
    /// Writes its first three words. Where that fails any of them may have been written.
    write_first_three, 3 from 0; a "20" at_a = 0, b "21" at_b = 1, c "22" at_c = 2
);
write_words!(
    /// [`Piece::write_first_three`] of four words.
    write_first_four, 4 from 0; a "20" at_a = 0, b "21" at_b = 1, c "22" at_c = 2, d "23" at_d = 3
);
write_words!(
    /// [`Piece::write_first_four`] of the last four words.
    write_last_four, 4 from N - 32; a "20" at_a = 0, b "21" at_b = 1, c "22" at_c = 2, d "23" at_d = 3
);
