//! The shell's own commands.

use super::Shell;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use toolstack::cmd::{self, FAILURE, SUCCESS, Status};
use xen_abi::errno::Errno;

/// Their names, and what they do.
pub const NAMES: &[(&str, &str)] = &[
    ("ls", "List the files"),
    ("cat", "Print files"),
    ("echo", "Print words"),
    ("sleep", "Wait so many seconds, or some time between two (0.5-3)"),
    ("time", "Run a command and tell how long it took"),
    ("fuse", "Run a command, and let its N-th call that builds a domain fail"),
    ("repeat", "Run a command so many times; %n in it is the number of the time"),
    ("disks", "List disks and the volumes on them"),
    ("ramdisk", "Make a disk in memory of so many MiB"),
    ("resources", "Show what is in use, to be compared before and after"),
    ("xenstore-ls", "Print a part of xenstore"),
    ("xenstore-read", "Print a node of xenstore"),
    ("xenstore-write", "Write a node of xenstore"),
    ("xenstore-rm", "Remove a node of xenstore"),
];

/// Runs a command of the shell's own; `None` when it is none.
pub fn run(shell: &mut dyn Shell, words: &[&str]) -> Option<Status> {
    let (name, arguments) = words.split_first()?;
    Some(match *name {
        "help" if arguments.is_empty() => help(shell),
        "ls" => ls(shell),
        "cat" => cat(shell, arguments),
        "echo" => {
            shell.print(&format!("{}\n", arguments.join(" ")));
            SUCCESS
        }
        "sleep" => sleep(shell, arguments),
        "time" => time(shell, arguments),
        "fuse" => fuse(shell, arguments),
        "repeat" => repeat(shell, arguments),
        "disks" => disks(shell),
        "ramdisk" => ramdisk(shell, arguments),
        "resources" => resources(shell),
        "xenstore-ls" => xenstore_ls(shell, arguments.first().unwrap_or(&"/")),
        "xenstore-read" => xenstore_read(shell, arguments),
        "xenstore-write" => xenstore_write(shell, arguments),
        "xenstore-rm" => xenstore_rm(shell, arguments),
        _ => return None,
    })
}

fn failed(shell: &mut dyn Shell, what: &str, errno: Errno) -> Status {
    let why = if errno == Errno::ENOENT { "no such thing" } else { errno.name() };
    shell.print_error(&format!("{what}: {why}\n"));
    FAILURE
}

fn help(shell: &mut dyn Shell) -> Status {
    let status = cmd::run(shell, &["help"]);
    let mut text = String::new();
    for (name, about) in NAMES {
        text.push_str(&format!(" {name:<19} {about}\n"));
    }
    shell.print(&text);
    status
}

fn ls(shell: &mut dyn Shell) -> Status {
    let mut text = String::new();
    for file in shell.dom0().files.files() {
        text.push_str(&format!("{:>10} /files/{}\n", file.content.len(), file.name));
    }
    shell.print(&text);
    SUCCESS
}

fn cat(shell: &mut dyn Shell, paths: &[&str]) -> Status {
    let mut status = SUCCESS;
    for path in paths {
        match shell.file(path) {
            Ok(content) => shell.write(&content),
            Err(errno) => status = failed(shell, path, errno),
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

fn disks(shell: &mut dyn Shell) -> Status {
    let mut text = format!("{:<16} {:>10}  {:<6} About\n", "Volume", "KiB", "Sector");
    for (volume, about) in shell.dom0().blk.disks.list() {
        let sector = shell.dom0().blk.disks.geometry(&volume).map_or(0, |geometry| geometry.sector_size);
        text.push_str(&format!("{:<16} {:>10}  {sector:<6} {about}\n", volume.path, volume.sectors() / 2));
    }
    shell.print(&text);
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
    let text = format!(
        "free_pages             : {}\ndomains                : {domains}\nxenstore_nodes         : {nodes}\nevent_channels         : {ports}\n",
        last
    );
    shell.print(&text);
    SUCCESS
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
