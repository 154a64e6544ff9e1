//! The names by which tests and `--module` call the things that can be booted, so that no one has to know a path.

use crate::packages::Fetched;
use crate::spoiled::Fault;
use crate::{build, ramdisk, xl};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What was resolved already in this process; a part is built or fetched once.
static RESOLVED: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// The names, for help texts.
pub const NAMES: &str = "dom0, guest:NAME, kernel:cloud, kernel:generic, kernel:686, ramdisk, ramdisk:686, ramdisk:devices, ramdisk:xl, ramdisk:xl-pvh, ramdisk:xl-commands, ramdisk:xl-running, ramdisk:exerciser, ramdisk:stress, xen-rs, xen, spoiled:FAULT, text:CONTENT, or a path";

/// The file for a name; built or fetched when need be.
pub fn resolve(name: &str) -> Result<PathBuf> {
    let mut resolved = RESOLVED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = resolved.get(name) {
        return Ok(path.clone());
    }
    let path = make(name)?;
    resolved.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn make(name: &str) -> Result<PathBuf> {
    if let Some(guest) = name.strip_prefix("guest:") {
        build::guest_once(guest)?;
        return Ok(build::program(guest));
    }
    if let Some(text) = name.strip_prefix("text:") {
        return text_file(text);
    }
    if let Some(fault) = name.strip_prefix("spoiled:") {
        let spoiled = Fault::named(fault)?;
        let kernel = spoiled.kernel(&std::fs::read(make(spoiled.good())?)?)?;
        return keep(&format!("spoiled-{fault}"), &kernel);
    }
    match name {
        "dom0" | "xen-rs" | "boot-sector" => {
            build::build_once(name)?;
            Ok(build::program(name))
        }
        "kernel:cloud" => Fetched::CloudKernel.get(),
        "kernel:generic" => Fetched::GenericKernel.get(),
        "kernel:686" => Fetched::Kernel686.get(),
        "xen" => Fetched::Xen.get(),
        "ramdisk" => ramdisk::ramdisk(),
        "ramdisk:686" => ramdisk::of_32_bit(),
        "ramdisk:devices" => ramdisk::with_devices(),
        "ramdisk:exerciser" => ramdisk::with_exerciser(),
        "ramdisk:stress" => ramdisk::with_stress(),
        "ramdisk:xl" => xl::ramdisk::using(),
        "ramdisk:xl-pvh" => xl::ramdisk::using_containers(),
        "ramdisk:xl-commands" => xl::ramdisk::commanding("xl-commands"),
        "ramdisk:xl-running" => xl::ramdisk::commanding("xl-running"),
        path if Path::new(path).exists() => Ok(path.into()),
        other => bail!("{other}: no such file, and none of {NAMES}"),
    }
}

/// A file with that content: for modules that are no kernel at all.
fn text_file(text: &str) -> Result<PathBuf> {
    let name: String = text.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    keep(&format!("text-{name}"), text.as_bytes())
}

/// A file that is made here.
fn keep(name: &str, content: &[u8]) -> Result<PathBuf> {
    let dir = crate::workspace::path("target/guest");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}
