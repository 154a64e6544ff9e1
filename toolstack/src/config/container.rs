//! Keys of xl.cfg for domains in hardware containers. What a PVH domain cannot have is refused where it is asked for; for a PV
//! domain they mean nothing.

use alloc::format;
use alloc::string::{String, ToString};

use super::domain::Reader;
use super::error::{ConfigError, Place};
use super::kind::DomainType;
use super::syntax::{Located, Value};

/// Truth values, what of each a PVH domain always has, and why.
const FIXED: [(&str, u64, &str); 3] = [
    ("nestedhvm", 0, "containers within containers are not supported"),
    ("hap", 1, "memory is mapped by nested page tables, and there are no shadow ones"),
    ("acpi", 1, "its kernel finds its CPUs in the ACPI tables"),
];
/// As in xl they are for HVM domains alone.
const HVM_ONLY: [&str; 2] = ["apic", "viridian"];
/// The values of `passthrough`: those that ask for nothing, and the others.
const NO_DEVICES: [&str; 2] = ["default", "disabled"];
const DEVICES: [&str; 3] = ["enabled", "sync_pt", "share_pt"];
/// The most of `shadow_memory`, MiB.
const MOST_TABLES_MIB: u64 = 1 << 20;

impl Reader {
    /// Looks at those keys; memory for the hypervisor's tables, KiB, if something is said of it.
    pub(super) fn container(&mut self, kind: DomainType) -> Result<Option<u64>, ConfigError> {
        self.devices(kind)?;
        if kind != DomainType::Pvh {
            return Ok(None);
        }
        for (key, always, why) in FIXED {
            if let Some(Located { value, place }) = self.number(key, 0..=1)?
                && value != always
            {
                return Err(refused(place, &format!("{key}={value}"), why));
            }
        }
        for key in HVM_ONLY {
            if let Some(Located { place, .. }) = self.get(key).cloned() {
                let message = format!("{key} is for HVM domains and has no effect");
                self.warnings.push(ConfigError { place, message });
            }
        }
        Ok(self.number("shadow_memory", 1..=MOST_TABLES_MIB)?.map(|mib| mib.value * 1024))
    }

    /// `pci` and `passthrough`, which a PV domain does without.
    fn devices(&mut self, kind: DomainType) -> Result<(), ConfigError> {
        let devices = self.get("pci").filter(|devices| devices.value != Value::List([].into())).cloned();
        let mut asked = devices.map(|devices| ("pci".to_string(), devices.place));
        if let Some(Located { value, place }) = self.text("passthrough")? {
            if DEVICES.contains(&&*value) {
                asked = asked.or(Some((format!("passthrough=\"{value}\""), place)));
            } else if !NO_DEVICES.contains(&&*value) {
                let all = [&NO_DEVICES[..], &DEVICES].concat().join(", ");
                let message = format!("passthrough must be one of {all}, not \"{value}\"");
                return Err(ConfigError { place, message });
            }
        }
        let Some((what, place)) = asked else { return Ok(()) };
        match kind {
            DomainType::Pvh => Err(refused(place, &what, "it cannot be given devices of the machine")),
            DomainType::Pv => {
                let message = format!("{what} is not supported yet and has no effect");
                self.warnings.push(ConfigError { place, message });
                Ok(())
            }
        }
    }
}

fn refused(place: Place, what: &str, why: &str) -> ConfigError {
    let message: String = format!("a PVH domain cannot have {what}: {why}");
    ConfigError { place, message }
}
