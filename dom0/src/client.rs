//! A request of the host's as the commands see it: dom0, but for the terminal, which is the host's.
//!
//! All of it runs in a request's fiber. What waits does so by [`Door::pause`], never in `Dom0::pump`.

use crate::dom0::Dom0;
use crate::files;
use crate::service::control::{Key, Request};
use crate::shell::{self, Shell};
use crate::terminal::DETACH;
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use control_protocol::message::Stream;
use guest_pv::fiber::{Door, Fiber};
use guest_pv::time;
use toolstack::domains::Domains;
use toolstack::host::{ConsoleEnd, Consoles, Host, Permission, PowerAction, Seed, Store};
use toolstack::images::Images;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Port};

/// How long the machine waits with its end for the host to hear of it.
const GOODBYE: u64 = 1_000_000_000;

/// The commands' way to dom0 and to the host.
struct Client<'a> {
    door: &'a mut Door<Dom0>,
    key: Key,
}

/// The fiber of a request.
pub fn fiber(key: Key) -> Option<Fiber<Dom0>> {
    Fiber::new(move |door: &mut Door<Dom0>| {
        let script = door.context().control.script(key);
        let mut client = Client { door, key };
        let status = shell::run_script(&mut client, &script);
        client.show_notices();
        client.with(|request| request.finish(status));
    })
}

impl Client<'_> {
    /// Does something with the request. It is there as long as its fiber is.
    fn with<T: Default>(&mut self, what: impl FnOnce(&mut Request) -> T) -> T {
        self.door.context().control.request(self.key).map(what).unwrap_or_default()
    }

    /// Waits for anything to happen, but not past `deadline`.
    fn pause(&mut self, deadline: Option<u64>) {
        let key = self.key;
        self.dom0().control.wake_at(key, deadline);
        self.door.pause();
        self.dom0().control.wake_at(key, None);
    }

    fn say(&mut self, stream: Stream, bytes: &[u8]) {
        self.with(|request| request.say(stream, bytes));
        while self.with(|request| request.is_full()) {
            self.pause(None);
        }
    }

    fn show_notices(&mut self) {
        let lines = self.with(|request| core::mem::take(&mut request.held_notices));
        for line in lines {
            self.end_line();
            self.say(Stream::Err, line.as_bytes());
            self.say(Stream::Err, b"\n");
        }
    }

    /// What a domain printed from `from` to `upto`, as far as it is kept; it counts as seen by the host.
    fn printed(&mut self, dom: DomId, from: u64, upto: u64) -> Vec<u8> {
        let Some(log) = self.door.context().consoled.log(dom) else {
            return Vec::new();
        };
        let text = log.between(from, upto);
        log.seen_by_host = log.seen_by_host.max(upto);
        text
    }
}

impl Shell for Client<'_> {
    fn dom0(&mut self) -> &mut Dom0 {
        self.door.context()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.say(Stream::Out, bytes);
    }

    fn end_line(&mut self) {
        if !self.with(|request| core::mem::replace(&mut request.fresh_line, true)) {
            self.say(Stream::Out, b"\n");
        }
    }

    fn between_commands(&mut self) -> bool {
        self.show_notices();
        !self.with(|request| request.interrupted)
    }
}

impl_xen_calls!(Client<'_>);

impl Store for Client<'_> {
    fn store_read(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        self.dom0().store_read(path)
    }

    fn store_write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        self.dom0().store_write(path, value)
    }

    fn store_mkdir(&mut self, path: &str) -> Result<(), Errno> {
        self.dom0().store_mkdir(path)
    }

    fn store_rm(&mut self, path: &str) -> Result<(), Errno> {
        self.dom0().store_rm(path)
    }

    fn store_list(&mut self, path: &str) -> Result<Vec<String>, Errno> {
        self.dom0().store_list(path)
    }

    fn store_set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Errno> {
        self.dom0().store_set_permissions(path, permissions)
    }

    fn store_plant(&mut self, path: &str, seeds: &[Seed<'_>]) -> Result<(), Errno> {
        self.dom0().store_plant(path, seeds)
    }

    fn store_each_child(&mut self, path: &str, key: &str) -> Result<Vec<(String, Vec<u8>)>, Errno> {
        self.dom0().store_each_child(path, key)
    }

    fn store_introduce(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.dom0().store_introduce(dom, frame, port)
    }

    fn store_release(&mut self, dom: DomId) {
        self.dom0().store_release(dom);
    }
}

impl Consoles for Client<'_> {
    fn console_attach(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.dom0().console_attach(dom, frame, port)
    }

    fn console_detach(&mut self, dom: DomId) {
        self.dom0().console_detach(dom);
    }

    fn console_interact(&mut self, dom: DomId) -> Result<ConsoleEnd, Errno> {
        if !self.dom0().consoled.is_live(dom) {
            return Err(Errno::ESRCH);
        }
        let name = toolstack::store::name_of(self, dom);
        let mut dom = dom;
        let mut from = self.dom0().consoled.log(dom).map_or(0, |log| log.line_before(log.seen_by_host));
        let end = loop {
            let upto = self.dom0().consoled.log(dom).map_or(0, |log| log.end());
            let text = self.printed(dom, from, upto);
            from = upto;
            self.say(Stream::Out, &text);
            if !self.dom0().consoled.is_live(dom) {
                self.end_line();
                // A domain that restarts has another number.
                match name.as_deref().and_then(|name| self.dom0().domain_by_name(name)) {
                    Some(next) if self.dom0().consoled.is_live(next) => (dom, from) = (next, 0),
                    _ => break ConsoleEnd::Gone,
                }
            }
            self.show_notices();
            let mut keys = Vec::new();
            let mut detached = self.with(|request| request.interrupted);
            let room = self.dom0().consoled.room(dom);
            while !detached
                && keys.len() < room
                && let Some(key) = self.with(Request::key)
            {
                match key {
                    DETACH => detached = true,
                    key => keys.push(key),
                }
            }
            self.dom0().consoled.type_in(dom, &keys);
            if detached || self.with(|request| request.input_ended && request.input.is_empty()) {
                break ConsoleEnd::Detached;
            }
            self.pause(None);
        };
        self.end_line();
        Ok(end)
    }

    fn console_until(&mut self, dom: DomId, text: &str, timeout: Option<u64>) -> Result<ConsoleEnd, Errno> {
        let deadline = timeout.map(|timeout| time::now().saturating_add(timeout));
        let log = self.dom0().consoled.log(dom).ok_or(Errno::ESRCH)?;
        let (mut from, mut shown) = (log.start(), log.seen_by_host);
        let end = loop {
            let live = self.dom0().consoled.is_live(dom);
            let Some(log) = self.dom0().consoled.log(dom) else {
                break ConsoleEnd::Gone;
            };
            let found = log.find(text.as_bytes(), from);
            let upto = found.unwrap_or(log.end());
            // The text may begin in what is there and end in what is to come.
            from = from.max(log.end().saturating_sub(text.len() as u64));
            if upto > shown {
                let news = self.printed(dom, shown, upto);
                shown = upto;
                self.say(Stream::Out, &news);
            }
            if found.is_some() {
                break ConsoleEnd::Found;
            }
            if !live {
                break ConsoleEnd::Gone;
            }
            if deadline.is_some_and(|deadline| time::now() >= deadline) {
                break ConsoleEnd::TimedOut;
            }
            if self.with(|request| request.interrupted) {
                break ConsoleEnd::Detached;
            }
            self.pause(deadline);
        };
        self.end_line();
        Ok(end)
    }
}

impl Host for Client<'_> {
    fn file(&mut self, path: &str) -> Result<Cow<'static, [u8]>, Errno> {
        if path.starts_with(files::ROOT) {
            return files::content(self, path).map(Cow::Owned);
        }
        self.dom0().file(path)
    }

    fn open_volume(&mut self, path: &str) -> Result<(), String> {
        if path.starts_with(files::ROOT) { files::open_volume(self, path) } else { Ok(()) }
    }

    fn save(&mut self, name: &str) -> Result<(), Errno> {
        self.with(|request| request.save(name));
        Ok(())
    }

    fn save_bytes(&mut self, bytes: &[u8]) -> bool {
        if bytes.iter().all(|byte| *byte == 0) {
            self.with(|request| request.say_zeros(bytes.len() as u64));
        } else {
            self.say(Stream::File, bytes);
        }
        !self.with(|request| request.interrupted)
    }

    fn print(&mut self, text: &str) {
        self.say(Stream::Out, text.as_bytes());
    }

    fn print_error(&mut self, text: &str) {
        self.say(Stream::Err, text.as_bytes());
    }

    fn random(&mut self) -> [u8; 16] {
        self.dom0().random()
    }

    fn now(&mut self) -> u64 {
        time::now()
    }

    fn wall_clock(&mut self) -> u64 {
        time::wall_clock()
    }

    fn wait(&mut self, deadline: u64) -> bool {
        loop {
            if self.with(|request| request.interrupted) {
                return false;
            }
            if time::now() >= deadline {
                return true;
            }
            self.pause(Some(deadline));
        }
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn domains(&mut self) -> &mut Domains {
        &mut self.door.context().domains
    }

    fn images(&mut self) -> &mut Images {
        &mut self.door.context().images
    }

    fn power(&mut self, action: PowerAction) {
        // The host hears that it worked before there is nobody left to say so.
        self.with(|request| request.finish(0));
        let deadline = time::now() + GOODBYE;
        while time::now() < deadline && self.door.context().control.request(self.key).is_some() {
            self.pause(Some(deadline));
        }
        let settle = time::now() + GOODBYE / 10;
        while time::now() < settle {
            self.pause(Some(settle));
        }
        self.dom0().power(action);
    }
}
