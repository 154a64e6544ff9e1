//! What the toolstack's commands need of the program they run in.

use crate::dom0::Dom0;
use crate::files;
use crate::service::log::Log;
use crate::terminal::DETACH;
use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use guest_pv::{power, time};
use toolstack::domains::Domains;
use toolstack::host::{Access, ConsoleEnd, Consoles, Host, Permission, PowerAction, Seed, Store};
use toolstack::images::Images;
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Port};
use xenstore::NO_TRANSACTION;
use xenstore::permission::{Entry, Permissions, Rights};

impl_xen_calls!(Dom0);

/// Who all this is for.
const SELF: DomId = DomId(0);

fn permissions_of(permissions: &[Permission]) -> Result<Permissions, Errno> {
    let entry = |permission: &Permission| {
        let rights = match permission.access {
            Access::None => Rights::empty(),
            Access::Read => Rights::READ,
            Access::Write => Rights::WRITE,
            Access::Both => Rights::READ | Rights::WRITE,
        };
        Entry { dom: permission.dom, rights }
    };
    let entries: Vec<Entry> = permissions.iter().map(entry).collect();
    Permissions::new(&entries)
}

impl Store for Dom0 {
    fn store_read(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        Ok(self.xenstored.store.read(SELF, NO_TRANSACTION, path.as_bytes())?.to_vec())
    }

    fn store_write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        self.xenstored.store.write(SELF, NO_TRANSACTION, path.as_bytes(), value)
    }

    fn store_mkdir(&mut self, path: &str) -> Result<(), Errno> {
        self.xenstored.store.mkdir(SELF, NO_TRANSACTION, path.as_bytes())
    }

    fn store_rm(&mut self, path: &str) -> Result<(), Errno> {
        let store = &mut self.xenstored.store;
        // The store itself does not mind when there is nothing to remove.
        store.permissions(SELF, NO_TRANSACTION, path.as_bytes())?;
        store.rm(SELF, NO_TRANSACTION, path.as_bytes())
    }

    fn store_list(&mut self, path: &str) -> Result<Vec<String>, Errno> {
        let names = self.xenstored.store.directory(SELF, NO_TRANSACTION, path.as_bytes())?;
        Ok(names.iter().map(ToString::to_string).collect())
    }

    fn store_set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Errno> {
        let permissions = permissions_of(permissions)?;
        self.xenstored.store.set_permissions(SELF, NO_TRANSACTION, path.as_bytes(), &permissions)
    }

    fn store_plant(&mut self, path: &str, seeds: &[Seed<'_>]) -> Result<(), Errno> {
        let mut seen: Vec<(&[Permission], Permissions)> = Vec::new();
        let mut planted = Vec::with_capacity(seeds.len());
        for seed in seeds {
            let permissions = match seed.permissions {
                None => None,
                // Most nodes of a tree share theirs with others.
                Some(wanted) => Some(match seen.iter().find(|(known, _)| core::ptr::eq(*known, wanted)) {
                    Some((_, permissions)) => permissions.clone(),
                    None => {
                        let made = permissions_of(wanted)?;
                        seen.push((wanted, made.clone()));
                        made
                    }
                }),
            };
            planted.push(xenstore::Seed { path: &seed.path, value: seed.value.as_bytes(), permissions });
        }
        self.xenstored.store.plant(SELF, path.as_bytes(), planted.into_iter())
    }

    fn store_each_child(&mut self, path: &str, key: &str) -> Result<Vec<(String, Vec<u8>)>, Errno> {
        let all = self.xenstored.store.each_child(SELF, path.as_bytes(), key)?;
        Ok(all.into_iter().map(|(name, value)| (name.as_ref().into(), value.to_vec())).collect())
    }

    fn store_introduce(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.store_release(dom);
        let port = self.xenstored.introduce(dom, frame, port)?;
        self.route_store(port, dom);
        Ok(())
    }

    fn store_release(&mut self, dom: DomId) {
        // Its devices' nodes may be gone already: then nothing of them may stay mapped.
        self.serve_devices();
        self.blk.domain_gone(dom);
        let port = self.xenstored.release(dom);
        self.unroute(port);
    }
}

impl Consoles for Dom0 {
    fn console_attach(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.console_detach(dom);
        let port = self.consoled.attach(dom, frame, port)?;
        self.route_console(port, dom);
        Ok(())
    }

    fn console_detach(&mut self, dom: DomId) {
        let port = self.consoled.detach(dom);
        self.unroute(port);
    }

    fn console_interact(&mut self, dom: DomId) -> Result<ConsoleEnd, Errno> {
        if !self.consoled.is_live(dom) {
            return Err(Errno::ESRCH);
        }
        if let Some(log) = self.consoled.log(dom) {
            log.step_back();
        }
        let name = toolstack::store::name_of(self, dom);
        let mut dom = dom;
        // Last words come before the news that somebody died.
        self.hold_notices();
        let end = loop {
            self.show_console(dom);
            if !self.consoled.is_live(dom) {
                self.terminal.end_line();
                self.show_notices();
                // A domain that restarts has another number.
                match name.as_deref().and_then(|name| self.domain_by_name(name)) {
                    Some(next) if self.consoled.is_live(next) => dom = next,
                    _ => break ConsoleEnd::Gone,
                }
            }
            self.show_notices();
            let mut keys = Vec::new();
            let mut detached = false;
            while !detached
                && keys.len() < self.consoled.room(dom)
                && let Some(key) = self.terminal.key()
            {
                match key {
                    DETACH => detached = true,
                    key => keys.push(key),
                }
            }
            self.consoled.type_in(dom, &keys);
            if detached {
                break ConsoleEnd::Detached;
            }
            self.pump(None);
        };
        self.release_notices();
        self.terminal.end_line();
        Ok(end)
    }

    fn console_until(&mut self, dom: DomId, text: &str, timeout: Option<u64>) -> Result<ConsoleEnd, Errno> {
        let deadline = timeout.map(|timeout| time::now().saturating_add(timeout));
        let mut from = self.consoled.log(dom).ok_or(Errno::ESRCH)?.start();
        let mut looked = None;
        // Last words come before the news that somebody died.
        self.hold_notices();
        let end = loop {
            let live = self.consoled.is_live(dom);
            let Some(log) = self.consoled.log(dom) else {
                break ConsoleEnd::Gone;
            };
            let is_new = looked != Some(log.end());
            looked = Some(log.end());
            let found = if is_new { log.find(text.as_bytes(), from) } else { None };
            let upto = found.unwrap_or(log.end());
            let unseen = log.between(log.seen, upto);
            log.seen = log.seen.max(upto);
            // The text may begin in what is there and end in what is to come.
            from = from.max(log.end().saturating_sub(text.len() as u64));
            self.terminal.write(&unseen);
            if found.is_some() {
                break ConsoleEnd::Found;
            }
            if !live {
                break ConsoleEnd::Gone;
            }
            if deadline.is_some_and(|deadline| time::now() >= deadline) {
                break ConsoleEnd::TimedOut;
            }
            if self.terminal.take_interrupt() {
                break ConsoleEnd::Detached;
            }
            self.pump(deadline);
        };
        self.terminal.end_line();
        self.release_notices();
        Ok(end)
    }
}

impl Dom0 {
    /// Prints what the user has not seen of a domain's console.
    fn show_console(&mut self, dom: DomId) {
        let text = self.consoled.log(dom).map(Log::unseen).unwrap_or_default();
        self.terminal.write(&text);
    }

    pub fn domain_by_name(&mut self, name: &str) -> Option<DomId> {
        let all = toolstack::cmd::all_domains(self).ok()?;
        let found = all.iter().find(|info| toolstack::store::name_of(self, info.id).as_deref() == Some(name));
        found.map(|info| info.id)
    }
}

/// `ENOMEM`: there is no room for a copy.
fn copied(content: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(content.len()).map_err(|_| Errno::ENOMEM)?;
    copy.extend_from_slice(content);
    Ok(copy)
}

impl Host for Dom0 {
    fn file(&mut self, path: &str) -> Result<Cow<'static, [u8]>, Errno> {
        if let Some(content) = self.control.uploads.get(path) {
            return copied(content).map(Cow::Owned);
        }
        if path.starts_with(files::ROOT) {
            return files::content(self, path).map(Cow::Owned);
        }
        self.files.get(path).map(Cow::Borrowed).ok_or(Errno::ENOENT)
    }

    fn open_volume(&mut self, path: &str) -> Result<(), String> {
        if path.starts_with(files::ROOT) { files::open_volume(self, path) } else { Ok(()) }
    }

    fn save(&mut self, name: &str) -> Result<(), Errno> {
        self.saved.begin(name)
    }

    fn save_bytes(&mut self, bytes: &[u8]) -> bool {
        self.saved.add(bytes)
    }

    fn room(&self) -> u64 {
        self.saved.room() as u64
    }

    fn print(&mut self, text: &str) {
        self.terminal.write(text.as_bytes());
    }

    fn print_error(&mut self, text: &str) {
        self.terminal.write(text.as_bytes());
    }

    fn random(&mut self) -> [u8; 16] {
        // For names that must differ, not for secrets.
        let mut state = time::tsc() ^ time::wall_clock().rotate_left(32);
        let mut bytes = [0; 16];
        for chunk in bytes.chunks_mut(8) {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state ^ time::tsc();
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes());
        }
        bytes
    }

    fn now(&mut self) -> u64 {
        time::now()
    }

    fn wall_clock(&mut self) -> u64 {
        time::wall_clock()
    }

    fn wait(&mut self, deadline: u64) -> bool {
        while time::now() < deadline {
            self.pump(Some(deadline));
            if self.terminal.take_interrupt() {
                return false;
            }
        }
        true
    }

    fn is_alone(&self) -> bool {
        true
    }

    fn domains(&mut self) -> &mut Domains {
        &mut self.domains
    }

    fn images(&mut self) -> &mut Images {
        &mut self.images
    }

    fn power(&mut self, action: PowerAction) {
        match action {
            PowerAction::Off => power::off(),
            PowerAction::Reboot => power::reboot(),
        }
    }
}
