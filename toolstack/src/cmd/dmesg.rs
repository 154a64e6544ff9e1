//! `dmesg`: the hypervisor's console ring.

use alloc::format;
use alloc::string::String;

use super::options::{Options, flag};
use super::{Command, FAILURE, SUCCESS, Status};
use crate::calls::Clear;
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "dmesg",
    usage: "[-c]",
    about: "Read and/or clear dmesg buffer",
    flags: &[flag('c', "clear", "Empty the buffer as well")],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    let clear = if options.has('c') { Clear::Yes } else { Clear::No };
    match host.read_console(clear) {
        Ok(text) => {
            host.print(&String::from_utf8_lossy(&text));
            SUCCESS
        }
        Err(errno) => {
            host.print_error(&format!("cannot read the hypervisor's console: {}\n", errno.name()));
            FAILURE
        }
    }
}
