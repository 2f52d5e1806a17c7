//! Carries out what the plan asks for, and notes what came of it.

use std::net::IpAddr;

use flotilla_lifecycle::{
    Begin, CgroupLimits, Notice, Sandbox, Step, Stop, host_network_hosts_file, hostname, hosts_file,
    kernel_hostname, resolver_file,
};
use flotilla_report::report;
use flotilla_runtime::{Resources, SandboxSpec};
use jiff::Timestamp;

use super::Worker;
use super::images::{Found, Missing};
use super::security;
use super::volumes::Outfit;
use crate::policies::own_address;

const SIGKILL: i32 = 9;

/// What came of a step that needs nothing but the machine.
enum Outcome {
    Image {
        container: String,
        found: Result<Found, Missing>,
    },
    Volumes(Outfit),
    Sandbox(Result<Vec<IpAddr>, String>),
}

impl Worker {
    /// Carries out the steps. False: one failed in a way that the history does not show, so wait before the next.
    pub(super) async fn perform(&mut self, steps: Vec<Step>) -> bool {
        let is_preparation = |step: &Step| {
            matches!(
                step,
                Step::FindImage { .. } | Step::SetUpVolumes | Step::MakeSandbox
            )
        };
        let (first, rest): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(is_preparation);
        let outcomes = futures::future::join_all(first.into_iter().map(|step| self.prepare(step))).await;
        for outcome in outcomes.into_iter().flatten() {
            self.learn(outcome);
        }
        let mut is_well = true;
        for step in rest {
            is_well &= self.carry_out(step).await;
        }
        is_well
    }

    async fn prepare(&self, step: Step) -> Option<Outcome> {
        match step {
            Step::FindImage { container } => {
                let found = self.find_image(&container).await;
                Some(Outcome::Image { container, found })
            }
            Step::SetUpVolumes => Some(Outcome::Volumes(self.set_up_volumes().await)),
            Step::MakeSandbox => {
                let made = self.make_sandbox().await;
                Some(Outcome::Sandbox(made))
            }
            _ => None,
        }
    }

    /// A sandbox is of use once the kernel knows what the pod may send and receive: nothing runs in it before.
    async fn make_sandbox(&self) -> Result<Vec<IpAddr>, String> {
        let machine = &self.surroundings.machine;
        let made = machine.make_sandbox(self.sandbox_spec()?).await;
        let addresses = made.map_err(|error| report(&error))?;
        let pod = &self.checkpoint.pod;
        if let Some(address) = own_address(pod, &addresses) {
            let admitted = machine.admit(&self.uid, pod, address).await;
            admitted.map_err(|error| report(&error))?;
        }
        Ok(addresses)
    }

    fn sandbox_spec(&self) -> Result<SandboxSpec, String> {
        let pod = &self.checkpoint.pod;
        let meta = &pod.metadata;
        let domain = self.cluster_domain();
        let mut spec = SandboxSpec {
            uid: self.uid.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            hostname: kernel_hostname(pod, &domain)?,
            log_dir: self.surroundings.log_dir(pod),
            resources: self.pod_resources(pod),
            host_network: self.uses_host_network(),
            ..SandboxSpec::default()
        };
        security::isolate(&mut spec, pod);
        Ok(spec)
    }

    fn cluster_domain(&self) -> String {
        let cluster = self.surroundings.cluster.borrow();
        cluster
            .as_ref()
            .map(|cluster| cluster.cluster_domain.clone())
            .unwrap_or_default()
    }

    fn uses_host_network(&self) -> bool {
        self.checkpoint
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.host_network)
            .unwrap_or_default()
    }

    fn learn(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::Image { container, found } => self.learn_image(&container, found),
            Outcome::Volumes(outfit) => self.learn_volumes(outfit, now),
            Outcome::Sandbox(made) => {
                self.changes = None;
                let written = made.and_then(|addresses| self.write_files(&addresses).map(|()| addresses));
                match written {
                    Ok(addresses) => self
                        .checkpoint
                        .history
                        .sandbox_ready(&self.checkpoint.pod, addresses),
                    Err(message) => {
                        let told = format!("Failed to create pod sandbox: {message}");
                        self.tell(Notice::of_pod(true, "FailedCreatePodSandBox", told));
                        self.checkpoint.history.sandbox_failed(message, now);
                    }
                }
            }
        }
    }

    pub(super) fn tell_about(
        &self,
        container: &str,
        is_warning: bool,
        reason: &'static str,
        message: String,
    ) {
        self.tell(Notice::of_container(
            &self.checkpoint.pod,
            container,
            is_warning,
            reason,
            message,
        ));
    }

    /// Writes the files that all containers of the pod see under `/etc`.
    fn write_files(&self, addresses: &[IpAddr]) -> Result<(), String> {
        let pod = &self.checkpoint.pod;
        let cluster = self.surroundings.cluster.borrow().clone().unwrap_or_default();
        let node_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let hosts = if self.uses_host_network() {
            host_network_hosts_file(pod, &node_file("/etc/hosts"))
        } else {
            hosts_file(pod, addresses, &cluster.cluster_domain)
        };
        let resolver = resolver_file(
            pod,
            &cluster.cluster_dns,
            &cluster.cluster_domain,
            &node_file("/etc/resolv.conf"),
        );
        let folder = self.surroundings.files_dir.join(&self.uid);
        let write = || {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("hosts"), hosts)?;
            std::fs::write(folder.join("hostname"), format!("{}\n", hostname(pod)))?;
            std::fs::write(folder.join("resolv.conf"), resolver)
        };
        write().map_err(|error: std::io::Error| format!("cannot write the pod's files: {}", report(&error)))
    }

    async fn carry_out(&mut self, step: Step) -> bool {
        match step {
            Step::FindImage { .. } | Step::SetUpVolumes | Step::MakeSandbox => true,
            Step::Start { container, attempt } => {
                self.start(&container, attempt).await;
                true
            }
            Step::PreStop { container, begin, .. } => {
                self.stop_begins(&container, begin.as_ref());
                let now = Timestamp::now();
                self.checkpoint
                    .history
                    .stopped(&container, Stop::Hook, begin.as_ref(), now);
                true
            }
            Step::Signal {
                container,
                id,
                signal,
                begin,
            } => {
                self.stop_begins(&container, begin.as_ref());
                self.signal(&container, &id, signal, (Stop::Asked, begin)).await
            }
            Step::Kill { container, id, begin } => {
                self.stop_begins(&container, begin.as_ref());
                self.signal(&container, &id, SIGKILL, (Stop::Killed, begin)).await
            }
            Step::Resize => self.resize().await,
            Step::RemoveSandbox => self.remove_sandbox().await,
            Step::RemoveVolumes => self.remove_volumes().await,
        }
    }

    fn stop_begins(&self, container: &str, begin: Option<&Begin>) {
        if let Some(begin) = begin {
            self.tell_about(container, false, "Killing", begin.message.clone());
        }
    }

    async fn signal(
        &mut self,
        container: &str,
        id: &str,
        signal: i32,
        (stop, begin): (Stop, Option<Begin>),
    ) -> bool {
        let sent = self.surroundings.machine.signal(&self.uid, id, signal).await;
        if let Err(error) = &sent {
            // A container that has ended meanwhile is the usual reason; its end is on the way.
            tracing::warn!(
                pod = self.uid,
                id,
                signal,
                error = report(error),
                "a container cannot be signalled"
            );
            return false;
        }
        let now = Timestamp::now();
        self.checkpoint
            .history
            .stopped(container, stop, begin.as_ref(), now);
        true
    }

    async fn remove_sandbox(&mut self) -> bool {
        match self.surroundings.machine.remove_sandbox(&self.uid).await {
            Ok(()) => {
                self.changes = None;
                self.checkpoint.history.sandbox = Sandbox::Removed;
                true
            }
            Err(error) => {
                tracing::warn!(
                    pod = self.uid,
                    error = report(&error),
                    "a sandbox cannot be taken down yet"
                );
                false
            }
        }
    }
}

pub(super) fn resources(limits: CgroupLimits) -> Resources {
    Resources {
        cpu_shares: limits.cpu_shares,
        cpu_quota: limits.cpu_quota,
        cpu_period: limits.cpu_period,
        memory_limit: limits.memory_limit,
        ..Resources::default()
    }
}
