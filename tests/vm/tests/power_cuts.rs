//! Real kernels whose power is cut: what a disk was told to keep, and what a cluster has acknowledged, is there afterwards.
//!
//! A few cuts by default; `FLOTILLA_POWER_CUTS` asks for more, and `FLOTILLA_POWER_SEED` for the same choices again (which
//! machines, after how many writes or flushes, what their disks lose: not the same interleaving). `CONTRIBUTING.md` has the
//! command.

#![allow(
    clippy::print_stderr,
    reason = "hundreds of cuts take long, and whoever waits for them wants to see them go by"
)]

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use flotilla_history::History;
use flotilla_vm_tests::{Fleet, Image, MACHINES, Machine, disk::Cut, network::Switch, tree};
use flotilla_workload::{Access, Counts, Plan, Server, Workload, WorkloadError};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng, seq::IndexedRandom as _};

/// Emulation is some ten times slower than the machine itself.
const LIMIT: Duration = Duration::from_secs(240);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const CUTS: u32 = 4;
/// How many cuts a workload lives through before what it saw is checked: a write must survive later cuts, too.
const CUTS_PER_HISTORY: u32 = 5;
/// The small ones make many writes; the large ones make snapshots, one for each 16 MiB of log.
const OBJECT_BYTES: [usize; 2] = [1 << 10, 96 << 10];
const ALL: [usize; MACHINES] = [0, 1, 2];

#[test]
fn a_cut_takes_what_the_guest_has_written_and_not_flushed() {
    let image = Image::new(include_str!("guest/disk.sh"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let switch = Switch::start(folder.path().join("switch"));
    let root = image.disk();
    let mut machine = Machine::new(folder.path(), &root, &switch, 1, Ipv4Addr::LOCALHOST);
    machine.boot("", None);
    assert_eq!(machine.wait_for("### cache ", LIMIT), "write back");
    assert_eq!(machine.wait_for("### now ", LIMIT), "before flushed after");
    machine.cut_power();
    let loss = machine.settle(Cut::LosesAll);
    assert!(loss.lost > 0, "{loss:?}");
    machine.boot("", None);
    assert_eq!(machine.wait_for("### found ", LIMIT), "before flushed");
}

#[test]
fn no_acknowledged_write_is_lost_in_power_cuts() {
    let seed = number("FLOTILLA_POWER_SEED").unwrap_or_else(seed_of_now);
    let cuts = number("FLOTILLA_POWER_CUTS").map_or(CUTS, |cuts| u32::try_from(cuts).expect("it is small"));
    eprintln!("FLOTILLA_POWER_SEED={seed} FLOTILLA_POWER_CUTS={cuts}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut fleet = Fleet::boot(&binary("release"), "");
    let mut done = 0;
    while done < cuts {
        let plan = Plan {
            namespace: format!("cuts-{done}"),
            object_bytes: *OBJECT_BYTES.choose(&mut random).expect("there are some"),
            seed: random.random(),
            ..Plan::default()
        };
        eprintln!("objects of {} bytes", plan.object_bytes);
        let workload = start(&fleet, plan);
        let end = cuts.min(done + CUTS_PER_HISTORY);
        while done < end {
            let choice = Choice::new(&mut random);
            done += 1;
            eprint!("cut {done}: {choice:?}");
            cut(&mut fleet, &workload, &choice);
        }
        await_writes(&fleet, &workload, 20);
        let checked = finish(workload);
        let counts = checked.unwrap_or_else(|found| panic!("seed {seed}: {found}\n{}", fleet.said()));
        eprintln!("{counts}");
    }
}

/// How many flushes it takes from a machine's first start until its server is a member: some twenty.
const FLUSHES_OF_FIRST_START: u32 = 20;
const CUTS_OF_FIRST_START: u32 = 2;

#[test]
fn a_first_start_that_is_cut_short_begins_anew() {
    let seed = number("FLOTILLA_POWER_SEED").unwrap_or_else(seed_of_now);
    eprintln!("FLOTILLA_POWER_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut fleet = Fleet::new(&binary("release"), "");
    for machine in [0, 1] {
        let cuts = number("FLOTILLA_POWER_CUTS").unwrap_or(CUTS_OF_FIRST_START.into());
        for _ in 0..cuts {
            let (after, cut) = (random.random_range(0..FLUSHES_OF_FIRST_START), draw(&mut random));
            eprint!("machine {machine}, flush {after}, {cut:?}");
            fleet.hold_flushes(machine, after);
            fleet.start(&[machine]);
            fleet.await_held_flush(machine, LIMIT);
            let loss = fleet.cut_power(&[machine], |_| cut);
            eprintln!(" -> {loss:?}");
        }
        fleet.start(&[machine]);
        if machine == 0 {
            fleet.await_founding();
        }
        fleet.wait_until_ready(&[machine]);
    }
}

/// [`no_acknowledged_write_is_lost_in_power_cuts`] proves nothing unless it fails for a server that leaves the disk's
/// cache alone.
///
/// Runs the debug binary, which must have been built with the feature `planted-bugs`: it flushes sled's buffers to the
/// kernel, and leaves out the `fdatasync` that follows.
#[test]
fn it_would_be_seen_if_the_disk_were_not_synced() {
    let binary = binary("debug");
    let mut help = Command::new(&binary);
    let help = help.args(["server", "--skip-data-sync", "--help"]).output();
    assert!(
        help.is_ok_and(|help| help.status.success()),
        "{} cannot have bugs: cargo build -p flotilla --features planted-bugs",
        binary.display()
    );
    let mut fleet = Fleet::boot(&binary, "--skip-data-sync");
    let workload = start(&fleet, Plan::default());
    await_writes(&fleet, &workload, 50);
    fleet.cut_power(&ALL, |_| Cut::LosesAll);
    fleet.start(&ALL);
    let found = finish(workload).expect_err("it is not seen that acknowledged writes are lost");
    eprintln!("{found}");
}

/// One power cut, as it was drawn.
#[derive(Debug)]
struct Choice {
    machines: Vec<usize>,
    /// After so many more acknowledged writes,
    writes: u64,
    /// and then in the middle of a flush of this machine's disk.
    flush_of: Option<usize>,
    cuts: [Cut; MACHINES],
}

impl Choice {
    fn new(random: &mut SmallRng) -> Self {
        let count = *[1, 1, 2, 3, 3, 3].choose(random).expect("it is not empty");
        let machines: Vec<usize> = ALL.choose_multiple(random, count).copied().collect();
        Self {
            writes: random.random_range(5..80),
            flush_of: random.random_bool(0.6).then_some(machines[0]),
            machines,
            cuts: ALL.map(|_| match random.random_bool(0.5) {
                true => Cut::LosesAll,
                false => Cut::LosesSome {
                    seed: random.random(),
                },
            }),
        }
    }
}

fn draw(random: &mut SmallRng) -> Cut {
    match random.random_bool(0.5) {
        true => Cut::LosesAll,
        false => Cut::LosesSome {
            seed: random.random(),
        },
    }
}

/// Cuts the power, boots again and waits until all are back.
fn cut(fleet: &mut Fleet, workload: &Workload, choice: &Choice) {
    await_writes(fleet, workload, choice.writes);
    if let Some(machine) = choice.flush_of {
        fleet.hold_flushes(machine, 0);
        fleet.await_held_flush(machine, LIMIT);
    }
    let loss = fleet.cut_power(&choice.machines, |machine| choice.cuts[machine]);
    let begun = Instant::now();
    fleet.start(&choice.machines);
    fleet.wait_until_ready(&ALL);
    eprintln!(" -> {loss:?}, ready after {:.1?}", begun.elapsed());
}

fn start(fleet: &Fleet, plan: Plan) -> Workload {
    let access = Access::read(&fleet.kubeconfig()).expect("the kubeconfig is whole");
    let servers = fleet.servers().into_iter();
    let servers = servers.map(|server| Server::at(&server.to_string(), server));
    Workload::start(access, servers.collect(), plan).expect("the cluster works")
}

/// Waits until so many more writes have been acknowledged.
fn await_writes(fleet: &Fleet, workload: &Workload, count: u64) {
    let (wanted, end) = (workload.acknowledged() + count, Instant::now() + LIMIT);
    while workload.acknowledged() < wanted {
        assert!(Instant::now() < end, "no writes are taken:\n{}", fleet.said());
        std::thread::park_timeout(LOOK_INTERVAL);
    }
}

/// What came of it; the error says what is wrong.
fn finish(workload: Workload) -> Result<Counts, String> {
    let told = |error: WorkloadError| format!("the cluster does not work: {error}");
    let history: History = workload.finish().map_err(told)?;
    history.check().map_err(|violation| violation.to_string())?;
    Ok(Counts::of(&history))
}

fn binary(profile: &str) -> PathBuf {
    tree().join(format!("target/x86_64-unknown-linux-gnu/{profile}/flotilla"))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("it is after 1970").as_secs()
}
