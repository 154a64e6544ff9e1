//! JSON out: just what the commands' machine-readable output takes.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// A string with its quotes.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of objects, each of them made already, as yajl prints it: one below the other.
#[must_use]
pub fn list<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let mut text = String::from("[");
    for (index, item) in items.into_iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(item);
    }
    text.push_str("\n]\n");
    text
}

/// A list on one line.
#[must_use]
pub fn line(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// An object of fields whose values are JSON already, on lines of their own.
#[must_use]
pub fn object(indent: usize, fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    let _ = write!(text, "{:indent$}{{", "");
    for (index, (key, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}\n{:indent$}    {}: {value}", "", quote(key));
    }
    let _ = write!(text, "\n{:indent$}}}", "");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    #[test]
    fn objects_and_lists() {
        let item = object(4, &[("a\"b", 1.to_string()), ("c", quote("x\ny\\"))]);
        assert_eq!(item, "    {\n        \"a\\\"b\": 1,\n        \"c\": \"x\\u000ay\\\\\"\n    }");
        assert_eq!(list(&vec![String::from("1"), String::from("2")]), "[\n1,\n2\n]\n");
    }
}
