//! Whether two answers have the same shape: the same words in the same columns, whichever the numbers are.

use super::Compare;
use super::record::Answer;
use std::collections::BTreeSet;

/// In what ours differs from xl's; `None` when it does not.
pub fn difference(how: Compare, xl: &Answer, ours: &Answer) -> Option<String> {
    if xl.status != ours.status {
        return Some(format!("status {} where xl has {}", ours.status, xl.status));
    }
    if xl.err.is_empty() != ours.err.is_empty() {
        let word = |answer: &Answer| if answer.err.is_empty() { "nothing" } else { "something" };
        return Some(format!("{} goes to standard error, {} of xl's", word(ours), word(xl)));
    }
    let first = |lines: &[String]| lines.iter().take(1).cloned().collect::<Vec<_>>();
    let complaints = |answer: &Answer| answer.complaints().map(str::to_owned).collect::<Vec<_>>();
    match how {
        Compare::Status => None,
        Compare::First => lines(&first(&xl.out), &first(&ours.out))
            .or_else(|| lines(&first(&complaints(xl)), &first(&complaints(ours)))),
        Compare::Whole => lines(&xl.out, &ours.out).or_else(|| {
            let (theirs, own) = (complaints(xl), complaints(ours));
            // Where xl's library complains as well, ours has words of its own for that.
            if theirs.len() < xl.err.len() { among(&theirs, &own) } else { lines(&theirs, &own) }
        }),
        Compare::Keys => lines(&keys(&xl.out), &keys(&ours.out)),
        Compare::Json => json(&xl.out.join("\n"), &ours.out.join("\n")),
    }
}

/// What stands before the first colon of each line, with it.
fn keys(lines: &[String]) -> Vec<String> {
    lines.iter().filter_map(|line| Some(line.get(..=line.find(':')?)?.to_owned())).collect()
}

/// The first of xl's lines that is not among ours, in their order.
fn among(xl: &[String], ours: &[String]) -> Option<String> {
    let mut rest = ours.iter();
    let missing = xl.iter().find(|line| !rest.any(|other| alike(line, other)));
    missing.map(|line| format!("no line {line:?}"))
}

fn lines(xl: &[String], ours: &[String]) -> Option<String> {
    for (index, line) in xl.iter().enumerate() {
        let Some(other) = ours.get(index) else { return Some(format!("no line {line:?}")) };
        if !alike(line, other) {
            return Some(format!("{other:?} where xl has {line:?}"));
        }
    }
    ours.get(xl.len()).map(|line| format!("{line:?} is one line more than xl has"))
}

/// A word: where it begins and ends, how far from the one before, and what it is.
#[derive(Debug)]
struct Word {
    begin: usize,
    end: usize,
    gap: usize,
    text: String,
}

/// Whether the words are the same but for numbers, and each stands in the same column: where it begins, where it ends, or how
/// far behind the one before.
fn alike(one: &str, other: &str) -> bool {
    let (one, other) = (bare(one), bare(other));
    let (one, other) = (words(&one), words(&other));
    let same = |(a, b): (&Word, &Word)| a.text == b.text && (a.begin == b.begin || a.end == b.end || a.gap == b.gap);
    one.len() == other.len() && one.iter().zip(&other).all(same)
}

/// Without xl's own name and the options that it takes before a command.
fn bare(line: &str) -> String {
    let line = line.strip_prefix("xl ").unwrap_or(line).replace("'xl ", "'");
    let Some((before, after)) = line.split_once("xl [-") else { return line };
    let Some((options, rest)) = after.split_once("] ") else { return line };
    if options.chars().all(|c| c.is_ascii_alphabetic()) { format!("{before}{rest}") } else { line.clone() }
}

fn words(line: &str) -> Vec<Word> {
    let mut all: Vec<Word> = Vec::new();
    let mut rest = line;
    loop {
        let from = line.len() - rest.len();
        let Some(at) = rest.find(|c: char| !c.is_whitespace()) else { return all };
        let tail = rest.get(at..).unwrap_or_default();
        let word = tail.split(char::is_whitespace).next().unwrap_or_default();
        let begin = from + at;
        let end = begin + word.len();
        let gap = begin - all.last().map_or(0, |word| word.end);
        all.push(Word { begin, end, gap, text: plain(word) });
        rest = line.get(end..).unwrap_or_default();
    }
}

/// A word without what differs from run to run: numbers, UUIDs, and whether a domain runs or waits just now.
fn plain(word: &str) -> String {
    if word.len() == 36 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return "UUID".to_owned();
    }
    if is_state(word) {
        return format!("--{}", word.get(2..).unwrap_or_default());
    }
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            other => text.push(other),
        }
    }
    text
}

/// `r-----`, `-b----` or the three letters of a vCPU.
fn is_state(word: &str) -> bool {
    let letters = "rbpscd";
    (word.len() == 3 || word.len() == 6) && word.chars().zip(letters.chars()).all(|(c, letter)| c == '-' || c == letter)
}

/// xl's keys that ours has not.
fn json(xl: &str, ours: &str) -> Option<String> {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text);
    let (xl, ours) = match (read(xl), read(ours)) {
        (Ok(xl), Ok(ours)) => (xl, ours),
        (_, Err(error)) => return Some(format!("no JSON: {error}")),
        (Err(error), _) => return Some(format!("xl's is no JSON: {error}")),
    };
    let (mut there, mut here) = (BTreeSet::new(), BTreeSet::new());
    paths(&xl, "", &mut there);
    paths(&ours, "", &mut here);
    let missing: Vec<&str> = there.difference(&here).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("no {}", missing.join(", ")))
}

fn paths(value: &serde_json::Value, at: &str, all: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), all)),
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, item)| paths(item, &format!("{at}.{name}"), all));
        }
        _ => {
            all.insert(at.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_and_numbers_do_not() {
        let row = "Domain-0                                     0   640     2     r-----      12.3";
        assert!(alike(row, "Domain-0                                     0  1024     1     -b----       9.8"));
        assert!(!alike(row, "Domain-0                                    0   640     2     r-----      12.3"));
        assert!(!alike(row, "Domain-0                                     0   640     2     --p---      12.3"));
        assert!(!alike(row, "Domain-0                                     0   640     2     r-----"));
        assert!(alike("free : 12 MiB", "free : 1024 MiB"));
        assert!(!alike("free : 12 MiB", "free: 12 MiB"));
        assert!(!alike("free : 12 MiB", "free : 12 KiB"));
        let vcpu = "debian                               5     0    0   ---       0.0  all / all";
        assert!(alike(vcpu, "debian                               1     0    0   r--      10.0  all / all"));
        assert!(!alike(vcpu, "debian                               1     0     0   ---       0.0  all / all"));
        assert!(alike("Usage: xl [-vtTf] pause <Domain>", "Usage: pause <Domain>"));
        assert!(!alike("Usage: xl [-vtTf] pause <Domain>", "Usage: pause DOMAIN"));
        assert!(alike("'xl pause' requires at least 1 argument.", "'pause' requires at least 1 argument."));
    }

    #[test]
    fn answers_are_compared_as_is_asked_for() {
        let answer = |out: &str, err: &str| Answer::new(0, out, err);
        let same = |how, a: &Answer, b: &Answer| difference(how, a, b).is_none();
        assert!(!same(Compare::Status, &answer("", ""), &Answer::new(1, "", "")));
        assert!(!same(Compare::Status, &answer("", "libxl: x"), &answer("", "")));
        assert!(same(Compare::Whole, &answer("", "libxl: x"), &answer("", "ours\nof two lines")));
        assert!(!same(Compare::Whole, &answer("", "libxl: x\nbad"), &answer("", "worse")));
        assert!(same(Compare::Whole, &answer("", "libxl: x\nbad"), &answer("", "why\nbad")));
        assert!(!same(Compare::Whole, &answer("", "bad"), &answer("", "why\nbad")));
        assert!(!same(Compare::Whole, &answer("a", ""), &answer("a\nb", "")));
        assert!(!same(Compare::Whole, &answer("a\nb", ""), &answer("a", "")));
        assert!(same(Compare::First, &answer("a\nb", ""), &answer("a", "")));
        assert!(same(Compare::Keys, &answer("a : x\nb: y", ""), &answer("a : z\nb: y", "")));
        assert!(!same(Compare::Keys, &answer("a : x\nb: y", ""), &answer("a: z\nb: y", "")));
        let one = answer("[{\"a\": 1, \"b\": {\"c\": 2}}]", "");
        assert!(same(Compare::Json, &one, &answer("[{\"a\": 5, \"b\": {\"c\": 2}, \"d\": 1}]", "")));
        assert!(!same(Compare::Json, &one, &answer("[{\"a\": 5, \"b\": 2}]", "")));
    }
}
