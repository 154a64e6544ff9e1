//! Bochs: an emulator of Intel processors with VT-x, down to SMAP, x2APIC and the TSC deadline timer. It loads no kernel
//! by itself, so it gets a disk ([`super::disk`]), and its serial port is a TCP connection to this program.

use super::{Input, Machine, Payload, Running, die_with_us, disk, pass_on};
use crate::{parts, workspace};
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The program; Debian's `bochs` is a script around it.
pub const PROGRAM: &str = "bochs-bin";
/// Its firmware.
pub const FIRMWARE: [&str; 2] = ["/usr/share/bochs/BIOS-bochs-latest", "/usr/share/vgabios/vgabios.bin"];

/// A server processor of 2017.
pub const DEFAULT_CPU: &str = "corei7_skylake_x";
/// Instructions in a second of the machine's time.
const INSTRUCTIONS_PER_SECOND: u32 = 20_000_000;
/// How long it may take to begin.
const STARTS_WITHIN: Duration = Duration::from_secs(20);
/// Marks at which a trace begins, more than there are.
const MARKS: usize = 64;
/// The disk's geometry: what a cylinder holds.
const CYLINDER: u64 = 16 * 63 * 512;

/// The files of a run; removed with it.
pub struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        // Left behind, they would only take up room.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The command line, given where its files are.
pub fn command_line(dir: &Path) -> Vec<OsString> {
    let file = |name: &str| dir.join(name).into_os_string();
    // Debian's build stops in its debugger at first; the second file lets it go on.
    vec![PROGRAM.into(), "-q".into(), "-unlock".into(), "-f".into(), file("bochsrc"), "-rc".into(), file("debugger")]
}

/// A directory of this run's own.
pub fn directory() -> PathBuf {
    workspace::path("target/bochs").join(workspace::unique())
}

/// Starts a machine.
pub fn start(machine: &Machine, payload: &Payload) -> Result<(Running, Input)> {
    if machine.icount || machine.chipset != "pc" || !machine.extra.is_empty() {
        bail!("Bochs has one chipset, no --icount, and takes no arguments of QEMU's");
    }
    let dir = directory();
    std::fs::create_dir_all(&dir)?;
    let files = Files(dir.clone());
    let mut image = disk::image(&parts::resolve("boot-sector")?, payload)?;
    let cylinders = (image.len() as u64).div_ceil(CYLINDER);
    image.resize(usize::try_from(cylinders * CYLINDER)?, 0);
    std::fs::write(dir.join("disk"), image)?;
    let port = TcpListener::bind("127.0.0.1:0")?;
    let settings = settings(machine, &dir, cylinders, port.local_addr()?.port());
    std::fs::write(dir.join("bochsrc"), settings)?;
    let mut debugger = String::from("c\n");
    let mut output = Stdio::null();
    if let Some((file, instructions)) = &machine.trace {
        debugger += &format!("trace on\ns {instructions}\ntrace off\nc\n").repeat(MARKS);
        output = File::create(file).with_context(|| file.display().to_string())?.into();
    }
    std::fs::write(dir.join("debugger"), debugger)?;
    let mut command = die_with_us(&command_line(&dir));
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
    let serial = match accept(&port, &mut child) {
        Ok(serial) => serial,
        Err(error) => {
            // It is useless without its serial port; an error here means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            bail!("{error:#}; {}", log.lines().last().unwrap_or("it says nothing"));
        }
    };
    serial.set_nodelay(true)?;
    let keyboard = serial.try_clone()?;
    Ok((Running { child, serial: pass_on(serial), files: Some(files) }, Input(Box::new(keyboard))))
}

/// Waits for the machine's serial port.
fn accept(port: &TcpListener, child: &mut Child) -> Result<TcpStream> {
    port.set_nonblocking(true)?;
    let deadline = Instant::now() + STARTS_WITHIN;
    while Instant::now() < deadline {
        if let Ok((serial, _)) = port.accept() {
            serial.set_nonblocking(false)?;
            return Ok(serial);
        }
        if child.try_wait()?.is_some() {
            bail!("{PROGRAM} ended at once");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{PROGRAM} did not begin within {} s", STARTS_WITHIN.as_secs())
}

fn settings(machine: &Machine, dir: &Path, cylinders: u64, port: u16) -> String {
    let Machine { smp, mem, cpu, .. } = machine;
    let ignore = u8::from(machine.ignore_bad_msrs);
    let stops = u8::from(machine.trace.is_some());
    let control = match &machine.control {
        Some(address) => format!("com2: enabled=1, mode=socket-client, dev={address}\n"),
        None => String::new(),
    };
    let dir = dir.display();
    let [bios, vga] = FIRMWARE;
    format!(
        "display_library: term\n\
         config_interface: textconfig\n\
         romimage: file={bios}\n\
         vgaromimage: file={vga}\n\
         vga: extension=none\n\
         cpu: model={cpu}, count={smp}, ips={INSTRUCTIONS_PER_SECOND}, reset_on_triple_fault=0, ignore_bad_msrs={ignore}\n\
         clock: sync=none, time0=utc\n\
         sound: waveoutdrv=dummy\n\
         panic: action=fatal\n\
         memory: guest={mem}, host={mem}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=disk, path={dir}/disk, mode=flat, cylinders={cylinders}, heads=16, spt=63\n\
         boot: disk\n\
         com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}\n\
         {control}\
         magic_break: enabled={stops}\n\
         log: {dir}/log\n"
    )
}
