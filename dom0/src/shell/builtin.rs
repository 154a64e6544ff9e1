//! The shell's own commands.

use super::Shell;
use crate::saved::Piece;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use toolstack::cmd::{self, FAILURE, SUCCESS, Status};
use toolstack::json;
use xen_abi::errno::Errno;

/// A command of the shell's own.
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    usage: &'static str,
    about: &'static str,
    lists: bool,
    run: fn(&mut dyn Shell, &[&str]) -> Status,
}

const fn own(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&mut dyn Shell, &[&str]) -> Status,
) -> Builtin {
    Builtin { name, usage, about, lists: false, run }
}

const fn listing(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&mut dyn Shell, &[&str]) -> Status,
) -> Builtin {
    Builtin { name, usage, about, lists: true, run }
}

/// All of them.
pub const COMMANDS: &[Builtin] = &[
    listing("ls", "", "List the files", ls),
    own("cat", "FILE...", "Print files", cat),
    own("cp", "FILE TO", "Copy a file; for xrs, to a file of the host's", cp),
    own("rm", "FILE...", "Remove files that were saved here", rm),
    own("echo", "[WORD...]", "Print words", |shell, words| {
        shell.print(&format!("{}\n", words.join(" ")));
        SUCCESS
    }),
    own("sleep", "SECONDS|FROM-TO", "Wait so many seconds, or some time between two (0.5-3)", sleep),
    own("time", "COMMAND...", "Run a command and tell how long it took", time),
    own("fuse", "N COMMAND...", "Run a command, and let its N-th call that builds a domain fail", fuse),
    own("repeat", "TIMES COMMAND...", "Run a command so many times; %n in it is the number of the time", repeat),
    listing("disks", "", "List disks and the volumes on them", disks),
    own("ramdisk", "MIB", "Make a disk in memory of so many MiB", ramdisk),
    own("restart-disks", "", "Start the disks' back end anew while guests use them", restart_disks),
    own("rescan-disks", "", "Ask all disks again how large they are, and tell their guests", rescan_disks),
    own("resources", "", "Show what is in use, to be compared before and after", |shell, _| resources(shell)),
    own("scrubbed", "", "Wait until all free memory is clean, where the hypervisor tells", |shell, _| scrubbed(shell)),
    own("xenstore-ls", "[PATH]", "Print a part of xenstore", |shell, words| {
        xenstore_ls(shell, words.first().unwrap_or(&"/"))
    }),
    own("xenstore-read", "PATH...", "Print nodes of xenstore", xenstore_read),
    own("xenstore-write", "PATH VALUE", "Write a node of xenstore", xenstore_write),
    own("xenstore-rm", "PATH...", "Remove nodes of xenstore", xenstore_rm),
];

/// Bytes at a time.
const SOME: usize = 4096;
const HELP: [&str; 2] = ["-h", "--help"];
const JSON: [&str; 2] = ["-j", "--json"];

/// Runs a command of the shell's own; `None` when it is none.
pub fn run(shell: &mut dyn Shell, words: &[&str]) -> Option<Status> {
    let (name, arguments) = words.split_first()?;
    if *name == "help" {
        return match arguments.first() {
            None => Some(help(shell)),
            Some(about) => find(about).map(|command| usage(shell, command)),
        };
    }
    let command = find(name)?;
    if arguments.first().is_some_and(|first| HELP.contains(first)) {
        return Some(usage(shell, command));
    }
    Some((command.run)(shell, arguments))
}

fn find(name: &str) -> Option<&'static Builtin> {
    COMMANDS.iter().find(|command| command.name == name)
}

fn usage(shell: &mut dyn Shell, command: &Builtin) -> Status {
    let json = if command.lists { "-j, --json  Print it as JSON\n" } else { "" };
    let (name, arguments, about) = (command.name, command.usage, command.about);
    shell.print(&format!("Usage: {name} {arguments}\n\n{about}.\n\nOptions:\n\n{json}-h, --help  Print this help\n"));
    SUCCESS
}

/// The options of a command of the shell's own.
pub fn option_words(name: &str) -> Vec<String> {
    let json: &[&str] = if find(name).is_some_and(|command| command.lists) { &JSON } else { &[] };
    let help: &[&str] = if find(name).is_some() { &HELP } else { &[] };
    json.iter().chain(help).copied().map(String::from).collect()
}

fn failed(shell: &mut dyn Shell, what: &str, errno: Errno) -> Status {
    let why = if errno == Errno::ENOENT { "no such thing" } else { errno.name() };
    shell.print_error(&format!("{what}: {why}\n"));
    FAILURE
}

fn help(shell: &mut dyn Shell) -> Status {
    let status = cmd::run(shell, &["help"]);
    let mut text = String::from("\nThe shell's own:\n\n");
    for command in COMMANDS {
        text.push_str(&format!(" {:<19} {}\n", command.name, command.about));
    }
    shell.print(&text);
    status
}

fn ls(shell: &mut dyn Shell, arguments: &[&str]) -> Status {
    let dom0 = shell.dom0();
    let files = dom0.files.files().into_iter().map(|file| (format!("/files/{}", file.name), file.content.len()));
    let saved = dom0.saved.list().map(|(name, len)| (String::from(name), len));
    let all: Vec<(String, usize)> = files.chain(saved).collect();
    let text = if arguments.iter().any(|word| JSON.contains(word)) {
        let item =
            |(name, len): &(String, usize)| json::object(4, &[("name", json::quote(name)), ("bytes", len.to_string())]);
        json::list(&all.iter().map(item).collect::<Vec<_>>())
    } else {
        all.iter().map(|(name, len)| format!("{len:>10} {name}\n")).collect()
    };
    shell.print(&text);
    SUCCESS
}

fn cat(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    let mut status = SUCCESS;
    for path in paths {
        if let Some(pieces) = shell.dom0().saved.get(path).map(<[Piece]>::len) {
            for at in 0..pieces {
                print_piece(shell, path, at);
            }
            continue;
        }
        match shell.file(path) {
            Ok(content) => shell.write(&content),
            Err(errno) => status = failed(shell, path, errno),
        }
    }
    status
}

/// Prints a part of a file; dom0 may do other things before and after.
fn print_piece(shell: &mut dyn Shell, path: &str, at: usize) {
    match shell.dom0().saved.get(path).and_then(|pieces| pieces.get(at)).cloned() {
        None => {}
        Some(Piece::Bytes(bytes)) => shell.write(&bytes),
        Some(Piece::Zeros(count)) => {
            for from in (0..count).step_by(SOME) {
                let zeros = [0; SOME];
                shell.write(zeros.get(..SOME.min(count - from)).unwrap_or_default());
            }
        }
    }
}

fn cp(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    let &[from, to] = paths else {
        shell.print_error("cp: FILE TO\n");
        return FAILURE;
    };
    let pieces = match shell.dom0().saved.get(from).map(<[Piece]>::to_vec) {
        Some(pieces) => pieces,
        None => match shell.file(from) {
            Ok(content) => vec![Piece::Bytes(content.into_owned())],
            Err(errno) => return failed(shell, from, errno),
        },
    };
    if let Err(errno) = shell.save(to) {
        return failed(shell, to, errno);
    }
    for piece in pieces {
        let saved = match piece {
            Piece::Bytes(bytes) => bytes.chunks(SOME).all(|some| shell.save_bytes(some)),
            Piece::Zeros(count) => (0..count).step_by(SOME).all(|from| {
                let zeros = [0; SOME];
                shell.save_bytes(zeros.get(..SOME.min(count - from)).unwrap_or_default())
            }),
        };
        if !saved {
            return failed(shell, to, Errno::ENOSPC);
        }
    }
    SUCCESS
}

fn rm(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    let mut status = SUCCESS;
    for path in paths {
        if !shell.dom0().saved.remove(path) {
            status = failed(shell, path, Errno::ENOENT);
        }
    }
    status
}

fn sleep(shell: &mut dyn Shell, arguments: &[&str]) -> Status {
    let range = arguments.first().and_then(|text| match text.split_once('-') {
        Some((from, to)) => Some((millis(from)?, millis(to)?)),
        None => Some((millis(text)?, millis(text)?)),
    });
    let Some((from, to)) = range else {
        shell.print_error("sleep: how many seconds?\n");
        return FAILURE;
    };
    let [random, ..] = shell.random().map(u64::from);
    let chosen = from + to.saturating_sub(from) * random / 255;
    let end = shell.now() + chosen * 1_000_000;
    if shell.wait(end) { SUCCESS } else { FAILURE }
}

/// Seconds with at most three decimals, in milliseconds.
fn millis(text: &str) -> Option<u64> {
    let (seconds, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let scale = [100, 10, 1].get(decimals.len().checked_sub(1)?)?;
    Some(u64::from(seconds.parse::<u32>().ok()?) * 1000 + u64::from(decimals.parse::<u32>().ok()?) * scale)
}

/// Succeeds when the call failed and the command with it.
fn fuse(shell: &mut dyn Shell, words: &[&str]) -> Status {
    let Some((calls, words)) = words.split_first().and_then(|(calls, words)| Some((calls.parse::<u32>().ok()?, words)))
    else {
        shell.print_error("fuse: which call is to fail?\n");
        return FAILURE;
    };
    crate::fuse::set(calls);
    let status = super::run_command(shell, words);
    let blew = crate::fuse::take();
    if !blew {
        shell.print_error(&format!("fuse: there were fewer than {calls} calls\n"));
    }
    if blew && status != SUCCESS { SUCCESS } else { FAILURE }
}

fn time(shell: &mut dyn Shell, words: &[&str]) -> Status {
    let begin = shell.now();
    let status = super::run_command(shell, words);
    let micros = shell.now().saturating_sub(begin) / 1000;
    shell.end_line();
    shell.print(&format!("{}.{:03} ms\n", micros / 1000, micros % 1000));
    status
}

/// Stops at the first time that fails.
fn repeat(shell: &mut dyn Shell, words: &[&str]) -> Status {
    let Some((count, words)) = words.split_first().and_then(|(count, words)| Some((count.parse::<u32>().ok()?, words)))
    else {
        shell.print_error("repeat: how many times?\n");
        return FAILURE;
    };
    for number in 1..=count {
        let number = format!("{number}");
        let words: Vec<String> = words.iter().map(|word| word.replace("%n", &number)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = super::run_command(shell, &words);
        if status != SUCCESS || !shell.between_commands() {
            return status;
        }
    }
    SUCCESS
}

fn disks(shell: &mut dyn Shell, arguments: &[&str]) -> Status {
    let as_json = arguments.iter().any(|word| JSON.contains(word));
    let mut text = format!("{:<16} {:>10}  {:<6} About\n", "Volume", "KiB", "Sector");
    let mut items = Vec::new();
    for (volume, about) in shell.dom0().blk.disks.list() {
        let sector = shell.dom0().blk.disks.geometry(&volume).map_or(0, |geometry| geometry.sector_size);
        let kib = volume.sectors() / 2;
        text.push_str(&format!("{:<16} {kib:>10}  {sector:<6} {about}\n", volume.path));
        items.push(json::object(
            4,
            &[
                ("volume", json::quote(&volume.path)),
                ("kib", kib.to_string()),
                ("sector_size", sector.to_string()),
                ("about", json::quote(&about)),
            ],
        ));
    }
    shell.print(&if as_json { json::list(&items) } else { text });
    SUCCESS
}

fn ramdisk(shell: &mut dyn Shell, arguments: &[&str]) -> Status {
    let Some(mebibytes) = arguments.first().and_then(|text| text.parse().ok()).filter(|&mebibytes| mebibytes > 0)
    else {
        shell.print_error("ramdisk: how many MiB?\n");
        return FAILURE;
    };
    match shell.dom0().blk.disks.add_ram(mebibytes) {
        Some(path) => {
            shell.print(&format!("{path}\n"));
            SUCCESS
        }
        None => failed(shell, "ramdisk", Errno::ENOMEM),
    }
}

fn restart_disks(shell: &mut dyn Shell, _: &[&str]) -> Status {
    shell.dom0().blk.restart();
    finish(shell, "restart-disks: requests are still under way\n", |shell| shell.dom0().blk.is_restarting())
}

fn rescan_disks(shell: &mut dyn Shell, _: &[&str]) -> Status {
    shell.dom0().blk.disks.look_again();
    finish(shell, "rescan-disks: not all disks answer\n", |shell| shell.dom0().blk.disks.is_looking())
}

/// Waits while disks have something to do, longer than one that does not answer is waited for.
fn finish(shell: &mut dyn Shell, otherwise: &str, is_busy: impl Fn(&mut dyn Shell) -> bool) -> Status {
    const MOST: u64 = 40_000_000_000;
    const PERIOD: u64 = 10_000_000;
    let end = shell.now() + MOST;
    while is_busy(shell) {
        let next = shell.now() + PERIOD;
        if next > end || !shell.wait(next) {
            shell.print_error(otherwise);
            return FAILURE;
        }
    }
    SUCCESS
}

/// What a domain that came and went must have given back.
fn resources(shell: &mut dyn Shell) -> Status {
    const PAUSE: u64 = 150_000_000;
    const ALIKE: usize = 3;
    const ROUNDS: usize = 40;
    // The hypervisor may still be freeing what belonged to a domain: Xen does that when its CPUs get around to it.
    let (mut last, mut alike) = (0, 0);
    for _ in 0..ROUNDS {
        let free = match shell.phys_info() {
            Ok(info) => info.free_pages,
            Err(errno) => return failed(shell, "physinfo", errno),
        };
        alike = if free == last { alike + 1 } else { 0 };
        last = free;
        if alike == ALIKE {
            break;
        }
        let end = shell.now() + PAUSE;
        if !shell.wait(end) {
            return FAILURE;
        }
    }
    let domains = cmd::all_domains(shell).map_or(0, |all| all.len());
    let (nodes, ports) = (shell.dom0().xenstored.store.nodes(), shell.dom0().ports());
    let mapped = guest_pv::mem::window::pages_in_use();
    let text = format!(
        "free_pages             : {last}\ndomains                : {domains}\nxenstore_nodes         : {nodes}\nevent_channels         : {ports}\nmapped_pages           : {mapped}\n"
    );
    shell.print(&text);
    SUCCESS
}

/// Idle CPUs clean free memory, so dom0 sleeps meanwhile.
fn scrubbed(shell: &mut dyn Shell) -> Status {
    const PAUSE: u64 = 1_000_000;
    loop {
        match shell.phys_info() {
            Ok(info) if info.scrub_pages == 0 => return SUCCESS,
            Ok(_) => {}
            Err(errno) => return failed(shell, "physinfo", errno),
        }
        let end = shell.now() + PAUSE;
        if !shell.wait(end) {
            return FAILURE;
        }
    }
}

fn xenstore_ls(shell: &mut dyn Shell, path: &str) -> Status {
    match print_below(shell, path, 0) {
        Ok(()) => SUCCESS,
        Err(errno) => failed(shell, path, errno),
    }
}

fn print_below(shell: &mut dyn Shell, path: &str, depth: usize) -> Result<(), Errno> {
    /// Deeper than what any tool makes; guests may nest deeper than the stack is large.
    const DEPTH: usize = 40;
    for name in shell.store_list(path)? {
        let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
        let value = shell.store_read(&child)?;
        shell.print(&format!("{:depth$}{name} = \"{}\"\n", "", value.escape_ascii()));
        if depth < DEPTH {
            print_below(shell, &child, depth + 1)?;
        }
    }
    Ok(())
}

fn xenstore_read(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    for path in paths {
        match shell.store_read(path) {
            Ok(value) => shell.print(&format!("{}\n", String::from_utf8_lossy(&value))),
            Err(errno) => return failed(shell, path, errno),
        }
    }
    SUCCESS
}

fn xenstore_write(shell: &mut dyn Shell, arguments: &[&str]) -> Status {
    let &[path, value] = arguments else {
        shell.print_error("xenstore-write: PATH VALUE\n");
        return FAILURE;
    };
    match shell.store_write(path, value.as_bytes()) {
        Ok(()) => SUCCESS,
        Err(errno) => failed(shell, path, errno),
    }
}

fn xenstore_rm(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    for path in paths {
        if let Err(errno) = shell.store_rm(path) {
            return failed(shell, path, errno);
        }
    }
    SUCCESS
}
