//! The shell's own commands.

use crate::dom0::Dom0;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use toolstack::cmd::{self, FAILURE, SUCCESS, Status};
use toolstack::host::{Host, Store};
use xen_abi::errno::Errno;

/// Their names, and what they do.
pub const NAMES: &[(&str, &str)] = &[
    ("ls", "List the files"),
    ("cat", "Print files"),
    ("echo", "Print words"),
    ("sleep", "Wait so many seconds"),
    ("time", "Run a command and tell how long it took"),
    ("repeat", "Run a command so many times; %n in it is the number of the time"),
    ("resources", "Show what is in use, to be compared before and after"),
    ("xenstore-ls", "Print a part of xenstore"),
    ("xenstore-read", "Print a node of xenstore"),
    ("xenstore-write", "Write a node of xenstore"),
    ("xenstore-rm", "Remove a node of xenstore"),
];

/// Runs a command of the shell's own; `None` when it is none.
pub fn run(dom0: &mut Dom0, words: &[&str]) -> Option<Status> {
    let (name, arguments) = words.split_first()?;
    Some(match *name {
        "help" if arguments.is_empty() => help(dom0),
        "ls" => ls(dom0),
        "cat" => cat(dom0, arguments),
        "echo" => {
            dom0.print(&format!("{}\n", arguments.join(" ")));
            SUCCESS
        }
        "sleep" => sleep(dom0, arguments),
        "time" => time(dom0, arguments),
        "repeat" => repeat(dom0, arguments),
        "resources" => resources(dom0),
        "xenstore-ls" => xenstore_ls(dom0, arguments.first().unwrap_or(&"/")),
        "xenstore-read" => xenstore_read(dom0, arguments),
        "xenstore-write" => xenstore_write(dom0, arguments),
        "xenstore-rm" => xenstore_rm(dom0, arguments),
        _ => return None,
    })
}

fn failed(dom0: &mut Dom0, what: &str, errno: Errno) -> Status {
    let why = if errno == Errno::ENOENT { "no such thing" } else { errno.name() };
    dom0.print_error(&format!("{what}: {why}\n"));
    FAILURE
}

fn help(dom0: &mut Dom0) -> Status {
    let status = cmd::run(dom0, &["help"]);
    let mut text = String::new();
    for (name, about) in NAMES {
        text.push_str(&format!(" {name:<19} {about}\n"));
    }
    dom0.print(&text);
    status
}

fn ls(dom0: &mut Dom0) -> Status {
    let mut text = String::new();
    for file in dom0.files.files() {
        text.push_str(&format!("{:>10} /files/{}\n", file.content.len(), file.name));
    }
    dom0.print(&text);
    SUCCESS
}

fn cat(dom0: &mut Dom0, paths: &[&str]) -> Status {
    let mut status = SUCCESS;
    for path in paths {
        match dom0.files.get(path) {
            Some(content) => dom0.terminal.write(content),
            None => status = failed(dom0, path, Errno::ENOENT),
        }
    }
    status
}

fn sleep(dom0: &mut Dom0, arguments: &[&str]) -> Status {
    let Some(seconds) = arguments.first().and_then(|text| text.parse::<u32>().ok()) else {
        dom0.print_error("sleep: how many seconds?\n");
        return FAILURE;
    };
    let end = dom0.now() + u64::from(seconds) * 1_000_000_000;
    if dom0.wait(end) { SUCCESS } else { FAILURE }
}

fn time(dom0: &mut Dom0, words: &[&str]) -> Status {
    let begin = dom0.now();
    let status = super::run_command(dom0, words);
    let micros = dom0.now().saturating_sub(begin) / 1000;
    dom0.terminal.end_line();
    dom0.print(&format!("{}.{:03} ms\n", micros / 1000, micros % 1000));
    status
}

/// Stops at the first time that fails.
fn repeat(dom0: &mut Dom0, words: &[&str]) -> Status {
    let Some((count, words)) = words.split_first().and_then(|(count, words)| Some((count.parse::<u32>().ok()?, words)))
    else {
        dom0.print_error("repeat: how many times?\n");
        return FAILURE;
    };
    for number in 1..=count {
        let number = format!("{number}");
        let words: Vec<String> = words.iter().map(|word| word.replace("%n", &number)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let status = super::run_command(dom0, &words);
        if status != SUCCESS {
            return status;
        }
    }
    SUCCESS
}

/// What a domain that came and went must have given back.
fn resources(dom0: &mut Dom0) -> Status {
    use toolstack::calls::XenCalls;
    const PAUSE: u64 = 150_000_000;
    const ALIKE: usize = 3;
    const ROUNDS: usize = 40;
    // The hypervisor may still be freeing what belonged to a domain: Xen does that when its CPUs get around to it.
    let (mut last, mut alike) = (0, 0);
    for _ in 0..ROUNDS {
        let free = match dom0.phys_info() {
            Ok(info) => info.free_pages,
            Err(errno) => return failed(dom0, "physinfo", errno),
        };
        alike = if free == last { alike + 1 } else { 0 };
        last = free;
        if alike == ALIKE {
            break;
        }
        let end = dom0.now() + PAUSE;
        if !dom0.wait(end) {
            return FAILURE;
        }
    }
    let domains = cmd::all_domains(dom0).map_or(0, |all| all.len());
    let (nodes, ports) = (dom0.xenstored.store.nodes(), dom0.ports());
    let text = format!(
        "free_pages             : {}\ndomains                : {domains}\nxenstore_nodes         : {nodes}\nevent_channels         : {ports}\n",
        last
    );
    dom0.print(&text);
    SUCCESS
}

fn xenstore_ls(dom0: &mut Dom0, path: &str) -> Status {
    match print_below(dom0, path, 0) {
        Ok(()) => SUCCESS,
        Err(errno) => failed(dom0, path, errno),
    }
}

fn print_below(dom0: &mut Dom0, path: &str, depth: usize) -> Result<(), Errno> {
    /// Deeper than what any tool makes; guests may nest deeper than the stack is large.
    const DEPTH: usize = 40;
    for name in dom0.store_list(path)? {
        let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
        let value = dom0.store_read(&child)?;
        dom0.print(&format!("{:depth$}{name} = \"{}\"\n", "", value.escape_ascii()));
        if depth < DEPTH {
            print_below(dom0, &child, depth + 1)?;
        }
    }
    Ok(())
}

fn xenstore_read(dom0: &mut Dom0, paths: &[&str]) -> Status {
    for path in paths {
        match dom0.store_read(path) {
            Ok(value) => dom0.print(&format!("{}\n", String::from_utf8_lossy(&value))),
            Err(errno) => return failed(dom0, path, errno),
        }
    }
    SUCCESS
}

fn xenstore_write(dom0: &mut Dom0, arguments: &[&str]) -> Status {
    let &[path, value] = arguments else {
        dom0.print_error("xenstore-write: PATH VALUE\n");
        return FAILURE;
    };
    match dom0.store_write(path, value.as_bytes()) {
        Ok(()) => SUCCESS,
        Err(errno) => failed(dom0, path, errno),
    }
}

fn xenstore_rm(dom0: &mut Dom0, paths: &[&str]) -> Status {
    for path in paths {
        if let Err(errno) = dom0.store_rm(path) {
            return failed(dom0, path, errno);
        }
    }
    SUCCESS
}
