//! Runs seeds of the simulation: `flotilla-sim --seeds 0..2000`, or one with `--trace` to see what happens.
//!
//! Each seed has a process of its own, so that it is the same run whatever ran before it and beside it.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::ops::Range;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use flotilla_sim::run_seed;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seeds, is_printed)) = parse(&arguments) else {
        println!("usage: flotilla-sim --seeds FIRST[..END] [--trace]");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    if seeds.end - seeds.start == 1 {
        return run_here(seeds.start, is_printed);
    }
    let failures = run(&seeds);
    println!(
        "{} seeds, {failures} failures, {:.1} s",
        seeds.end - seeds.start,
        begin.elapsed().as_secs_f64()
    );
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(arguments: &[String]) -> Option<(Range<u64>, bool)> {
    let (seeds, is_printed) = match arguments {
        [flag, seeds] if flag == "--seeds" => (seeds, false),
        [flag, seeds, trace] if flag == "--seeds" && trace == "--trace" => (seeds, true),
        _ => return None,
    };
    let seeds = match seeds.split_once("..") {
        Some((first, end)) => first.parse().ok()?..end.parse().ok()?,
        None => {
            let seed: u64 = seeds.parse().ok()?;
            seed..seed + 1
        }
    };
    Some((seeds, is_printed))
}

fn run_here(seed: u64, is_printed: bool) -> ExitCode {
    match run_seed(seed, is_printed) {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a seed in a process of its own, and tells of it if it fails.
fn run_apart(seed: u64) -> bool {
    let run = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args(["--seeds", &seed.to_string()])
            .output()
    });
    match run {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("{}", String::from_utf8_lossy(&output.stdout));
            false
        }
        Err(error) => {
            println!("seed {seed} cannot be run: {error}");
            false
        }
    }
}

/// Runs all seeds on all cores; answers how many failed.
fn run(seeds: &Range<u64>) -> u64 {
    let next = AtomicU64::new(seeds.start);
    let failures = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if !run_apart(seed) {
                failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    failures.load(Ordering::Relaxed)
}
