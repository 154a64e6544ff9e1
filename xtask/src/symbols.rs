//! Puts names to the addresses of a crash report, by addr2line(1) where it is there. The programs themselves print
//! addresses only: a symbol table inside them would have to be loaded with them.

use crate::emulator::Payload;
use crate::packages::output;
use crate::toolchain::on_path;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// More than that is a guest gone wild.
const MOST: usize = 64;

/// One line for each address in brackets (`[<ffff82d040001234>]`) that one of the booted programs knows.
pub fn names(text: &str, payload: &Payload) -> Vec<String> {
    let addresses = addresses(text);
    if addresses.is_empty() || !on_path("addr2line") {
        return Vec::new();
    }
    let programs = std::iter::once(payload.kernel.as_path()).chain(payload.modules.iter().map(|m| m.path.as_path()));
    let mut names = Vec::new();
    for program in programs {
        names.extend(names_in(program, &addresses));
    }
    names
}

fn names_in(program: &Path, addresses: &[&str]) -> Vec<String> {
    let mut command = Command::new("addr2line");
    command.args(["-f", "-C", "-i", "-p", "-a", "-e"]).arg(program).args(addresses);
    // What is no ELF has no names; that is no error here.
    let answer = output(&mut command).unwrap_or_default();
    let known = answer.lines().filter(|line| !line.contains(": ?? ") && !line.contains(" ?? ??:"));
    known.map(|line| line.trim_end().to_owned()).collect()
}

/// The addresses, each once, in order.
fn addresses(text: &str) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let bracketed = text.split("[<").skip(1).filter_map(|rest| rest.split_once(">]")).map(|(address, _)| address);
    let hex = bracketed.filter(|address| address.len() == 16 && address.chars().all(|c| c.is_ascii_hexdigit()));
    hex.filter(|address| seen.insert(*address)).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_brackets() {
        let text = "RIP: e008:[<ffff82d040001234>]\n [<ffff82d040001234>] [<12>]\n [<ffff82d04000abcd>]\n[<";
        assert_eq!(addresses(text), ["ffff82d040001234", "ffff82d04000abcd"]);
    }
}
