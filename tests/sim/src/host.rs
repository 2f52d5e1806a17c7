//! One machine: its disk, and at most one process with a runtime and a clock of its own.
//!
//! A crash drops the runtime, a pause does not step it, a jump of its clock moves only its clock.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_raft::{JoinError, Limits, OpenError, Options, Platform, Replica, Timing};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::time::Instant;

use crate::disk::{Cut, Disk};
use crate::invariants::Checks;
use crate::network::{Arrival, HostId, HostTransport, Network, Target};
use crate::threads::SimThreads;
use crate::trace::Trace;

/// Between two attempts to become a member.
const JOIN_PAUSE: Duration = Duration::from_millis(200);

/// What every process is started with.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) seed: u64,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
}

/// A machine.
pub(crate) struct Host {
    pub(crate) id: HostId,
    /// The server's node name, which stays.
    pub(crate) name: String,
    /// The member that its data belongs to; another one after the data was lost.
    pub(crate) member: u64,
    pub(crate) address: String,
    pub(crate) disk: Disk,
    /// Time goes by this much faster here, in a thousand.
    pub(crate) drift_permille: u64,
    /// Something was done to its disk for which it may refuse to start.
    pub(crate) is_damaged: bool,
    setting: Setting,
    process: Option<Process>,
    incarnation: u64,
}

struct Process {
    clock: Clock,
    stage: Arc<Mutex<Stage>>,
    /// When it was stopped, and what has arrived since.
    paused: Option<Pause>,
}

struct Pause {
    ms: u64,
    arrived: Vec<Arrival>,
}

/// How far a process has come.
#[derive(Clone)]
pub(crate) enum Stage {
    /// It reads its data.
    Opening,
    /// It serves, and announces itself.
    Open(Replica),
    /// It serves, and is a member under its address.
    Member(Replica),
    /// It does not start, or the cluster does not want it.
    Refused(Refusal),
}

/// Why a process does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It refuses its data.
    Damaged(String),
    /// Its disk does not work.
    Disk(String),
    /// The cluster refuses it.
    Unwanted(String),
}

/// How a process begins.
#[derive(Clone, Debug)]
pub(crate) enum Begin {
    /// With a cluster of its own.
    Bootstrap,
    /// By asking these servers.
    Join(Vec<String>),
}

impl Host {
    /// A machine that is off.
    pub(crate) fn new(id: HostId, member: u64, setting: Setting) -> Host {
        let name = format!("server-{id}");
        Host {
            id,
            member,
            address: format!("{name}:1"),
            disk: Disk::new(setting.seed, &name, setting.trace.clone()),
            name,
            drift_permille: 0,
            is_damaged: false,
            setting,
            process: None,
            incarnation: 0,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.paused.is_none())
    }

    /// How far its process has come; none when there is none.
    pub(crate) fn stage(&self) -> Option<Stage> {
        let process = self.process.as_ref()?;
        Some(lock(&process.stage).clone())
    }

    /// Its replica, when it serves.
    pub(crate) fn replica(&self) -> Option<Replica> {
        match self.stage()? {
            Stage::Open(replica) | Stage::Member(replica) => Some(replica),
            Stage::Opening | Stage::Refused(_) => None,
        }
    }

    /// Starts a process.
    pub(crate) fn start(&mut self, begin: Begin) {
        self.incarnation += 1;
        self.setting.network.listen(&self.address, self.id);
        let seed = self.setting.seed ^ ((self.id as u64 + 1) << 32) ^ self.incarnation;
        let clock = Clock::new(seed);
        let stage = Arc::new(Mutex::new(Stage::Opening));
        let running = run(self.options(), begin, Arc::clone(&stage));
        clock.runtime.spawn(running);
        self.process = Some(Process {
            clock,
            stage,
            paused: None,
        });
    }

    fn options(&self) -> Options {
        let disk = &self.disk;
        Options {
            id: self.member,
            name: self.name.clone(),
            address: self.address.clone(),
            data_dir: PathBuf::from("/data"),
            platform: Platform {
                transport: Arc::new(HostTransport {
                    host: self.id,
                    network: self.setting.network.clone(),
                }),
                trees: Arc::new(disk.clone()),
                files: Arc::new(disk.clone()),
                threads: Arc::new(SimThreads { disk: disk.clone() }),
                witness: Some(self.setting.checks.witness(self.member)),
            },
            timing: self.setting.timing,
            limits: self.setting.limits,
        }
    }

    /// Ends the process where it is.
    pub(crate) fn kill(&mut self, cut: Cut) {
        self.process = None;
        self.disk.cut(cut);
    }

    /// Lets the process end in order.
    pub(crate) fn shut_down(&mut self) {
        if let (Some(replica), Some(process)) = (self.replica(), &self.process) {
            process
                .clock
                .runtime
                .spawn(async move { replica.shutdown().await });
        }
    }

    /// Stops the process, which does not notice.
    pub(crate) fn pause(&mut self) {
        if let Some(process) = &mut self.process {
            process.paused.get_or_insert(Pause {
                ms: 0,
                arrived: Vec::new(),
            });
        }
    }

    /// Lets the process go on. Its clock has gone on meanwhile, unless the whole machine stood still.
    pub(crate) fn resume(&mut self, clock_went_on: bool) {
        let Some(process) = &mut self.process else { return };
        let Some(pause) = process.paused.take() else {
            return;
        };
        if clock_went_on {
            process.clock.jump(pause.ms);
        }
        for arrival in pause.arrived {
            self.arrive(arrival);
        }
    }

    /// Moves the clock forward.
    pub(crate) fn jump(&mut self, ms: u64) {
        if let Some(process) = &mut self.process {
            process.clock.jump(ms);
        }
    }

    /// Lets a request in. False when nobody listens.
    pub(crate) fn arrive(&mut self, arrival: Arrival) -> bool {
        let incarnation = self.incarnation;
        let Some(replica) = self.replica() else {
            return false;
        };
        let Some(process) = &mut self.process else {
            return false;
        };
        if let Some(pause) = &mut process.paused {
            pause.arrived.push(arrival);
            return true;
        }
        let target = Target {
            service: replica.peer_answers(),
            replica,
            incarnation,
        };
        let runtime = &process.clock.runtime;
        // What is done before the first wait belongs to the host as well.
        let arrived = async move { arrival(Some(target)).await };
        runtime.spawn(arrived);
        true
    }

    /// Lets some time go by.
    pub(crate) fn step(&mut self, now: u64, ms: u64) {
        let faster = (now + ms) * self.drift_permille / 1000 - now * self.drift_permille / 1000;
        let Some(process) = &mut self.process else { return };
        match &mut process.paused {
            Some(pause) => pause.ms += ms,
            None => process.clock.run(ms + faster),
        }
    }
}

/// A runtime on virtual time.
pub(crate) struct Clock {
    pub(crate) runtime: Runtime,
    until: Instant,
}

impl Clock {
    /// A runtime whose choices and time depend on nothing but the seed.
    pub(crate) fn new(seed: u64) -> Clock {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()
            .expect("a runtime without I/O needs nothing that could be missing");
        let until = runtime.block_on(async { Instant::now() });
        Clock { runtime, until }
    }

    /// Runs everything that is due within the next milliseconds.
    pub(crate) fn run(&mut self, ms: u64) {
        self.until += Duration::from_millis(ms);
        let until = self.until;
        self.runtime
            .block_on(async move { tokio::time::sleep_until(until).await });
    }

    /// Moves the time forward at once.
    fn jump(&mut self, ms: u64) {
        let jump = Duration::from_millis(ms);
        self.until += jump;
        self.runtime.block_on(tokio::time::advance(jump));
    }
}

fn lock(stage: &Arc<Mutex<Stage>>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The life of a process.
async fn run(options: Options, begin: Begin, stage: Arc<Mutex<Stage>>) {
    let replica = match Replica::open(options).await {
        Ok(replica) => replica,
        Err(error) => {
            *lock(&stage) = Stage::Refused(match error {
                OpenError::Damaged { damage, .. } => Refusal::Damaged(damage),
                error => Refusal::Disk(error.to_string()),
            });
            return;
        }
    };
    *lock(&stage) = Stage::Open(replica.clone());
    let entered = match begin {
        Begin::Bootstrap if !replica.is_initialized() => {
            let begun = replica.bootstrap().await;
            begun.map_err(|error| Refusal::Unwanted(error.to_string()))
        }
        Begin::Bootstrap => Ok(()),
        Begin::Join(servers) => join(&replica, &servers).await,
    };
    *lock(&stage) = match entered {
        Ok(()) => Stage::Member(replica),
        Err(refusal) => Stage::Refused(refusal),
    };
}

async fn join(replica: &Replica, servers: &[String]) -> Result<(), Refusal> {
    loop {
        match replica.join(servers).await {
            Ok(()) => return Ok(()),
            // At once when its disk has failed: then it stands there until somebody restarts it.
            Err(JoinError::TimedOut(_)) => tokio::time::sleep(JOIN_PAUSE).await,
            Err(error) => return Err(Refusal::Unwanted(error.to_string())),
        }
    }
}
