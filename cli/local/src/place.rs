//! Where a cluster keeps what it has: everything follows from its name and folder.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::LocalError;
use crate::cgroup::Cgroup;
use crate::error::{At, unless_taken_away};

/// Where clusters are kept unless told otherwise.
const DIR: &str = "/var/lib/flotilla/local";
const RUN: &str = "/run/flotilla/local";
const NAME_BYTES_MAX: usize = 40;

/// A cluster by name, and the folder where the files of clusters are.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    dir: PathBuf,
}

impl Place {
    /// Checks the name; the folder is `/var/lib/flotilla/local` by default.
    pub fn new(name: &str, dir: Option<&Path>) -> Result<Self, LocalError> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty()
            || name.len() > NAME_BYTES_MAX
            || name.starts_with('-')
            || !name.bytes().all(letter)
        {
            return Err(LocalError::Name(name.to_owned()));
        }
        let dir = dir.unwrap_or(Path::new(DIR));
        let dir = std::path::absolute(dir).at("find", dir)?;
        Ok(Self {
            name: name.to_owned(),
            dir,
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kubeconfig of the cluster's administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// What a node wrote to its standard output and error.
    pub fn log(&self, node: &str) -> PathBuf {
        self.folder().join("logs").join(format!("{node}.log"))
    }

    /// A node's data folder.
    pub fn data(&self, node: &str) -> PathBuf {
        self.folder().join(node)
    }

    /// All the cluster's files that survive a reboot.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.folder().join("cluster.json")
    }

    /// A file system of its own, which pins the cluster's namespaces; all of them go with it.
    pub(crate) fn run(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    /// Folder with the pinned namespaces of a node, or of the switch.
    pub(crate) fn pins(&self, node: &str) -> PathBuf {
        self.run().join(node)
    }

    pub(crate) fn pid_file(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.pid"))
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::new(format!("/flotilla-local/{}", self.name))
    }

    pub(crate) fn node_cgroup(&self, node: &str) -> Cgroup {
        self.cgroup().child(node)
    }

    /// Removes the folder of clusters when it is the usual one and the last cluster is gone.
    pub(crate) fn remove_empty_dir(&self) {
        if self.dir == Path::new(DIR) {
            // Not empty: other clusters are there, or a server of this machine.
            let _ = fs::remove_dir(DIR).and_then(|()| fs::remove_dir("/var/lib/flotilla"));
        }
    }

    /// One command at a time changes a cluster. The lock's file goes with the cluster.
    pub(crate) fn lock(&self) -> Result<Lock, LocalError> {
        let path = Path::new(RUN).join(format!("{}.lock", self.name));
        let open = || {
            fs::create_dir_all(RUN).at("create", Path::new(RUN))?;
            let file = File::options().create(true).append(true).open(&path);
            file.at("open", &path)
        };
        loop {
            let lock = Flock::lock(unless_taken_away(open)?, FlockArg::LockExclusive)
                .map_err(|(_, error)| error)
                .at("lock", &path)?;
            // The one who had it before may have removed the file; then another one may have made it anew.
            let ours = lock.metadata().at("read", &path)?.ino();
            match fs::metadata(&path) {
                Ok(metadata) if metadata.ino() == ours => return Ok(Lock { path, _lock: lock }),
                _ => {}
            }
        }
    }
}

/// Held while a cluster is changed.
pub(crate) struct Lock {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Lock {
    /// Removes the lock's file, once the cluster is gone.
    pub(crate) fn remove(self) -> Result<(), LocalError> {
        fs::remove_file(&self.path).at("remove", &self.path)?;
        // Both are left behind only by other clusters.
        for folder in [RUN, "/run/flotilla"] {
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

/// Refuses everyone who may not make namespaces.
pub(crate) fn need_root() -> Result<(), LocalError> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(LocalError::NotRoot)
    }
}

/// Opens a pinned namespace.
pub(crate) fn open_pin(pins: &Path, kind: &str) -> io::Result<OwnedFd> {
    File::open(pins.join(kind)).map(OwnedFd::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        for name in ["default", "t12-0", "a"] {
            assert!(Place::new(name, None).is_ok(), "{name}");
        }
        for name in ["", "../x", "A", "a b", "-x", &"x".repeat(41)] {
            assert!(
                matches!(Place::new(name, None), Err(LocalError::Name(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn clusters_come_and_go_without_minding_each_other() {
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let place = Place::new(&format!("lock-{name}-{}", std::process::id()), None).unwrap();
                scope.spawn(move || {
                    for _ in 0..500 {
                        place.lock().unwrap().remove().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn everything_follows_from_name_and_folder() {
        let place = Place::new("c", Some(Path::new("/data"))).unwrap();
        assert_eq!(place.kubeconfig(), Path::new("/data/c/kubeconfig"));
        assert_eq!(place.data("server-1"), Path::new("/data/c/server-1"));
        assert_eq!(
            place.pins("server-1"),
            Path::new("/run/flotilla/local/c/server-1")
        );
    }
}
