//! What a word of a line may become: a command, an option, a domain, a file, a volume.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What there is.
pub trait Known {
    /// Commands, the shell's own among them.
    fn commands(&mut self) -> Vec<String>;
    /// A command's options.
    fn options(&mut self, command: &str) -> Vec<String>;
    /// Names of domains.
    fn domains(&mut self) -> Vec<String>;
    /// Paths of files and volumes.
    fn paths(&mut self) -> Vec<String>;
}

/// Commands that are followed by another command, and how many words stand between.
const PREFIXES: [(&str, usize); 5] = [("xl", 0), ("help", 0), ("time", 0), ("repeat", 1), ("fuse", 1)];
/// Commands about files: their names will do without the directory.
const ABOUT_FILES: [&str; 5] = ["create", "config-update", "cpupool-create", "cat", "cp"];
/// The directory that a file's name may do without.
const FILES: &str = "/files/";

/// The word at the end of a command, and all that begins with it and makes sense there.
pub fn candidates(command: &str, known: &mut dyn Known) -> (String, Vec<String>) {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    let word = if command.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let mut rest = words.as_slice();
    while let [first, more @ ..] = rest
        && let Some((_, between)) = PREFIXES.iter().find(|(name, _)| name == first)
        && let Some(after) = more.get(*between..)
    {
        rest = after;
    }
    // A path may stand behind a key, or in a disk's specification.
    let start = word.rfind(['=', ':', ',', '"', '\'', '[']).map_or(0, |at| at + 1);
    let part = word.get(start..).unwrap_or_default();
    let mut all = match rest.first() {
        None => known.commands(),
        Some(_) if part.starts_with('/') => known.paths(),
        Some(_) if start > 0 => Vec::new(),
        Some(name) if word.starts_with('-') => known.options(name),
        Some(name) if ABOUT_FILES.contains(name) => {
            let paths = known.paths();
            let mut names: Vec<String> =
                paths.iter().filter_map(|path| path.strip_prefix(FILES)).map(String::from).collect();
            if *name == "config-update" && rest.len() == 1 {
                names = known.domains();
            }
            names
        }
        Some(_) => known.domains(),
    };
    all.retain(|name| name.starts_with(part));
    all.sort_unstable();
    all.dedup();
    (String::from(part), next_directories(part, all))
}

/// Of paths, when there are many: only up to the next directory, as shells do.
fn next_directories(part: &str, all: Vec<String>) -> Vec<String> {
    if !part.starts_with('/') {
        return all;
    }
    let mut short: Vec<String> = all
        .iter()
        .map(|path| {
            let rest = path.get(part.len()..).unwrap_or_default();
            match rest.find('/') {
                Some(at) => format!("{part}{}", rest.get(..=at).unwrap_or_default()),
                None => path.clone(),
            }
        })
        .collect();
    short.dedup();
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    struct Table;

    impl Known for Table {
        fn commands(&mut self) -> Vec<String> {
            ["create", "console", "cat", "list"].map(String::from).to_vec()
        }
        fn options(&mut self, command: &str) -> Vec<String> {
            if command == "list" { ["-l", "--long", "--json"].map(String::from).to_vec() } else { Vec::new() }
        }
        fn domains(&mut self) -> Vec<String> {
            ["Domain-0", "debian", "web"].map(String::from).to_vec()
        }
        fn paths(&mut self) -> Vec<String> {
            ["/files/debian.cfg", "/files/vmlinuz", "/dev/vda", "/dev/vdb", "/dump/web"].map(String::from).to_vec()
        }
    }

    #[test]
    fn words_by_their_places() {
        for (line, part, want) in [
            ("", "", &["cat", "console", "create", "list"][..]),
            ("c", "c", &["cat", "console", "create"]),
            ("xl co", "co", &["console"]),
            ("help l", "l", &["list"]),
            ("time repeat 5 cr", "cr", &["create"]),
            ("repeat ", "", &["Domain-0", "debian", "web"]),
            ("list --", "--", &["--json", "--long"]),
            ("list d", "d", &["debian"]),
            ("create d", "d", &["debian.cfg"]),
            ("xl create -p d", "d", &["debian.cfg"]),
            ("create /f", "/f", &["/files/"]),
            ("create /files/", "/files/", &["/files/debian.cfg", "/files/vmlinuz"]),
            ("create kernel=/files/v", "/files/v", &["/files/vmlinuz"]),
            ("create 'kernel=\"/files/v", "/files/v", &["/files/vmlinuz"]),
            ("block-attach web phy:/dev/v", "/dev/v", &["/dev/vda", "/dev/vdb"]),
            ("cat /du", "/du", &["/dump/"]),
            ("config-update d", "d", &["debian"]),
            ("config-update debian d", "d", &["debian.cfg"]),
            ("create memory=2", "2", &[]),
            ("console nobody", "nobody", &[]),
        ] {
            let (got_part, got) = candidates(line, &mut Table);
            assert_eq!((got_part.as_str(), got), (part, want.iter().map(|s| (*s).to_owned()).collect()), "{line}");
        }
    }
}
