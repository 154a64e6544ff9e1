//! Compares every constant, structure size, field offset and field size of this crate with Xen's public headers.
//!
//! The crate's macros leave one table row per item. From these rows a C program is written that prints the same numbers as the
//! C compiler sees them in `/usr/include/xen` (package `libxen-dev`); both lists must agree.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use xen_abi::layout::{Constant, Structure};

/// Where the authority lives.
const HEADERS: &str = "/usr/include/xen";

/// What the generated program includes. `errno.h` is read with `__XEN__` to have the two hypervisor-only numbers as well, and an
/// empty entry type turns the ring's header into a structure of its own.
const PRELUDE: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#define XEN_ERRNO(name, value) XEN_##name = value,
#define __XEN__
enum xen_errno_numbers {
#include <xen/errno.h>
};
#undef __XEN__
#define __XEN_TOOLS__ 1
#include <xen/xen.h>
#include <xen/callback.h>
#include <xen/domctl.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/trace.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/xen-mca.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/netif.h>
#include <xen/io/ring.h>
#include <xen/io/xs_wire.h>
struct nothing {};
DEFINE_RING_TYPES(ring_header, struct nothing, struct nothing);
"#;

/// One module's tables.
struct Module {
    name: &'static str,
    constants: &'static [Constant],
    structures: &'static [Structure],
}

/// Lists modules: with `[c]` constants, `[s]` structures, `[c s]` both.
macro_rules! modules {
    ($( $($path:ident)::+ [$($kind:tt)*] )*) => {
        &[ $( Module {
            name: concat!($( "::", stringify!($path) ),+),
            constants: modules!(@c $($path)::+ [$($kind)*]),
            structures: modules!(@s $($path)::+ [$($kind)*]),
        } ),* ]
    };
    (@c $($path:ident)::+ [c $($rest:tt)*]) => { xen_abi::$($path)::+::__CONSTANTS };
    (@c $($path:ident)::+ [s]) => { &[] };
    (@s $($path:ident)::+ [c s]) => { xen_abi::$($path)::+::__STRUCTURES };
    (@s $($path:ident)::+ [s]) => { xen_abi::$($path)::+::__STRUCTURES };
    (@s $($path:ident)::+ [c]) => { &[] };
}

const MODULES: &[Module] = modules! {
    arch_x86 [c s] callback [c s] console [c] domctl [c s] elfnote [c] errno [c] event_channel [c s] features [c]
    grant_table [c s] hvm [c s] hypercall [c] ids [c] io::blkif [c s] io::console [s] io::netif [c s] io::ring [s] memory [c s]
    mca [c s] mmu [c s] multicall [s] nmi [c s] physdev [c s] platform [c s] sched [c s] start [c s] sysctl [c s] trace [c s] trap [c s] vcpu [c s]
    version [c s] vm_assist [c] xen_cpuid [c] xs_wire [c s]
};

/// The same as the C compiler sees it when it compiles for 32 bits.
const MODULES_32: &[Module] = modules! {
    compat [s]
};

/// One number to ask the compiler for.
struct Query {
    what: String,
    c: String,
    ours: u64,
}

#[test]
fn everything_agrees_with_the_headers() {
    assert!(
        Path::new(HEADERS).join("xen.h").exists(),
        "{HEADERS}/xen.h not found: this test compares the crate with Xen's public headers; install the package libxen-dev"
    );
    let names = header_names();
    let mut queries = Vec::new();
    for module in MODULES {
        for constant in module.constants {
            constant_queries(module, constant, &names, &mut queries);
        }
        for structure in module.structures {
            structure_queries(module, structure, &mut queries);
        }
    }
    let theirs = ask(&queries);
    assert_eq!(theirs.len(), queries.len(), "the generated program printed another number of lines");
    let wrong: Vec<String> = queries
        .iter()
        .zip(&theirs)
        .filter(|(query, theirs)| query.ours != **theirs)
        .map(|(query, theirs)| format!("{}: ours {:#x}, headers {theirs:#x} ({})", query.what, query.ours, query.c))
        .collect();
    assert!(wrong.is_empty(), "{} of {} numbers differ:\n{}", wrong.len(), queries.len(), wrong.join("\n"));
    println!("{} numbers agree", queries.len());
}

/// There may be no C library of 32 bits to run a program with, so the compiler itself compares.
#[test]
fn what_32_bit_code_hands_over_agrees_with_the_headers() {
    let mut queries = Vec::new();
    for module in MODULES_32 {
        for structure in module.structures {
            structure_queries(module, structure, &mut queries);
        }
    }
    let mut text = PRELUDE.replace("#include <stdio.h>\n", "");
    for query in &queries {
        writeln!(text, "_Static_assert(({}) == {}, \"{}\");", query.c, query.ours, query.what)
            .expect("writing to a string");
    }
    let source = scratch("layout_32.c");
    std::fs::write(&source, text).expect("scratch folder is writable");
    cc(&["-m32", "-ffreestanding", "-fsyntax-only", "-w"], &source);
    println!("{} numbers agree", queries.len());
}

#[test]
fn every_module_is_compared() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // Text of each module; a file `numbers` is re-exported by its parent and counts as part of it.
    let mut modules: BTreeMap<String, String> = BTreeMap::new();
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).expect("a file below src").with_extension("");
        let path = if path.ends_with("numbers") { path.parent().expect("numbers has a parent") } else { &path };
        let name: String = path.iter().map(|part| format!("::{}", part.to_string_lossy())).collect();
        let text = std::fs::read_to_string(&file).expect("source is readable");
        modules.entry(name).or_default().push_str(&text);
    }
    modules.remove("::layout");
    for (name, text) in modules {
        let module = MODULES.iter().chain(MODULES_32).find(|m| m.name == name);
        let has = |start: &str| text.lines().any(|line| line.starts_with(start));
        assert_eq!(
            has("constants! {") || has("errnos! {"),
            module.is_some_and(|m| !m.constants.is_empty()),
            "constants of {name}: list the module in MODULES with [c]"
        );
        assert_eq!(
            has("structures! {"),
            module.is_some_and(|m| !m.structures.is_empty()),
            "structures of {name}: list the module in MODULES with [s]"
        );
    }
}

/// All source files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("source folder is readable") {
        let path = entry.expect("source folder is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// A constant may stand in the headers in any case and with two leading underscores; every such spelling must agree.
fn constant_queries(module: &Module, constant: &Constant, names: &BTreeMap<String, Vec<String>>, out: &mut Vec<Query>) {
    // Two's complement of negative numbers, as the C program prints them.
    #[allow(clippy::cast_possible_truncation)]
    let ours = constant.value.cast_unsigned() as u64;
    let spellings = if constant.c.is_empty() {
        let lower = constant.name.to_lowercase();
        let mut found: Vec<String> = names.get(&lower).cloned().unwrap_or_default();
        found.extend(names.get(&format!("__{lower}")).cloned().unwrap_or_default());
        assert!(!found.is_empty(), "{}::{} is in no header", module.name, constant.name);
        found
    } else {
        vec![constant.c.to_owned()]
    };
    for c in spellings {
        out.push(Query { what: format!("{}::{}", module.name, constant.name), c, ours });
    }
}

/// Size of the structure, then offset and size of each field that is not padding.
fn structure_queries(module: &Module, structure: &Structure, out: &mut Vec<Query>) {
    let what = format!("{}::{}", module.name, structure.name);
    out.push(Query {
        what: format!("size of {what}"),
        c: format!("sizeof({})", structure.c),
        ours: structure.size as u64,
    });
    for field in structure.fields {
        if field.c.is_empty() && field.name.starts_with("_pad") {
            continue;
        }
        let member = if field.c.is_empty() { field.name } else { field.c };
        out.push(Query {
            what: format!("offset of {what}.{}", field.name),
            c: format!("offsetof({}, {member})", structure.c),
            ours: field.offset as u64,
        });
        out.push(Query {
            what: format!("size of {what}.{}", field.name),
            c: format!("sizeof((({} *)0)->{member})", structure.c),
            ours: field.size as u64,
        });
    }
}

/// All object-like macros and enumerators of the headers, by their name in lower case.
fn header_names() -> BTreeMap<String, Vec<String>> {
    let source = scratch("names.c");
    std::fs::write(&source, PRELUDE).expect("scratch folder is writable");
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |name: &str| names.entry(name.to_lowercase()).or_default().push(name.to_owned());
    for line in cc(&["-E", "-dM"], &source).lines() {
        // `#define NAME value`, but neither `#define NAME` nor `#define NAME(...)`.
        if let Some((name, _)) = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' '))
            && !name.contains('(')
        {
            add(name);
        }
    }
    let preprocessed = cc(&["-E", "-P"], &source);
    for part in preprocessed.split("enum").skip(1) {
        let Some((body, _)) = part.split_once('{').and_then(|(_, rest)| rest.split_once('}')) else { continue };
        for enumerator in body.split(',') {
            let name = enumerator.split('=').next().unwrap_or_default().trim();
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                add(name);
            }
        }
    }
    names
}

/// Compiles and runs a program that prints each queried number.
fn ask(queries: &[Query]) -> Vec<u64> {
    let mut text = format!("{PRELUDE}int main(void)\n{{\n");
    for query in queries {
        writeln!(text, "    printf(\"%llx\\n\", (unsigned long long)({}));", query.c).expect("writing to a string");
    }
    text.push_str("    return 0;\n}\n");
    let source = scratch("layout.c");
    std::fs::write(&source, text).expect("scratch folder is writable");
    let program = scratch("layout");
    cc(&["-w", "-O0", "-o", program.to_str().expect("path is text")], &source);
    let output = Command::new(&program).output().expect("the generated program runs");
    String::from_utf8(output.stdout)
        .expect("numbers are text")
        .lines()
        .map(|line| u64::from_str_radix(line, 16).expect("a number per line"))
        .collect()
}

/// Runs the C compiler; a failure shows its own words.
fn cc(arguments: &[&str], source: &Path) -> String {
    let output = Command::new("cc").args(arguments).arg(source).output().unwrap_or_else(|error| {
        panic!("cannot run the C compiler cc ({error}): this test needs it; install the packages gcc and libc6-dev")
    });
    assert!(
        output.status.success(),
        "cc {arguments:?} {}: an item of this crate has no counterpart in {HEADERS}, or the headers are not those of 4.17:\n{}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A file in cargo's scratch folder for this test.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
