//! Links the static binary at a fixed address.
//!
//! As a position-independent executable it has some hundred thousand pointers to set at each start: in a shim per pod
//! that is megabytes of memory that are no longer shared, and milliseconds before anything is done.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        // These come after what the compiler passes, and the last word counts.
        println!("cargo:rustc-link-arg-bins=-no-pie");
        println!("cargo:rustc-link-arg-bins=-static");
    }
}
