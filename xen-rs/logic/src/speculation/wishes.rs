//! `spec-ctrl=`, `pv-l1tf=` and `ept=exec-sp`, as Xen's docs/misc/xen-command-line describes them for 4.17.

/// What is asked for PV guests and for those in containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// For PV guests.
    pub pv: Option<bool>,
    /// For those in containers.
    pub containers: Option<bool>,
}

impl Kinds {
    const OFF: Kinds = Kinds { pv: Some(false), containers: Some(false) };

    fn say(&mut self, said: Kinds) {
        *self = Kinds { pv: said.pv.or(self.pv), containers: said.containers.or(self.containers) };
    }
}

/// What the administrator asks for; `None`: what the hardware needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// VERW before each return to a guest.
    pub verw: Kinds,
    /// IBPB at each entry.
    pub ibpb_entry: Kinds,
    /// The first-level cache flushed before a container is entered.
    pub l1d_flush: Option<bool>,
    /// The return stack filled at each entry.
    pub rsb: Option<bool>,
    /// IBPB between vCPUs.
    pub ibpb: Option<bool>,
    /// IBRS.
    pub ibrs: Option<bool>,
    /// LFENCE made to serialize.
    pub lfence: Option<bool>,
    /// Entries checked against L1TF: the control domain's.
    pub l1tf_control: Option<bool>,
    /// Other domains'.
    pub l1tf_guests: Option<bool>,
    /// Code in large pages of PVH guests, on a CPU of Intel's.
    pub large_code: Option<bool>,
}

/// Parts that name what is not here: features that no guest is shown, Intel's microcode.
const WITHOUT_EFFECT: &[&str] = &[
    "msr-sc",
    "bti-thunk",
    "stibp",
    "ssbd",
    "psfd",
    "eager-fpu",
    "branch-harden",
    "srb-lock",
    "unpriv-mmio",
    "gds-mit",
    "div-scrub",
    "bhb-entry",
    "bhb-seq",
];

/// A part: its name, what it says, and the text after `=`.
struct Part<'a> {
    name: &'a str,
    on: bool,
    text: Option<&'a str>,
}

fn part(text: &str) -> Part<'_> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let (name, denied) = name.strip_prefix("no-").map_or((name, false), |name| (name, true));
    let on = match value {
        Some("0" | "no" | "off" | "false" | "disable") => denied,
        _ => !denied,
    };
    Part { name, on, text: value }
}

/// Whether a part is a boolean by itself.
fn alone(text: &str) -> Option<bool> {
    match text {
        "1" | "yes" | "on" | "true" | "enable" => Some(true),
        "0" | "no" | "off" | "false" | "disable" => Some(false),
        _ => None,
    }
}

impl Wishes {
    /// Nothing is done that costs something.
    fn deny(&mut self) {
        let Wishes { l1tf_control, l1tf_guests, large_code, .. } = *self;
        *self = Wishes { l1tf_control, l1tf_guests, large_code, ..Wishes::ALL_OFF };
    }

    const ALL_OFF: Wishes = Wishes {
        verw: Kinds::OFF,
        ibpb_entry: Kinds::OFF,
        l1d_flush: Some(false),
        rsb: Some(false),
        ibpb: Some(false),
        ibrs: Some(false),
        lfence: Some(false),
        l1tf_control: None,
        l1tf_guests: None,
        large_code: None,
    };

    /// Reads `spec-ctrl=`. The first part that nobody knows is handed back; the others count all the same.
    pub fn spec_ctrl<'a>(&mut self, text: &'a str) -> Result<(), &'a str> {
        let mut unknown = Ok(());
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match alone(word) {
                Some(false) => {
                    self.deny();
                    (self.l1tf_control, self.l1tf_guests) = (Some(false), Some(false));
                    continue;
                }
                // On is what the hardware needs.
                Some(true) => continue,
                None => {}
            }
            let Part { name, on, text } = part(word);
            // `verw=pv`, `rsb=hvm=no`, ...: for one kind of guests only.
            let said = match text.map(part) {
                Some(Part { name: "hvm", on, .. }) => Kinds { containers: Some(on), ..Kinds::default() },
                Some(Part { name: "pv", on, .. }) => Kinds { pv: Some(on), ..Kinds::default() },
                _ => Kinds { pv: Some(on), containers: Some(on) },
            };
            match name {
                "xen" if !on => self.deny(),
                "xen" => {}
                "pv" => {
                    self.rsb = Some(on);
                    (self.verw.pv, self.ibpb_entry.pv) = (Some(on), Some(on));
                }
                "hvm" => (self.verw.containers, self.ibpb_entry.containers) = (Some(on), Some(on)),
                // At the ways out of containers it is always filled.
                "rsb" => self.rsb = said.pv.or(self.rsb),
                "verw" | "md-clear" => self.verw.say(said),
                "ibpb" => self.ibpb = Some(on),
                "ibpb-entry" => self.ibpb_entry.say(said),
                "l1d-flush" => self.l1d_flush = Some(on),
                "ibrs" => self.ibrs = Some(on),
                _ if WITHOUT_EFFECT.contains(&name) => {}
                _ => unknown = unknown.and(Err(word)),
            }
        }
        unknown
    }

    /// Reads `ept=`.
    pub fn ept<'a>(&mut self, text: &'a str) -> Result<(), &'a str> {
        let mut unknown = Ok(());
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match part(word) {
                Part { name: "exec-sp", on, .. } => self.large_code = Some(on),
                // Accessed and dirty flags are used where they are; a log of dirty pages is not kept.
                Part { name: "ad" | "pml", .. } => {}
                _ => unknown = unknown.and(Err(word)),
            }
        }
        unknown
    }

    /// Reads `pv-l1tf=`, or the bare option.
    pub fn pv_l1tf<'a>(&mut self, text: Option<&'a str>) -> Result<(), &'a str> {
        let mut unknown = Ok(());
        let Some(text) = text else {
            (self.l1tf_control, self.l1tf_guests) = (Some(true), Some(true));
            return Ok(());
        };
        for word in text.split(',').filter(|word| !word.is_empty()) {
            if let Some(on) = alone(word) {
                (self.l1tf_control, self.l1tf_guests) = (Some(on), Some(on));
                continue;
            }
            match part(word) {
                Part { name: "dom0", on, .. } => self.l1tf_control = Some(on),
                Part { name: "domu", on, .. } => self.l1tf_guests = Some(on),
                _ => unknown = unknown.and(Err(word)),
            }
        }
        unknown
    }
}
