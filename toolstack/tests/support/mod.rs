//! A machine made of tables: a hypervisor that counts pages, a xenstore that is a map, a terminal that is a string.
#![allow(dead_code, reason = "each test file uses its part")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use toolstack::calls::{
    Affinity, Clear, CpuPolicy, DomainInfo, Fill, Kind, NewDomain, PhysInfo, PoolChange, PoolInfo, Schedule, Share,
    VcpuInfo, VersionInfo, XenCalls,
};
use toolstack::config::Uuid;
use toolstack::cpus::CpuSet;
use toolstack::domains::Domains;
use toolstack::host::{Access, ConsoleEnd, Consoles, Host, Permission, PowerAction, Store};
use toolstack::images::Images;
use xen_abi::arch_x86::{CpuidLeaf, VcpuGuestContext};
use xen_abi::errno::Errno;
use xen_abi::ids::{DomId, Mfn, Pfn, Port, VcpuId};
use xen_abi::memory::E820Entry;
use xen_abi::physdev::PciDevice;
use xen_abi::sysctl::{CpuTopo, MemInfo, XEN_INVALID_DEV, XEN_INVALID_NODE_ID};

mod calls;
#[path = "../../image/tests/support/mod.rs"]
pub mod kernels;

pub struct Domain {
    pub info: DomainInfo,
    pub new: NewDomain,
    pub ports: u32,
    pub pinned: Option<Mfn>,
    pub context: Option<Box<VcpuGuestContext>>,
    pub pauses: u32,
    pub max_mem_kib: u64,
    pub memory_map: Vec<E820Entry>,
    pub paging_pool: u64,
    /// HVM_PARAM_*.
    pub params: BTreeMap<u32, u64>,
    pub hvm_context: Vec<u8>,
    pub hypercall_page: Option<Mfn>,
    /// Hard and soft, by vCPU.
    pub affinity: BTreeMap<u32, (CpuSet, CpuSet)>,
    /// What was sent, and to which vCPU.
    pub triggers: Vec<(u32, u32)>,
    pub share: Share,
}

pub struct Frame {
    pub owner: DomId,
    pub bytes: Option<Box<[u8; 4096]>>,
}

pub type Nodes = BTreeMap<String, (Vec<u8>, Vec<Permission>)>;

pub struct Machine {
    pub domains: BTreeMap<u16, Domain>,
    pub frames: BTreeMap<u64, Frame>,
    /// Frames that cannot be mapped.
    pub broken: Vec<Mfn>,
    pub free: u64,
    pub next_mfn: u64,
    /// What was saved for the user.
    pub saved: Option<(String, Vec<u8>)>,
    /// How much there is room for.
    pub room: u64,
    pub next_dom: u16,
    /// `XEN_SYSCTL_PHYSCAP_*`.
    pub capabilities: u32,
    /// No 2 MiB extents are left when false.
    pub superpages: bool,
    /// Calls that may fail until one does; None for never.
    pub fuse: Option<u32>,
    pub blown: Option<&'static str>,
    /// How often `destroydomain` wants to be called again.
    pub destroy_rounds: u32,
    pub store: Nodes,
    pub introduced: Vec<(DomId, Mfn, Port)>,
    pub consoles: Vec<(DomId, Mfn, Port)>,
    pub files: BTreeMap<String, Vec<u8>>,
    pub out: String,
    pub err: String,
    pub clock: u64,
    pub cpus: u32,
    /// The node of one of its devices.
    pub device_node: u32,
    pub schedule: Schedule,
    pub pools: BTreeMap<u32, PoolInfo>,
    pub records: Domains,
    pub images: Images,
    pub power: Option<PowerAction>,
    pub console_end: ConsoleEnd,
    /// Whether guests let go of a disk.
    pub disks_answer: bool,
    /// Domains that end when waited for: number and reason.
    pub dying_wish: Vec<(u16, u32)>,
    /// Whether no other program makes domains.
    pub alone: bool,
    /// What another command does while one waits.
    pub meanwhile: Option<fn(&mut Self)>,
    /// Whether their ends are reacted to before a command that waits looks again.
    pub reacts: bool,
}

impl Default for Machine {
    fn default() -> Self {
        let mut this = Self {
            domains: BTreeMap::new(),
            frames: BTreeMap::new(),
            free: 0x1_0000,
            next_mfn: 0x1_0000,
            broken: Vec::new(),
            saved: None,
            room: u64::MAX,
            next_dom: 1,
            capabilities: 0x31b,
            superpages: true,
            fuse: None,
            blown: None,
            destroy_rounds: 2,
            store: Nodes::new(),
            introduced: Vec::new(),
            consoles: Vec::new(),
            files: BTreeMap::new(),
            out: String::new(),
            err: String::new(),
            clock: 5_000_000_000,
            cpus: 1,
            device_node: XEN_INVALID_NODE_ID,
            schedule: Schedule { time_slice_ms: 30, rate_limit_us: 1000, migration_delay_us: 0 },
            pools: BTreeMap::from([(
                0,
                PoolInfo { id: 0, scheduler: 6, domains: 0, cpus: CpuSet([0b1111, 0, 0, 0, 0, 0, 0, 0]) },
            )]),
            records: Domains::default(),
            images: Images::new(64 << 20),
            power: None,
            console_end: ConsoleEnd::Found,
            disks_answer: true,
            dying_wish: Vec::new(),
            alone: false,
            meanwhile: None,
            reacts: false,
        };
        let info = DomainInfo {
            flags: DomainInfo::RUNNING,
            tot_pages: 0x8000,
            online_vcpus: 1,
            cpu_time: 1_230_000_000,
            ..Default::default()
        };
        this.domains.insert(
            0,
            Domain::new(
                info,
                NewDomain {
                    uuid: Uuid::default(),
                    kind: Kind::Pv,
                    max_vcpus: 1,
                    max_evtchn_port: 1023,
                    max_grant_frames: -1,
                    max_maptrack_frames: -1,
                    max_grant_version: 1,
                    pool: 0,
                },
            ),
        );
        this.store_write("/local/domain/0/name", b"Domain-0").unwrap();
        this
    }
}

impl Domain {
    fn new(info: DomainInfo, new: NewDomain) -> Self {
        Self {
            info,
            new,
            ports: 0,
            pinned: None,
            context: None,
            pauses: 0,
            max_mem_kib: 0,
            memory_map: Vec::new(),
            paging_pool: 0,
            params: BTreeMap::new(),
            hvm_context: Vec::new(),
            hypercall_page: None,
            affinity: BTreeMap::new(),
            triggers: Vec::new(),
            share: Share { weight: 256, cap: 0 },
        }
    }
}

/// What the machine holds: must be the same before and after a domain's life.
pub type Holdings = (u64, Vec<u16>, usize, Nodes, Vec<(DomId, Mfn, Port)>, Vec<(DomId, Mfn, Port)>);

impl Machine {
    /// With a kernel, a ramdisk and a configuration.
    pub fn with_guest() -> Self {
        let mut this = Self::default();
        this.files.insert("/files/vmlinuz".into(), kernels::small_kernel(0x20_1000, &[]));
        this.files.insert("/files/initrd".into(), (0..70_001u32).map(|i| (i % 251) as u8).collect());
        this.files.insert(
            "/files/debian.cfg".into(),
            b"name='debian'\nkernel='/files/vmlinuz'\nramdisk='/files/initrd'\nextra='console=hvc0'\nmemory=16\n"
                .to_vec(),
        );
        this
    }

    pub fn holdings(&self) -> Holdings {
        (
            self.free,
            self.domains.keys().copied().collect(),
            self.records.len(),
            self.store.clone(),
            self.introduced.clone(),
            self.consoles.clone(),
        )
    }

    /// Runs a command line; what it printed is in `out` and `err`.
    pub fn run(&mut self, line: &str) -> i32 {
        self.out.clear();
        self.err.clear();
        let mut status = 0;
        for words in toolstack::cmd::split(line).unwrap() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            status = toolstack::cmd::run(self, &words);
        }
        status
    }

    fn call(&mut self, what: &'static str) -> Result<(), Errno> {
        match &mut self.fuse {
            Some(0) => {
                self.fuse = None;
                self.blown = Some(what);
                Err(Errno::EIO)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn dom(&mut self, dom: DomId) -> Result<&mut Domain, Errno> {
        self.domains.get_mut(&dom.0).ok_or(Errno::ESRCH)
    }

    fn pool(&mut self, id: u32) -> Result<&mut PoolInfo, Errno> {
        self.pools.get_mut(&id).ok_or(Errno::ENOENT)
    }

    fn take_frame(&mut self, owner: DomId) -> Mfn {
        let mfn = self.next_mfn;
        self.next_mfn += 1;
        self.frames.insert(mfn, Frame { owner, bytes: None });
        Mfn(mfn)
    }

    pub fn frame(&self, mfn: Mfn) -> [u8; 4096] {
        // Memory comes dirty.
        self.frames[&mfn.0].bytes.as_deref().copied().unwrap_or([0xcc; 4096])
    }

    pub fn word(&self, mfn: Mfn, index: usize) -> u64 {
        u64::from_le_bytes(self.frame(mfn)[index * 8..index * 8 + 8].try_into().unwrap())
    }

    pub fn text(&self, path: &str) -> &str {
        core::str::from_utf8(&self.store[path].0).unwrap()
    }

    /// The domain shut down.
    pub fn ended(&mut self, dom: u16, reason: u32) {
        let info = &mut self.domains.get_mut(&dom).unwrap().info;
        info.flags = DomainInfo::SHUTDOWN | reason << 16;
    }
}

impl Machine {
    /// A back end for disks: what lies below `/dev` can be opened, and guests let go of their disks when asked.
    fn serve_disks(&mut self) -> bool {
        let mut any = false;
        let params: Vec<String> = self.store.keys().filter(|key| key.ends_with("/params")).cloned().collect();
        for path in params {
            let dir = path.strip_suffix("/params").unwrap().to_string();
            if !dir.starts_with("/local/domain/0/backend/vbd/") {
                continue;
            }
            if !self.store.contains_key(&format!("{dir}/hotplug-status")) {
                any = true;
                let good = self.text(&path).starts_with("/dev/");
                if !good {
                    self.store_write(&format!("{dir}/hotplug-error"), b"no such volume").unwrap();
                }
                let status = if good { "connected" } else { "error" };
                self.store_write(&format!("{dir}/hotplug-status"), status.as_bytes()).unwrap();
            }
            if self.text(&format!("{dir}/state")) == "5" && self.disks_answer {
                any = true;
                self.store_write(&format!("{dir}/state"), b"6").unwrap();
            }
        }
        any
    }
}

impl Store for Machine {
    fn store_read(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        self.store.get(path).map(|(value, _)| value.clone()).ok_or(Errno::ENOENT)
    }
    fn store_write(&mut self, path: &str, value: &[u8]) -> Result<(), Errno> {
        self.call("store_write")?;
        self.store_mkdir(path)?;
        self.store.get_mut(path).unwrap().0 = value.to_vec();
        Ok(())
    }
    fn store_mkdir(&mut self, path: &str) -> Result<(), Errno> {
        assert!(path.starts_with('/') && !path.contains("//") && !path.ends_with('/'), "{path}");
        if self.store.contains_key(path) {
            return Ok(());
        }
        let parent = path.rsplit_once('/').unwrap().0;
        let permissions = if parent.is_empty() {
            vec![Permission { dom: DomId(0), access: Access::None }]
        } else {
            self.store_mkdir(parent)?;
            self.store[parent].1.clone()
        };
        self.store.insert(path.into(), (Vec::new(), permissions));
        Ok(())
    }
    fn store_rm(&mut self, path: &str) -> Result<(), Errno> {
        if !self.store.contains_key(path) {
            return Err(Errno::ENOENT);
        }
        let below = format!("{path}/");
        self.store.retain(|key, _| key != path && !key.starts_with(&below));
        Ok(())
    }
    fn store_list(&mut self, path: &str) -> Result<Vec<String>, Errno> {
        let below = format!("{path}/");
        Ok(self
            .store
            .keys()
            .filter_map(|k| k.strip_prefix(&below))
            .filter(|k| !k.contains('/'))
            .map(Into::into)
            .collect())
    }
    fn store_set_permissions(&mut self, path: &str, permissions: &[Permission]) -> Result<(), Errno> {
        self.store.get_mut(path).ok_or(Errno::ENOENT)?.1 = permissions.to_vec();
        Ok(())
    }
    fn store_introduce(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.call("store_introduce")?;
        self.introduced.push((dom, frame, port));
        Ok(())
    }
    fn store_release(&mut self, dom: DomId) {
        self.introduced.retain(|(d, ..)| *d != dom);
    }
}

impl Consoles for Machine {
    fn console_attach(&mut self, dom: DomId, frame: Mfn, port: Port) -> Result<(), Errno> {
        self.call("console_attach")?;
        self.consoles.push((dom, frame, port));
        Ok(())
    }
    fn console_detach(&mut self, dom: DomId) {
        self.consoles.retain(|(d, ..)| *d != dom);
    }
    fn console_interact(&mut self, dom: DomId) -> Result<ConsoleEnd, Errno> {
        self.dom(dom)?;
        Ok(ConsoleEnd::Detached)
    }
    fn console_until(&mut self, dom: DomId, _: &str, _: Option<u64>) -> Result<ConsoleEnd, Errno> {
        self.dom(dom)?;
        Ok(self.console_end)
    }
}

impl Host for Machine {
    fn file(&mut self, path: &str) -> Result<Cow<'static, [u8]>, Errno> {
        self.files.get(path).cloned().map(Cow::Owned).ok_or(Errno::ENOENT)
    }
    fn save(&mut self, name: &str) -> Result<(), Errno> {
        self.saved = Some((name.into(), Vec::new()));
        Ok(())
    }
    fn save_bytes(&mut self, bytes: &[u8]) -> bool {
        self.saved.as_mut().unwrap().1.extend_from_slice(bytes);
        true
    }
    fn room(&self) -> u64 {
        self.room
    }
    fn print(&mut self, text: &str) {
        self.out.push_str(text);
    }
    fn print_error(&mut self, text: &str) {
        self.err.push_str(text);
    }
    fn random(&mut self) -> [u8; 16] {
        self.clock += 1;
        (u128::from(self.clock) * 0x1234_5678_9abc_def1).to_le_bytes()
    }
    fn now(&mut self) -> u64 {
        self.clock
    }
    fn wall_clock(&mut self) -> u64 {
        1_700_000_000_120_000_000
    }
    fn wait(&mut self, deadline: u64) -> bool {
        self.clock = self.clock.max(deadline);
        if let Some(other) = self.meanwhile.take() {
            other(self);
            return true;
        }
        if self.serve_disks() {
            return true;
        }
        match self.dying_wish.pop() {
            Some((dom, reason)) => self.ended(dom, reason),
            None => return false,
        }
        if self.reacts {
            toolstack::lifecycle::react(self);
        }
        true
    }
    fn is_alone(&self) -> bool {
        self.alone
    }
    fn domains(&mut self) -> &mut Domains {
        &mut self.records
    }
    fn images(&mut self) -> &mut Images {
        &mut self.images
    }
    fn power(&mut self, action: PowerAction) {
        self.power = Some(action);
    }
}
