//! `spec-ctrl=`, `pv-l1tf=` and `ept=exec-sp`, as Xen's docs/misc/xen-command-line describes them for 4.17.

/// What the administrator asks for; `None`: what the hardware needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// VERW before each return to a guest.
    pub verw: Option<bool>,
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

/// Parts that name what is not here: HVM domains, features that no guest is shown, Intel's microcode.
const WITHOUT_EFFECT: &[&str] = &[
    "hvm",
    "msr-sc",
    "bti-thunk",
    "stibp",
    "ssbd",
    "psfd",
    "eager-fpu",
    "l1d-flush",
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
        verw: Some(false),
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
            let (on, ours) = match text.map(part) {
                Some(Part { name: "hvm", .. }) => (on, false),
                Some(Part { name: "pv", on, .. }) => (on, true),
                _ => (on, true),
            };
            match name {
                "xen" if !on => self.deny(),
                "xen" => {}
                "pv" if !on => (self.rsb, self.verw) = (Some(false), Some(false)),
                "pv" => (self.rsb, self.verw) = (Some(true), Some(true)),
                "rsb" if ours => self.rsb = Some(on),
                "verw" | "md-clear" if ours => self.verw = Some(on),
                "ibpb" => self.ibpb = Some(on),
                "ibpb-entry" => {}
                "ibrs" => self.ibrs = Some(on),
                "rsb" | "verw" | "md-clear" => {}
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
