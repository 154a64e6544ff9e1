//! bzip2, which no crate unpacks without `std` and without unsafe code. Blocks of up to 900,000 bytes, each for itself: Huffman
//! codes, of places in a list of recently used bytes, of the block's Burrows-Wheeler transform, of runs.

use alloc::vec::Vec;

use crate::error::ImageError;
use crate::payload::Format;

/// What begins a block, and what ends the file: pi and its square root, in decimal digits.
const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;
/// Bytes of a block for each step of the level.
const STEP: usize = 100_000;
/// Bits of a code at most, and symbols of a table: 256 bytes, two digits of runs less a byte that is said by a run, the end.
const LONGEST: u32 = 20;
const SYMBOLS: usize = 258;
/// So many symbols come by one table, then the next one is chosen.
const GROUP: usize = 50;
/// A byte so often in a row is followed by how often it comes again.
const RUN: u32 = 4;

const fn damaged(what: &'static str) -> ImageError {
    ImageError::Damaged { format: Format::Bzip2, what }
}

const CUT_SHORT: ImageError = damaged("the stream ends early");
const BAD_CODES: ImageError = damaged("bad tables of codes");

/// Unpacks `data` into `out`, and says how many bytes that were.
pub fn unpack(data: &[u8], out: &mut [u8]) -> Result<usize, ImageError> {
    let [b'B', b'Z', b'h', level @ b'1'..=b'9', rest @ ..] = data else { return Err(damaged("bad header")) };
    let mut bits = Bits { rest, held: 0, count: 0, beyond: 0 };
    let mut block = Vec::new();
    let room = usize::from(level - b'0') * STEP;
    block.try_reserve_exact(room).map_err(|_| ImageError::OutOfMemory(room as u64 * 4))?;
    let (mut written, mut sums) = (0, 0_u32);
    loop {
        let (high, low) = (bits.take(24)?, bits.take(24)?);
        match (u64::from(high) << 24) | u64::from(low) {
            BLOCK => {
                let sum = bits.long()?;
                let start = transformed(&mut bits, &mut block, room)?;
                let some = out.get_mut(written..).unwrap_or_default();
                let Some(len) = undo(&mut block, start, some)? else {
                    return Err(ImageError::Overflow { format: Format::Bzip2, size: out.len() as u64 });
                };
                if checksum(some.get(..len).unwrap_or_default()) != sum {
                    return Err(damaged("wrong checksum"));
                }
                sums = sums.rotate_left(1) ^ sum;
                written += len;
            }
            END if bits.long()? == sums => return Ok(written),
            END => return Err(damaged("wrong checksum of the checksums")),
            _ => return Err(damaged("no block where one should begin")),
        }
    }
}

/// Bits, the highest of a byte first.
struct Bits<'a> {
    rest: &'a [u8],
    held: u64,
    count: u32,
    /// Bits that are held and that there are not.
    beyond: u32,
}

impl Bits<'_> {
    /// The next bits, 24 at most, without taking them; zeros behind the end.
    fn peek(&mut self, count: u32) -> u32 {
        while self.count < count {
            let byte = match self.rest.split_first() {
                Some((byte, rest)) => {
                    self.rest = rest;
                    *byte
                }
                None => {
                    self.beyond += 8;
                    0
                }
            };
            self.held = (self.held << 8) | u64::from(byte);
            self.count += 8;
        }
        let [a, b, c, d, ..] = (self.held >> (self.count - count)).to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) & ((1 << count) - 1)
    }

    /// Takes bits that were looked at.
    fn skip(&mut self, count: u32) -> Result<(), ImageError> {
        self.count -= count;
        if self.count < self.beyond { Err(CUT_SHORT) } else { Ok(()) }
    }

    fn take(&mut self, count: u32) -> Result<u32, ImageError> {
        let bits = self.peek(count);
        self.skip(count).map(|()| bits)
    }

    /// 32 bits.
    fn long(&mut self) -> Result<u32, ImageError> {
        Ok((self.take(16)? << 16) | self.take(16)?)
    }

    /// 24 bits at most, as an index.
    fn index(&mut self, count: u32) -> Result<usize, ImageError> {
        usize::try_from(self.take(count)?).map_err(|_| BAD_CODES)
    }

    fn flag(&mut self) -> Result<bool, ImageError> {
        Ok(self.take(1)? != 0)
    }
}

/// A canonical code: shorter codes are smaller numbers, and among those of one length the symbols are in order.
struct Codes {
    shortest: u32,
    /// For each length: the first number of `LONGEST` bits that begins with a longer code.
    end: [u32; LONGEST as usize + 1],
    /// For each length: its first code, and where its first symbol is in `symbols`.
    first: [(u32, usize); LONGEST as usize + 1],
    symbols: Vec<u16>,
}

impl Codes {
    /// Reads a table for so many symbols: each length as the difference to the one before it.
    fn read(bits: &mut Bits<'_>, count: usize) -> Result<Self, ImageError> {
        let mut length = bits.take(5)?;
        let mut lengths = [0; SYMBOLS];
        for to in lengths.iter_mut().take(count) {
            while bits.flag()? {
                length = if bits.flag()? { length.saturating_sub(1) } else { length + 1 };
                if !(1..=LONGEST).contains(&length) {
                    return Err(BAD_CODES);
                }
            }
            *to = length;
        }
        let lengths = lengths.get(..count).ok_or(BAD_CODES)?;
        if !lengths.iter().all(|length| (1..=LONGEST).contains(length)) {
            return Err(BAD_CODES);
        }
        let mut codes = Self {
            shortest: lengths.iter().copied().min().unwrap_or(1),
            end: [0; LONGEST as usize + 1],
            first: [(0, 0); LONGEST as usize + 1],
            symbols: Vec::with_capacity(count),
        };
        let mut code = 0_u32;
        for ((length, end), first) in (0..).zip(&mut codes.end).zip(&mut codes.first) {
            *first = (code, codes.symbols.len());
            let these = (0_u16..).zip(lengths).filter(|(_, its)| **its == length && length != 0);
            codes.symbols.extend(these.map(|(symbol, _)| symbol));
            code += u32::try_from(codes.symbols.len() - first.1).unwrap_or(0);
            *end = code << (LONGEST - length);
            // A table that names more codes than there are is found where it is used.
            code <<= 1;
        }
        Ok(codes)
    }

    fn next(&self, bits: &mut Bits<'_>) -> Result<u16, ImageError> {
        let ahead = bits.peek(LONGEST);
        let lengths = (0..).zip(self.end.iter().zip(&self.first)).skip(self.shortest as usize);
        for (length, (end, (code, symbol))) in lengths {
            if ahead < *end {
                bits.skip(length)?;
                let place = (ahead >> (LONGEST - length)).wrapping_sub(*code) as usize;
                return self.symbols.get(symbol + place).copied().ok_or(BAD_CODES);
            }
        }
        Err(BAD_CODES)
    }
}

/// The bytes that a block uses, each bit of 16 for 16 of them.
fn alphabet(bits: &mut Bits<'_>) -> Result<Vec<u8>, ImageError> {
    let sixteens = bits.take(16)?;
    let mut used = Vec::with_capacity(256);
    for high in (0..16_u8).filter(|high| sixteens & (0x8000 >> high) != 0) {
        let these = bits.take(16)?;
        used.extend((0..16_u8).filter(|low| these & (0x8000 >> low) != 0).map(|low| high * 16 + low));
    }
    Ok(used)
}

/// The byte at a place in the list of recently used ones, of which it becomes the first.
fn to_front<T: Copy>(recent: &mut [T], place: usize) -> Result<T, ImageError> {
    let upto = recent.get_mut(..=place).ok_or(BAD_CODES)?;
    upto.rotate_right(1);
    upto.first().copied().ok_or(BAD_CODES)
}

/// The tables, and the order in which they are used.
fn tables(bits: &mut Bits<'_>, symbols: usize) -> Result<(Vec<Codes>, Vec<u8>), ImageError> {
    let count = bits.index(3)?;
    if !(2..=6).contains(&count) {
        return Err(BAD_CODES);
    }
    let mut recent = [0, 1, 2, 3, 4, 5];
    let mut order = Vec::new();
    for _ in 0..bits.take(15)? {
        let mut place = 0;
        while bits.flag()? {
            place += 1;
        }
        order.push(to_front(recent.get_mut(..count).ok_or(BAD_CODES)?, place)?);
    }
    let tables = core::iter::repeat_with(|| Codes::read(bits, symbols)).take(count).collect::<Result<_, _>>()?;
    Ok((tables, order))
}

/// Reads a block into the low bytes of `block`; says where the transform's original text begins.
fn transformed(bits: &mut Bits<'_>, block: &mut Vec<u32>, room: usize) -> Result<usize, ImageError> {
    if bits.flag()? {
        return Err(damaged("a randomised block: only versions before 0.9.5 made them"));
    }
    let start = bits.index(24)?;
    let mut recent = alphabet(bits)?;
    // Two digits for runs, then places from 1 on, the end last.
    let end = recent.len() + 1;
    let (tables, order) = tables(bits, end + 1)?;
    block.clear();
    let (mut run, mut digit) = (0_usize, 1_usize);
    for table in order {
        let table = tables.get(usize::from(table)).ok_or(BAD_CODES)?;
        for _ in 0..GROUP {
            let symbol = usize::from(table.next(bits)?);
            if symbol < 2 {
                // A number in which each place counts for twice the one before it, its digits 1 and 2.
                run += digit << symbol;
                digit <<= 1;
                if run > room {
                    return Err(damaged("a block is too long"));
                }
                continue;
            }
            // No more than was reserved.
            if block.len() + run + usize::from(symbol != end) > room {
                return Err(damaged("a block is too long"));
            }
            if run != 0 {
                let byte = u32::from(*recent.first().ok_or(BAD_CODES)?);
                block.resize(block.len() + run, byte);
                (run, digit) = (0, 1);
            }
            if symbol == end {
                return if start < block.len() { Ok(start) } else { Err(damaged("a block begins behind its end")) };
            }
            block.push(u32::from(to_front(&mut recent, symbol - 1)?));
        }
    }
    Err(damaged("a block has no end"))
}

/// Undoes the transform, then the runs; says how many bytes that were. `None`: there is no room for them.
fn undo(block: &mut [u32], start: usize, out: &mut [u8]) -> Result<Option<usize>, ImageError> {
    const OUTSIDE: ImageError = damaged("a block points behind its end");
    // Where each byte begins in the sorted text.
    let mut places = [0_usize; 256];
    for entry in &*block {
        *places.get_mut(*entry as usize & 0xff).ok_or(OUTSIDE)? += 1;
    }
    let mut sum = 0;
    for place in &mut places {
        sum += core::mem::replace(place, sum);
    }
    // Above each byte of the sorted text: where the one behind it is.
    for index in 0..block.len() {
        let byte = block.get(index).ok_or(OUTSIDE)? & 0xff;
        let place = places.get_mut(byte as usize).ok_or(OUTSIDE)?;
        *block.get_mut(*place).ok_or(OUTSIDE)? |= u32::try_from(index).unwrap_or(0) << 8;
        *place += 1;
    }
    let mut at = (*block.get(start).ok_or(OUTSIDE)? >> 8) as usize;
    let (mut written, mut last, mut often) = (0, 0, 0);
    for _ in 0..block.len() {
        let entry = *block.get(at).ok_or(OUTSIDE)?;
        at = (entry >> 8) as usize;
        let [byte, ..] = entry.to_le_bytes();
        if often == RUN {
            let Some(to) = out.get_mut(written..written + usize::from(byte)) else { return Ok(None) };
            to.fill(last);
            written += to.len();
            often = 0;
            continue;
        }
        let Some(to) = out.get_mut(written) else { return Ok(None) };
        *to = byte;
        written += 1;
        often = if byte == last && often != 0 { often + 1 } else { 1 };
        last = byte;
    }
    Ok(Some(written))
}

/// CRC-32 with the highest bit first, which no crate of ours has.
fn checksum(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let (mut index, mut high) = (0, 0_u32);
        while index < table.len() {
            let mut crc = high << 24;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc << 1) ^ if crc & 0x8000_0000 == 0 { 0 } else { 0x04c1_1db7 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
            high += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| {
        let [.., high] = crc.to_le_bytes();
        (crc << 8) ^ TABLE.get(usize::from(high ^ byte)).copied().unwrap_or(0)
    };
    !data.iter().fold(!0, step)
}
