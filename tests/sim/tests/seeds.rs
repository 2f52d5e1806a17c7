//! A few hundred seeds, in slices that run beside each other. `flotilla-sim --seeds 0..2000` runs thousands.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "tests may fail, and have names that say all"
)]

use std::ops::Range;
use std::process::Command;

/// Runs a seed in a process of its own; answers what it prints, and whether every promise held.
fn run(seed: u64) -> (String, bool) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flotilla-sim"));
    let output = program.args(["--seeds", &seed.to_string()]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    (printed, output.status.success())
}

/// Every promise holds under each of these seeds.
fn hold(seeds: Range<u64>) {
    for seed in seeds {
        let (printed, held) = run(seed);
        assert!(held, "{printed}");
    }
}

macro_rules! slices {
    ($($name:ident: $seeds:expr;)*) => {
        $(
            #[test]
            fn $name() {
                hold($seeds);
            }
        )*
    };
}

slices! {
    promises_hold_under_seeds_from_0: 0..30;
    promises_hold_under_seeds_from_30: 30..60;
    promises_hold_under_seeds_from_60: 60..90;
    promises_hold_under_seeds_from_90: 90..120;
    promises_hold_under_seeds_from_120: 120..150;
    promises_hold_under_seeds_from_150: 150..180;
    promises_hold_under_seeds_from_180: 180..210;
    promises_hold_under_seeds_from_210: 210..240;
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed));
    }
}
