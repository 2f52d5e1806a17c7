//! What has happened to a pod on this node: the agent's memory, kept on disk beside the desired pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::backoff::{Backoff, FIRST_SECONDS, double};
use crate::probes::ProbeResults;
use crate::resize::Resize;
use crate::stopping::Stopping;
use crate::volumes::Volumes;

/// Everything that [`plan`](crate::plan) must know about the past of a pod.
///
/// *Guarantees*: an agent that loads a history and replays what the runtime still knows goes on as if it had never
/// been away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When this node took the pod on.
    pub started_at: Option<Timestamp>,
    /// The pod's namespaces and address.
    pub sandbox: Sandbox,
    /// How many sandboxes were made so far.
    pub sandboxes: u32,
    /// The addresses of the newest sandbox; they stay in the status of a pod that has ended.
    pub addresses: Vec<IpAddr>,
    /// By container name, init containers included.
    pub containers: BTreeMap<String, ContainerHistory>,
    /// When the first container was asked to stop because the pod ends.
    pub stopping_since: Option<Timestamp>,
    /// How far a change of its containers' resources is.
    #[serde(default)]
    pub resize: Resize,
    /// The API object is gone: end the pod without grace.
    pub removed: bool,
    /// The node itself has ended the pod, or never took it.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// The pod's volumes.
    #[serde(default)]
    pub volumes: Volumes,
}

/// Why the node itself ended a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The status' reason, such as `Evicted` or `OutOfcpu`.
    pub reason: String,
    /// The status' message.
    pub message: String,
    /// How long its containers may take to stop.
    pub grace_seconds: i64,
    /// Whether the pod ran and is ended for the node's sake: its end is a disruption, and no fault of its own.
    pub is_disruption: bool,
}

/// The state of a pod's namespaces and address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sandbox {
    /// Not made yet.
    #[default]
    Absent,
    /// Could not be made.
    Failed {
        /// Why, in words.
        message: String,
        /// When.
        since: Timestamp,
        /// How many times in a row.
        tries: u32,
    },
    /// Made, and the network is attached.
    Ready,
    /// Was there, and its shim or the machine died.
    Lost,
    /// Taken down for good.
    Removed,
}

/// The past of one container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerHistory {
    /// How many times it was started (or failed to start).
    pub attempts: u32,
    /// The newest attempt.
    pub run: Option<Run>,
    /// How the attempt before the newest one ended.
    pub last: Option<Termination>,
    /// What the restarts so far cost the next one.
    pub backoff: Option<Backoff>,
    /// Why the next attempt cannot even be made.
    pub trouble: Option<Trouble>,
    /// Whether the image is at hand.
    pub image: ImageState,
    /// What was asked of the running attempt.
    pub stop: Option<Stop>,
    /// When the running attempt was asked to stop.
    #[serde(default)]
    pub signalled_at: Option<Timestamp>,
    /// Set while this container is being stopped and its pod is not.
    #[serde(default)]
    pub stopping: Option<Stopping>,
    /// The verdicts of the probes on the newest attempt.
    #[serde(default)]
    pub probes: ProbeResults,
    /// What stands between the newest attempt's start and its being counted as running.
    #[serde(default)]
    pub post_start: Option<PostStart>,
}

/// The hook that runs right after a container's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostStart {
    /// It is to run, or runs.
    Pending,
    /// It failed, so the container is ended; why, in words.
    Failed {
        /// Kubelet's words.
        message: String,
    },
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The runtime's name of the container.
    pub id: String,
    /// When its process started.
    pub started_at: Timestamp,
    /// The image's full reference.
    pub image: String,
    /// The image's digest.
    pub image_id: String,
    /// The signal that the image wants for a stop.
    pub stop_signal: Option<String>,
    /// Set once it has ended.
    pub finished: Option<Termination>,
    /// What it was started with; another wish makes another attempt.
    #[serde(default)]
    pub started_with: StartedWith,
}

/// What the pod said when an attempt was started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StartedWith {
    /// The image as the pod names it; none when that is not known.
    pub image: Option<String>,
    /// Who runs it.
    #[serde(default)]
    pub user: Option<RunUser>,
    /// What it may use, as it was started or last resized.
    #[serde(default)]
    pub resources: Option<ResourceRequirements>,
}

/// The numbers behind a container's user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// The runtime's name of the container.
    pub id: String,
    /// The process's exit code, or 128 plus the signal.
    pub exit_code: i32,
    /// Completed, Error, OOMKilled, StartError or ContainerStatusUnknown.
    pub reason: String,
    /// More words, where there are any.
    pub message: Option<String>,
    /// None when the process never started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// It was stopped to be started anew, whatever its exit code.
    #[serde(default)]
    pub is_replaced: bool,
}

/// Why a container cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// CreateContainerConfigError or CreateContainerError.
    pub reason: String,
    /// In words.
    pub message: String,
    /// When it was found.
    pub since: Timestamp,
}

/// Whether a container's image is at hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageState {
    /// Not looked for since the last start.
    #[default]
    Unknown,
    /// On its way from a registry.
    Pulling {
        /// How long the wait before this attempt was; none for the first one.
        waited_seconds: Option<i64>,
    },
    /// Found.
    Present,
    /// Looked for in vain.
    Missing {
        /// ErrImagePull, ErrImageNeverPull, InvalidImageName or ErrImagePull's like.
        reason: String,
        /// In words.
        message: String,
        /// When it was looked for.
        since: Timestamp,
        /// How long until the next look.
        wait_seconds: i64,
    },
}

/// What was asked of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The preStop hook runs.
    Hook,
    /// The preStop hook is over.
    Ready,
    /// The stop signal was sent.
    Asked,
    /// SIGKILL was sent.
    Killed,
}

/// The exit code that Kubernetes gives to a container whose end nobody saw.
const UNKNOWN_EXIT_CODE: i32 = 137;
/// The exit code of a process that could not be started.
const START_ERROR_EXIT_CODE: i32 = 128;

impl History {
    /// The history of a container, empty when it has none.
    pub fn container(&self, name: &str) -> ContainerHistory {
        self.containers.get(name).cloned().unwrap_or_default()
    }

    /// The history of a container, to be changed.
    pub fn container_mut(&mut self, name: &str) -> &mut ContainerHistory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// A sandbox was made. In a second one the init containers run again.
    pub fn sandbox_ready(&mut self, pod: &Pod, addresses: Vec<IpAddr>) {
        if self.sandboxes > 0 {
            for container in pod
                .spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten())
            {
                self.container_mut(&container.name).forget_run();
            }
        }
        self.sandboxes += 1;
        self.sandbox = Sandbox::Ready;
        self.addresses = addresses;
    }

    /// A sandbox could not be made.
    pub fn sandbox_failed(&mut self, message: String, now: Timestamp) {
        let tries = match &self.sandbox {
            Sandbox::Failed { tries, .. } => tries + 1,
            _ => 1,
        };
        self.sandbox = Sandbox::Failed {
            message,
            since: now,
            tries,
        };
    }

    /// The sandbox's shim or the whole machine died: every running container ended unseen.
    pub fn sandbox_lost(&mut self, now: Timestamp) {
        self.sandbox = Sandbox::Lost;
        for container in self.containers.values_mut() {
            container.lost(now);
        }
    }

    /// The agent that was pulling images is no more: they are looked for anew.
    pub fn pulls_lost(&mut self) {
        for container in self.containers.values_mut() {
            if matches!(container.image, ImageState::Pulling { .. }) {
                container.image = ImageState::Unknown;
            }
        }
    }

    /// The desired pod or what it refers to changed: what failed for the want of it is worth another try.
    pub fn inputs_changed(&mut self) {
        for container in self.containers.values_mut() {
            container.trouble = None;
        }
        self.volumes_stale();
    }
}

impl ContainerHistory {
    /// Whether the newest attempt runs and its postStart hook is behind it.
    pub fn is_up(&self) -> bool {
        self.is_running() && self.post_start.is_none()
    }

    /// Whether the newest attempt has a live process.
    pub fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.finished.is_none())
    }

    /// How the newest attempt ended, if it has.
    pub fn finished(&self) -> Option<&Termination> {
        self.run.as_ref()?.finished.as_ref()
    }

    /// The image was found.
    pub fn image_found(&mut self) {
        self.image = ImageState::Present;
    }

    /// The image was not found; `reason` is the waiting state's.
    pub fn image_missing(&mut self, reason: &str, message: String, now: Timestamp) {
        let wait_seconds = match self.waited_seconds() {
            Some(waited) if reason == "ErrImagePull" => double(waited),
            _ => FIRST_SECONDS,
        };
        self.image = ImageState::Missing {
            reason: reason.to_owned(),
            message,
            since: now,
            wait_seconds,
        };
    }

    /// The image is being pulled.
    pub fn image_pulling(&mut self) {
        self.image = ImageState::Pulling {
            waited_seconds: self.waited_seconds(),
        };
    }

    fn waited_seconds(&self) -> Option<i64> {
        match &self.image {
            ImageState::Missing { wait_seconds, .. } => Some(*wait_seconds),
            ImageState::Pulling { waited_seconds } => *waited_seconds,
            ImageState::Unknown | ImageState::Present => None,
        }
    }

    /// An attempt has a live process.
    pub fn started(&mut self, run: Run) {
        let now = run.started_at;
        self.begin(run, now);
    }

    /// An attempt was created and its process could not be started.
    pub fn start_failed(&mut self, mut run: Run, message: String) {
        let now = run.started_at;
        run.finished = Some(Termination {
            id: run.id.clone(),
            exit_code: START_ERROR_EXIT_CODE,
            reason: "StartError".to_owned(),
            message: Some(message),
            started_at: None,
            finished_at: now,
            is_replaced: false,
        });
        self.begin(run, now);
        self.image = ImageState::Unknown;
    }

    /// The next attempt cannot be made.
    pub fn troubled(&mut self, reason: &str, message: String, now: Timestamp) {
        self.trouble = Some(Trouble {
            reason: reason.to_owned(),
            message,
            since: now,
        });
    }

    /// The process of attempt `id` ended. Ends of other attempts are old news and change nothing.
    pub fn exited(&mut self, id: &str, code: i32, oom_killed: bool, finished_at: Timestamp) -> bool {
        let Some(run) = self
            .run
            .as_mut()
            .filter(|run| run.id == id && run.finished.is_none())
        else {
            return false;
        };
        let reason = match (oom_killed, code) {
            (true, _) => "OOMKilled",
            (false, 0) => "Completed",
            (false, _) => "Error",
        };
        run.finished = Some(Termination {
            id: id.to_owned(),
            exit_code: code,
            reason: reason.to_owned(),
            message: None,
            started_at: Some(run.started_at),
            finished_at,
            is_replaced: self
                .stopping
                .as_ref()
                .is_some_and(|stopping| stopping.is_replaced),
        });
        self.forget_attempt();
        true
    }

    /// The process ended, and nobody saw how.
    pub fn lost(&mut self, now: Timestamp) {
        let Some(run) = self.run.as_mut().filter(|run| run.finished.is_none()) else {
            return;
        };
        run.finished = Some(Termination {
            id: run.id.clone(),
            exit_code: UNKNOWN_EXIT_CODE,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            started_at: Some(run.started_at),
            finished_at: now,
            is_replaced: self
                .stopping
                .as_ref()
                .is_some_and(|stopping| stopping.is_replaced),
        });
        self.forget_attempt();
    }

    /// Words that a finished attempt left behind.
    pub fn left_message(&mut self, message: String) {
        if let Some(finished) = self.run.as_mut().and_then(|run| run.finished.as_mut()) {
            finished.message = Some(message);
        }
    }

    fn begin(&mut self, run: Run, now: Timestamp) {
        if let Some(finished) = self.run.take().and_then(|run| run.finished) {
            self.backoff = Some(Backoff::after_restart(
                self.backoff.as_ref(),
                finished.finished_at,
                now,
            ));
            self.last = Some(finished);
        }
        self.attempts += 1;
        self.run = Some(run);
        self.trouble = None;
        self.forget_stop();
        self.probes = ProbeResults::default();
    }

    fn forget_attempt(&mut self) {
        self.image = ImageState::Unknown;
        self.forget_stop();
    }

    fn forget_stop(&mut self) {
        self.stop = None;
        self.signalled_at = None;
        self.stopping = None;
        self.post_start = None;
    }

    fn forget_run(&mut self) {
        if let Some(finished) = self.run.take().and_then(|run| run.finished) {
            self.last = Some(finished);
        }
    }
}
