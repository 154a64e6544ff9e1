//! The shell: the toolstack's commands, and a few of its own.

mod builtin;
mod editor;

use crate::dom0::Dom0;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use editor::{Editor, Event};
use toolstack::cmd::{self, FAILURE, SUCCESS, Status};
use toolstack::host::Host;

/// Host tools wait for it.
const PROMPT: &str = "dom0# ";

/// Runs a script to its end; the status of the first command that failed, or 0.
pub fn run_script(dom0: &mut Dom0, script: &[u8]) -> Status {
    match core::str::from_utf8(script) {
        Ok(script) => run_text(dom0, script),
        Err(_) => {
            dom0.print_error("script: not a text file\n");
            FAILURE
        }
    }
}

fn run_text(dom0: &mut Dom0, text: &str) -> Status {
    let commands = match cmd::split(text) {
        Ok(commands) => commands,
        Err(error) => {
            dom0.print_error(&format!("{error}\n"));
            return FAILURE;
        }
    };
    let mut first = SUCCESS;
    for words in commands {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = run_command(dom0, &words);
        dom0.terminal.end_line();
        if first == SUCCESS {
            first = status;
        }
    }
    first
}

/// Runs one command.
fn run_command(dom0: &mut Dom0, words: &[&str]) -> Status {
    builtin::run(dom0, words).unwrap_or_else(|| cmd::run(dom0, words))
}

/// Reads and runs commands for good.
pub fn interact(dom0: &mut Dom0) {
    dom0.print("\nxen-rs dom0. \"help\" lists the commands; Ctrl-] leaves a guest's console.\n");
    let mut editor = Editor::new(PROMPT);
    guest_pv::mark::ready();
    loop {
        let line = read_line(dom0, &mut editor);
        run_text(dom0, &line);
    }
}

fn read_line(dom0: &mut Dom0, editor: &mut Editor) -> String {
    dom0.hold_notices();
    dom0.terminal.end_line();
    let shown = editor.show();
    dom0.terminal.write(&shown);
    let line = loop {
        let Some(key) = dom0.terminal.key() else {
            dom0.pump(None);
            if dom0.has_notices() {
                dom0.terminal.write(b"\r\x1b[K");
                dom0.show_notices();
                let shown = editor.show();
                dom0.terminal.write(&shown);
            }
            continue;
        };
        let (event, echo) = editor.key(key);
        dom0.terminal.write(&echo);
        match event {
            Event::None => {}
            Event::Line(line) => break line,
            Event::Complete(word, first) => complete(dom0, editor, &word, first),
        }
    };
    dom0.release_notices();
    line
}

/// Completes a word: a command where it is the first of a line, a file or a domain elsewhere.
fn complete(dom0: &mut Dom0, editor: &mut Editor, word: &str, first: bool) {
    let mut names: Vec<String> = if first {
        builtin::NAMES
            .iter()
            .map(|(name, _)| *name)
            .chain(cmd::COMMANDS.iter().map(|c| c.name))
            .map(String::from)
            .collect()
    } else if word.starts_with('/') {
        dom0.files.files().iter().map(|file| format!("/files/{}", file.name)).collect()
    } else {
        let domains = cmd::all_domains(dom0).unwrap_or_default();
        domains.iter().filter_map(|info| toolstack::store::name_of(dom0, info.id)).collect()
    };
    names.retain(|name| name.starts_with(word));
    names.sort_unstable();
    names.dedup();
    let echo = editor.complete(word, &names);
    dom0.terminal.write(&echo);
}
