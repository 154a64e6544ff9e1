//! The user's terminal: the hypervisor's console.

use alloc::collections::VecDeque;
use guest_pv::console;
use xen_abi::errno::Errno;
use xen_abi::ids::Port;

/// Ctrl-C.
pub const INTERRUPT: u8 = 3;
/// Ctrl-].
pub const DETACH: u8 = 0x1d;

/// Keys that are kept while nobody reads them.
const LIMIT: usize = 4096;

/// What was typed and not read yet.
#[derive(Debug)]
pub struct Terminal {
    port: Port,
    input: VecDeque<u8>,
    /// Where the cursor is, as far as it matters.
    fresh_line: bool,
}

impl Terminal {
    /// Begins to listen.
    pub fn open() -> Result<Self, Errno> {
        let mut terminal = Self { port: console::input_port()?, input: VecDeque::new(), fresh_line: true };
        terminal.fetch();
        Ok(terminal)
    }

    /// The port that announces input.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Takes what has been typed.
    pub fn fetch(&mut self) {
        let mut buffer = [0; 64];
        loop {
            let count = console::read(&mut buffer);
            let Some(keys) = buffer.get(..count).filter(|keys| !keys.is_empty()) else {
                return;
            };
            let room = LIMIT.saturating_sub(self.input.len());
            self.input.extend(keys.iter().take(room));
        }
    }

    /// The next key.
    pub fn key(&mut self) -> Option<u8> {
        self.input.pop_front()
    }

    /// Was Ctrl-C typed? It and all before it count as read then.
    pub fn take_interrupt(&mut self) -> bool {
        let at = self.input.iter().rposition(|&key| key == INTERRUPT);
        if let Some(at) = at {
            self.input.drain(..=at);
        }
        at.is_some()
    }

    /// Prints bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            console::write_bytes(bytes);
            self.fresh_line = last == b'\n';
        }
    }

    /// Goes to a new line unless the cursor is at the start of one.
    pub fn end_line(&mut self) {
        if !self.fresh_line {
            self.write(b"\n");
        }
    }
}
