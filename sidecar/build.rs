//! How a program that is not for debugging is linked, for Linux with glibc: smaller by a megabyte.

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=without-unwinding.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") || !is("DEBUG", "false") {
        return;
    }
    // Both take LLD, which Rust brings along and links with by itself on x86_64; elsewhere scripts/static asks for it.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if !is("CARGO_CFG_TARGET_ARCH", "x86_64") && !flags.contains("-fuse-ld=lld") {
        return;
    }
    // Addresses to be filled in at the start as a bitmap, and not as 24 bytes each. Needs glibc 2.36, and says so.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // A panic ends the process without unwinding, and the names that a backtrace would tell are stripped. Who looks at
    // stacks builds with CARGO_PROFILE_DIST_DEBUG=line-tables-only, which brings both back.
    println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    // A copy among what is built, which may be used from another checkout when this one is gone.
    let script = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("without-unwinding.ld");
    match fs::copy("without-unwinding.ld", &script) {
        Ok(_) => println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display()),
        Err(error) => println!("cargo::error=without-unwinding.ld cannot be copied to {}: {error}", script.display()),
    }
}
