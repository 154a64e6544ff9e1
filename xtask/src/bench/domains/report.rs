//! What a control domain's script says of its rows, and what is made of it.

/// Stands before the name of a row whose times follow, a line each; their sum is the row's.
pub const TIME: &str = "row: ";
/// Stands before a number of domains of 8 MiB and the name of a row: the free memory before and after them follows, and where
/// the hypervisor has a heap of its own, before each of the two what is in use of that.
pub const MEMORY: &str = "memory of ";
/// Stands before the name of a row whose number of domains follows; the control domain is one of them.
pub const COUNT: &str = "count: ";
/// What a line of free memory, and one of a number of domains, begins with.
pub const FREE: &str = "free_pages";
const DOMAINS_LINE: &str = "domains";

/// What stands around the KiB of the heap that are in use, in the hypervisor's log.
const HEAP: (&str, &str) = ("heap: ", " KiB in use");

/// Units.
pub const MILLIONS: &str = "M instructions";
pub const DOMAINS: &str = "domains";
const KIB: &str = "KiB";
/// What a domain of 8 MiB has for itself, in KiB.
const OWN: f64 = 8192.0;
const KIB_OF_A_PAGE: f64 = 4.0;

/// What was measured for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// Milliseconds of a clock that counts instructions.
    Millions(f64),
    /// Of memory.
    Kib(f64),
    /// How many there were.
    Domains(f64),
}

impl Figure {
    pub const fn number(&self) -> f64 {
        let (Self::Millions(n) | Self::Kib(n) | Self::Domains(n)) = self;
        *n
    }

    pub const fn unit(&self) -> &'static str {
        match self {
            Self::Millions(_) => MILLIONS,
            Self::Kib(_) => KIB,
            Self::Domains(_) => DOMAINS,
        }
    }
}

/// Rows by name, in the order of their first figures.
#[derive(Debug, Default)]
pub struct Figures(Vec<(String, Figure)>);

/// What the next figures belong to.
enum Row {
    Time(String),
    Memory { name: String, domains: f64, heap: Vec<f64>, free_before: Option<f64> },
    Count(String),
}

impl Figures {
    pub fn iter(&self) -> impl Iterator<Item = &(String, Figure)> {
        self.0.iter()
    }

    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, figure)| figure)
    }

    /// Takes a row away.
    pub fn forget(&mut self, name: &str) {
        self.0.retain(|(other, _)| other != name);
    }

    /// Adds what a machine has said.
    pub fn add(&mut self, text: &str) {
        let mut row = None;
        for line in text.lines() {
            row = begins(line).or_else(|| self.goes_on(row.take(), line));
        }
    }

    /// Takes a figure for a row; says what row the next one is for.
    fn goes_on(&mut self, row: Option<Row>, line: &str) -> Option<Row> {
        match row? {
            Row::Time(name) => {
                if let Some(time) = line.strip_suffix(" ms").and_then(|time| time.trim().parse::<f64>().ok()) {
                    let before = self.get(&name).map_or(0.0, Figure::number);
                    self.set(&name, Figure::Millions(before + time));
                }
                Some(Row::Time(name))
            }
            Row::Memory { name, domains, mut heap, free_before } => {
                heap.extend(in_use(line));
                let free = value(line, FREE);
                if let (Some(after), Some(before)) = (free, free_before) {
                    let heap = heap.last().zip(heap.first()).map_or(0.0, |(last, first)| last - first);
                    let frames = (before - after) * KIB_OF_A_PAGE;
                    self.set(&name, Figure::Kib((frames + heap) / domains - OWN));
                    return None;
                }
                Some(Row::Memory { name, domains, heap, free_before: free_before.or(free) })
            }
            Row::Count(name) => {
                let Some(domains) = value(line, DOMAINS_LINE) else { return Some(Row::Count(name)) };
                self.set(&name, Figure::Domains(domains - 1.0));
                None
            }
        }
    }

    fn set(&mut self, name: &str, figure: Figure) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = figure,
            None => self.0.push((name.to_owned(), figure)),
        }
    }
}

/// The row that a line begins.
fn begins(line: &str) -> Option<Row> {
    if let Some(name) = line.strip_prefix(TIME) {
        return Some(Row::Time(name.trim().to_owned()));
    }
    if let Some(name) = line.strip_prefix(COUNT) {
        return Some(Row::Count(name.trim().to_owned()));
    }
    let (domains, name) = line.strip_prefix(MEMORY)?.split_once(": ")?;
    Some(Row::Memory {
        name: name.trim().to_owned(),
        domains: domains.parse().ok()?,
        heap: Vec::new(),
        free_before: None,
    })
}

/// What is in use of the heap.
fn in_use(line: &str) -> Option<f64> {
    line.split_once(HEAP.0)?.1.split_once(HEAP.1)?.0.trim().parse().ok()
}

/// The number in a line of a name, a colon and a number.
fn value(line: &str, name: &str) -> Option<f64> {
    let (word, number) = line.split_once(':')?;
    if word.trim() == name { number.trim().parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_what_follows_it() {
        let mut figures = Figures::default();
        figures.add("row: a\ncreating\n1.250 ms\n3.000 ms\nrow: b\n2.5 ms\n");
        figures.add("memory of 10: c\n(XEN) heap: 100 KiB in use\nfree_pages             : 30000\nheap: 120 KiB in use of 200\nx\nfree_pages : 9400\ncount: d\ndomains     : 8\nrow: e\n");
        let all: Vec<_> = figures.iter().map(|(name, figure)| (name.as_str(), *figure)).collect();
        assert_eq!(
            all,
            [
                ("a", Figure::Millions(4.25)),
                ("b", Figure::Millions(2.5)),
                ("c", Figure::Kib(50.0)),
                ("d", Figure::Domains(7.0))
            ]
        );
    }
}
