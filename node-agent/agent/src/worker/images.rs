//! Finds a container's image on the node, or has it pulled beside everything else that the worker does.

use std::sync::Arc;
use std::time::Duration;

use flotilla_images::{Image, Keyring, Progress, Pulled};
use flotilla_lifecycle::{Notice, PullPolicy, pull_policy};
use flotilla_report::report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::task::{JoinError, JoinSet};

use super::{Surroundings, Worker};

/// The pulls that a pod waits for. Dropping them gives the pod's places up.
pub(super) type Pulls = JoinSet<PullEnd>;

/// How a pull ended.
pub(super) struct PullEnd {
    container: String,
    result: Result<Pulled, String>,
}

/// What a look for an image brought.
pub(super) enum Found {
    Present(Image),
    /// It is to be asked of a registry first.
    Elsewhere,
}

/// Why an image is not at hand.
pub(super) struct Missing {
    reason: &'static str,
    message: String,
}

impl Missing {
    fn pull(message: String) -> Self {
        Self {
            reason: "ErrImagePull",
            message,
        }
    }
}

impl Worker {
    pub(super) async fn find_image(&self, name: &str) -> Result<Found, Missing> {
        let container = self.container(name).unwrap_or_default();
        let reference = container.image.as_deref().unwrap_or_default();
        if let Err(error) = flotilla_images::normalize(reference) {
            return Err(Missing {
                reason: "InvalidImageName",
                message: format!(
                    "Failed to apply default image tag \"{reference}\": {}",
                    report(&error)
                ),
            });
        }
        let machine = &self.surroundings.machine;
        let present = machine
            .find_image(reference, &self.uid, name)
            .await
            .map_err(|error| Missing::pull(report(&error)))?;
        match (present, pull_policy(&container)) {
            // An imported or built-in image came from no registry that could be asked.
            (Some(image), PullPolicy::Always) if image.is_pulled => Ok(Found::Elsewhere),
            (Some(image), _) => Ok(Found::Present(image)),
            (None, PullPolicy::Never) => Err(Missing {
                reason: "ErrImageNeverPull",
                message: format!("Container image \"{reference}\" is not present with pull policy of Never"),
            }),
            (None, _) => Ok(Found::Elsewhere),
        }
    }

    pub(super) fn learn_image(&mut self, name: &str, found: Result<Found, Missing>) {
        match found {
            Ok(Found::Present(image)) => {
                let message = format!(
                    "Container image \"{}\" already present on machine",
                    self.image_of(name)
                );
                self.tell_about(name, false, "Pulled", message);
                self.image_is_here(name, image);
            }
            Ok(Found::Elsewhere) => self.begin_pull(name),
            Err(missing) => self.image_is_missing(name, missing),
        }
    }

    fn begin_pull(&mut self, name: &str) {
        let Some(container) = self.container(name) else {
            return;
        };
        let message = format!("Pulling image \"{}\"", self.image_of(name));
        self.tell_about(name, false, "Pulling", message);
        match self.keyring() {
            Ok(keyring) => {
                self.checkpoint.history.container_mut(name).image_pulling();
                let pod = self.checkpoint.pod.clone();
                let surroundings = self.surroundings.clone();
                self.pulls.spawn(pull(surroundings, pod, container, keyring));
            }
            Err(message) => self.image_is_missing(name, Missing::pull(message)),
        }
    }

    /// Takes the image of a pull that has ended.
    pub(super) async fn learn_pull(&mut self, end: Result<PullEnd, JoinError>) {
        let Ok(PullEnd { container, result }) = end else {
            // It panicked, and whose it was is not known: those that are under way join their downloads again.
            self.pulls = Pulls::new();
            return self.checkpoint.history.pulls_lost();
        };
        let name = container.as_str();
        let reference = self.image_of(name);
        let pulled = match result {
            Ok(pulled) => pulled,
            Err(message) => return self.image_is_missing(name, Missing::pull(message)),
        };
        let message = format!(
            "Successfully pulled image \"{reference}\" in {} ({} including waiting). Image size: {} bytes.",
            go_duration(pulled.took),
            go_duration(pulled.took_with_waiting),
            pulled.size_bytes
        );
        self.tell_about(name, false, "Pulled", message);
        let held = self
            .surroundings
            .machine
            .find_image(&reference, &self.uid, name)
            .await;
        match held {
            Ok(Some(image)) => self.image_is_here(name, image),
            Ok(None) => {
                let message = "the image was removed as soon as it was there".to_owned();
                self.image_is_missing(name, Missing::pull(message));
            }
            Err(error) => self.image_is_missing(name, Missing::pull(report(&error))),
        }
    }

    fn image_is_here(&mut self, name: &str, image: Image) {
        self.images.insert(name.to_owned(), image);
        self.checkpoint.history.container_mut(name).image_found();
    }

    fn image_is_missing(&mut self, name: &str, missing: Missing) {
        let reference = self.image_of(name);
        let Missing { reason, message } = missing;
        match reason {
            "ErrImagePull" => {
                let told = format!("Failed to pull image \"{reference}\": {message}");
                self.tell_about(name, true, "Failed", told);
                self.tell_about(name, true, "Failed", "Error: ErrImagePull".to_owned());
            }
            "InvalidImageName" => self.tell_about(name, true, "InspectFailed", message.clone()),
            _ => {
                self.tell_about(name, true, "ErrImageNeverPull", message.clone());
                self.tell_about(name, true, "Failed", "Error: ErrImageNeverPull".to_owned());
            }
        }
        let now = Timestamp::now();
        let history = self.checkpoint.history.container_mut(name);
        history.image_missing(reason, message, now);
    }

    /// The credentials that the pod's secrets hold.
    fn keyring(&self) -> Result<Keyring, String> {
        let mut keyring = Keyring::default();
        let mut absent = Vec::new();
        let spec = self.checkpoint.pod.spec.as_ref();
        for named in spec
            .and_then(|spec| spec.image_pull_secrets.as_ref())
            .into_iter()
            .flatten()
        {
            let Some(secret) = self.checkpoint.secrets.get(&named.name) else {
                absent.push(named.name.clone());
                continue;
            };
            let data = |key: &str| Some(secret.data.as_ref()?.get(key)?.0.as_slice());
            let kind = secret.type_.as_deref().unwrap_or_default();
            keyring.add_secret(kind, data).map_err(|error| {
                format!(
                    "the image pull secret {:?} cannot be used: {}",
                    named.name,
                    report(&error)
                )
            })?;
        }
        if !absent.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                absent.join(", ")
            );
            self.tell(Notice::of_pod(true, "FailedToRetrieveImagePullSecret", message));
        }
        Ok(keyring)
    }

    fn image_of(&self, name: &str) -> String {
        let container = self.container(name);
        container
            .and_then(|container| container.image)
            .unwrap_or_default()
    }
}

async fn pull(surroundings: Arc<Surroundings>, pod: Pod, container: Container, keyring: Keyring) -> PullEnd {
    let reference = container.image.clone().unwrap_or_default();
    let told = |progress: Progress| {
        let message = format!("Pulling image \"{reference}\": {}", in_words(progress));
        let notice = Notice::of_container(&pod, &container.name, false, "Pulling", message);
        surroundings.outbox.event(&pod, notice);
    };
    let is_always = pull_policy(&container) == PullPolicy::Always;
    let result = surroundings
        .machine
        .pull(&reference, keyring, is_always, &told)
        .await;
    PullEnd {
        container: container.name.clone(),
        result,
    }
}

fn in_words(progress: Progress) -> String {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let Progress {
        bytes_done,
        bytes_total,
    } = progress;
    match (bytes_done * 100).checked_div(bytes_total) {
        None => "waiting for the registry".to_owned(),
        Some(percent) => format!(
            "{:.1} MB of {:.1} MB ({percent} %)",
            megabytes(bytes_done),
            megabytes(bytes_total)
        ),
    }
}

/// As Go prints a duration that was cut to milliseconds: `5ms`, `1.2s`, `1m2.5s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return if millis == 0 {
            "0s".to_owned()
        } else {
            format!("{millis}ms")
        };
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match minutes {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_does() {
        let printed = |millis| go_duration(Duration::from_millis(millis));
        assert_eq!(
            [0, 5, 1200, 1000, 62_500, 120_000].map(printed),
            ["0s", "5ms", "1.2s", "1s", "1m2.5s", "2m0s"]
        );
    }

    #[test]
    fn progress_is_told_in_megabytes() {
        let told = |bytes_done, bytes_total| {
            in_words(Progress {
                bytes_done,
                bytes_total,
            })
        };
        assert_eq!(told(0, 0), "waiting for the registry");
        assert_eq!(told(12_340_000, 40_000_000), "12.3 MB of 40.0 MB (30 %)");
    }
}
