//! Puts names to the addresses of a crash report: a table of functions inside the hypervisor, which it prints from, and
//! for lines and inlined functions addr2line(1) where it is there.

use crate::emulator::Payload;
use crate::packages::output;
use crate::toolchain::on_path;
use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{STT_FUNC, STT_NOTYPE};
use elf::endian::LittleEndian;
use logic::symbols::{Symbol, encode};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// More than that is a guest gone wild.
const MOST: usize = 64;

/// The section that waits for the table.
const SECTION: &str = ".symbols";
/// The symbol from which the table counts.
const START: &str = "__load_start";

/// Fills the hypervisor's table of functions in, once its addresses are known. Doing so again changes nothing.
pub fn embed(program: &Path) -> Result<()> {
    let mut file = std::fs::read(program).with_context(|| program.display().to_string())?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let room = elf.section_header_by_name(SECTION)?.with_context(|| format!("no section {SECTION}"))?;
    let text = elf.section_header_by_name(".text")?.context("no code")?;
    let (table, strings) = elf.symbol_table()?.context("no symbols")?;
    let named = || table.iter().filter_map(|symbol| Some((symbol.clone(), strings.get(symbol.st_name as usize).ok()?)));
    let (start, _) = named().find(|(_, name)| *name == START).context("no start")?;
    let mut symbols: Vec<Symbol> = Vec::new();
    for (symbol, name) in named() {
        let code = (text.sh_addr..text.sh_addr + text.sh_size).contains(&symbol.st_value);
        // Labels of assembly have no type; the linker's own and the assembler's are no functions.
        let kind =
            matches!(symbol.st_symtype(), STT_FUNC | STT_NOTYPE) && !name.starts_with("__") && !name.starts_with('.');
        if code && kind && !name.is_empty() {
            let offset = u32::try_from(symbol.st_value - start.st_value)?;
            let name = format!("{:#}", rustc_demangle::demangle(name));
            symbols.push((offset, u32::try_from(symbol.st_size)?, name));
        }
    }
    let (at, size) = (usize::try_from(room.sh_offset)?, usize::try_from(room.sh_size)?);
    let mut table = encode(symbols, size).context("the names do not fit into their section")?;
    table.resize(size, 0);
    let place = file.get_mut(at..at + size).context("a short file")?;
    if *place != *table {
        place.copy_from_slice(&table);
        std::fs::write(program, file).with_context(|| program.display().to_string())?;
    }
    Ok(())
}

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
