//! The shell: the toolstack's commands, and a few of its own.

mod builtin;
mod complete;
mod editor;

use crate::dom0::Dom0;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use complete::Known;
use editor::{Editor, Event};
use toolstack::cmd::{self, FAILURE, SUCCESS, Status};
use toolstack::host::Host;

/// Host tools wait for it.
const PROMPT: &str = "dom0# ";

/// Where a shell's commands run: at dom0's terminal, or for a program on the host.
pub trait Shell: Host {
    /// dom0.
    fn dom0(&mut self) -> &mut Dom0;
    /// Prints bytes as they are.
    fn write(&mut self, bytes: &[u8]);
    /// Goes to a new line unless the cursor is at the start of one.
    fn end_line(&mut self);
    /// A command has ended; false when the user asked to stop.
    fn between_commands(&mut self) -> bool;
}

impl Shell for Dom0 {
    fn dom0(&mut self) -> &mut Dom0 {
        self
    }

    fn write(&mut self, bytes: &[u8]) {
        self.terminal.write(bytes);
    }

    fn end_line(&mut self) {
        self.terminal.end_line();
    }

    fn between_commands(&mut self) -> bool {
        true
    }
}

/// Runs a script to its end; the status of the first command that failed, or 0.
pub fn run_script(shell: &mut dyn Shell, script: &[u8]) -> Status {
    match core::str::from_utf8(script) {
        Ok(script) => run_text(shell, script),
        Err(_) => {
            shell.print_error("script: not a text file\n");
            FAILURE
        }
    }
}

fn run_text(shell: &mut dyn Shell, text: &str) -> Status {
    let commands = match cmd::split(text) {
        Ok(commands) => commands,
        Err(error) => {
            shell.print_error(&format!("{error}\n"));
            return FAILURE;
        }
    };
    let mut first = SUCCESS;
    for words in commands {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = run_command(shell, &words);
        shell.end_line();
        if first == SUCCESS {
            first = status;
        }
        if !shell.between_commands() {
            break;
        }
    }
    first
}

/// Runs one command.
fn run_command(shell: &mut dyn Shell, words: &[&str]) -> Status {
    builtin::run(shell, words).unwrap_or_else(|| cmd::run(shell, words))
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
            Event::Complete(command) => complete(dom0, editor, &command),
        }
    };
    dom0.release_notices();
    line
}

/// Completes the last word of a command.
fn complete(dom0: &mut Dom0, editor: &mut Editor, command: &str) {
    let (word, names) = complete::candidates(command, dom0);
    let echo = editor.complete(&word, &names);
    dom0.terminal.write(&echo);
}

impl Known for Dom0 {
    fn commands(&mut self) -> Vec<String> {
        let own = builtin::COMMANDS.iter().map(|command| command.name);
        own.chain(cmd::COMMANDS.iter().map(|command| command.name)).map(String::from).collect()
    }

    fn options(&mut self, command: &str) -> Vec<String> {
        match cmd::find(command) {
            Some(command) => command.option_words(),
            None => builtin::option_words(command),
        }
    }

    fn domains(&mut self) -> Vec<String> {
        let domains = cmd::all_domains(self).unwrap_or_default();
        domains.iter().filter_map(|info| toolstack::store::name_of(self, info.id)).collect()
    }

    fn paths(&mut self) -> Vec<String> {
        let files = self.files.files().into_iter().map(|file| format!("/files/{}", file.name));
        let saved = self.saved.list().map(|(name, _)| String::from(name));
        let volumes = self.blk.disks.list().into_iter().map(|(volume, _)| volume.path);
        files.chain(saved).chain(volumes).collect()
    }
}
