//! What is typed at dom0's shell: lines become words, and words of every command's syntax mean something or are refused.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use toolstack::cmd;
use toolstack::config::disk::{Disk, Vdev};
use toolstack::config::{DomainConfig, Uuid};
use toolstack::cpus::CpuSet;

/// A word as one would type it so that it stays whole.
fn quoted(word: &str) -> String {
    let inner: String = word.chars().flat_map(|c| matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{inner}\"")
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(commands) = cmd::split(text) else { return };
    let again: Vec<String> =
        commands.iter().map(|words| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(cmd::split(&again.join("\n")).as_ref(), Ok(&commands), "{again:?}");
    for word in commands.iter().flatten() {
        for cpus in [1, 4, CpuSet::CAPACITY] {
            if let Ok(set) = CpuSet::parse(word, cpus) {
                // What is shown of it means the same.
                let shown = set.of(CpuSet::CAPACITY).to_string();
                if !set.is_empty() {
                    assert_eq!(CpuSet::parse(&shown, CpuSet::CAPACITY), Ok(set), "{word}: {shown}");
                }
            }
        }
        if let Some(uuid) = Uuid::parse(word) {
            assert_eq!(Uuid::parse(&uuid.to_string()), Some(uuid));
        }
        if let Some(vdev) = Vdev::parse(word) {
            assert_eq!(vdev.name, *word);
        }
        match Disk::parse(word) {
            Ok(disk) => drop(format!("{disk:?}")),
            Err(why) => assert!(!why.is_empty()),
        }
        match DomainConfig::parse("fuzz.cfg", "name = \"a\"\nkernel = \"/k\"\n", &[word]) {
            Ok(parsed) => drop(format!("{parsed:?}")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
