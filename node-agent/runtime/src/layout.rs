//! Where the files of one sandbox lie, for agent and shim alike.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::seccomp;
use crate::spec::{ContainerState, SandboxSpec, User};
use crate::users::UserRange;

/// What the next agent, and the shim, need to know about a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    /// What the sandbox was made from.
    pub(crate) spec: SandboxSpec,
    /// The pod's cgroup, absolute from each hierarchy's root.
    pub(crate) cgroup: String,
    /// The pod's folder for writable layers.
    pub(crate) state: PathBuf,
    /// Where all pods' volumes are mounted.
    #[serde(default)]
    pub(crate) volumes_dir: Option<PathBuf>,
    /// Where seccomp profiles are.
    #[serde(default)]
    pub(crate) seccomp: seccomp::Folders,
    /// The node's ids for the pod's users, if they are not the node's own.
    #[serde(default)]
    pub(crate) users: Option<UserRange>,
}

impl SandboxRecord {
    /// Its name in the pod's run folder.
    pub(crate) const FILE: &str = "sandbox.json";
}

/// What the next agent needs to know about a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    /// The container; `finished` lies in a file of its own.
    pub(crate) state: ContainerState,
    /// Start time of the process in clock ticks since boot: tells it from a later one with its pid.
    pub(crate) start_ticks: u64,
}

/// How programs run in a container, its own and those executed later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    /// The whole environment.
    pub(crate) env: Vec<String>,
    /// The working directory, absolute.
    pub(crate) cwd: String,
    /// Who runs them.
    pub(crate) user: User,
    /// Capabilities as a bit mask by number.
    pub(crate) capabilities: u64,
    /// Whether `no_new_privs` is set.
    pub(crate) no_new_privileges: bool,
    /// Whether a seccomp filter lies beside.
    pub(crate) confined: bool,
    /// Whom the kernel kills first.
    pub(crate) oom_score_adj: Option<i32>,
}

impl ProcessRecord {
    /// Lets the kernel know whom to kill first when memory is short; as far as this process may.
    pub(crate) fn adjust_oom_score(&self) {
        if let Some(score) = self.oom_score_adj {
            // Without CAP_SYS_RESOURCE it cannot be lowered: then the inherited one stays.
            fs::write("/proc/self/oom_score_adj", score.to_string()).ok();
        }
    }
}

/// The folders of one sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Below the runtime's `run_dir`.
    pub(crate) run: PathBuf,
    /// Below the runtime's `state_dir`.
    pub(crate) state: PathBuf,
}

impl Layout {
    /// The folders of pod `uid`.
    pub(crate) fn new(run_dir: &Path, state_dir: &Path, uid: &str) -> Layout {
        Layout {
            run: run_dir.join(uid),
            state: state_dir.join(uid),
        }
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.run.join(SandboxRecord::FILE)
    }

    pub(crate) fn socket_name() -> &'static str {
        "shim.sock"
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.run.join("shim.log")
    }

    /// The file on which a namespace is bound.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        self.run.join(kind)
    }

    /// The pod's shared memory, mounted in the shim's mount namespace only.
    pub(crate) fn shm(&self) -> PathBuf {
        self.run.join("shm")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.run.join("containers")
    }

    /// libcontainer's own state.
    pub(crate) fn oci_root(&self) -> PathBuf {
        self.run.join("oci")
    }

    pub(crate) fn container(&self, id: &str) -> ContainerPaths {
        ContainerPaths {
            bundle: self.containers().join(id),
            oci: self.oci_root().join(id),
            state: self.state.join(id),
        }
    }
}

/// The folders of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPaths {
    /// Bundle, record and exit code.
    pub(crate) bundle: PathBuf,
    /// libcontainer's state of it.
    pub(crate) oci: PathBuf,
    /// Its writable layer.
    pub(crate) state: PathBuf,
}

impl ContainerPaths {
    pub(crate) fn record(&self) -> PathBuf {
        self.bundle.join("container.json")
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.bundle.join("exit.json")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.bundle.join("config.json")
    }

    /// How programs run in it.
    pub(crate) fn process(&self) -> PathBuf {
        self.bundle.join("process.json")
    }

    /// Its seccomp filter, if it has one.
    pub(crate) fn filters(&self) -> PathBuf {
        self.bundle.join("seccomp.bpf")
    }

    /// The socket over which its terminal comes.
    pub(crate) fn console_name() -> &'static str {
        "console.sock"
    }

    /// Where sources of its mounts are prepared.
    pub(crate) fn mounts(&self) -> PathBuf {
        self.bundle.join("mounts")
    }

    /// Where its root is mounted, in the shim's mount namespace only.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.state.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.state.join("work")
    }

    /// Mount points of the parts of volumes that it sees.
    pub(crate) fn sub_paths(&self) -> PathBuf {
        self.state.join("subpaths")
    }

    /// Deletes all files of the container but its log.
    pub(crate) fn remove_files(&self) -> io::Result<()> {
        for folder in [&self.oci, &self.state, &self.bundle] {
            remove_tree(folder)?;
        }
        Ok(())
    }
}

/// Whether a uid or container id can name a file, a cgroup and an OCI container.
pub(crate) fn is_usable_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Removes a folder and all below; one that is absent is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a file so that a reader sees all of it or nothing.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads what [`write_json`] wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_earlier_versions_are_read() {
        let record: SandboxRecord = serde_json::from_str(
            r#"{"spec": {"uid": "u", "namespace": "n", "name": "p", "hostname": "h", "log_dir": "/l",
                "resources": {"cpu_shares": 2, "cpu_quota": null, "cpu_period": null, "memory_limit": null,
                "pids": null}, "host_network": false}, "cgroup": "/flotilla/podu", "state": "/s/u"}"#,
        )
        .unwrap();
        assert_eq!(
            record.cgroup, "/flotilla/podu",
            "where it was made, whatever its class"
        );
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "a\0"] {
            assert!(!is_usable_name(name), "{name:?}");
        }
        assert!(is_usable_name("web-0"));
        assert!(is_usable_name("5b7d3c1e-0c2e-4a1a-9a53-2f6d1c0f8a11"));
    }
}
