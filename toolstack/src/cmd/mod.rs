//! The commands, one file each, with xl's names, options, output and exit codes. [`run`] is the table of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::host::Host;

mod block;
mod config_update;
mod console;
mod create;
mod debug_keys;
mod destroy;
mod devices;
mod dmesg;
mod document;
mod domid;
mod domname;
mod dump_core;
mod help;
mod info;
mod list;
mod memory;
mod options;
mod pause;
mod pools;
mod power;
mod reboot;
mod rename;
mod resources;
mod sched;
mod shutdown;
mod sysrq;
mod target;
mod top;
mod trigger;
mod unpause;
mod unsupported;
mod uptime;
mod vcpu_list;
mod vcpu_pin;
mod vcpu_set;

pub use create::{CreateError, create_domain};
pub use destroy::destroy_domain;
pub use dump_core::dump as dump_domain;
pub use options::{Flag, Options};
pub use rename::rename as rename_domain;
pub use target::all as all_domains;

/// How a command ended: 0 is well.
pub type Status = i32;

/// It worked.
pub const SUCCESS: Status = 0;
/// It did not.
pub const FAILURE: Status = 1;
/// It was not called as it should be.
pub const MISUSED: Status = 2;

/// One command.
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, as `help` shows them.
    pub usage: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Its options.
    flags: &'static [Flag],
    /// Positional arguments it cannot do without.
    needs: usize,
    run: fn(&mut dyn Host, &Options) -> Status,
}

/// All commands, in the order of `help`.
pub const COMMANDS: &[Command] = &[
    create::COMMAND,
    config_update::COMMAND,
    list::COMMAND,
    list::CLAIMS,
    list::VM_LIST,
    list::SHARING,
    destroy::COMMAND,
    shutdown::COMMAND,
    reboot::COMMAND,
    pause::COMMAND,
    unpause::COMMAND,
    console::COMMAND,
    devices::NETWORK,
    devices::CHANNEL,
    devices::TPM,
    devices::KEYBOARD,
    devices::DISPLAY,
    devices::SOUND,
    devices::USB,
    devices::PCI,
    devices::ASSIGNABLE,
    block::LIST,
    block::ATTACH,
    block::DETACH,
    vcpu_list::COMMAND,
    vcpu_pin::COMMAND,
    vcpu_set::COMMAND,
    memory::MEM_MAX,
    memory::MEM_SET,
    trigger::COMMAND,
    trigger::BUTTON,
    sysrq::COMMAND,
    top::COMMAND,
    domid::COMMAND,
    domname::COMMAND,
    rename::COMMAND,
    uptime::COMMAND,
    info::COMMAND,
    dmesg::COMMAND,
    dump_core::COMMAND,
    debug_keys::COMMAND,
    sched::CREDIT,
    sched::CREDIT2,
    pools::CREATE,
    pools::LIST,
    pools::DESTROY,
    pools::RENAME,
    pools::CPU_ADD,
    pools::CPU_REMOVE,
    pools::MIGRATE,
    pools::NUMA_SPLIT,
    resources::COMMAND,
    power::POWEROFF,
    power::REBOOT_HOST,
    help::COMMAND,
];

/// The command of this name, or the only one whose name begins so.
#[must_use]
pub fn find(name: &str) -> Option<&'static Command> {
    let mut like = COMMANDS.iter().filter(|command| command.name.starts_with(name));
    let exact = COMMANDS.iter().find(|command| command.name == name);
    exact.or_else(|| like.next().filter(|_| !name.is_empty() && like.next().is_none()))
}

impl Command {
    /// Its options, as they are typed.
    #[must_use]
    pub fn option_words(&self) -> Vec<String> {
        options::words(self.flags)
    }
}

/// Runs a command: its name and its arguments. No words at all are no error.
pub fn run(host: &mut dyn Host, words: &[&str]) -> Status {
    let Some((name, arguments)) = words.split_first() else {
        return SUCCESS;
    };
    // Scripts written for xl keep working.
    if *name == "xl" {
        return run_xl(host, arguments);
    }
    let Some(command) = find(name) else {
        return unsupported::refuse(host, name);
    };
    let options = match options::parse(command.flags, arguments) {
        Ok(options) => options,
        Err(message) => {
            host.print_error(&format!("{message}\n"));
            return MISUSED;
        }
    };
    if options.has('h') {
        help::usage(host, command);
        return SUCCESS;
    }
    if options.positional.len() < command.needs {
        let plural = if command.needs == 1 { "" } else { "s" };
        host.print_error(&format!("'{}' requires at least {} argument{plural}.\n\n", command.name, command.needs));
        help::usage(host, command);
        return MISUSED;
    }
    (command.run)(host, &options)
}

/// What follows the word `xl`: options of its own, and a command.
fn run_xl(host: &mut dyn Host, words: &[&str]) -> Status {
    let own = words.iter().take_while(|word| word.starts_with('-')).count();
    let (own, words) = words.split_at(own);
    let letters = || own.iter().flat_map(|word| word.chars().skip(1));
    if let Some(unknown) = letters().find(|letter| !"vfNtT".contains(*letter)) {
        host.print_error(&format!("xl: unknown global option -{unknown}\n"));
        return MISUSED;
    }
    let Some((name, arguments)) = words.split_first() else {
        return run(host, &["help"]);
    };
    // The others have no meaning here: nothing is told apart by its verbosity, its lock or its terminal.
    if !letters().any(|letter| letter == 'N') {
        return run(host, words);
    }
    if !find(name).is_some_and(|command| command.flags.iter().any(|flag| flag.long == "dryrun")) {
        host.print_error("command does not implement -N (dryrun) option\n");
        return FAILURE;
    }
    let rehearsed: Vec<&str> = [*name, "--dryrun"].into_iter().chain(arguments.iter().copied()).collect();
    run(host, &rehearsed)
}

/// Splits a script into commands of words: commands end at a newline or a semicolon, words at spaces; quotes of both
/// kinds and backslashes keep characters together; a `#` at the start of a word starts a comment.
///
/// # Errors
/// An open quote.
pub fn split(script: &str) -> Result<Vec<Vec<String>>, &'static str> {
    let mut commands = Vec::new();
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = script.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' | ';' => {
                words.extend(word.take());
                if !words.is_empty() {
                    commands.push(core::mem::take(&mut words));
                }
            }
            '#' if word.is_none() => {
                // What ended the comment ends the command too.
                if chars.by_ref().any(|c| c == '\n') && !words.is_empty() {
                    commands.push(core::mem::take(&mut words));
                }
            }
            c if c.is_whitespace() => words.extend(word.take()),
            '"' | '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed"),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            Some(escaped @ ('"' | '\\')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("a quote is not closed"),
                        },
                        Some(inner) => word.push(inner),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => word.get_or_insert_default().push('\\'),
            },
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        commands.push(words);
    }
    Ok(commands)
}
