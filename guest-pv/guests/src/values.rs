//! Values that guests print to be compared between two hypervisors: `# values NAME: CASE=VALUE CASE=VALUE`.
//!
//! A line is printed at once when it is complete, since the hypervisor may have something to say meanwhile.

use core::fmt::Write;
use guest_pv::alloc::string::String;
use guest_pv::println;

/// A line that is being made.
#[derive(Debug)]
pub struct Line(String);

impl Line {
    /// Begins the line of that name.
    pub fn new(name: &str) -> Self {
        Self(String::from(name) + ":")
    }

    /// Adds a value. Neither name nor value holds a space.
    pub fn value(&mut self, name: &str, value: &str) {
        // A String takes everything.
        let _ = write!(self.0, " {name}={value}");
    }

    /// Prints the line.
    pub fn print(self) {
        println!("# values {}", self.0);
    }
}
