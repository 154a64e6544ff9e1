//! `help`: the commands, or one of them.

use alloc::format;
use alloc::string::String;

use super::options::Options;
use super::{COMMANDS, Command, FAILURE, SUCCESS, Status, find};
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
            None => {
                host.print_error(&format!("{name}: no such command\n"));
                FAILURE
            }
        };
    }
    let mut text = String::from("Usage <subcommand> [args]\n\nfull list of subcommands:\n\n");
    for command in COMMANDS {
        text.push_str(&format!(" {:<19} {}\n", command.name, command.about));
    }
    host.print(&text);
    SUCCESS
}

/// How to use one command.
pub fn usage(host: &mut dyn Host, command: &Command) {
    let mut text = format!("Usage: {} {}\n\n{}.\n", command.name, command.usage, command.about);
    if !command.flags.is_empty() {
        text.push_str("\nOptions:");
        for flag in command.flags {
            let value = if flag.takes_value { " VALUE" } else { "" };
            match flag.long {
                "" => text.push_str(&format!(" -{}{value}", flag.letter)),
                long => text.push_str(&format!(" -{}|--{long}{value}", flag.letter)),
            }
        }
        text.push('\n');
    }
    host.print(&text);
}
