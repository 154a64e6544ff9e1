//! The chapters, and how they report.

mod clock;
mod io;
mod io_log;
mod log;
mod memory;
mod processes;
mod signals;
mod stress;
mod sys;
mod tap;
mod threads;
mod timers;
mod vectors;

use std::process::ExitCode;
use tap::Tap;

/// A chapter by its name.
type Chapter = (&'static str, fn(&mut Tap));

/// All but the long ones, in the order of `all`.
const SHORT: [Chapter; 6] = [
    ("processes", processes::run),
    ("memory", memory::run),
    ("signals", signals::run),
    ("threads", threads::run),
    ("vectors", vectors::run),
    ("timers", timers::run),
];

/// Those that take half a minute and more.
const LONG: [Chapter; 3] = [("clock", clock::run), ("stress", stress::run), ("log", log::run)];

/// The chapters for words; `all` stands for the short ones.
fn named(word: &str) -> Vec<Chapter> {
    if word == "all" {
        return SHORT.to_vec();
    }
    SHORT.iter().chain(&LONG).filter(|(name, _)| *name == word).copied().collect()
}

pub fn run() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if let [child, code] = words.as_slice()
        && child == processes::CHILD
    {
        return ExitCode::from(code.parse::<u8>().unwrap_or(u8::MAX));
    }
    if let [first, rest @ ..] = words.as_slice()
        && first == "io"
    {
        return io::run(rest);
    }
    if words.is_empty() {
        let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let asked = line.split_whitespace().find_map(|word| word.strip_prefix("exercise="));
        words = asked.unwrap_or("all").split(',').map(str::to_owned).collect();
    }
    if words == ["load"] {
        return load();
    }
    let mut tap = Tap::begin();
    tap.note(&format!("{} CPUs, kernel {}", sys::cpus().len(), sys::kernel()));
    for word in words {
        let chapters = named(&word);
        tap.claim(!chapters.is_empty(), &format!("there is a chapter {word}"));
        for (name, chapter) in chapters {
            tap.chapter(name);
            chapter(&mut tap);
        }
    }
    tap.end()
}

/// Keeps the guest busy for good, and says nothing but that it began.
fn load() -> ExitCode {
    println!("# under load");
    loop {
        for (_, chapter) in SHORT {
            chapter(&mut Tap::silent());
        }
    }
}
