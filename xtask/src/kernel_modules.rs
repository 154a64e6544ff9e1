//! Modules of Debian's kernels: taken from their packages once, with whatever they depend on, and kept in `.cache/`.

use crate::packages::{self, Fetched};
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

/// A disk in memory, to be measured.
const MEASURED: [&str; 1] = ["brd"];

/// Drivers of a guest's split devices, and of what is on them where that is not in the kernel itself.
pub fn guest(kernel: Fetched) -> &'static [&'static str] {
    match kernel {
        Fetched::CloudKernel => &["xen_blkfront"],
        _ => &["xen_blkfront", "crc32c_generic", "ext4"],
    }
}

/// All that is kept of a kernel's modules.
fn kept(kernel: Fetched) -> Vec<&'static str> {
    let mut all = guest(kernel).to_vec();
    if kernel == Fetched::GenericKernel {
        all.extend(DEVICES.iter().chain(&TOOLSTACK).chain(&MEASURED));
    }
    all
}

/// A module as it is loaded.
pub struct Module {
    /// File name.
    pub name: String,
    /// The ELF.
    pub bytes: Vec<u8>,
}

/// Modules and what they depend on, in an order in which they can be loaded.
pub fn get(kernel: Fetched, wanted: &[&str]) -> Result<Vec<Module>> {
    let store = store(kernel)?;
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
fn store(kernel: Fetched) -> Result<PathBuf> {
    let version = kernel.get().map(|_| kernel.version().unwrap_or_default())?;
    // It may have been filled when fewer were kept.
    let whole = |store: &Path| kept(kernel).iter().all(|name| store.join(format!("{}.ko", normal(name))).is_file());
    workspace::cached(&format!("drivers-{version}"), whole, |fresh| fill(kernel, fresh))
}

fn fill(kernel: Fetched, to: &Path) -> Result<()> {
    packages::with_unpacked(kernel.architecture(), kernel.package(), "./lib/modules", |tree| {
        let mut found = BTreeMap::new();
        find(tree, &mut found)?;
        let mut wanted: Vec<String> = kept(kernel).iter().map(|name| (*name).to_owned()).collect();
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

/// A value of a module's `.modinfo` section: strings `key=value` that end with a zero.
fn info(module: &[u8], key: &str) -> Option<String> {
    let mark = [b"\0", key.as_bytes(), b"="].concat();
    let at = module.windows(mark.len()).position(|bytes| bytes == mark)?;
    let value = module.get(at + mark.len()..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The modules that one needs.
fn dependencies(module: &[u8]) -> Vec<String> {
    info(module, "depends").unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(normal).collect()
}

/// The release of the kernel that a module is for.
pub fn release(module: &[u8]) -> Option<String> {
    Some(info(module, "vermagic")?.split(' ').next()?.to_owned())
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
