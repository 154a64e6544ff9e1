//! The hypervisor's command line: words `name`, `no-name` and `name=value`, separated by blanks.

/// A command line, as a view of its words.
#[derive(Clone, Copy, Debug)]
pub struct CommandLine<'a>(pub &'a str);

impl<'a> CommandLine<'a> {
    /// All words as (name, value); a word without `=` has the empty value.
    pub fn options(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    /// The value of the last option of that name; `Some("")` for a bare word.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.options().filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    }

    /// Whether a boolean option is on: `name`, `name=yes|on|true|enable|1`; off: `no-name`, `name=no|off|false|...`.
    #[must_use]
    pub fn flag(self, name: &str, default: bool) -> bool {
        let mut result = default;
        for (key, value) in self.options() {
            if key == name {
                result = !matches!(value, "no" | "off" | "false" | "disable" | "0");
            } else if key.strip_prefix("no-") == Some(name) {
                result = false;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_option_wins() {
        let line = CommandLine("console=vga noreboot  console=com1 no-smap com1=115200,8n1");
        assert_eq!(line.value("console"), Some("com1"));
        assert_eq!(line.value("noreboot"), Some(""));
        assert_eq!(line.value("absent"), None);
        assert!(line.flag("noreboot", false));
        assert!(!line.flag("smap", true));
    }
}
