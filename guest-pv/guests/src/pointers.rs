//! Tables of pointers that no hypercall may follow: which call, which of its pointers, and what the answer is.
//!
//! A guest writes a [`Row`] for each pointer of a call, with an argument that would be good where memory is; a
//! [`Ground`] puts that argument at every kind of bad place and compares the answers. They are `EFAULT`, unless the
//! row says otherwise.

use crate::{address_of, call, page, trap_of, update_va_mapping};
use guest_pv::alloc::vec::Vec;
use guest_pv::mem::{Access, Frame, Mapping, PAGE_BYTES, PAGE_SIZE, table};
use guest_pv::tap::Tap;
use xen_abi::Errno;
use zerocopy::{Immutable, IntoBytes};

/// Stands for the pointer in a row's arguments.
pub const P: u64 = 0x5eed_0000_5eed_0000;

/// Where a pointer points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Address 0, which is not mapped but means "none" to some calls.
    Null,
    /// Low addresses that are not mapped.
    Unmapped,
    /// Memory of the hypervisor, from the first byte to the last; the guest can read the first part.
    Hypervisor,
    /// Between the halves of the address space.
    NotCanonical,
    /// Begins on the last mapped bytes of the lower half and ends behind them.
    LowEnd,
    /// Begins on the last bytes of all addresses and ends at 0.
    TopEnd,
    /// Begins on a mapped page and ends on one that is not.
    Edge,
    /// All of it can be read, nothing can be written.
    ReadOnly,
}

use Place::*;

/// All of them.
const PLACES: [Place; 8] = [Null, Unmapped, Hypervisor, NotCanonical, LowEnd, TopEnd, Edge, ReadOnly];

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// From the hypercall itself.
    Call(Result<u64, Errno>),
    /// From the hypercall, which went well, in a field of its argument.
    Status(i16),
}

/// The call failed so.
pub const fn error(errno: Errno) -> Answer {
    Answer::Call(Err(errno))
}

/// The call went well and returned this.
pub const fn value(value: u64) -> Answer {
    Answer::Call(Ok(value))
}

/// One pointer of one call.
#[derive(Debug)]
pub struct Row {
    name: &'static str,
    number: u32,
    args: [u64; 5],
    bytes: Vec<u8>,
    inside: Option<(Vec<u8>, usize)>,
    status: Option<usize>,
    but: Vec<(Place, Option<Answer>)>,
}

/// A call that reads and writes what it is pointed to, or only writes; the argument is a good one.
pub fn inout<T: IntoBytes + Immutable + ?Sized, const N: usize>(
    name: &'static str,
    number: u32,
    args: [u64; N],
    argument: &T,
) -> Row {
    let mut all = [0; 5];
    all[..N].copy_from_slice(&args);
    let bytes = Vec::from(argument.as_bytes());
    Row { name, number, args: all, bytes, inside: None, status: None, but: Vec::new() }
}

/// A call that only reads what it is pointed to. Whether that may be read-only is not tried, unless [`Row::but`] says
/// what the answer is then.
pub fn input<T: IntoBytes + Immutable + ?Sized, const N: usize>(
    name: &'static str,
    number: u32,
    args: [u64; N],
    argument: &T,
) -> Row {
    let mut row = inout(name, number, args, argument);
    row.but.push((ReadOnly, None));
    row
}

impl Row {
    /// The pointer is in this structure at that offset, and the call is pointed to the structure, which is good.
    #[must_use]
    pub fn inside<T: IntoBytes + Immutable>(mut self, structure: &T, offset: usize) -> Self {
        self.inside = Some((Vec::from(structure.as_bytes()), offset));
        self
    }

    /// The structure of [`Row::inside`] says how it went: an `i16` at that offset.
    #[must_use]
    pub fn status(mut self, offset: usize) -> Self {
        self.status = Some(offset);
        self
    }

    /// Another answer than `EFAULT` at one kind of place.
    #[must_use]
    pub fn but(mut self, place: Place, answer: Answer) -> Self {
        self.but.retain(|but| but.0 != place);
        self.but.push((place, Some(answer)));
        self
    }

    /// Another answer wherever nothing can be read.
    #[must_use]
    pub fn always(mut self, answer: Answer) -> Self {
        for place in PLACES {
            if !self.but.iter().any(|but| but.0 == place) {
                self.but.push((place, Some(answer)));
            }
        }
        self
    }

    /// A kind of place that is not tried.
    #[must_use]
    pub fn without(mut self, place: Place) -> Self {
        self.but.retain(|but| but.0 != place);
        self.but.push((place, None));
        self
    }

    fn want(&self, place: Place) -> Option<Answer> {
        self.but.iter().find(|but| but.0 == place).map_or(Some(error(Errno::EFAULT)), |but| but.1)
    }

    fn answer(&self, pointer: u64) -> Answer {
        let mut outer = self.inside.as_ref().map(|(bytes, _)| bytes.clone());
        let target = match (&self.inside, &mut outer) {
            (Some((_, offset)), Some(outer)) => {
                outer[*offset..*offset + 8].copy_from_slice(&pointer.to_le_bytes());
                address_of(outer.as_mut_slice())
            }
            _ => pointer,
        };
        let result = call(self.number, self.args.map(|arg| if arg == P { target } else { arg }));
        match (self.status, &outer, result) {
            (Some(at), Some(outer), Ok(_)) => Answer::Status(i16::from_le_bytes([outer[at], outer[at + 1]])),
            _ => Answer::Call(result),
        }
    }
}

/// Two pages, mapped at the edges of everything.
#[derive(Debug)]
pub struct Ground {
    frames: [Frame; 2],
    locked: Mapping,
    edge: Mapping,
}

/// What the two pages hold.
const BYTES: usize = 2 * PAGE_BYTES;
/// Where the lower half of the address space ends.
const LOW_END: u64 = 1 << 47;
/// What surrounds an argument.
const FILLER: u8 = 0xa5;

impl Ground {
    /// Maps the pages.
    ///
    /// # Panics
    /// Without memory.
    #[expect(clippy::new_without_default, reason = "it maps memory")]
    pub fn new() -> Self {
        let frames = [page(), page()];
        let mfns = [0, 1].map(|at: usize| frames[at].mfn().0);
        let locked = Mapping::own(&mfns, Access::ReadOnly).expect("own memory can be mapped");
        let edge = Mapping::own(&[mfns[0], mfns[1], mfns[0]], Access::ReadWrite).expect("own memory can be mapped");
        update_va_mapping(edge.address() + 2 * PAGE_SIZE, 0, 2).expect("it can be unmapped");
        for end in [LOW_END, 0] {
            for (mfn, pages) in mfns.into_iter().zip([2, 1]) {
                let va = end.wrapping_sub(pages * PAGE_SIZE);
                table::ensure_slot(va).expect("there is room for tables");
                update_va_mapping(va, mfn << 12 | table::READ_WRITE, 2).expect("own memory can be mapped");
            }
        }
        let ground = Self { frames, locked, edge };
        assert!(trap_of(|| crate::store(ground.edge(), 0)).is_some(), "nothing is mapped behind the edge");
        ground
    }

    /// The first address where nothing is mapped, behind two pages.
    pub fn edge(&self) -> u64 {
        self.edge.address() + 2 * PAGE_SIZE
    }

    fn fill(&mut self, at: usize, bytes: &[u8]) {
        for (index, frame) in self.frames.iter_mut().enumerate() {
            frame.bytes_mut().fill(FILLER);
            for (byte, cell) in frame.bytes_mut().iter_mut().enumerate() {
                if let Some(&byte) = (index * PAGE_BYTES + byte).checked_sub(at).and_then(|from| bytes.get(from)) {
                    *cell = byte;
                }
            }
        }
    }

    fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        let all = self.frames.iter().flat_map(|frame| frame.bytes()).enumerate();
        all.into_iter()
            .all(|(index, &cell)| cell == *index.checked_sub(at).and_then(|from| bytes.get(from)).unwrap_or(&FILLER))
    }

    /// The addresses of a kind of place for an argument of `len` bytes, and where in the two pages its bytes go.
    fn addresses(&self, place: Place, len: usize) -> Vec<(u64, usize)> {
        // The argument lacks its last byte, then its last aligned words.
        let lacking = |end: u64| {
            let (most, words) = (len - 1, (len - 1) & !7);
            let mut places = Vec::from([(end.wrapping_sub(most as u64), BYTES - most)]);
            if words > 0 {
                places.push((end.wrapping_sub(words as u64), BYTES - words));
            }
            places
        };
        let nowhere = |addresses: &[u64]| addresses.iter().map(|&address| (address, BYTES)).collect();
        match place {
            Null => nowhere(&[0]),
            Unmapped => nowhere(&[8, 0x1000, 0x7fff_f000]),
            Hypervisor => nowhere(&[
                0xffff_8000_0000_0000,
                0xffff_8010_0000_0000,
                0xffff_82d0_4000_0000,
                0xffff_8300_0000_0000,
                0xffff_87ff_ffff_fff8,
            ]),
            NotCanonical => nowhere(&[LOW_END, 1 << 63, 0xffff_7fff_ffff_fff8]),
            LowEnd | TopEnd if len == 1 => Vec::new(),
            LowEnd => lacking(LOW_END),
            TopEnd => lacking(0),
            Edge => lacking(self.edge()),
            ReadOnly => Vec::from([(self.locked.address(), 0)]),
        }
    }

    /// One claim for each row: its answers, and that nothing was written where the argument is only read or cannot be
    /// written.
    pub fn check(&mut self, tap: &mut Tap, rows: &[Row]) {
        for row in rows {
            let mut wrong = Vec::new();
            for place in PLACES {
                let Some(want) = row.want(place) else { continue };
                for (pointer, at) in self.addresses(place, row.bytes.len()) {
                    self.fill(at, &row.bytes);
                    let got = row.answer(pointer);
                    if got != want {
                        wrong.push((place, got));
                    }
                    if !self.holds(at, &row.bytes) && place == ReadOnly {
                        wrong.push((place, value(0xbad)));
                    }
                }
            }
            wrong.dedup();
            if !tap.ok(wrong.is_empty(), row.name) {
                tap.note(format_args!("{wrong:?}"));
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for end in [LOW_END, 0] {
            for pages in [1, 2] {
                update_va_mapping(end.wrapping_sub(pages * PAGE_SIZE), 0, 2).expect("it is mapped");
            }
        }
    }
}
