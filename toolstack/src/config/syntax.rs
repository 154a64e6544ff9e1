//! xl.cfg's grammar (xl.cfg(5), "SYNTAX"): `key = value` lines, a value being a string in single or double quotes, a
//! number, or a list of values in brackets; `+=` appends; `;` separates like a line's end; `#` starts a comment. A
//! backslash at the end of a line continues it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::error::{ConfigError, Place};

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A quoted text.
    Text(String),
    /// A number: decimal, or hexadecimal with 0x, or octal with 0.
    Number(u64),
    /// A list.
    List(Vec<Located<Value>>),
}

impl Value {
    /// How a message names such a value.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::List(_) => "a list",
        }
    }
}

/// Something and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// It.
    pub value: T,
    /// Its place.
    pub place: Place,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The key.
    pub key: Located<String>,
    /// Its value.
    pub value: Located<Value>,
    /// Whether it was `+=`.
    pub append: bool,
}

/// Lists deeper than this are refused (real ones have one level).
const MAX_DEPTH: u32 = 16;

/// Parses a file.
///
/// # Errors
/// The first thing that is not in the grammar.
pub fn parse(file: &str, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let mut parser = Parser::new(file, text);
    let mut all = Vec::new();
    loop {
        match parser.token()? {
            Token { kind: Kind::End, .. } => return Ok(all),
            Token { kind: Kind::Newline | Kind::Semicolon, .. } => {}
            Token { kind: Kind::Word(key), place } => all.push(parser.assignment(Located { value: key, place })?),
            other => return Err(other.unexpected("a key")),
        }
    }
}

/// Parses an override such as `memory=256`, `vcpus=2; name="web"` or `name=web`: as in a file, but a value that is neither quoted, nor a number,
/// nor a list is taken as text, since a shell has eaten the quotes.
///
/// # Errors
/// The first thing that is not in the grammar.
pub fn parse_override(argument: &str) -> Result<Vec<Assignment>, ConfigError> {
    const PLACE: &str = "command line";
    let strict = parse(PLACE, argument);
    if strict.is_err()
        && let Some((key, value)) = argument.split_once('=')
    {
        let bare = value.trim();
        let number = bare.starts_with(|c: char| c.is_ascii_digit()) && parse_number(bare).is_some();
        if !bare.starts_with(['"', '\'', '[']) && !number && !key.ends_with('+') {
            let quoted: String =
                bare.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
            return parse(PLACE, &format!("{key}=\"{quoted}\""));
        }
    }
    strict
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Number(u64),
    Text(String),
    Equals,
    PlusEquals,
    Open,
    Close,
    Comma,
    Semicolon,
    Newline,
    End,
}

struct Token {
    kind: Kind,
    place: Place,
}

impl Token {
    fn unexpected(&self, expected: &str) -> ConfigError {
        let found = match &self.kind {
            Kind::Word(w) => format!("\"{w}\""),
            Kind::Number(n) => format!("the number {n}"),
            Kind::Text(_) => "a string".to_string(),
            Kind::Equals => "\"=\"".to_string(),
            Kind::PlusEquals => "\"+=\"".to_string(),
            Kind::Open => "\"[\"".to_string(),
            Kind::Close => "\"]\"".to_string(),
            Kind::Comma => "\",\"".to_string(),
            Kind::Semicolon => "\";\"".to_string(),
            Kind::Newline => "the end of the line".to_string(),
            Kind::End => "the end of the file".to_string(),
        };
        let hint = match (&self.kind, expected) {
            (Kind::Word(_), "a value") => " (strings need quotes)",
            _ => "",
        };
        ConfigError { place: self.place.clone(), message: format!("expected {expected}, found {found}{hint}") }
    }
}

struct Parser<'a> {
    file: &'a str,
    chars: core::iter::Peekable<Box<dyn Iterator<Item = char> + 'a>>,
    line: u32,
    column: u32,
}

impl<'a> Parser<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let chars: Box<dyn Iterator<Item = char>> = Box::new(text.chars().filter(|c| *c != '\r'));
        Self { file, chars: chars.peekable(), line: 1, column: 1 }
    }

    fn place(&self) -> Place {
        Place { file: self.file.to_string(), line: self.line, column: self.column }
    }

    fn error<T>(&self, place: Place, message: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError { place, message: message.into() })
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut out = String::new();
        while let Some(c) = self.chars.next_if(|c| keep(*c)) {
            self.column += 1;
            out.push(c);
        }
        out
    }

    fn token(&mut self) -> Result<Token, ConfigError> {
        loop {
            let place = self.place();
            let Some(&c) = self.chars.peek() else {
                return Ok(Token { kind: Kind::End, place });
            };
            let kind = match c {
                ' ' | '\t' | '\x0c' => {
                    self.bump();
                    continue;
                }
                '#' => {
                    self.take_while(|c| c != '\n');
                    continue;
                }
                '\\' => {
                    self.bump();
                    if self.chars.peek() != Some(&'\n') {
                        return self.error(place, "a \"\\\" outside of a string must end its line");
                    }
                    self.bump();
                    continue;
                }
                'a'..='z' | 'A'..='Z' | '_' => Kind::Word(self.take_while(|c| c == '_' || c.is_ascii_alphanumeric())),
                '0'..='9' => {
                    let digits = self.take_while(|c| c.is_ascii_alphanumeric());
                    match parse_number(&digits) {
                        Some(number) => Kind::Number(number),
                        None => return self.error(place, format!("\"{digits}\" is not a number")),
                    }
                }
                '"' | '\'' => Kind::Text(self.text(c)?),
                '+' => {
                    self.bump();
                    if self.chars.peek() != Some(&'=') {
                        return self.error(place, "expected \"=\" after \"+\"");
                    }
                    self.bump();
                    Kind::PlusEquals
                }
                _ => {
                    self.bump();
                    match c {
                        '=' => Kind::Equals,
                        '[' => Kind::Open,
                        ']' => Kind::Close,
                        ',' => Kind::Comma,
                        ';' => Kind::Semicolon,
                        '\n' => Kind::Newline,
                        '-' => return self.error(place, "numbers cannot be negative"),
                        other => return self.error(place, format!("unexpected character {other:?}")),
                    }
                }
            };
            return Ok(Token { kind, place });
        }
    }

    /// A quoted text with C's escapes.
    fn text(&mut self, quote: char) -> Result<String, ConfigError> {
        let start = self.place();
        self.bump();
        let mut out = String::new();
        loop {
            let place = self.place();
            match self.bump() {
                Some(c) if c == quote => return Ok(out),
                None | Some('\n') => return self.error(start, "the string is not closed on its line"),
                Some('\\') => out.push(self.escape(place)?),
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self, place: Place) -> Result<char, ConfigError> {
        Ok(match self.bump() {
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some(c @ ('\\' | '\'' | '"')) => c,
            Some('x') => {
                let mut value = 0;
                for _ in 0..2 {
                    match self.bump().and_then(|c| c.to_digit(16)) {
                        Some(digit) => value = value * 16 + digit,
                        None => return self.error(place, "\\x needs two hexadecimal digits"),
                    }
                }
                char::from_u32(value).unwrap_or('\u{fffd}')
            }
            Some(c @ '0'..='7') => {
                let mut value = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    if let Some(c) = self.chars.next_if(|c| c.is_digit(8)) {
                        self.column += 1;
                        value = value * 8 + c.to_digit(8).unwrap_or(0);
                    }
                }
                char::from_u32(value & 0xff).unwrap_or('\u{fffd}')
            }
            Some(c) => return self.error(place, format!("unknown escape \"\\{}\"", c.escape_default())),
            None => return self.error(place, "the string is not closed on its line"),
        })
    }

    fn assignment(&mut self, key: Located<String>) -> Result<Assignment, ConfigError> {
        let append = match self.token()? {
            Token { kind: Kind::Equals, .. } => false,
            Token { kind: Kind::PlusEquals, .. } => true,
            other => return Err(other.unexpected(&format!("\"=\" after \"{}\"", key.value))),
        };
        let first = self.token()?;
        let value = self.value(first, 0)?;
        match self.token()? {
            Token { kind: Kind::Newline | Kind::Semicolon | Kind::End, .. } => Ok(Assignment { key, value, append }),
            other => Err(other.unexpected("the end of the line")),
        }
    }

    fn token_past_newlines(&mut self) -> Result<Token, ConfigError> {
        loop {
            let token = self.token()?;
            if token.kind != Kind::Newline {
                return Ok(token);
            }
        }
    }

    fn value(&mut self, token: Token, depth: u32) -> Result<Located<Value>, ConfigError> {
        let place = token.place.clone();
        let value = match token.kind {
            Kind::Text(text) => Value::Text(text),
            Kind::Number(number) => Value::Number(number),
            Kind::Open if depth == MAX_DEPTH => return self.error(place, "lists are nested too deep"),
            Kind::Open => Value::List(self.list(depth + 1)?),
            _ => return Err(token.unexpected("a value")),
        };
        Ok(Located { value, place })
    }

    /// What follows an opening bracket, newlines counting as spaces; a comma may follow the last value.
    fn list(&mut self, depth: u32) -> Result<Vec<Located<Value>>, ConfigError> {
        let mut values = Vec::new();
        loop {
            let token = self.token_past_newlines()?;
            if token.kind == Kind::Close {
                return Ok(values);
            }
            values.push(self.value(token, depth)?);
            let token = self.token_past_newlines()?;
            match token.kind {
                Kind::Comma => {}
                Kind::Close => return Ok(values),
                _ => return Err(token.unexpected("\",\" or \"]\"")),
            }
        }
    }
}

/// A number as C's strtoul with base 0 reads it.
fn parse_number(digits: &str) -> Option<u64> {
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    match digits.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => digits.parse().ok(),
    }
}
