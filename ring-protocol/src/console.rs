//! The console's page (`io/console.h`), from both ends.

use crate::page::Page;
use crate::peer::Fault;
use crate::ring::{Layout, Reader, Writer};
use xen_abi::io::console::interface;

const INPUT: Layout = Layout::new(interface::IN, interface::IN_SIZE, interface::IN_CONS, interface::IN_PROD);
const OUTPUT: Layout = Layout::new(interface::OUT, interface::OUT_SIZE, interface::OUT_CONS, interface::OUT_PROD);

/// The end of the terminal.
#[derive(Debug)]
pub struct Host {
    input: Writer,
    output: Reader,
}

impl Host {
    /// Takes over a page where its indices stand.
    ///
    /// # Errors
    /// When the indices are impossible.
    pub fn attach(page: &impl Page) -> Result<Self, Fault> {
        Ok(Self { input: Writer::attach(INPUT, page)?, output: Reader::attach(OUTPUT, page)? })
    }

    /// Reads what the guest printed.
    ///
    /// # Errors
    /// When the guest's indices are impossible.
    pub fn read(&mut self, page: &impl Page, to: &mut [u8]) -> Result<usize, Fault> {
        self.output.read(page, to)
    }

    /// Types to the guest as much as there is room for.
    ///
    /// # Errors
    /// When the guest's indices are impossible.
    pub fn write(&mut self, page: &impl Page, bytes: &[u8]) -> Result<usize, Fault> {
        self.input.write(page, bytes)
    }
}

/// The end of the guest.
#[derive(Debug)]
pub struct Guest {
    input: Reader,
    output: Writer,
}

impl Guest {
    /// Takes over a page where its indices stand.
    ///
    /// # Errors
    /// When the indices are impossible.
    pub fn attach(page: &impl Page) -> Result<Self, Fault> {
        Ok(Self { input: Reader::attach(INPUT, page)?, output: Writer::attach(OUTPUT, page)? })
    }

    /// Reads what was typed.
    ///
    /// # Errors
    /// When the host's indices are impossible.
    pub fn read(&mut self, page: &impl Page, to: &mut [u8]) -> Result<usize, Fault> {
        self.input.read(page, to)
    }

    /// Prints as much as there is room for.
    ///
    /// # Errors
    /// When the host's indices are impossible.
    pub fn write(&mut self, page: &impl Page, bytes: &[u8]) -> Result<usize, Fault> {
        self.output.write(page, bytes)
    }
}
