//! Debian's stress-ng with the libraries that it needs, each taken from its package once and kept in `.cache/`.

use crate::packages::{self, Architecture};
use crate::workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// The program, and the loader that a program names by its path.
const PROGRAM: &str = "stress-ng";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Each package with what is taken from it: what the program's and its libraries' `NEEDED` entries name.
const FILES: [(&str, &[&str]); 24] = [
    ("stress-ng", &[PROGRAM]),
    ("libc6", &[LOADER, "libc.so.6", "libm.so.6", "libpthread.so.0"]),
    ("libapparmor1", &["libapparmor.so.1"]),
    ("libbsd0", &["libbsd.so.0"]),
    ("libmd0", &["libmd.so.0"]),
    ("libcrypt1", &["libcrypt.so.1"]),
    ("libegl1", &["libEGL.so.1"]),
    ("libgles2", &["libGLESv2.so.2"]),
    ("libglvnd0", &["libGLdispatch.so.0"]),
    ("libgbm1", &["libgbm.so.1"]),
    ("libdrm2", &["libdrm.so.2"]),
    ("libwayland-server0", &["libwayland-server.so.0"]),
    ("libffi8", &["libffi.so.8"]),
    ("libexpat1", &["libexpat.so.1"]),
    ("libipsec-mb1", &["libIPSec_MB.so.1"]),
    ("libjpeg62-turbo", &["libjpeg.so.62"]),
    ("libjudydebian1", &["libJudy.so.1"]),
    ("libkmod2", &["libkmod.so.2"]),
    ("libsctp1", &["libsctp.so.1"]),
    ("libxxhash0", &["libxxhash.so.0"]),
    ("zlib1g", &["libz.so.1"]),
    ("libssl3", &["libcrypto.so.3"]),
    ("libzstd1", &["libzstd.so.1"]),
    ("liblzma5", &["liblzma.so.5"]),
];

/// The files by their places in a ramdisk.
pub fn files() -> Result<Vec<(String, PathBuf)>> {
    let store = workspace::cached(PROGRAM, |_| true, fill)?;
    let place = |name: &str| match name {
        PROGRAM => format!("bin/{name}"),
        LOADER => format!("lib64/{name}"),
        _ => format!("lib/x86_64-linux-gnu/{name}"),
    };
    Ok(names().map(|name| (place(name), store.join(name))).collect())
}

fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().flat_map(|(_, names)| names.iter().copied())
}

fn fill(to: &Path) -> Result<()> {
    for (package, names) in FILES {
        packages::with_unpacked(Architecture::Amd64, package, ".", |tree| {
            names.iter().try_for_each(|name| {
                let from = find(tree, name).with_context(|| format!("{package} has no {name}"))?;
                Ok(std::fs::copy(from, to.join(name)).map(drop)?)
            })
        })?;
    }
    Ok(())
}

/// The file of that name, links followed; what a package shares with other machines is text.
fn find(tree: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(tree).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            if path.file_name().is_some_and(|name| name == "share") {
                continue;
            }
            if let Some(found) = find(&path, name) {
                return Some(found);
            }
        } else if entry.file_name().to_string_lossy() == name && path.is_file() {
            return Some(path);
        }
    }
    None
}
