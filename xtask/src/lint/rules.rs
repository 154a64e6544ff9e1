//! Rules for one source file: a header, a reason at each `unsafe`, no raw spin loop in the hypervisor, no left-overs.

use super::source::{Line, has_word, lines};
use super::{Finding, finding};
use crate::docs::unsafe_map;
use std::path::Path;

/// Crates that may hold unsafe code, as the starts of paths.
const UNSAFE_ALLOWED: [&str; 6] =
    ["xen-rs/machine/", "guest-pv/src/", "guest-pv/guests/", "dom0/hal/", "tests/boot-sector/", "tests/exerciser/"];

/// Where the hypervisor's code lies.
const HYPERVISOR: [&str; 1] = ["xen-rs/"];

/// Files of the hypervisor that may wait in a loop: the mailbox is what all other waiting goes through, and the
/// serial port waits for a device, not for another CPU.
const MAY_SPIN: [&str; 2] = ["mailbox", "serial"];

/// How many lines above a spin its reason may stand: a short loop's length.
const SPIN_REACH: usize = 8;

/// Lines of the longest file.
const LONGEST: usize = 500;

/// Proofs that only the machine floor can vouch for: that no lock is held, that every TLB was flushed. (The rules' own
/// crate defines them and its tests make some.)
const MINTED: [&str; 2] = ["Held::entry(", "Flushed::acknowledged("];

/// Where they may be made.
const MINTS: [&str; 2] = ["xen-rs/machine/", "xen-rs/logic/"];

/// Ways to copy from a guest's bare address, which forget the type and can be gone twice. Hypercalls have `guest::Handle`.
const BARE: [&str; 2] = ["guest_copy", "guest_words"];

/// Where hypercalls are.
const HYPERCALLS: [&str; 2] = ["xen-rs/src/hypercall/", "xen-rs/src/hvm/compat.rs"];

/// Files there that go such a way, each for an instruction count that a copy has not; what they take, they take once, and say
/// so.
const MAY_GO_BARE: [&str; 7] = [
    "xen-rs/src/hypercall/event_channel_op.rs",
    "xen-rs/src/hypercall/grant_table_op/copy/at_once.rs",
    "xen-rs/src/hypercall/grant_table_op/map.rs",
    "xen-rs/src/hypercall/grant_table_op/unmap.rs",
    "xen-rs/src/hypercall/iret.rs",
    "xen-rs/src/hypercall/mmu_update.rs",
    "xen-rs/src/hypercall/multicall.rs",
];

/// Words that end up in a file by mistake.
const LEFTOVERS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

fn below(file: &Path, places: &[&str]) -> bool {
    places.iter().any(|place| file.starts_with(place))
}

/// Checks one file.
pub fn check(file: &Path, text: &str) -> Vec<Finding> {
    let lines = lines(text);
    let mut findings = Vec::new();
    if !lines.first().is_some_and(|line| line.comment.starts_with("//!")) {
        findings.push(finding(file, 1, "no `//!` header that says what lives here"));
    }
    if lines.len() > LONGEST {
        findings.push(finding(file, LONGEST, format!("{} lines: split it by meaning", lines.len())));
    }
    if below(file, &UNSAFE_ALLOWED) && unsafe_map::any(&lines) && unsafe_map::reason(&lines).is_none() {
        findings.push(finding(file, 1, "holds unsafe code and does not say why: an `Unsafe:` line in its header"));
    }
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        if has_word(&line.code, "unsafe") {
            if !below(file, &UNSAFE_ALLOWED) && !attribute_only(&line.code) {
                findings.push(finding(file, number, "unsafe code is not allowed in this crate"));
            } else if let Some(missing) = missing_reason(&lines, index) {
                findings.push(finding(file, number, missing));
            }
        }
        if below(file, &HYPERVISOR) && spins(&lines, index) && !may_spin(file) && !has_spin_reason(&lines, index) {
            let rule =
                "a raw spin loop: wait through machine::mailbox, or say for which device in a `// SPIN:` comment";
            findings.push(finding(file, number, rule));
        }
        if below(file, &HYPERVISOR) && !below(file, &MINTS) {
            for proof in MINTED.into_iter().filter(|proof| line.code.contains(proof)) {
                findings.push(finding(file, number, format!("`{proof})` is for the machine floor to say")));
            }
        }
        if below(file, &HYPERCALLS) && !below(file, &MAY_GO_BARE) && BARE.iter().any(|way| has_word(&line.code, way)) {
            findings.push(finding(file, number, "a guest's memory by a bare address: take a `guest::Handle`"));
        }
        if has_bare_compile_fail(&line.comment) {
            let rule = "say with which error it fails: `compile_fail,E0000`";
            findings.push(finding(file, number, rule));
        }
        for leftover in LEFTOVERS.into_iter().filter(|leftover| line.code.contains(leftover)) {
            findings.push(finding(file, number, format!("left-over `{leftover}`")));
        }
    }
    findings
}

/// A documentation test that must not compile, for whatever reason.
fn has_bare_compile_fail(comment: &str) -> bool {
    comment.contains("```compile_fail") && !comment.contains("```compile_fail,E")
}

/// Checks the root file of a crate that must be free of unsafe code.
pub fn check_root(file: &Path, text: &str) -> Option<Finding> {
    let forbidden = lines(text).iter().any(|line| line.code.replace(' ', "").contains("#![forbid(unsafe_code)]"));
    (!below(file, &UNSAFE_ALLOWED) && !forbidden).then(|| finding(file, 1, "lacks #![forbid(unsafe_code)]"))
}

/// `unsafe` as part of an attribute of edition 2024, such as `#[unsafe(no_mangle)]`.
fn attribute_only(code: &str) -> bool {
    code.matches("unsafe").count() == code.matches("unsafe(").count()
}

/// What reason is missing at the `unsafe` of a line.
fn missing_reason(lines: &[Line], index: usize) -> Option<&'static str> {
    let code = &lines.get(index)?.code;
    let after = code.split("unsafe").nth(1)?.trim_start();
    // Not a use of unsafe code: an attribute, a trait's or function pointer's type, a foreign declaration.
    if after.starts_with('(') || after.starts_with("extern \"\" {") {
        return None;
    }
    let function = after.starts_with("fn") || after.starts_with("extern") || after.starts_with("trait");
    if function && is_type(code) {
        return None;
    }
    let above = comments_above(lines, index);
    if function {
        // A private one, or a trait's, has its reason where it is called or declared.
        if !has_word(code, "pub") {
            return None;
        }
        let told = above.iter().any(|text| text.contains("# Safety") || text.contains("SAFETY:"));
        return (!told).then_some("an unsafe fn without `# Safety` in its documentation");
    }
    let told = above.iter().any(|text| text.contains("SAFETY:"));
    (!told).then_some("unsafe without a `// SAFETY:` comment")
}

/// Whether `unsafe fn` here is a function pointer's type: nothing of a declaration stands before it.
fn is_type(code: &str) -> bool {
    let before = code.split("unsafe").next().unwrap_or_default();
    before.contains(':') || before.contains('(') || before.contains('=') || before.contains('<')
}

/// The comments of a statement and of the lines right above it, attributes skipped.
fn comments_above(lines: &[Line], index: usize) -> Vec<&str> {
    let mut found = Vec::new();
    // A comment may also stand inside, as the first line of the block.
    for line in lines.iter().skip(index).take(1).chain(lines.get(index + 1).filter(|line| line.only_comment())) {
        found.push(line.comment.as_str());
    }
    for line in lines.iter().take(index).rev() {
        let code = line.code.trim();
        let attribute = code.starts_with("#[") || code.ends_with(")]");
        if line.blank() || (!attribute && (code.ends_with(';') || code.ends_with('{') || code.ends_with('}'))) {
            break;
        }
        found.push(&line.comment);
    }
    found
}

/// Whether the line waits in a loop for something another CPU does.
fn spins(lines: &[Line], index: usize) -> bool {
    let Some(line) = lines.get(index) else { return false };
    let code = line.code.trim();
    let empty = code.starts_with("while ") && code.replace(' ', "").ends_with("{}");
    empty
        || has_word(code, "spin_loop")
        || code.contains("spin::Mutex")
        || code.contains("spin::RwLock")
        || watches(lines, index)
}

/// Whether a loop begins here that looks at an atomic word again and again and does not poll meanwhile.
fn watches(lines: &[Line], index: usize) -> bool {
    let Some(line) = lines.get(index) else { return false };
    let code = line.code.trim_start();
    let forever = code.starts_with("loop {");
    if !code.starts_with("while ") && !forever {
        return false;
    }
    let indent = line.code.len() - code.len();
    let ends =
        |line: &Line| line.code.trim_start().starts_with('}') && line.code.find('}').is_some_and(|at| at <= indent);
    let body: Vec<&str> =
        lines.iter().skip(index + 1).take_while(|line| !ends(line)).map(|line| line.code.as_str()).collect();
    let looks = |code: &str| code.contains(".load(Ordering");
    let header = !forever && looks(code);
    // Longer ones have work to do.
    let within = forever && body.len() <= SPIN_REACH && body.iter().any(|code| looks(code));
    (header || within) && !body.iter().any(|code| code.contains("relax(") || code.contains("poll("))
}

/// The mailbox and the serial port, and tests, which run on a host.
fn may_spin(file: &Path) -> bool {
    let name = file.to_string_lossy();
    MAY_SPIN.iter().any(|part| name.contains(part)) || name.contains("tests")
}

/// Whether one of the lines right above says what is waited for and why that cannot need this CPU.
fn has_spin_reason(lines: &[Line], index: usize) -> bool {
    let above = lines.get(index.saturating_sub(SPIN_REACH)..=index).unwrap_or_default();
    above.iter().any(|line| line.comment.contains("SPIN:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<String> {
        check(Path::new(file), text).into_iter().map(|found| format!("{}: {}", found.line, found.rule)).collect()
    }

    #[test]
    fn every_file_says_what_it_holds() {
        assert_eq!(rules("xtask/src/a.rs", "fn a() {}\n").len(), 1);
        assert!(rules("xtask/src/a.rs", "//! A.\nfn a() {}\n").is_empty());
    }

    #[test]
    fn unsafe_stays_where_it_may_be() {
        let text = "//! A.\n//! Unsafe: B.\n// SAFETY: yes.\nunsafe { a() }\n";
        assert!(rules("xen-rs/machine/src/a.rs", text).is_empty());
        assert_eq!(rules("xen-rs/src/a.rs", text), ["4: unsafe code is not allowed in this crate"]);
        assert!(rules("xen-rs/src/a.rs", "//! A.\nlet a = \"unsafe\"; // unsafe\n").is_empty());
        let untold = text.replace("//! Unsafe: B.\n", "");
        assert_eq!(rules("xen-rs/machine/src/a.rs", &untold).len(), 1);
    }

    #[test]
    fn unsafe_has_a_reason() {
        let file = "xen-rs/machine/src/a.rs";
        assert_eq!(rules(file, "//! A.\n//! Unsafe: B.\n\nlet a = unsafe { b() };\n").len(), 1);
        assert!(rules(file, "//! A.\n//! Unsafe: B.\n// SAFETY: b.\nlet a =\n    unsafe { b() };\n").is_empty());
        assert_eq!(rules(file, "//! A.\n//! Unsafe: B.\n// SAFETY: b.\nb();\nunsafe { c() };\n").len(), 1);
        assert!(
            rules(file, "//! A.\n//! Unsafe: B.\n// SAFETY: b.\n#[allow(x)]\nunsafe impl Send for A {}\n").is_empty()
        );
        assert_eq!(rules(file, "//! A.\n//! Unsafe: B.\n\npub unsafe fn a() {}\n").len(), 1);
        assert!(rules(file, "//! A.\n//! Unsafe: B.\n\n/// # Safety\n/// None.\npub unsafe fn a() {}\n").is_empty());
        assert!(rules(file, "//! A.\n//! Unsafe: B.\nlet a: unsafe fn() = b;\n").is_empty());
        assert!(rules(file, "//! A.\n//! Unsafe: B.\n#[unsafe(no_mangle)]\nfn a() {}\n").is_empty());
    }

    #[test]
    fn waiting_goes_through_the_mailbox() {
        let text = "//! A.\nwhile !done() { core::hint::spin_loop() }\n";
        assert_eq!(rules("xen-rs/machine/src/a.rs", text).len(), 1);
        assert!(rules("xen-rs/machine/src/mailbox.rs", text).is_empty());
        assert!(rules("guest-pv/src/a.rs", text).is_empty());
        let told = "//! A.\n// SPIN: the APIC answers by itself.\nwhile !done() { core::hint::spin_loop() }\n";
        assert!(rules("xen-rs/machine/src/a.rs", told).is_empty());
        assert_eq!(rules("xen-rs/src/a.rs", "//! A.\nwhile a.load(X) == 0 {}\n").len(), 1);
        let header = "//! A.\n    while a.load(Ordering::Acquire) {\n        b();\n    }\n    relax();\n";
        assert_eq!(rules("xen-rs/src/a.rs", header).len(), 1);
        assert!(rules("xen-rs/src/a.rs", &header.replace("b()", "Poll::relax()")).is_empty());
        let body = "//! A.\nloop {\n    if a.load(Ordering::Acquire) {\n        break;\n    }\n}\n";
        assert_eq!(rules("xen-rs/src/a.rs", body).len(), 1);
        assert!(rules("xen-rs/src/a.rs", &body.replace("break;", "mailbox::poll();")).is_empty());
    }

    #[test]
    fn proofs_come_from_machine() {
        let text = "//! A.\nlet held = Held::entry();\n";
        assert_eq!(rules("xen-rs/src/a.rs", text).len(), 1);
        assert!(rules("xen-rs/machine/src/a.rs", text).is_empty());
    }

    #[test]
    fn hypercalls_take_handles() {
        let text = "//! A.\nuse machine::mem::guest_copy;\n";
        let rule = "2: a guest's memory by a bare address: take a `guest::Handle`";
        assert_eq!(rules("xen-rs/src/hypercall/sysctl/a.rs", text), [rule]);
        assert_eq!(rules("xen-rs/src/hypercall/a.rs", "//! A.\nlet a = guest_words::b(c);\n"), [rule]);
        assert!(rules("xen-rs/src/hypercall/iret.rs", text).is_empty());
        assert!(rules("xen-rs/src/guest.rs", text).is_empty());
    }

    #[test]
    fn files_are_short() {
        assert_eq!(rules("xtask/src/a.rs", &"//! A.\n".repeat(501)).len(), 1);
        assert!(rules("xtask/src/a.rs", &"//! A.\n".repeat(500)).is_empty());
    }

    #[test]
    fn a_test_that_must_not_compile_says_why() {
        assert_eq!(rules("xtask/src/a.rs", "//! ```compile_fail\n").len(), 1);
        assert!(rules("xtask/src/a.rs", "//! ```compile_fail,E0382\n").is_empty());
    }

    #[test]
    fn a_root_forbids_unsafe_code() {
        assert!(check_root(Path::new("xen-rs/src/main.rs"), "//! A.\n").is_some());
        assert!(check_root(Path::new("xen-rs/src/main.rs"), "//! A.\n#![forbid(unsafe_code)]\n").is_none());
        assert!(check_root(Path::new("xen-rs/machine/src/lib.rs"), "//! A.\n").is_none());
    }
}
