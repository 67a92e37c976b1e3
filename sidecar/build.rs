//! How a program that is not for debugging is linked, for Linux with glibc: smaller by a megabyte.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=without-unwinding.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") || !is("DEBUG", "false") {
        return;
    }
    // Addresses to be filled in at the start as a bitmap, and not as 24 bytes each. Needs glibc 2.36, and says so.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // A panic ends the process without unwinding, and the names that a backtrace would tell are stripped. Who looks at
    // stacks builds with CARGO_PROFILE_DIST_DEBUG=line-tables-only, which brings both back.
    println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/without-unwinding.ld");
}
