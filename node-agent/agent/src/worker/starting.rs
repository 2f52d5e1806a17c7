//! Starts one container.

use flotilla_images::Image;
use flotilla_lifecycle::{
    Facts, ImageDefaults, ImageState, Launch, LaunchError, Run, RunUser, StartedWith, allocated,
    check_non_root, container_limits, launch,
};
use flotilla_report::report;
use flotilla_runtime::{Capabilities, ContainerSpec, StartContainerError, Started, User, logs};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use super::Worker;
use super::security;
use super::steps::resources;

/// Why a container's spec cannot be made.
#[derive(Debug, thiserror::Error)]
enum SpecError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("{0}")]
    User(#[from] flotilla_images::ResolveUserError),
    #[error("cannot make the file for the container's termination message")]
    LastWords(#[source] std::io::Error),
    #[error(transparent)]
    Mount(#[from] flotilla_volumes::MountError),
}

impl SpecError {
    fn waiting_reason(&self) -> &'static str {
        match self {
            SpecError::Launch(LaunchError::NoCommand) | SpecError::User(_) | SpecError::LastWords(_) => {
                "CreateContainerError"
            }
            SpecError::Launch(_) | SpecError::Mount(_) => "CreateContainerConfigError",
        }
    }
}

impl Worker {
    pub(super) async fn start(&mut self, name: &str, attempt: u32) {
        let Some(container) = self.container(name) else {
            return;
        };
        let container = allocated(&container, &self.checkpoint.history);
        let Some(image) = self.images.get(name).cloned() else {
            self.checkpoint.history.container_mut(name).image = ImageState::Unknown;
            return;
        };
        let spec = match self.container_spec(&container, &image, attempt) {
            Ok(spec) => spec,
            Err(error) => {
                let (reason, message) = (error.waiting_reason(), report(&error));
                self.trouble(name, reason, message);
                return;
            }
        };
        self.remove_old_logs(name, attempt);
        let id = spec.id.clone();
        let with = StartedWith {
            image: container.image.clone(),
            user: Some(RunUser {
                uid: spec.user.uid,
                gid: spec.user.gid,
                groups: spec.user.additional_gids.clone(),
            }),
            resources: Some(container.resources.clone().unwrap_or_default()),
        };
        let started = self.surroundings.machine.start(&self.uid, spec).await;
        self.learn_start(name, (id, with), &image, started).await;
        if self.checkpoint.history.container(name).is_running() {
            self.checkpoint.history.expect_post_start(&container);
        }
    }

    async fn learn_start(
        &mut self,
        name: &str,
        (id, started_with): (String, StartedWith),
        image: &Image,
        started: Result<Started, StartContainerError>,
    ) {
        let now = Timestamp::now();
        let mut run = Run {
            id,
            started_at: now,
            image: image.reference.clone(),
            image_id: image.digest.clone().unwrap_or_else(|| image.id.clone()),
            stop_signal: image.config.stop_signal.clone(),
            finished: None,
            started_with,
        };
        match started {
            Ok(started) => {
                self.tell_about(name, false, "Created", format!("Created container: {name}"));
                self.tell_about(name, false, "Started", format!("Started container {name}"));
                run.started_at = started.started_at;
                self.checkpoint.history.container_mut(name).started(run);
            }
            Err(error @ StartContainerError::Shim(_)) => {
                tracing::warn!(
                    pod = self.uid,
                    container = name,
                    error = report(&error),
                    "the sandbox is gone"
                );
                self.checkpoint.history.sandbox_lost(now);
                // A shim that dies of this container must not be made again and again.
                self.trouble(name, "CreateContainerError", report(&error));
            }
            Err(
                error @ (StartContainerError::CommandNotFound { .. }
                | StartContainerError::PathNotFound { .. }
                | StartContainerError::NotExecutable { .. }
                | StartContainerError::BadWorkingDirectory { .. }),
            ) => {
                let message = format!("failed to start container \"{name}\": {}", report(&error));
                self.tell_about(name, false, "Created", format!("Created container: {name}"));
                self.tell_about(name, true, "Failed", format!("Error: {message}"));
                self.forget_container(&run.id).await;
                self.checkpoint
                    .history
                    .container_mut(name)
                    .start_failed(run, message);
            }
            Err(error) => {
                self.forget_container(&run.id).await;
                self.trouble(name, "CreateContainerError", report(&error));
            }
        }
    }

    fn trouble(&mut self, name: &str, reason: &str, message: String) {
        self.tell_about(name, true, "Failed", format!("Error: {message}"));
        self.checkpoint
            .history
            .container_mut(name)
            .troubled(reason, message, Timestamp::now());
    }

    async fn forget_container(&self, id: &str) {
        if let Err(error) = self.surroundings.machine.remove_container(&self.uid, id).await {
            tracing::debug!(
                pod = self.uid,
                id,
                error = report(&error),
                "nothing to remove of a failed start"
            );
        }
    }

    fn container_spec(
        &self,
        container: &Container,
        image: &Image,
        attempt: u32,
    ) -> Result<ContainerSpec, SpecError> {
        let pod = &self.checkpoint.pod;
        let references = self.checkpoint.references();
        let services = self.surroundings.service_variables(pod);
        let facts = Facts {
            pod,
            references: &references,
            addresses: &self.checkpoint.history.addresses,
            host_addresses: &self.surroundings.host_addresses,
            allocatable: &self.surroundings.allocatable,
            services: &services,
        };
        let launch = launch(&facts, container, &defaults(image))?;
        let user = self.user(image, &launch)?;
        check_non_root(pod, container, user.uid)?;
        let log_dir = self.surroundings.log_dir(pod);
        let id = format!("{}-{attempt}", container.name);
        let mut mounts = self.mounts(container, &launch)?;
        let last_words = self.last_words_mount(container, &id);
        mounts.extend(last_words.map_err(SpecError::LastWords)?);
        let mut spec = ContainerSpec {
            id,
            name: container.name.clone(),
            attempt,
            lower_dirs: image.layers.clone(),
            user,
            resources: resources(container_limits(container)),
            log_path: logs::path(&log_dir, &container.name, attempt),
            mounts,
            args: launch.args,
            env: launch.env,
            cwd: launch.cwd,
            read_only_rootfs: launch.read_only_root,
            capabilities: Capabilities {
                add: launch.capabilities_added,
                drop: launch.capabilities_dropped,
            },
            no_new_privileges: launch.no_new_privileges,
            terminal: container.tty == Some(true),
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            target: self.target_of(&container.name),
            ..ContainerSpec::default()
        };
        security::confine(&mut spec, pod, container, &self.surroundings.allocatable);
        Ok(spec)
    }

    /// The container whose processes an ephemeral one joins.
    fn target_of(&self, name: &str) -> Option<String> {
        let spec = self.checkpoint.pod.spec.as_ref()?;
        let all = spec.ephemeral_containers.iter().flatten();
        let target = all.into_iter().find(|one| one.name == name)?;
        let target = target
            .target_container_name
            .as_ref()
            .filter(|name| !name.is_empty())?;
        let past = self.checkpoint.history.container(target);
        // The runtime says so if there is none that runs.
        Some(past.run.map_or_else(|| target.clone(), |run| run.id))
    }

    fn user(&self, image: &Image, launch: &Launch) -> Result<User, SpecError> {
        let found = self.surroundings.machine.user(image, &launch.user)?;
        let mut additional_gids = found.additional_gids;
        additional_gids.extend(&launch.supplemental_groups);
        Ok(User {
            uid: found.uid,
            gid: launch.group.unwrap_or(found.gid),
            additional_gids,
        })
    }

    /// Only the running and the previous attempt's logs can be asked for.
    fn remove_old_logs(&self, name: &str, attempt: u32) {
        let Some(old) = attempt.checked_sub(2) else { return };
        let path = logs::path(&self.surroundings.log_dir(&self.checkpoint.pod), name, old);
        for suffix in ["", ".1", ".2"] {
            let mut file = path.clone().into_os_string();
            file.push(suffix);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = ?file, error = report(&error), "an old log stays");
                }
                _ => {}
            }
        }
    }
}

fn defaults(image: &Image) -> ImageDefaults {
    let config = &image.config;
    ImageDefaults {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
    }
}
