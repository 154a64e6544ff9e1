//! Not a test by itself: a guest that minds its own business, for the suite `hostile`. It looks at its memory, its
//! clock, its event channels and xenstore all the time, and says `neighbour: fine` as long as they are as they should
//! be, else `neighbour: NOT FINE`. When it is asked to shut down it says so once more.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::vec::Vec;
use guest_pv::mem::Frame;
use guest_pv::xenstore::{Transaction, Xenstore};
use guest_pv::{events, println, time};
use guests::page;

guest_pv::entry!(run);

const PAGES: usize = 512;
/// One round sleeps so long, nanoseconds.
const NAP: u64 = 2_000_000;
/// A nap may take this long when others want the CPU too.
const LONG: u64 = 5_000_000_000;
/// How often it says that it is fine, nanoseconds.
const NEWS: u64 = 300_000_000;

fn word(page: usize, at: usize) -> u64 {
    (page as u64) << 32 | (at as u64) << 8 | 0x5a
}

fn fill(pages: &mut [Frame]) {
    for (number, page) in pages.iter_mut().enumerate() {
        for (at, bytes) in page.bytes_mut().chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&word(number, at).to_le_bytes());
        }
    }
}

/// The first word that is not what was written.
fn spoiled(pages: &[Frame]) -> Option<(usize, usize)> {
    pages.iter().enumerate().find_map(|(number, page)| {
        let mut words = page.bytes().chunks_exact(8).enumerate();
        words.find(|(at, bytes)| *bytes != word(number, *at).to_le_bytes()).map(|(at, _)| (number, at))
    })
}

fn run() {
    let mut pages: Vec<Frame> = (0..PAGES).map(|_| page()).collect();
    fill(&mut pages);
    let port = events::bind_ipi().expect("a free port");
    let mut store = Xenstore::connect();
    let name = store.as_mut().and_then(|store| store.read_text(Transaction::NONE, "name").ok());
    let mut said = 0;
    for round in 1u64.. {
        if let Some((page, at)) = spoiled(&pages) {
            println!("neighbour: NOT FINE: page {page} word {at} has changed");
            fill(&mut pages);
        }
        let (before, wall) = (time::now(), time::wall_clock());
        time::sleep(NAP);
        let (after, later) = (time::now(), time::wall_clock());
        if after < before + NAP || after - before > LONG || later < wall {
            println!("neighbour: NOT FINE: {before} ns, a nap, {after} ns; {wall} and {later} on the wall");
        }
        events::clear(port);
        if events::notify(port).is_err() || !events::clear(port) {
            println!("neighbour: NOT FINE: an event is lost");
        }
        if round % 16 == 0 {
            let again = store.as_mut().and_then(|store| store.read_text(Transaction::NONE, "name").ok());
            if again != name {
                println!("neighbour: NOT FINE: its name was {name:?} and is {again:?}");
            }
            let asked = store.as_mut().and_then(|store| store.read_text(Transaction::NONE, "control/shutdown").ok());
            if asked.is_some_and(|asked| !asked.is_empty()) {
                println!("neighbour: fine to the end, after {round} rounds");
                return;
            }
        }
        if after - said > NEWS {
            said = after;
            println!("neighbour: fine after {round} rounds");
        }
    }
}
