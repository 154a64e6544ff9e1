//! Tells Rust code from comments and strings, line by line: enough for rules that look for words.

/// One line of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its code; strings and characters are empty here.
    pub code: String,
    /// Its comment, without the slashes' meaning: the text as it stands.
    pub comment: String,
}

impl Line {
    /// Whether there is a comment and no code.
    pub fn only_comment(&self) -> bool {
        self.code.trim().is_empty() && !self.comment.trim().is_empty()
    }

    /// Whether there is nothing.
    pub fn blank(&self) -> bool {
        self.code.trim().is_empty() && self.comment.trim().is_empty()
    }
}

enum State {
    Code,
    /// Depth of nested block comments.
    Block(usize),
    Text,
    /// A raw string that ends with this many `#`.
    Raw(usize),
}

/// Splits a file.
pub fn lines(text: &str) -> Vec<Line> {
    let mut state = State::Code;
    text.lines().map(|line| one(line, &mut state)).collect()
}

fn one(text: &str, state: &mut State) -> Line {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut line = Line::default();
    let mut index = 0;
    while index < chars.len() {
        let (this, next) = (at(index), at(index + 1));
        match state {
            State::Block(depth) => {
                line.comment.push(this);
                if (this, next) == ('*', '/') {
                    *depth -= 1;
                    index += 1;
                    if *depth == 0 {
                        *state = State::Code;
                    }
                } else if (this, next) == ('/', '*') {
                    *depth += 1;
                    index += 1;
                }
            }
            State::Text => match this {
                '\\' => index += 1,
                '"' => {
                    line.code.push('"');
                    *state = State::Code;
                }
                _ => {}
            },
            State::Raw(hashes) => {
                if this == '"' && (1..=*hashes).all(|offset| at(index + offset) == '#') {
                    line.code.push('"');
                    index += *hashes;
                    *state = State::Code;
                }
            }
            State::Code => match (this, next) {
                ('/', '/') => {
                    line.comment.extend(chars.get(index..).unwrap_or_default());
                    break;
                }
                ('/', '*') => {
                    *state = State::Block(1);
                    index += 1;
                }
                ('"', _) => {
                    let hashes = line.code.chars().rev().take_while(|&c| c == '#').count();
                    let before: String = line.code.chars().rev().skip(hashes).take(1).collect();
                    *state = if before == "r" { State::Raw(hashes) } else { State::Text };
                    line.code.push('"');
                }
                // A lifetime has no closing quote within reach; a character has.
                ('\'', '\\') => {
                    // Past the quote, the backslash and what it escapes.
                    index += 3;
                    while index < chars.len() && at(index) != '\'' {
                        index += 1;
                    }
                    line.code.push_str("''");
                }
                ('\'', _) if at(index + 2) == '\'' => {
                    index += 2;
                    line.code.push_str("''");
                }
                _ => line.code.push(this),
            },
        }
        index += 1;
    }
    line
}

/// Whether `word` stands in `code` as a word of its own.
pub fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code.trim().to_owned()).collect()
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        assert_eq!(codes("a(\"unsafe {\"); // unsafe"), ["a(\"\");"]);
        assert_eq!(codes("a /* x\ny /* z */ */ b"), ["a", "b"]);
        assert_eq!(codes("let a = r#\"x \" unsafe\n\"#; b"), ["let a = r#\"", "\"; b"]);
        assert_eq!(codes(r#"let a = "\" unsafe"; b"#), ["let a = \"\"; b"]);
    }

    #[test]
    fn a_quote_may_be_a_character_or_a_lifetime() {
        assert_eq!(codes("f('\"'); g::<'a>(b'\\'', '\\n')"), ["f(''); g::<'a>(b'', '')"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("an_unsafe", "unsafe"));
    }

    #[test]
    fn a_comment_keeps_its_text() {
        let lines = lines("    // SAFETY: because\n");
        assert!(lines[0].only_comment() && lines[0].comment.contains("SAFETY:"));
    }
}
