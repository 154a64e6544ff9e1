//! Modules of Debian's generic kernel: taken from its package once, with whatever they depend on, and kept in `.cache/`.

use crate::packages::{self, Fetched};
use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Drivers of the devices that tests put into the machine.
pub const DEVICES: [&str; 7] = ["virtio_pci", "virtio_blk", "virtio_net", "ahci", "sd_mod", "e1000e", "crc32c_generic"];

/// What a toolstack needs of the kernel.
pub const TOOLSTACK: [&str; 9] = [
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_privcmd",
    "xenfs",
    "xen_blkback",
    "xen_netback",
    "loop",
    "bridge",
];

/// A module as it is loaded.
pub struct Module {
    /// File name.
    pub name: String,
    /// The ELF.
    pub bytes: Vec<u8>,
}

/// Modules and what they depend on, in an order in which they can be loaded.
pub fn get(wanted: &[&str]) -> Result<Vec<Module>> {
    let store = store()?;
    let mut modules: Vec<Module> = Vec::new();
    for name in wanted {
        add(&store, name, &mut modules)?;
    }
    Ok(modules)
}

fn add(store: &Path, name: &str, modules: &mut Vec<Module>) -> Result<()> {
    let name = format!("{}.ko", normal(name));
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = store.join(&name);
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    for dependency in dependencies(&bytes) {
        add(store, &dependency, modules)?;
    }
    modules.push(Module { name, bytes });
    Ok(())
}

/// The directory that holds them, filled when it is not there.
fn store() -> Result<PathBuf> {
    let version = Fetched::GenericKernel.get().map(|_| Fetched::GenericKernel.version().unwrap_or_default())?;
    let path = workspace::cache().join(format!("modules-{version}"));
    if !path.is_dir() {
        let step = Step::silent("fetch the generic kernel's modules");
        let fresh = workspace::cache().join(format!("modules-fresh-{}", std::process::id()));
        std::fs::create_dir_all(&fresh)?;
        let filled = fill(&fresh);
        let moved = filled.and_then(|()| Ok(std::fs::rename(&fresh, &path)?));
        if moved.is_err() {
            std::fs::remove_dir_all(&fresh)?;
        }
        // Another run may have been first.
        moved.or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })?;
        step.done();
    }
    Ok(path)
}

fn fill(to: &Path) -> Result<()> {
    packages::with_unpacked(Fetched::GenericKernel.package(), "./lib/modules", |tree| {
        let mut found = BTreeMap::new();
        find(tree, &mut found)?;
        let mut wanted: Vec<String> = DEVICES.iter().chain(&TOOLSTACK).map(|name| (*name).to_owned()).collect();
        while let Some(name) = wanted.pop() {
            let (name, target) = (normal(&name), to.join(format!("{}.ko", normal(&name))));
            if target.exists() {
                continue;
            }
            let from = found.get(&name).with_context(|| format!("the kernel package has no module {name}"))?;
            let bytes = std::fs::read(from)?;
            wanted.extend(dependencies(&bytes));
            std::fs::write(target, bytes)?;
        }
        Ok(())
    })
}

/// All modules below a directory by name.
fn find(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            found.insert(normal(&path.file_stem().unwrap_or_default().to_string_lossy()), path);
        }
    }
    Ok(())
}

/// A module's name as others name it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules that one needs, from the `depends=` of its `.modinfo` section: strings that end with a zero.
fn dependencies(module: &[u8]) -> Vec<String> {
    const MARK: &[u8] = b"\0depends=";
    let Some(at) = module.windows(MARK.len()).position(|bytes| bytes == MARK) else { return Vec::new() };
    let rest = module.get(at + MARK.len()..).unwrap_or_default();
    let list = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list).split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(dependencies(b"x\0license=GPL\0depends=libahci,crc-t10dif\0y"), ["libahci", "crc_t10dif"]);
        assert!(dependencies(b"x\0depends=\0y").is_empty());
        assert!(dependencies(b"no section").is_empty());
    }
}
