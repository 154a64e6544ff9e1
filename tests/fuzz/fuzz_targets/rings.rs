//! Shared rings (console, xenstore) with a peer that writes what it likes where it likes: an end never reads or writes more
//! than the ring holds, and says so when the indices are impossible.
#![no_main]
#![forbid(unsafe_code)]

use std::cell::RefCell;

use fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use ring_protocol::{console, page::Page, xenbus::State, xenstore};

struct Shared(RefCell<Vec<u8>>);

impl Page for Shared {
    fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
    }
    fn store_u32(&self, offset: usize, value: u32) {
        self.0.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    fn read(&self, offset: usize, to: &mut [u8]) {
        to.copy_from_slice(&self.0.borrow()[offset..offset + to.len()]);
    }
    fn write(&self, offset: usize, from: &[u8]) {
        self.0.borrow_mut()[offset..offset + from.len()].copy_from_slice(from);
    }
    fn fence(&self) {}
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes::new(data);
    let page = Shared(RefCell::new(vec![0; 4096]));
    let mut host = console::Host::attach(&page);
    let mut guest = console::Guest::attach(&page);
    let mut server = xenstore::Server::attach(&page);
    let mut client = xenstore::Client::attach(&page);
    let mut buffer = [0; 3000];
    while !bytes.is_empty() {
        let (step, length) = (bytes.u8(), usize::from(bytes.u16()) % buffer.len());
        let part = &mut buffer[..length];
        let moved = match step % 12 {
            0 => host.as_mut().ok().map(|end| end.read(&page, part)),
            1 => host.as_mut().ok().map(|end| end.write(&page, part)),
            2 => guest.as_mut().ok().map(|end| end.read(&page, part)),
            3 => guest.as_mut().ok().map(|end| end.write(&page, part)),
            4 => server.as_mut().ok().map(|end| end.read(&page, part)),
            5 => server.as_mut().ok().map(|end| end.write(&page, part)),
            6 => client.as_mut().ok().map(|end| end.read(&page, part)),
            7 => client.as_mut().ok().map(|end| end.write(&page, part)),
            8 => {
                // The peer's word for an index.
                page.store_u32(usize::from(bytes.u16()) % 1024 * 4, bytes.u32());
                None
            }
            9 => {
                host = console::Host::attach(&page);
                server = xenstore::Server::attach(&page);
                None
            }
            10 => {
                guest = console::Guest::attach(&page);
                client = xenstore::Client::attach(&page);
                None
            }
            _ => {
                let state = State::parse(&part[..length.min(12)]);
                assert_eq!(State::parse(state.as_str().as_bytes()), state);
                None
            }
        };
        if let Some(Ok(moved)) = moved {
            assert!(moved <= length);
        }
    }
});
