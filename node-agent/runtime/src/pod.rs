//! The agent's handle on one pod's sandbox.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use crate::cgroup::{Cgroups, QosTree, Usage};
use crate::connection::{self, Ask};
use crate::containers::Containers;
use crate::errors::{
    DestroySandboxError, KillContainerError, RemoveContainerError, ShimError, StartContainerError,
};
use crate::layout::{Layout, SandboxRecord};
use crate::protocol::{Answer, Call, Refusal};
use crate::sandbox::{self, StepError};
use crate::spec::{ContainerSpec, ContainerState, SandboxSpec, Started};
use crate::sys;
use crate::users::UserRanges;

/// Requests waiting for the connection's task, which only writes them to a socket: a pod has few containers.
const REQUESTS_MAX: usize = 16;

/// How long the shim may take to end all containers before it is killed itself.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// One pod's sandbox. Cheap to clone; dropping it changes nothing for the pod.
#[derive(Clone, Debug)]
pub struct Pod {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    record: SandboxRecord,
    cgroups: Cgroups,
    ledgers: Ledgers,
    tasks: TaskTracker,
    containers: Arc<Containers>,
    /// `None` once the shim is gone.
    shim: watch::Sender<Option<Shim>>,
}

/// What all pods of the node are entered in, and each is struck off at its end.
#[derive(Clone, Debug)]
pub(crate) struct Ledgers {
    pub(crate) qos: Arc<QosTree>,
    pub(crate) users: Arc<UserRanges>,
}

#[derive(Clone, Debug)]
struct Shim {
    requests: mpsc::Sender<Ask>,
    pid: i32,
}

impl Pod {
    pub(crate) fn new(
        layout: Layout,
        record: SandboxRecord,
        cgroups: Cgroups,
        ledgers: Ledgers,
        tasks: TaskTracker,
    ) -> Pod {
        ledgers
            .qos
            .add(record.spec.qos, &record.spec.uid, &record.spec.resources);
        let containers = Arc::new(Containers::new(layout.clone()));
        let shim = watch::channel(None).0;
        Pod {
            inner: Arc::new(Inner {
                layout,
                record,
                cgroups,
                ledgers,
                tasks,
                containers,
                shim,
            }),
        }
    }

    /// Talks to the shim from now on; returns once it has told what it has.
    pub(crate) async fn listen_to_shim(
        &self,
        stream: UnixStream,
        child: Option<Child>,
    ) -> Result<(), ShimError> {
        let reach = |source| self.unreachable(source);
        stream.set_nonblocking(true).map_err(reach)?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(reach)?;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let (pod, containers) = (self.clone(), Arc::clone(&self.inner.containers));
        self.inner.tasks.spawn(async move {
            connection::run(stream, queue, Arc::clone(&containers)).await;
            pod.inner.shim.send_replace(None);
            if let Some(child) = child {
                pod.reap(child);
            }
            containers.shim_is_gone(&pod.inner.tasks);
        });
        let (reply, answer) = oneshot::channel();
        requests
            .send(Ask {
                call: Call::Hello,
                reply,
            })
            .await
            .map_err(|_| ShimError::Gone)?;
        match answer.await {
            Ok(Ok(Answer::Hello { pid, .. })) => {
                self.inner.shim.send_replace(Some(Shim {
                    requests: requests.clone(),
                    pid,
                }));
                // The connection may have ended between its answer and now, and said so too early.
                if requests.is_closed() {
                    self.inner.shim.send_replace(None);
                }
                Ok(())
            }
            Ok(Err(refusal)) => Err(ShimError::Refused {
                message: format!("{refusal:?}"),
            }),
            _ => Err(ShimError::Gone),
        }
    }

    /// The shim has closed its socket, so it is ending; its zombie would stay without this.
    fn reap(&self, mut child: Child) {
        self.inner.tasks.spawn_blocking(move || child.wait());
    }

    /// Takes over from an earlier agent what its shim has left on disk.
    pub(crate) fn adopt_without_shim(&self) {
        self.inner.containers.load();
        self.inner.containers.shim_is_gone(&self.inner.tasks);
    }

    /// The files that stand for the namespaces have ended with the earlier agent's mount namespace.
    pub(crate) fn bind_namespaces_again(&self) -> Result<(), StepError> {
        match &*self.inner.shim.borrow() {
            Some(shim) => {
                let from = PathBuf::from(format!("/proc/{}/ns", shim.pid));
                sandbox::bind_namespaces(&self.inner.layout, &from)
            }
            None => Ok(()),
        }
    }

    /// The pod's cgroup, from each hierarchy's root.
    pub(crate) fn cgroup(&self) -> &str {
        &self.inner.record.cgroup
    }

    pub(crate) fn container_cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup())
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.inner.cgroups
    }

    pub(crate) fn qos(&self) -> &QosTree {
        &self.inner.ledgers.qos
    }

    /// The sandbox's run folder.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.inner.layout.run
    }

    pub(crate) fn unreachable(&self, source: std::io::Error) -> ShimError {
        ShimError::Connect {
            path: self.run_dir().join(Layout::socket_name()),
            source,
        }
    }

    /// The pod's uid.
    pub fn uid(&self) -> &str {
        &self.inner.record.spec.uid
    }

    /// What the sandbox was made from.
    pub fn spec(&self) -> &SandboxSpec {
        &self.inner.record.spec
    }

    /// A file that stands for the pod's network namespace.
    pub fn netns(&self) -> PathBuf {
        self.inner.layout.namespace("net")
    }

    /// The shim's process id, as long as it lives.
    pub fn shim_pid(&self) -> Option<i32> {
        self.inner.shim.borrow().as_ref().map(|shim| shim.pid)
    }

    /// Whether containers can still be started here; once false, always false.
    pub fn shim_alive(&self) -> bool {
        self.inner.shim.borrow().is_some()
    }

    async fn ask(&self, call: Call) -> Result<Result<Answer, Refusal>, ShimError> {
        let shim = self.inner.shim.borrow().clone().ok_or(ShimError::Gone)?;
        let (reply, answer) = oneshot::channel();
        shim.requests
            .send(Ask { call, reply })
            .await
            .map_err(|_| ShimError::Gone)?;
        answer.await.map_err(|_| ShimError::Gone)
    }

    /// Creates and starts a container; returns once its program has been executed.
    pub async fn start_container(&self, spec: ContainerSpec) -> Result<Started, StartContainerError> {
        match self
            .ask(Call::Start(Box::new(spec)))
            .await
            .map_err(StartContainerError::Shim)?
        {
            Ok(Answer::Started(started)) => Ok(started),
            Err(Refusal::Start(failure)) => Err(failure.into()),
            other => Err(StartContainerError::Shim(ShimError::Refused {
                message: format!("{other:?}"),
            })),
        }
    }

    /// Sends a signal to the container's init; SIGKILL ends all of its processes. A finished container is fine.
    pub async fn kill(&self, id: &str, signal: i32) -> Result<(), KillContainerError> {
        let id = id.to_owned();
        let answer = match self
            .ask(Call::Kill {
                id: id.clone(),
                signal,
            })
            .await
        {
            Err(ShimError::Gone) => return self.inner.containers.kill_without_shim(&id, signal),
            Err(source) => return Err(KillContainerError::Shim { id, signal, source }),
            Ok(answer) => answer,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(Refusal::UnknownContainer) => Err(KillContainerError::Unknown { id }),
            Err(Refusal::Errno(errno)) => {
                let source = std::io::Error::from_raw_os_error(errno);
                Err(KillContainerError::Signal { id, signal, source })
            }
            Err(other) => {
                let source = ShimError::Refused {
                    message: format!("{other:?}"),
                };
                Err(KillContainerError::Shim { id, signal, source })
            }
        }
    }

    /// Removes a finished container: cgroup, mounts, files. Its log stays. Unknown ids are fine.
    pub async fn remove_container(&self, id: &str) -> Result<(), RemoveContainerError> {
        let id = id.to_owned();
        match self.ask(Call::Remove { id: id.clone() }).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Refusal::StillRunning)) => Err(RemoveContainerError::Running { id }),
            Ok(Err(Refusal::Other(message))) => Err(RemoveContainerError::Shim {
                id,
                source: ShimError::Refused { message },
            }),
            Ok(Err(other)) => {
                let source = ShimError::Refused {
                    message: format!("{other:?}"),
                };
                Err(RemoveContainerError::Shim { id, source })
            }
            Err(ShimError::Gone) => self.remove_without_shim(id).await,
            Err(source) => Err(RemoveContainerError::Shim { id, source }),
        }
    }

    /// The overlay has ended with the mount namespaces of the shim and the container.
    async fn remove_without_shim(&self, id: String) -> Result<(), RemoveContainerError> {
        match self.inner.containers.get(&id) {
            None => return Ok(()),
            Some(state) if state.finished.is_none() => return Err(RemoveContainerError::Running { id }),
            Some(_) => {}
        }
        let paths = self.inner.layout.container(&id);
        let cgroup = self.container_cgroup(&id);
        let cgroups = self.inner.cgroups.clone();
        let work = move || {
            cgroups.kill(&cgroup);
            cgroups.remove(&cgroup)?;
            paths.remove_files()
        };
        let removed = tokio::task::spawn_blocking(work)
            .await
            .map_err(std::io::Error::other);
        match removed.flatten() {
            Ok(()) => {
                self.inner.containers.forget(&id);
                Ok(())
            }
            Err(source) => Err(RemoveContainerError::Leftover { id, source }),
        }
    }

    /// All containers that were started and not yet removed, oldest first.
    pub fn containers(&self) -> Vec<ContainerState> {
        self.inner.containers.list()
    }

    /// What all of the pod uses, and what each of its running containers does, by id.
    pub fn usage(&self) -> (Usage, BTreeMap<String, Usage>) {
        let Inner { record, cgroups, .. } = &*self.inner;
        let running = self
            .containers()
            .into_iter()
            .filter(|state| state.finished.is_none());
        let containers = running.map(|state| {
            let usage = cgroups.usage(&format!("{}/{}", record.cgroup, state.id));
            (state.id, usage)
        });
        (cgroups.usage(&record.cgroup), containers.collect())
    }

    /// Changes whenever a container has ended or the shim has died; then look at [`Pod::containers`].
    pub fn exits(&self) -> watch::Receiver<u64> {
        self.inner.containers.changes()
    }

    /// Kills what still runs and removes shim, namespaces, cgroup and files; logs stay.
    ///
    /// *Guarantees*: after an error it can be called again, by this agent or, after [`adopt`], by another.
    ///
    /// [`adopt`]: crate::Runtime::adopt
    pub async fn destroy(&self) -> Result<(), DestroySandboxError> {
        self.end_shim().await;
        let (layout, cgroups) = (self.inner.layout.clone(), self.inner.cgroups.clone());
        let cgroup = self.inner.record.cgroup.clone();
        let uid = || self.uid().to_owned();
        let work = move || sandbox::take_down(&layout, &cgroup, &cgroups);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(true)) => {
                self.inner.ledgers.qos.remove(self.spec().qos, self.uid());
                self.inner.ledgers.users.release(self.uid());
                Ok(())
            }
            Ok(Ok(false)) => Err(DestroySandboxError::Processes { uid: uid() }),
            Ok(Err(StepError { step, source })) => Err(DestroySandboxError::Step {
                step,
                uid: uid(),
                source,
            }),
            Err(error) => Err(DestroySandboxError::Step {
                step: "finish removing the sandbox",
                uid: uid(),
                source: std::io::Error::other(error),
            }),
        }
    }

    async fn end_shim(&self) {
        let Some(pid) = self.shim_pid() else { return };
        let mut gone = self.inner.shim.subscribe();
        let ended = async {
            // Gone before it could answer is as good as an answer.
            self.ask(Call::Shutdown).await.ok();
            gone.wait_for(Option::is_none).await.ok();
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, ended).await.is_err() {
            tracing::warn!(pod = self.uid(), "the shim does not end by itself and is killed");
            // Its pid is still its own: nobody has seen it end.
            sys::send_signal(pid, libc::SIGKILL).ok();
        }
    }
}
