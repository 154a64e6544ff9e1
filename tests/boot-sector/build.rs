//! Links the boot sector as 512 plain bytes for 0x7c00.

fn main() {
    println!("cargo::rerun-if-changed=sector.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{dir}/sector.ld");
        println!("cargo::rustc-link-arg-bins=--no-pie");
        println!("cargo::rustc-link-arg-bins=--build-id=none");
        println!("cargo::rustc-link-arg-bins=--oformat=binary");
    }
}
