//! `help`: the commands, or one of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::options::{self, Options};
use super::{COMMANDS, Command, SUCCESS, Status, find, unsupported};
use crate::host::Host;

pub const COMMAND: Command = Command {
    name: "help",
    usage: "[command]",
    about: "Show the commands, or how to use one",
    flags: &[],
    needs: 0,
    run,
};

fn run(host: &mut dyn Host, options: &Options) -> Status {
    if let Some(name) = options.arg(0) {
        return match find(name) {
            Some(command) => {
                usage(host, command);
                SUCCESS
            }
            None => unsupported::refuse(host, name),
        };
    }
    let mut text = String::from("Usage <subcommand> [args]\n\nfull list of subcommands:\n\n");
    for command in COMMANDS {
        text.push_str(&format!(" {:<19} {}\n", command.name, command.about));
    }
    let refused: Vec<&str> = unsupported::COMMANDS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    text.push_str(&format!("\nxl's, and not supported: {}.\n", refused.join(", ")));
    host.print(&text);
    SUCCESS
}

/// How to use one command.
pub fn usage(host: &mut dyn Host, command: &Command) {
    let options = options::explain(command.flags);
    let text = format!("Usage: {} {}\n\n{}.\n\nOptions:\n\n{options}", command.name, command.usage, command.about);
    host.print(&text);
}
