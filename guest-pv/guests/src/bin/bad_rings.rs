//! A guest that treats its xenstore and console rings badly: the control domain must contain it. The word `fault=` on its
//! command line says how; without it, or in the initial domain, there is nothing to try.
#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_pv::alloc::format;
use guest_pv::alloc::string::String;
use guest_pv::boot;
use guest_pv::mem::{Access, Mapping};
use guest_pv::tap::Tap;
use guest_pv::xenstore::{Error, Transaction, Xenstore};
use guest_pv::{events, time};
use xen_abi::ids::{Mfn, Port};
use xen_abi::io::console::interface as console_page;
use xen_abi::xs_wire::{
    XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX, XS_READ, XS_WATCH, XsdSockmsg, interface as store_page,
};
use zerocopy::IntoBytes;

guest_pv::test!(run);

const NONE: Transaction = Transaction::NONE;

fn run(tap: &mut Tap) {
    match boot().option("fault") {
        Some("store-index") => store_index(tap),
        Some("store-length") => store_length(tap),
        Some("store-deaf") => store_deaf(tap),
        Some("store-quota") => store_quota(tap),
        Some("console-index") => console_index(tap),
        _ => tap.skip("bad rings", "nothing was asked for"),
    }
}

fn page(frame: Mfn) -> Mapping {
    Mapping::own(&[frame.0], Access::ReadWrite).expect("an own page can be mapped")
}

fn store() -> (Mapping, Port) {
    (page(boot().store_mfn), boot().store_evtchn)
}

/// Waits up to two seconds for the server to complain.
fn complaint(page: &Mapping, port: Port) -> u32 {
    let end = time::now() + 2_000_000_000;
    let _ = events::notify(port);
    while page.load_u32(store_page::ERROR) == 0 && time::now() < end {
        time::sleep(10_000_000);
    }
    page.load_u32(store_page::ERROR)
}

fn store_index(tap: &mut Tap) {
    let (page, port) = store();
    page.store_u32(store_page::REQ_PROD, page.load_u32(store_page::REQ_CONS).wrapping_add(1025));
    tap.is(complaint(&page, port), XENSTORE_ERROR_RINGIDX, "an impossible index is complained about");
}

fn store_length(tap: &mut Tap) {
    let (page, port) = store();
    let header = XsdSockmsg { type_: XS_READ, req_id: 1, tx_id: 0, len: 4097 };
    let at = page.load_u32(store_page::REQ_PROD);
    for (index, &byte) in (0u32..).zip(header.as_bytes()) {
        let place = store_page::REQ + (at.wrapping_add(index) % 1024) as usize;
        page.write(place, &[byte]);
    }
    page.store_u32(store_page::REQ_PROD, at.wrapping_add(16));
    tap.is(complaint(&page, port), XENSTORE_ERROR_PROTO, "a payload too long is complained about");
}

/// Asks and asks and never reads an answer.
fn store_deaf(tap: &mut Tap) {
    let (page, port) = store();
    let request = [XsdSockmsg { type_: XS_WATCH, req_id: 1, tx_id: 0, len: 6 }.as_bytes(), b"data\0t"].concat();
    let mut prod = page.load_u32(store_page::REQ_PROD);
    let mut taken = 0u32;
    let end = time::now() + 1_000_000_000;
    while time::now() < end {
        let used = prod.wrapping_sub(page.load_u32(store_page::REQ_CONS));
        if 1024 - used < 22 {
            time::sleep(10_000_000);
            continue;
        }
        for (index, &byte) in (0u32..).zip(&request) {
            page.write(store_page::REQ + (prod.wrapping_add(index) % 1024) as usize, &[byte]);
        }
        prod = prod.wrapping_add(22);
        page.store_u32(store_page::REQ_PROD, prod);
        taken += 1;
        let _ = events::notify(port);
    }
    tap.ok((100..2000).contains(&taken), "the store stops to listen to who does not");
    tap.is(page.load_u32(store_page::ERROR), 0, "and does not complain");
}

/// Uses up everything.
fn store_quota(tap: &mut Tap) {
    let Some(mut store) = Xenstore::connect() else {
        tap.skip("quotas", "no ring page");
        return;
    };
    let refused = |errno: &str| Err(Error::Refused(String::from(errno)));
    let nodes = (0..2000).find(|index| store.mkdir(NONE, &format!("data/n{index}")).is_err()).unwrap_or(2000);
    // The list of names fills its parent's record before the number of nodes is used up.
    tap.ok((200..1000).contains(&nodes), "nodes are limited");
    tap.is(store.mkdir(NONE, "data/more"), refused("ENOSPC"), "and stay so");
    tap.is(store.remove(NONE, "data/n0"), Ok(()), "one less");
    tap.is(store.mkdir(NONE, "data/m0"), Ok(()), "makes room for one more");
    let deep = "data/".to_owned() + &"d/".repeat(100) + "d";
    for index in 0..100 {
        if store.write(NONE, &format!("{deep}{index}"), b"x").is_err() {
            break;
        }
    }
    let watches = (0..200).find(|index| store.watch("data/w", &format!("{index}")).is_err());
    tap.is(watches, Some(128), "watches are limited");
    let transactions = (0..20).find(|_| store.begin().is_err());
    tap.is(transactions, Some(10), "and so are transactions");
    tap.is(store.write(NONE, "data/n1", &[0; 3000]), refused("ENOSPC"), "and the size of a node");
    tap.ok(store.read(NONE, "domid").is_ok(), "it is served all the same");
}

/// The report comes first: nothing is shown afterwards.
fn console_index(tap: &mut Tap) {
    let page = page(boot().console_mfn);
    tap.ok(true, "the console worked until now");
    time::sleep(100_000_000);
    page.store_u32(console_page::OUT_PROD, page.load_u32(console_page::OUT_CONS).wrapping_add(2049));
    let _ = events::notify(boot().console_evtchn);
    time::sleep(100_000_000);
}

use guest_pv::alloc::borrow::ToOwned;
