//! Which files of this machine a command needs: a configuration file that it names, and what that names by `local:`.

use anyhow::{Context, Result};
use toolstack::config::syntax::{self, Assignment, Value};

/// Stands before the name of a file of the host's in a configuration.
const LOCAL: &str = "local:";
/// dom0's own files.
const THERE: &str = "/files/";
/// Commands that take a configuration, and the options of theirs that have a value.
const WITH_CONFIG: [&str; 2] = ["create", "config-update"];

/// A file to send along: the name by which the command knows it, and its content.
pub type Sent = (String, Vec<u8>);

/// The files that a script's commands need. What is not here is left to dom0 to look for.
///
/// # Errors
/// A configuration names a file by `local:` that cannot be read.
pub fn files(script: &str) -> Result<Vec<Sent>> {
    let mut sent: Vec<Sent> = Vec::new();
    // dom0 says what is wrong with a script.
    for words in toolstack::cmd::split(script).unwrap_or_default() {
        let words = words.iter().map(String::as_str).skip_while(|word| *word == "xl").collect::<Vec<_>>();
        let Some((command, arguments)) = words.split_first() else { continue };
        if WITH_CONFIG.contains(command) {
            for_config(arguments, &mut sent)?;
        }
    }
    Ok(sent)
}

/// All words of a script.
#[must_use]
pub fn words(script: &str) -> Vec<String> {
    toolstack::cmd::split(script).unwrap_or_default().into_iter().flatten().collect()
}

fn for_config(arguments: &[&str], sent: &mut Vec<Sent>) -> Result<()> {
    let mut assignments: Vec<Assignment> = Vec::new();
    for argument in arguments {
        let inline = argument.strip_prefix("--defconfig=").or_else(|| argument.strip_prefix("-f"));
        let name = inline.filter(|name| !name.is_empty()).unwrap_or(argument);
        if inline.is_none() && name.contains('=') {
            // What is wrong in it, dom0 says, too.
            assignments.extend(syntax::parse_override(name).unwrap_or_default());
        } else if !name.starts_with('-')
            && !name.starts_with(THERE)
            && let Ok(content) = std::fs::read(name)
        {
            let text = String::from_utf8_lossy(&content);
            assignments.extend(syntax::parse(name, &text).unwrap_or_default());
            add(sent, name, content);
        }
    }
    for assignment in assignments {
        if let Value::Text(value) = &assignment.value.value
            && ["kernel", "ramdisk"].contains(&assignment.key.value.as_str())
            && let Some(path) = value.strip_prefix(LOCAL)
        {
            let content = std::fs::read(path).with_context(|| format!("{} {path}", assignment.key.value))?;
            add(sent, value, content);
        }
    }
    Ok(())
}

fn add(sent: &mut Vec<Sent>, name: &str, content: Vec<u8>) {
    if !sent.iter().any(|(known, _)| known == name) {
        sent.push((name.to_owned(), content));
    }
}

/// Words as a script that [`toolstack::cmd::split`] takes apart into the same words.
#[must_use]
pub fn quote(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    let quoted = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) {
            return word.clone();
        }
        let escaped: String =
            word.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
        format!("\"{escaped}\"")
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_quoting() {
        let words = ["create", "a b.cfg", "", "x=\"y\"", "back\\slash", "new\nline; list", "# no comment", "it's"];
        let words: Vec<String> = words.map(String::from).into();
        assert_eq!(toolstack::cmd::split(&quote(&words)), Ok(vec![words]));
    }

    #[test]
    fn a_configuration_and_what_it_names_are_sent() {
        let dir = std::env::temp_dir().join(format!("xrs-local-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |name: &str| dir.join(name).display().to_string();
        std::fs::write(path("kernel"), "K").unwrap();
        std::fs::write(path("initrd"), "R").unwrap();
        std::fs::write(path("a.cfg"), format!("name = \"a\"\nkernel = \"local:{}\"", path("kernel"))).unwrap();
        let names =
            |script: String| files(&script).map(|sent| sent.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        let kernel = format!("local:{}", path("kernel"));
        assert_eq!(names(format!("xl create {}", path("a.cfg"))).unwrap(), [path("a.cfg"), kernel]);
        let ramdisk = format!("local:{}", path("initrd"));
        assert_eq!(names(format!("list; create kernel=/files/k ramdisk={ramdisk}")).unwrap(), [ramdisk]);
        assert!(names(format!("create -f /files/a.cfg; create {}", path("none"))).unwrap().is_empty());
        assert!(names(format!("destroy {}", path("a.cfg"))).unwrap().is_empty());
        assert!(names(format!("create kernel=local:{}", path("none"))).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
