//! The agent's list of a pod's containers, and what becomes of them without their shim.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::errors::KillContainerError;
use crate::layout::{ContainerRecord, Layout, read_json, write_json};
use crate::spec::{ContainerState, Exit};
use crate::sys;

/// How long PID 1 may take to reap a container, after which the kernel knows its exit code.
const REAP_ATTEMPTS: u32 = 200;
const REAP_PAUSE: Duration = Duration::from_millis(10);

/// The exit code of a container whose end nobody saw, as containerd has it.
const UNKNOWN_CODE: i32 = 137;

/// A pod's containers.
#[derive(Debug)]
pub(crate) struct Containers {
    layout: Layout,
    list: Mutex<BTreeMap<String, Tracked>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Tracked {
    state: ContainerState,
    /// Opened while the shim had not yet reaped the process, so it is surely this one.
    pidfd: Option<Arc<OwnedFd>>,
}

impl Containers {
    pub(crate) fn new(layout: Layout) -> Containers {
        Containers {
            layout,
            list: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Tracked>> {
        // Each change of the list is one insertion or removal: a panic elsewhere leaves it whole.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn list(&self) -> Vec<ContainerState> {
        let mut states: Vec<_> = self
            .lock()
            .values()
            .map(|tracked| tracked.state.clone())
            .collect();
        states.sort_by_key(|state| state.started_at);
        states
    }

    pub(crate) fn get(&self, id: &str) -> Option<ContainerState> {
        self.lock().get(id).map(|tracked| tracked.state.clone())
    }

    pub(crate) fn add(&self, state: ContainerState) {
        let pidfd = match state.finished {
            None => open_pidfd(state.pid),
            Some(_) => None,
        };
        self.lock().insert(state.id.clone(), Tracked { state, pidfd });
    }

    pub(crate) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Notes an exit; the first one counts.
    pub(crate) fn finish(&self, id: &str, exit: Exit) {
        if let Some(tracked) = self.lock().get_mut(id) {
            tracked.state.finished.get_or_insert(exit);
            tracked.pidfd = None;
        }
        self.changes.send_modify(|version| *version += 1);
    }

    /// Reads what a dead shim has left.
    pub(crate) fn load(&self) {
        let Ok(entries) = std::fs::read_dir(self.layout.containers()) else {
            return;
        };
        for entry in entries.flatten() {
            let paths = self.layout.container(&entry.file_name().to_string_lossy());
            let Ok(record) = read_json::<ContainerRecord>(&paths.record()) else {
                continue;
            };
            let mut state = record.state;
            state.finished = read_json(&paths.exit()).ok();
            // The pid may be another process's by now; the start time tells. A process that starts between
            // this look and the opening would have to get the same pid within microseconds.
            let same = sys::start_ticks(state.pid) == Some(record.start_ticks);
            if state.finished.is_none() && !same {
                state.finished = Some(unknown_exit());
            }
            self.add(state);
        }
    }

    /// From now on the containers' ends are watched here.
    pub(crate) fn shim_is_gone(self: &Arc<Self>, tasks: &TaskTracker) {
        let running: Vec<_> = self
            .lock()
            .values()
            .filter(|tracked| tracked.state.finished.is_none())
            .map(|tracked| (tracked.state.id.clone(), tracked.pidfd.clone()))
            .collect();
        for (id, pidfd) in running {
            let containers = Arc::clone(self);
            tasks.spawn(async move { containers.watch(&id, pidfd).await });
        }
        self.changes.send_modify(|version| *version += 1);
    }

    async fn watch(&self, id: &str, pidfd: Option<Arc<OwnedFd>>) {
        // The shim may have had the time to write it down.
        let paths = self.layout.container(id);
        let exit = match (read_json(&paths.exit()), pidfd) {
            (Ok(exit), _) => exit,
            (Err(_), Some(pidfd)) => exit_of(&pidfd).await,
            (Err(_), None) => unknown_exit(),
        };
        // When it cannot be written, a later agent finds the process gone and says "unknown".
        write_json(&paths.exit(), &exit).ok();
        self.finish(id, exit);
    }

    /// Sends a signal to a container whose shim is gone.
    pub(crate) fn kill_without_shim(&self, id: &str, signal: i32) -> Result<(), KillContainerError> {
        let pidfd = match self.lock().get(id) {
            None => return Err(KillContainerError::Unknown { id: id.to_owned() }),
            Some(tracked) => tracked.pidfd.clone(),
        };
        let Some(pidfd) = pidfd else { return Ok(()) };
        match sys::send_signal_to(&*pidfd, signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(KillContainerError::Signal {
                id: id.to_owned(),
                signal,
                source: error,
            }),
            _ => Ok(()),
        }
    }
}

fn open_pidfd(pid: i32) -> Option<Arc<OwnedFd>> {
    let pid = Pid::from_raw(pid)?;
    pidfd_open(pid, PidfdFlags::NONBLOCK).ok().map(Arc::new)
}

/// Waits for the end of a process and asks the kernel how it ended.
async fn exit_of(pidfd: &Arc<OwnedFd>) -> Exit {
    // An error would mean that the descriptor cannot be waited for; then nothing is known.
    if sys::wait_readable(Arc::clone(pidfd)).await.is_err() {
        return unknown_exit();
    }
    for _ in 0..REAP_ATTEMPTS {
        if let Some(status) = sys::exit_status_of(pidfd) {
            return known_exit(status);
        }
        tokio::time::sleep(REAP_PAUSE).await;
    }
    unknown_exit()
}

fn known_exit(status: i32) -> Exit {
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let code = signal.map_or_else(|| libc::WEXITSTATUS(status), |signal| 128 + signal);
    Exit {
        code,
        signal,
        oom_killed: false,
        finished_at: Timestamp::now(),
        unknown: false,
    }
}

fn unknown_exit() -> Exit {
    Exit {
        code: UNKNOWN_CODE,
        signal: None,
        oom_killed: false,
        finished_at: Timestamp::now(),
        unknown: true,
    }
}
