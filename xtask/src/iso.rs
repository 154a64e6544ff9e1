//! `cargo xtask iso`: a CD or USB stick that starts xen-rs with dom0 by GRUB, on a machine with a BIOS.

use crate::boot::Hypervisor;
use crate::doctor::{self, Need};
use crate::dom0::{self, Files};
use crate::emulator::{Machine, Payload};
use crate::packages::output;
use crate::say::Step;
use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The protocol by which GRUB starts the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Multiboot1,
    Multiboot2,
}

impl Protocol {
    /// GRUB's commands for the kernel and for a module.
    fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Multiboot1 => ["multiboot", "module"],
            Self::Multiboot2 => ["multiboot2", "module2"],
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Multiboot1 => "xen-rs, by multiboot 1",
            Self::Multiboot2 => "xen-rs",
        }
    }
}

/// How long the menu waits, in seconds.
const MENU_SECONDS: u32 = 3;

/// Make a bootable ISO image: GRUB, xen-rs, dom0 and its files.
#[derive(clap::Args)]
pub struct Iso {
    /// Where it goes
    #[arg(short, long, value_name = "FILE", default_value = "target/xen-rs.iso")]
    output: PathBuf,
    /// Directory that dom0 sees as /files [default: debian.cfg with its kernel and ramdisk]
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// More options for the hypervisor
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    append: String,
}

impl Iso {
    pub fn run(self) -> Result<ExitCode> {
        doctor::ensure(&[Need::Compiler, Need::Iso])?;
        let files = match &self.files {
            Some(dir) if dir.is_dir() => Files::Directory(dir),
            Some(dir) => bail!("{} is no directory", dir.display()),
            None => Files::Default { more: &[] },
        };
        let append = format!("{} {}", Hypervisor::XenRs.base_options(&Machine::default()), self.append);
        let payload = Payload {
            kernel: Hypervisor::XenRs.kernel()?,
            append: append.trim().to_owned(),
            modules: dom0::modules(&files, None)?,
        };
        let step = Step::begin("make the ISO image");
        make(&self.output, &payload, &[Protocol::Multiboot2, Protocol::Multiboot1], MENU_SECONDS)?;
        step.done();
        let size = std::fs::metadata(&self.output)?.len() >> 20;
        println!("{} ({size} MiB)", self.output.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes an image that offers these ways to start, the first of them unless another is chosen in time.
pub fn make(output_file: &Path, payload: &Payload, protocols: &[Protocol], wait: u32) -> Result<()> {
    let dir = workspace::path("target/iso")
        .join(std::process::id().to_string())
        .join(output_file.file_name().context("the image needs a name")?);
    let boot = dir.join("boot");
    std::fs::create_dir_all(boot.join("grub"))?;
    copy(&payload.kernel, &boot.join("hypervisor"))?;
    for (index, module) in payload.modules.iter().enumerate() {
        copy(&module.path, &boot.join(format!("module-{index}")))?;
    }
    std::fs::write(boot.join("grub/grub.cfg"), menu(payload, protocols, wait))?;
    // Under another name first: a reader never sees half an image.
    let fresh = output_file.with_extension(format!("{}.iso", std::process::id()));
    output(Command::new("grub-mkrescue").arg("-o").arg(&fresh).arg(&dir))?;
    std::fs::rename(fresh, output_file).with_context(|| output_file.display().to_string())?;
    Ok(std::fs::remove_dir_all(dir)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| from.display().to_string()).map(drop)
}

/// GRUB's menu, on the screen and on the first serial port.
fn menu(payload: &Payload, protocols: &[Protocol], wait: u32) -> String {
    let mut text = format!(
        "serial --unit=0 --speed=115200\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         set timeout={wait}\n"
    );
    for protocol in protocols {
        let [kernel, module] = protocol.commands();
        let _ = writeln!(text, "\nmenuentry {} {{", word(protocol.title()));
        let _ = writeln!(text, "    {kernel} /boot/hypervisor {}", words(&payload.append));
        for (index, part) in payload.modules.iter().enumerate() {
            let _ = writeln!(text, "    {module} /boot/module-{index} {}", words(&part.args));
        }
        let _ = writeln!(text, "}}");
    }
    text
}

/// A command line for GRUB's script language.
fn words(line: &str) -> String {
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%~".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Module;

    #[test]
    fn a_menu_names_all_parts() {
        let payload = Payload {
            kernel: "xen-rs".into(),
            append: "console=com1 x=$y".into(),
            modules: vec![Module::new("dom0", "a"), Module::new("files", "")],
        };
        let menu = menu(&payload, &[Protocol::Multiboot2, Protocol::Multiboot1], 0);
        let entry =
            "menuentry xen-rs {\n    multiboot2 /boot/hypervisor console=com1 'x=$y'\n    module2 /boot/module-0 a\n";
        assert!(menu.contains(entry), "{menu}");
        assert!(menu.contains("\n    module /boot/module-1 \n}"), "{menu}");
    }
}
