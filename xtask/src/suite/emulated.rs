//! Runs one row in the emulator and judges it by what the serial port says.

use super::as_xl::{self, Toolstack};
use super::asked;
use super::case::{Case, Ends, Shape};
use super::clock::Stamps;
use super::hostile;
use super::power_cut;
use super::report;
use super::stretches;
use super::tap::Tap;
use super::warnings::{self, Warnings};
use crate::boot::Hypervisor;
use crate::dom0;
use crate::emulator::monitor::{Orders, Socket};
use crate::emulator::{self, End, Machine, Module, Next, Payload};
use crate::packages::Fetched;
use crate::{devices, parts, symbols, workspace};
use anyhow::{Context, Result};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a row is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// By `expect`, `reject` and the script's status.
    Text,
    /// By the guest's TAP.
    Tap,
    /// By whether a hostile guest was noticed.
    Hostile,
}

/// One row of a suite: a case on a machine.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// The machine.
    pub shape: Shape,
    /// Whether the title needs the machine to tell rows apart.
    pub one_of_many: bool,
    /// How it is judged.
    pub judge: Judge,
    /// What it runs on.
    pub hypervisor: Hypervisor,
    /// Where the warnings that its kernel may show come from.
    pub reference: Reference,
    /// The longest stretch without interrupts that is no fault, in instructions, if that is counted.
    pub stretches: Option<u64>,
}

/// Where the warnings on Xen come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// From the record.
    Record,
    /// From a run on Xen, now.
    Live,
    /// This run is the one to record.
    Store,
}

/// What came of a row.
pub struct Verdict {
    /// One line: what was seen, or what is wrong.
    pub note: String,
    /// Whether it passed.
    pub passed: bool,
    /// Seconds it took.
    pub seconds: f32,
    /// The machine's output.
    pub log: PathBuf,
}

impl Row {
    /// The row's name in reports.
    pub fn title(&self) -> String {
        if self.one_of_many { format!("{} [{}]", self.case.name, self.shape.title()) } else { self.case.name.clone() }
    }

    fn machine(&self) -> Result<Machine> {
        let emulator = self.shape.emulator;
        let usual = |emulator| match &self.case.script {
            Some(_) => self.hypervisor.cpu_for_stock_guests(emulator),
            None => self.hypervisor.default_cpu(emulator),
        };
        let mut extra = self.case.emulator_args.clone();
        for device in &self.case.devices {
            extra.extend(devices::arguments(device)?);
        }
        Ok(Machine {
            emulator,
            loader: self.case.loader,
            smp: self.shape.smp,
            mem: self.shape.mem,
            cpu: self.shape.cpu.clone().unwrap_or_else(|| usual(emulator).into()),
            chipset: self.shape.machine.clone(),
            icount: self.case.icount,
            control: None,
            ignore_bad_msrs: self.hypervisor == Hypervisor::Xen,
            trace: None,
            monitor: None,
            extra,
        })
    }

    pub fn payload(&self) -> Result<Payload> {
        let append = format!("{} {}", self.hypervisor.base_options(&self.machine()?), self.case.append);
        let modules = if let Some(script) = self.case.whole_script(self.hypervisor) {
            dom0::modules(&dom0::Files::Default { more: &self.case.files }, Some(&script))?
        } else if self.case.asked_by_host {
            dom0::modules_to_be_asked(&dom0::Files::Default { more: &self.case.files }, Some(""))?
        } else if self.case.commands == Some(Toolstack::Ours) {
            as_xl::modules(&self.case.files)?
        } else {
            let mut modules = Vec::new();
            for text in &self.case.modules {
                modules.push(module(text)?);
            }
            modules
        };
        let payload = Payload { kernel: self.hypervisor.kernel()?, append: append.trim().to_owned(), modules };
        self.case.loader.prepare(payload, &report::plain(&self.title()))
    }

    /// Runs it.
    pub fn run(&self, log: PathBuf) -> Result<Verdict> {
        // Building and fetching does not count into the row's time.
        let payload = self.payload()?;
        for device in &self.case.devices {
            devices::renew(device)?;
        }
        let began = Instant::now();
        let by_host = self.case.asked_by_host || self.case.commands == Some(Toolstack::Ours);
        if by_host {
            let machine = self.machine()?;
            std::fs::write(&log, format!("# {}\n", emulator::shell_line(&machine.command_line(&payload))))?;
            let asked = match self.case.commands {
                Some(_) => as_xl::run(self, &machine, &payload, &log),
                None => asked::run(self, &machine, &payload, &log).map(|()| (true, String::new())),
            };
            let (passed, note) = asked.unwrap_or_else(|error| (false, format!("{error:#}")));
            return Ok(Verdict { note, passed, seconds: began.elapsed().as_secs_f32(), log });
        }
        let (mut passed, mut note) = match &self.case.cut {
            Some(cut) => power_cut::run(self, cut, &log)?,
            None => self.watch(&payload, &log)?,
        };
        for device in &self.case.devices {
            if let Some(fault) = devices::fault(device)?.filter(|_| passed) {
                (passed, note) = (false, fault);
            }
        }
        Ok(Verdict { note, passed, seconds: began.elapsed().as_secs_f32(), log })
    }

    /// Boots the row and judges it: whether it passed, and a note.
    pub fn watch(&self, payload: &Payload, log: &Path) -> Result<(bool, String)> {
        let (text, end, progress) = self.boot(payload, log)?;
        let (mut passed, mut note) = self.judge(&text, &progress, end);
        if let Some(record) = self.case.warnings_as_in.as_deref().filter(|_| passed) {
            (passed, note) = self.compare(&text, record, log)?;
        }
        if passed && self.case.commands == Some(Toolstack::Xl) {
            (passed, note) = as_xl::judge(self, &text, log)?;
        }
        if let Some(within) = self.case.clocks_within.filter(|_| passed) {
            (passed, note) = progress.clock.judge(within);
        }
        if self.stretches.is_some()
            && passed
            && let Some(longest) = stretches::longest(log, payload)?
        {
            (passed, note) = (false, longest);
        }
        Ok((passed, note))
    }

    /// Compares the warnings of the guest's kernel with those on Xen, or records them.
    fn compare(&self, text: &str, record: &str, log: &Path) -> Result<(bool, String)> {
        let here = Warnings::read(text);
        // Some warnings come once for each CPU, others only with several, or on one chipset.
        let mut name = record.to_owned();
        if self.shape.machine != "pc" {
            name = format!("{name}-{}", self.shape.machine);
        }
        if self.shape.smp > 1 {
            name = format!("{name}-{}-cpus", self.shape.smp);
        }
        let path = workspace::path("tests/harness").join(name);
        let there = match self.reference {
            Reference::Store => {
                let kernel = if self.case.uses("generic") { Fetched::GenericKernel } else { Fetched::CloudKernel };
                let version = kernel.version().unwrap_or_default();
                here.store(&path, &version)?;
                return Ok((true, format!("{} warnings recorded", here.len())));
            }
            Reference::Record => Warnings::load(&path)?,
            Reference::Live => {
                let mut on_xen = Self { hypervisor: Hypervisor::Xen, ..self.clone() };
                // Where ours runs on its usual model, Xen runs on its own usual one.
                if on_xen.shape.cpu.as_deref() == Some(Hypervisor::XenRs.default_cpu(on_xen.shape.emulator)) {
                    on_xen.shape.cpu = None;
                }
                Warnings::read(&on_xen.boot(&on_xen.payload()?, &log.with_extension("on-xen.log"))?.0)
            }
        };
        let more = here.beyond(&there);
        let note = match more.first() {
            None => format!("{} warnings, all as on Xen", here.len()),
            Some(first) => format!("{} warnings that Xen's guest has not; first: {first}", more.len()),
        };
        Ok((more.is_empty(), note))
    }

    /// Boots the row and watches it to its end.
    pub fn boot(&self, payload: &Payload, log: &Path) -> Result<(String, End, Progress)> {
        let mut machine = self.machine()?;
        // Counting takes time.
        let limit = Duration::from_secs(self.case.timeout * if self.stretches.is_some() { 8 } else { 1 });
        if let Some(longest) = self.stretches {
            stretches::count(&mut machine, log, longest)?;
        }
        let socket = Socket::new();
        machine.monitor = Some(socket.path().to_owned());
        let mut orders = Orders::new(&self.case.monitor, socket.path());
        let mut progress = Progress::default();
        let mut text = String::new();
        let line = emulator::shell_line(&machine.command_line(payload));
        let mut log = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        writeln!(log, "# {line}")?;
        let mut logged = Ok(());
        let (began, mut told) = (Instant::now(), Instant::now());
        let (end, look) = emulator::watch_closely(&machine, payload, limit, |bytes| {
            let news = text.len();
            text.push_str(&String::from_utf8_lossy(bytes).replace('\r', ""));
            if self.case.clocks_within.is_some() {
                progress.clock.take(Instant::now(), since(&text, news));
            }
            if let Err(error) = log.write_all(since(&text, news).as_bytes()) {
                logged = Err(error.into());
                return Next::Stop;
            }
            if let Some(orders) = &mut orders
                && let Err(error) = orders.follow(&text)
            {
                logged = Err(error);
                return Next::Stop;
            }
            if told.elapsed() > PATIENCE {
                told = Instant::now();
                let last = text.lines().next_back().unwrap_or_default();
                println!("  ...     {:<60} {:6.1} s  {last}", self.title(), began.elapsed().as_secs_f32());
            }
            self.next(&text, news, &mut progress)
        })?;
        logged?;
        log.write_all(look.as_bytes())?;
        if self.judge == Judge::Hostile {
            text.push_str(&look);
        }
        let names = symbols::names(&text, payload);
        if !names.is_empty() {
            writeln!(log, "\n# names\n{}", names.join("\n"))?;
        }
        Ok((text, end, progress))
    }

    /// What to do after output whose news begin at `news`; hours of it are not searched again.
    fn next(&self, text: &str, news: usize, progress: &mut Progress) -> Next {
        progress.follow(text, &self.case.expect);
        if self.case.cut.as_ref().is_some_and(|cut| text.contains(&cut.at)) {
            return Next::Stop;
        }
        let recent = since(text, news.saturating_sub(LONGEST_LINE));
        if self.reject().iter().any(|reject| recent.contains(reject.as_str())) {
            return Next::Finish;
        }
        if self.over(text, recent, progress) { Next::Stop } else { Next::Watch }
    }

    /// Whether nothing more needs to be seen.
    fn over(&self, text: &str, recent: &str, progress: &Progress) -> bool {
        match self.judge {
            Judge::Tap => Tap::read(text).complete(),
            Judge::Hostile if self.case.script.is_none() => hostile::over(recent),
            Judge::Hostile => dom0::status_in(recent).is_some(),
            Judge::Text if self.case.ends_machine.is_some() => false,
            Judge::Text if self.case.script.is_some() => dom0::status_in(recent).is_some(),
            Judge::Text => {
                let reported = self.case.warnings_as_in.is_none() || text.contains(warnings::END);
                progress.seen == self.case.expect.len() && reported
            }
        }
    }

    fn reject(&self) -> &[String] {
        self.case.reject.as_deref().unwrap_or_default()
    }

    fn judge(&self, text: &str, progress: &Progress, end: End) -> (bool, String) {
        if let Some(line) = text.lines().find(|line| self.reject().iter().any(|reject| line.contains(reject.as_str())))
        {
            return (false, format!("saw {line:?}"));
        }
        if self.judge == Judge::Tap {
            let tap = Tap::read(text);
            return match tap.fault() {
                Some(fault) => (false, format!("{fault}{}", ending(end))),
                None if tap.skipped > 0 => (true, format!("{} claims, {} skipped", tap.ok, tap.skipped)),
                None => (true, format!("{} claims", tap.ok)),
            };
        }
        if let Some(missing) = self.case.expect.get(progress.seen) {
            return (false, format!("did not see {missing:?}{}", ending(end)));
        }
        let around = || Case::around_is_same(text, self.hypervisor);
        if self.case.around.is_some() && dom0::status_in(text).is_some() && around() != Some(true) {
            return (false, "not the same before and after".into());
        }
        if self.judge == Judge::Hostile {
            let ended = if self.case.script.is_some() { dom0::status_in(text).is_some() } else { hostile::over(text) };
            return match &self.case.hostile {
                Some(plan) if ended || plan.hangs_alone(text) => plan.judge(text),
                Some(_) => (false, format!("it did not end{}", ending(end))),
                None => (false, "the case says nothing of hostile guests".into()),
            };
        }
        if let Some(ends) = self.case.ends_machine {
            let as_asked = match ends {
                Ends::Stops => end == End::Gone,
                Ends::GoesOff => end == End::Off,
            };
            return (as_asked, if as_asked { String::new() } else { format!("the machine went on{}", ending(end)) });
        }
        if self.case.script.is_some() {
            return match dom0::status_in(text) {
                Some(status) if status == self.case.status => match Tap::read(text) {
                    // A guest's own report, if there was one.
                    tap if tap.plan.is_none() => (true, String::new()),
                    tap => (tap.not_ok.is_empty(), format!("{} claims", tap.ok)),
                },
                Some(status) => (false, format!("the script ended with status {status}, not {}", self.case.status)),
                None => (false, format!("the script did not end{}", ending(end))),
            };
        }
        if self.case.warnings_as_in.is_some() && !text.contains(warnings::END) {
            return (false, format!("the guest did not report its warnings{}", ending(end)));
        }
        (true, String::new())
    }
}

/// A row that takes longer says now and then how far it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// A text that is looked for is not longer.
const LONGEST_LINE: usize = 400;

/// The text from a place on, or from a little before when that is inside a character.
fn since(text: &str, mut from: usize) -> &str {
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    text.get(from..).unwrap_or_default()
}

/// `PART command line` as a module.
pub fn module(text: &str) -> Result<Module> {
    if text.starts_with("text:") {
        return Ok(Module::new(parts::resolve(text)?, ""));
    }
    let named = Module::parse(text);
    Ok(Module::new(parts::resolve(&named.path.to_string_lossy())?, named.args))
}

fn ending(end: End) -> &'static str {
    match end {
        End::Found => "",
        End::Off => "; the machine went off",
        End::Gone => "; the machine stopped",
        End::Deadline => "; deadline",
    }
}

/// How far the expected texts have been seen.
#[derive(Debug, Default)]
pub struct Progress {
    seen: usize,
    from: usize,
    clock: Stamps,
}

impl Progress {
    fn follow(&mut self, text: &str, expect: &[String]) {
        while let Some(next) = expect.get(self.seen) {
            let Some(at) = text.get(self.from..).and_then(|rest| rest.find(next.as_str())) else {
                // What has no beginning of it is not searched again.
                self.from = self.from.max(text.len() - since(text, text.len().saturating_sub(next.len())).len());
                break;
            };
            self.from += at + next.len();
            self.seen += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_texts_come_in_order() {
        let expect = ["b".to_owned(), "a".to_owned()];
        let mut progress = Progress::default();
        progress.follow("ab", &expect);
        assert_eq!(progress.seen, 1);
        progress.follow("abxa", &expect);
        assert_eq!(progress.seen, 2);
    }
}
