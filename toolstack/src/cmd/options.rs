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
    /// What the help calls the value that follows; empty for none.
    pub value: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
}

impl Flag {
    /// Whether a value follows.
    #[must_use]
    pub const fn takes_value(&self) -> bool {
        !self.value.is_empty()
    }

    /// Whether it can be given by its letter.
    const fn is_letter(&self) -> bool {
        self.letter.is_ascii()
    }

    /// `-l, --long=VALUE`.
    fn name(&self) -> String {
        let both = if self.is_letter() && !self.long.is_empty() { ", " } else { "" };
        let letter = if self.is_letter() { format!("-{}", self.letter) } else { String::new() };
        match (self.long, self.value) {
            ("", "") => letter,
            ("", value) => format!("{letter} {value}"),
            (long, "") => format!("{letter}{both}--{long}"),
            (long, value) => format!("{letter}{both}--{long}={value}"),
        }
    }
}

/// A plain flag.
pub const fn flag(letter: char, long: &'static str, about: &'static str) -> Flag {
    Flag { letter, long, value: "", about }
}

/// A flag with a value.
pub const fn value(letter: char, long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { letter, long, value, about }
}

/// The letter, which nobody can type, of an option that has a long name only.
pub const fn long_only(number: u8) -> char {
    const FIRST: u32 = 0xe000;
    match char::from_u32(FIRST + number as u32) {
        Some(letter) => letter,
        None => '\u{e000}',
    }
}

/// `--help`, of every command.
const HELP: Flag = flag('h', "help", "Print this help");
/// `--json`, of every command that lists something.
pub const JSON: Flag = flag('j', "json", "Print it as JSON");

/// What the help says of a command's options.
pub fn explain(flags: &[Flag]) -> String {
    let names: Vec<(String, &str)> = flags.iter().chain([&HELP]).map(|flag| (flag.name(), flag.about)).collect();
    let width = names.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    names.iter().map(|(name, about)| format!("{name:<width$}  {about}\n")).collect()
}

/// All that can follow a command's name and begins with a dash.
pub fn words(flags: &[Flag]) -> Vec<String> {
    let all = flags.iter().chain([&HELP]);
    let long = all.clone().filter(|flag| !flag.long.is_empty()).map(|flag| format!("--{}", flag.long));
    all.clone().filter(|flag| flag.is_letter()).map(|flag| format!("-{}", flag.letter)).chain(long).collect()
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

/// The option of a long name, of which as much is enough as no other one begins with (getopt(3)).
fn long_option(flags: &[Flag], name: &str) -> Result<Flag, String> {
    let all = || flags.iter().chain([&HELP]).filter(|flag| !flag.long.is_empty());
    if let Some(exact) = all().find(|flag| flag.long == name) {
        return Ok(*exact);
    }
    let mut meant = all().filter(|flag| flag.long.starts_with(name));
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(*only),
        (Some(one), Some(other)) => {
            let more = meant.map(|flag| format!(" '--{}'", flag.long)).collect::<String>();
            let (one, other) = (one.long, other.long);
            Err(format!("option '--{name}' is ambiguous; possibilities: '--{one}' '--{other}'{more}"))
        }
        (None, _) => Err(format!("unrecognized option '--{name}'")),
    }
}

/// Sorts `arguments`. `-h` and `--help` are always known.
pub fn parse(flags: &[Flag], arguments: &[&str]) -> Result<Options, String> {
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
            let known = long_option(flags, name)?;
            let given = match (known.takes_value(), inline) {
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
                let known = find(&|f| f.letter == letter && f.is_letter())
                    .ok_or_else(|| format!("option `{letter}' not supported."))?;
                let mut given = "";
                if known.takes_value() {
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

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [Flag; 3] =
        [flag('v', "verbose", "More"), value('d', "defconfig", "FILE", "Its file"), flag('n', "verify", "Check")];

    #[test]
    fn a_long_name_need_not_be_whole() {
        let given = parse(&FLAGS, &["a", "--verb", "--def=x", "--he", "--defc", "y"]).unwrap();
        assert!(given.has('v') && given.has('h') && !given.has('n'));
        assert_eq!((given.get('d'), given.positional.as_slice()), (Some("y"), ["a".to_string()].as_slice()));
        let ambiguous = "option '--ver' is ambiguous; possibilities: '--verbose' '--verify'";
        assert_eq!(parse(&FLAGS, &["--ver"]), Err(ambiguous.to_string()));
        assert_eq!(parse(&FLAGS, &["--verbosely"]), Err("unrecognized option '--verbosely'".to_string()));
        assert!(parse(&[flag('a', "all", ""), flag('b', "all-of-it", "")], &["--all"]).unwrap().has('a'));
    }
}
