//! Options as getopt reads them: `-p`, `-pc`, `-n VALUE`, `-nVALUE`, `--long`, `--long=VALUE`, `--` ends them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// One option of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its letter, by which the command asks for it.
    pub letter: char,
    /// Its long name; empty for none.
    pub long: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
}

/// A plain flag.
pub const fn flag(letter: char, long: &'static str) -> Flag {
    Flag { letter, long, takes_value: false }
}

/// A flag with a value.
pub const fn value(letter: char, long: &'static str) -> Flag {
    Flag { letter, long, takes_value: true }
}

/// What was given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    given: Vec<(char, String)>,
    /// What is not an option.
    pub positional: Vec<String>,
}

impl Options {
    /// Whether an option was given.
    #[must_use]
    pub fn has(&self, letter: char) -> bool {
        self.given.iter().any(|(given, _)| *given == letter)
    }

    /// An option's value; the last one counts.
    #[must_use]
    pub fn get(&self, letter: char) -> Option<&str> {
        self.given.iter().rev().find(|(given, _)| *given == letter).map(|(_, value)| value.as_str())
    }

    /// A positional argument.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&str> {
        self.positional.get(index).map(String::as_str)
    }
}

/// Sorts `arguments`. `-h` and `--help` are always known.
pub fn parse(flags: &[Flag], arguments: &[&str]) -> Result<Options, String> {
    const HELP: Flag = flag('h', "help");
    let mut options = Options::default();
    let mut rest = arguments.iter();
    let find = |found: &dyn Fn(&Flag) -> bool| flags.iter().chain([&HELP]).find(|f| found(f)).copied();
    while let Some(argument) = rest.next() {
        if *argument == "--" {
            options.positional.extend(rest.by_ref().map(ToString::to_string));
        } else if let Some(long) = argument.strip_prefix("--") {
            let (name, inline) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let known = find(&|f| f.long == name).ok_or_else(|| format!("unrecognized option '--{name}'"))?;
            let given = match (known.takes_value, inline) {
                (false, None) => "",
                (false, Some(_)) => return Err(format!("option '--{name}' doesn't allow an argument")),
                (true, Some(value)) => value,
                (true, None) => {
                    rest.next().copied().ok_or_else(|| format!("option '--{name}' requires an argument"))?
                }
            };
            options.given.push((known.letter, given.to_string()));
        } else if let Some(letters) = argument.strip_prefix('-').filter(|l| !l.is_empty()) {
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                let known = find(&|f| f.letter == letter).ok_or_else(|| format!("invalid option -- '{letter}'"))?;
                let mut given = "";
                if known.takes_value {
                    given = letters.as_str();
                    if given.is_empty() {
                        let missing = || format!("option requires an argument -- '{letter}'");
                        given = rest.next().copied().ok_or_else(missing)?;
                    }
                    letters = "".chars();
                }
                options.given.push((letter, given.to_string()));
            }
        } else {
            options.positional.push((*argument).to_string());
        }
    }
    Ok(options)
}
