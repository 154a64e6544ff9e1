//! How the hypervisor gets into the machine's memory: by QEMU's own loaders, or by GRUB from a CD.

use super::Payload;
use crate::iso::{self, Protocol};
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What loads the hypervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    /// The emulator's multiboot1 loader, or in Bochs the tests' boot sector.
    #[default]
    Multiboot1,
    /// QEMU's PVH loader, which passes on one module at most.
    Pvh,
    /// GRUB by multiboot1.
    GrubMultiboot1,
    /// GRUB by multiboot2.
    GrubMultiboot2,
}

impl Loader {
    /// The payload as the emulator gets it. `name` tells files of several runs apart.
    pub fn prepare(self, payload: Payload, name: &str) -> Result<Payload> {
        let dir = workspace::path("target/guest");
        std::fs::create_dir_all(&dir)?;
        let kernel = match self {
            Self::Multiboot1 => return Ok(payload),
            Self::Pvh => {
                if payload.modules.len() > 1 {
                    bail!("QEMU's PVH loader passes on one module at most");
                }
                let file = dir.join(format!("{name}.pvh"));
                std::fs::write(&file, without_multiboot(&payload.kernel)?)?;
                return Ok(Payload { kernel: file, ..payload });
            }
            Self::GrubMultiboot1 => self.iso(&dir, name, &payload, Protocol::Multiboot1)?,
            Self::GrubMultiboot2 => self.iso(&dir, name, &payload, Protocol::Multiboot2)?,
        };
        Ok(Payload { kernel, append: String::new(), modules: Vec::new() })
    }

    fn iso(self, dir: &Path, name: &str, payload: &Payload, protocol: Protocol) -> Result<PathBuf> {
        let file = dir.join(format!("{name}.iso"));
        iso::make(&file, payload, &[protocol], 0)?;
        Ok(file)
    }

    /// Whether the machine starts from a CD.
    pub fn is_cd(self) -> bool {
        matches!(self, Self::GrubMultiboot1 | Self::GrubMultiboot2)
    }
}

/// The kernel without its multiboot1 header, which QEMU would prefer.
fn without_multiboot(kernel: &Path) -> Result<Vec<u8>> {
    const MAGIC: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
    let mut bytes = std::fs::read(kernel).with_context(|| kernel.display().to_string())?;
    if let Some(at) = bytes.chunks_exact(4).take(8192 / 4).position(|word| word == MAGIC) {
        bytes.iter_mut().skip(at * 4).take(4).for_each(|byte| *byte = 0);
    }
    Ok(bytes)
}
