//! A node's namespaces: made by a thread that enters them, kept by bind mounts of their files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid, sethostname};

use crate::error::At;
use crate::{LocalError, Place};

/// Where every node sees a file system of its own.
const NODE_RUN: &str = "/run/flotilla";
const CLUSTERS_RUN: &str = "/run/flotilla/local";

/// Makes the file system that pins namespaces. It is private: a mount namespace cannot be pinned on a shared mount.
pub(crate) fn mount_run(place: &Place) -> Result<(), LocalError> {
    let run = place.run();
    fs::create_dir_all(&run).at("create", &run)?;
    let mounted = mount(
        Some("flotilla"),
        &run,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=700"),
    );
    mounted.at("mount", &run)?;
    mount(
        None::<&str>,
        &run,
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .at("make private", &run)
}

/// Lets go of all namespaces of a cluster. Those that no process is in end by that.
pub(crate) fn unmount_run(place: &Place) -> Result<(), LocalError> {
    let run = place.run();
    while umount2(&run, MntFlags::MNT_DETACH).is_ok() {}
    match fs::remove_dir(&run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &run),
        _ => Ok(()),
    }
}

/// Makes and pins the network namespace of the switch.
pub(crate) fn create_switch_namespace(place: &Place) -> Result<(), LocalError> {
    pin_new(
        &place.pins(crate::switch::NAME),
        CloneFlags::CLONE_NEWNET,
        &["net"],
        || Ok(()),
    )
}

/// Makes and pins the namespaces of a node: network, mounts and host name.
pub(crate) fn create_namespaces(place: &Place, node: &str) -> Result<(), LocalError> {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    pin_new(&place.pins(node), flags, &["net", "uts", "mnt"], || {
        sethostname(node)?;
        isolate_mounts()
    })
}

/// True when the node's namespaces are there.
pub(crate) fn has_namespaces(place: &Place, node: &str) -> bool {
    place.pins(node).join("mnt").exists()
}

/// Lets go of a node's namespaces.
pub(crate) fn release_namespaces(place: &Place, node: &str) -> Result<(), LocalError> {
    let pins = place.pins(node);
    for kind in ["mnt", "uts", "net"] {
        let pin = pins.join(kind);
        while umount2(&pin, MntFlags::MNT_DETACH).is_ok() {}
    }
    match fs::remove_dir_all(&pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &pins),
        _ => Ok(()),
    }
}

/// In a new mount namespace: hears of the machine's mounts but tells nobody, and has its own `/run/flotilla`.
fn isolate_mounts() -> io::Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_SLAVE | MsFlags::MS_REC,
        None::<&str>,
    )?;
    // The copies of the pins would keep the namespaces of other nodes, and of other clusters, alive.
    for cluster in fs::read_dir(CLUSTERS_RUN)?.flatten() {
        let _ = umount2(&cluster.path(), MntFlags::MNT_DETACH);
    }
    mount(
        Some("flotilla"),
        NODE_RUN,
        Some("tmpfs"),
        MsFlags::MS_NOSUID,
        Some("mode=755"),
    )?;
    Ok(())
}

/// Runs `prepare` on a thread in new namespaces and pins them; the thread is gone when this returns.
fn pin_new(
    pins: &Path,
    flags: CloneFlags,
    kinds: &[&str],
    prepare: impl FnOnce() -> io::Result<()> + Send,
) -> Result<(), LocalError> {
    fs::create_dir_all(pins).at("create", pins)?;
    let (ready, is_ready) = mpsc::channel();
    let (pinned, is_pinned) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let entered = unshare(flags)
                .map_err(io::Error::from)
                .and_then(|()| prepare())
                .map(|()| gettid());
            let _ = ready.send(entered);
            // Ends when the other side is done, in whatever way.
            let _ = is_pinned.recv();
        });
        let entered = is_ready
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        let result = entered.at("make namespaces for", pins).and_then(|tid| {
            kinds
                .iter()
                .try_for_each(|kind| pin(&format!("/proc/self/task/{tid}/ns/{kind}"), &pins.join(kind)))
        });
        drop(pinned);
        result
    })
}

fn pin(namespace: &str, place: &PathBuf) -> Result<(), LocalError> {
    File::create(place).at("create", place)?;
    mount(
        Some(namespace),
        place,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .at("pin a namespace at", place)
}

/// A process and when it started: together they are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
}

impl Process {
    /// The process that has the number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        // While other threads are still on their way out, so are the process's sockets and locks.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        let is_dead = matches!(fields.first(), Some(&"Z" | &"X")) && threads <= 1;
        let started = fields.get(19)?.parse().ok()?;
        (!is_dead).then_some(Self { pid, started })
    }

    /// The process that was written to a file, if it still runs.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let known = Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        };
        Self::of(known.pid).filter(|found| *found == known)
    }

    pub(crate) fn write(self, path: &Path) -> Result<(), LocalError> {
        fs::write(path, format!("{} {}\n", self.pid, self.started)).at("write", path)
    }

    pub(crate) fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(self) {
        while self.is_running() && kill(Pid::from_raw(self.pid), Signal::SIGKILL).is_ok() {
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
