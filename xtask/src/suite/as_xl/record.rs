//! Answers of commands: read from the serial line, written to the record and read back.

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::Path;

/// Before the parts of an answer on the serial line.
const BEGIN: &str = "xl-begin: ";
const OUT: &str = "xl-out: ";
const ERR: &str = "xl-err: ";
const STATUS: &str = "xl-ended: ";
/// Before a command in the record, a line of what went wrong, and the status.
const COMMAND: &str = "$ ";
const COMPLAINT: &str = "! ";
const ENDED: &str = "= ";
/// Before a line of what was said.
const SAID: &str = "| ";
/// Stands for what the libraries below xl complain about: they name lines of their source.
const LIBRARY: &str = "(libxl)";
/// How such a line begins.
const LIBRARIES: [&str; 4] = ["libxl: ", "libxl-save-helper: ", "xc: ", "xencall: "];

/// Runs a command for the record: its name there, and its words.
pub const RUN: &str = "\
run() {
    echo \"xl-begin: $1\"
    shift
    \"$@\" > /tmp/out 2> /tmp/err < /dev/null
    status=$?
    head -n $lines /tmp/out | sed 's/^/xl-out: /'
    head -n $lines /tmp/err | sed 's/^/xl-err: /'
    echo
    echo \"xl-ended: $status\"
}
wait_for() {
    for i in $(seq 120); do
        if grep -q \"$1\" /tmp/guest-debian.log; then
            # The next guest of this name is to say it anew.
            : > /tmp/guest-debian.log
            return
        fi
        sleep 1
    done
    echo \"xl-missing: $1\"
}
wait_until_gone() {
    while xl domid debian > /dev/null 2>&1; do sleep 1; done
}
";

/// What a command answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// Lines of standard output.
    pub out: Vec<String>,
    /// Lines of standard error.
    pub err: Vec<String>,
}

impl Answer {
    /// From both streams.
    pub fn new(status: i32, out: &str, err: &str) -> Self {
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        let mut answer = Self { status, out: lines(out), err: Vec::new() };
        lines(err).iter().for_each(|line| answer.complain(line));
        answer
    }

    /// Takes a line of standard error.
    fn complain(&mut self, line: &str) {
        let library = LIBRARIES.iter().any(|name| line.starts_with(name));
        let line = if library { LIBRARY } else { line };
        if !library || self.err.last().is_none_or(|last| last != LIBRARY) {
            self.err.push(line.to_owned());
        }
    }

    /// What the command itself complained about. An empty line after a library's is the end of that one.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        let mut library = false;
        self.err.iter().map(String::as_str).filter(move |line| {
            let before = std::mem::replace(&mut library, *line == LIBRARY);
            !(library || before && line.is_empty())
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.out {
            writeln!(f, "{}", format!("{SAID}{line}").trim_end())?;
        }
        for line in &self.err {
            writeln!(f, "{}", format!("{COMPLAINT}{line}").trim_end())?;
        }
        writeln!(f, "{ENDED}{}", self.status)
    }
}

/// A word for the ramdisk's shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The answers in what a machine said. Whatever else comes on the line stands on lines of its own.
pub fn said(text: &str) -> Vec<(String, Answer)> {
    let mut all: Vec<(String, Answer)> = Vec::new();
    for line in text.lines() {
        if let Some((_, command)) = line.split_once(BEGIN) {
            all.push((command.to_owned(), Answer::default()));
        }
        let Some((_, answer)) = all.last_mut() else { continue };
        if let Some((_, said)) = line.split_once(OUT) {
            answer.out.push(readable(said));
        } else if let Some((_, said)) = line.split_once(ERR) {
            answer.complain(&readable(said));
        } else if let Some((_, status)) = line.split_once(STATUS) {
            answer.status = status.trim().parse().unwrap_or(i32::MIN);
        }
    }
    all
}

/// Without what nobody sees: xl shows a wrong option as a zero byte.
fn readable(said: &str) -> String {
    said.trim_end().replace(|c: char| c.is_control() && c != '\t', "")
}

/// Writes a record.
pub fn store(path: &Path, answers: &[(String, Answer)]) -> Result<()> {
    let mut text = String::from(
        "# What Debian's xl 4.17 says on Debian's Xen, and the status it ends with.\n\
         # Written by `cargo xtask test kernel --full --on xen --record --case \"as on record\"`; not edited by hand.\n",
    );
    for (command, answer) in answers {
        text.push_str(&format!("\n{COMMAND}{command}\n{answer}"));
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Reads it.
pub fn load(path: &Path) -> Result<Vec<(String, Answer)>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut all: Vec<(String, Answer)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(command) = line.strip_prefix(COMMAND) {
            all.push((command.to_owned(), Answer::default()));
            continue;
        }
        let Some((_, answer)) = all.last_mut() else { bail!("{}: {line:?} is nobody's answer", path.display()) };
        let after = |mark: &str| line.strip_prefix(mark).or((line == mark.trim_end()).then_some(""));
        if let Some(said) = after(SAID) {
            answer.out.push(said.to_owned());
        } else if let Some(said) = after(COMPLAINT) {
            answer.err.push(said.to_owned());
        } else {
            let status = line.strip_prefix(ENDED).and_then(|status| status.parse().ok());
            answer.status = status.with_context(|| format!("{}: {line:?}", path.display()))?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_stored_and_read_back() {
        let text = "x\nxl-begin: list 'a b'\n(XEN) hm\nxl-out: a  1\nxl-out: \nxl-err: libxl: error: x.c:1\n\
                    xl-err: libxl: error: y.c:1\nxl-err: b\0ad\n\nxl-ended: 1\nxl-begin: next\nxl-ended: 0\n";
        let answers = said(text);
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].1, Answer::new(1, "a  1\n\n", "libxl: error: z.c:1\nbad\n"));
        assert_eq!(answers[0].1.complaints().collect::<Vec<_>>(), ["bad"]);
        let ended = Answer::new(1, "", "libxl: x\n\nbad\n\n");
        assert_eq!(ended.complaints().collect::<Vec<_>>(), ["bad", ""]);
        let path = std::env::temp_dir().join(format!("xl-record-{}", std::process::id()));
        store(&path, &answers).unwrap();
        let read = load(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), answers);
    }
}
