//! Editing a line: keys come in as bytes, and what the terminal (a VT100) has to print goes out as bytes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

/// Lines that are remembered.
const HISTORY: usize = 100;
/// Bytes of a line.
const LIMIT: usize = 1024;

/// What a key led to, besides the echo.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    None,
    /// The line is done.
    Line(String),
    /// The last word of this command, up to the cursor, is to be completed.
    Complete(String),
}

/// Within an escape sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    No,
    Started,
    Sequence(u8),
}

/// A line and its history. Only printable ASCII gets into a line.
#[derive(Debug)]
pub struct Editor {
    prompt: &'static str,
    line: String,
    cursor: usize,
    escape: Escape,
    history: Vec<String>,
    /// The line of the history that is shown; its length for the new line.
    at: usize,
    /// The new line, while an old one is shown.
    draft: String,
    /// The last key was a carriage return: a line feed after it is part of it.
    returned: bool,
}

impl Editor {
    pub fn new(prompt: &'static str) -> Self {
        Self {
            prompt,
            line: String::new(),
            cursor: 0,
            escape: Escape::No,
            history: Vec::new(),
            at: 0,
            draft: String::new(),
            returned: false,
        }
    }

    /// Prints prompt and line anew.
    pub fn show(&self) -> Vec<u8> {
        let back = self.line.len() - self.cursor;
        let back = if back > 0 { format!("\x1b[{back}D") } else { String::new() };
        format!("\r\x1b[K{}{}{back}", self.prompt, self.line).into_bytes()
    }

    /// Takes a key.
    pub fn key(&mut self, key: u8) -> (Event, Vec<u8>) {
        let returned = mem::replace(&mut self.returned, key == b'\r');
        match (self.escape, key) {
            (Escape::Started, b'[' | b'O') => self.escape = Escape::Sequence(0),
            (Escape::Started, _) => self.escape = Escape::No,
            (Escape::Sequence(_), b'0'..=b'9') => self.escape = Escape::Sequence(key),
            (Escape::Sequence(_), b';') => {}
            (Escape::Sequence(number), _) => {
                self.escape = Escape::No;
                return (Event::None, self.sequence(number, key));
            }
            (Escape::No, 0x1b) => self.escape = Escape::Started,
            (Escape::No, b'\n') if returned => {}
            (Escape::No, b'\r' | b'\n') => return self.enter(),
            (Escape::No, b'\t') => return (self.tab(), Vec::new()),
            (Escape::No, b' '..=b'~') => return (Event::None, self.insert(key)),
            (Escape::No, _) => return self.control(key),
        }
        (Event::None, Vec::new())
    }

    /// Arrows and other keys with names.
    fn sequence(&mut self, number: u8, last: u8) -> Vec<u8> {
        match (number, last) {
            (_, b'A') => self.recall(self.at.checked_sub(1)),
            (_, b'B') => self.recall(Some(self.at + 1)),
            (_, b'C') => self.go((self.cursor + 1).min(self.line.len())),
            (_, b'D') => self.go(self.cursor.saturating_sub(1)),
            (_, b'H') | (b'1' | b'7', b'~') => self.go(0),
            (_, b'F') | (b'4' | b'8', b'~') => self.go(self.line.len()),
            (b'3', b'~') => self.delete(),
            _ => Vec::new(),
        }
    }

    fn control(&mut self, key: u8) -> (Event, Vec<u8>) {
        const fn ctrl(letter: u8) -> u8 {
            letter & 0x1f
        }
        const A: u8 = ctrl(b'A');
        const B: u8 = ctrl(b'B');
        const C: u8 = ctrl(b'C');
        const D: u8 = ctrl(b'D');
        const E: u8 = ctrl(b'E');
        const F: u8 = ctrl(b'F');
        const H: u8 = ctrl(b'H');
        const K: u8 = ctrl(b'K');
        const L: u8 = ctrl(b'L');
        const N: u8 = ctrl(b'N');
        const P: u8 = ctrl(b'P');
        const U: u8 = ctrl(b'U');
        const W: u8 = ctrl(b'W');
        const DELETE: u8 = 0x7f;
        let echo = match key {
            A => self.go(0),
            B => self.go(self.cursor.saturating_sub(1)),
            D => self.delete(),
            E => self.go(self.line.len()),
            F => self.go((self.cursor + 1).min(self.line.len())),
            H | DELETE => self.erase(1),
            K => {
                self.line.truncate(self.cursor);
                self.show()
            }
            L => {
                let mut echo = b"\x1b[H\x1b[2J".to_vec();
                echo.extend(self.show());
                echo
            }
            N => self.recall(Some(self.at + 1)),
            P => self.recall(self.at.checked_sub(1)),
            U => self.erase(self.cursor),
            W => {
                let before = self.line.get(..self.cursor).unwrap_or_default();
                let kept = before.trim_end().rfind(' ').map_or(0, |at| at + 1);
                self.erase(self.cursor - kept)
            }
            C => {
                self.line.clear();
                self.cursor = 0;
                return (Event::Line(String::new()), b"^C\n".to_vec());
            }
            _ => Vec::new(),
        };
        (Event::None, echo)
    }

    fn go(&mut self, cursor: usize) -> Vec<u8> {
        if self.cursor == cursor {
            return Vec::new();
        }
        self.cursor = cursor;
        self.show()
    }

    fn insert(&mut self, key: u8) -> Vec<u8> {
        if self.line.len() >= LIMIT {
            return Vec::new();
        }
        self.line.insert(self.cursor, char::from(key));
        self.cursor += 1;
        if self.cursor == self.line.len() { alloc::vec![key] } else { self.show() }
    }

    /// Removes so many characters before the cursor.
    fn erase(&mut self, count: usize) -> Vec<u8> {
        let from = self.cursor.saturating_sub(count);
        if from == self.cursor {
            return Vec::new();
        }
        self.line.drain(from..self.cursor);
        self.cursor = from;
        self.show()
    }

    /// Removes the character under the cursor.
    fn delete(&mut self) -> Vec<u8> {
        if self.cursor >= self.line.len() {
            return Vec::new();
        }
        self.line.remove(self.cursor);
        self.show()
    }

    /// Shows a line of the history, or the new one behind it.
    fn recall(&mut self, at: Option<usize>) -> Vec<u8> {
        let Some(at) = at.filter(|&at| at <= self.history.len() && at != self.at) else {
            return Vec::new();
        };
        if self.at == self.history.len() {
            self.draft = mem::take(&mut self.line);
        }
        self.at = at;
        self.line = self.history.get(at).cloned().unwrap_or_else(|| mem::take(&mut self.draft));
        self.cursor = self.line.len();
        self.show()
    }

    fn enter(&mut self) -> (Event, Vec<u8>) {
        let line = mem::take(&mut self.line);
        self.cursor = 0;
        self.draft.clear();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
            if self.history.len() > HISTORY {
                self.history.remove(0);
            }
        }
        self.at = self.history.len();
        (Event::Line(line), b"\n".to_vec())
    }

    fn tab(&self) -> Event {
        let before = self.line.get(..self.cursor).unwrap_or_default();
        Event::Complete(String::from(before.rsplit(';').next().unwrap_or_default()))
    }

    /// Adds what all names that begin with the word have in common; lists them when that is nothing.
    pub fn complete(&mut self, word: &str, names: &[String]) -> Vec<u8> {
        let Some(first) = names.first() else {
            return Vec::new();
        };
        let common = names.iter().fold(first.as_str(), |common, name| {
            let same = common.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
            common.get(..same).unwrap_or_default()
        });
        let mut added = String::from(common.get(word.len()..).unwrap_or_default());
        // In a directory one goes on.
        if names.len() == 1 && !first.ends_with('/') {
            added.push(' ');
        }
        if added.is_empty() {
            let mut echo = b"\n".to_vec();
            echo.extend(names.join("  ").bytes());
            echo.push(b'\n');
            echo.extend(self.show());
            return echo;
        }
        added.bytes().filter(|byte| (b' '..=b'~').contains(byte)).flat_map(|byte| self.insert(byte)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(editor: &mut Editor, keys: &str) -> Vec<Event> {
        keys.bytes().map(|key| editor.key(key).0).filter(|event| *event != Event::None).collect()
    }

    fn lines(keys: &str) -> Vec<Event> {
        type_in(&mut Editor::new("> "), keys)
    }

    fn line(text: &str) -> Event {
        Event::Line(String::from(text))
    }

    #[test]
    fn lines_are_edited() {
        assert_eq!(lines("list\r"), [line("list")]);
        assert_eq!(lines("a\r\nb\n"), [line("a"), line("b")]);
        assert_eq!(lines("lx\x7fist\r"), [line("list")]);
        assert_eq!(lines("ist\x01l\r"), [line("list")]);
        assert_eq!(lines("lst\x1b[D\x1b[Di\x1b[F -v\r"), [line("list -v")]);
        assert_eq!(lines("list x\x1b[H\x1b[3~\r"), [line("ist x")]);
        assert_eq!(lines("one two\x17three\r"), [line("one three")]);
        assert_eq!(lines("one two\x15x\r"), [line("x")]);
        assert_eq!(lines("one\x02\x02\x0b\r"), [line("o")]);
        assert_eq!(lines("half\x03"), [line("")]);
        assert_eq!(lines("\x1b[5~\x1b[1;5Cx\u{e9}\r"), [line("x")]);
    }

    #[test]
    fn history_is_kept() {
        let up = "\x1b[A";
        let down = "\x1b[B";
        assert_eq!(lines(&format!("a\rb\r{up}{up}\r")), [line("a"), line("b"), line("a")]);
        assert_eq!(lines(&format!("a\rnew{up}{down}!\r")), [line("a"), line("new!")]);
        assert_eq!(lines(&format!("a\r{up}{up}{up}x\r")), [line("a"), line("ax")]);
        assert_eq!(lines(&format!("{up}{down}a\r")), [line("a")]);
    }

    #[test]
    fn words_are_completed() {
        let mut editor = Editor::new("> ");
        assert_eq!(type_in(&mut editor, "list; cr\t"), [Event::Complete(String::from(" cr"))]);
        editor.complete("cr", &[String::from("create")]);
        assert_eq!(type_in(&mut editor, "/f\t"), [Event::Complete(String::from(" create /f"))]);
        editor.complete("/f", &[String::from("/files/a1"), String::from("/files/a2")]);
        assert_eq!(type_in(&mut editor, "2\r"), [line("list; create /files/a2")]);
    }

    #[test]
    fn the_echo_shows_the_line() {
        let mut editor = Editor::new("> ");
        assert_eq!(editor.key(b'a').1, b"a");
        assert_eq!(editor.key(b'b').1, b"b");
        editor.key(0x1b);
        editor.key(b'[');
        assert_eq!(editor.key(b'D').1, b"\r\x1b[K> ab\x1b[1D");
        assert_eq!(editor.key(b'\r').1, b"\n");
    }
}
