//! Changing what a pod and its containers may use while they run.

use crate::errors::UpdateResourcesError;
use crate::pod::Pod;
use crate::spec::Resources;

impl Pod {
    /// Changes the limits of a running container; what has none in `resources` is set free, except for the weight.
    ///
    /// A container's limits cannot exceed the pod's: raise the pod's before, lower them after.
    pub async fn update_resources(&self, id: &str, resources: Resources) -> Result<(), UpdateResourcesError> {
        let runs = self
            .containers()
            .iter()
            .any(|state| state.id == id && state.finished.is_none());
        if !runs {
            return Err(UpdateResourcesError::NotRunning { id: id.to_owned() });
        }
        self.update(self.container_cgroup(id), resources).await
    }

    /// Changes the limits of the pod as a whole, likewise.
    pub async fn update_pod_resources(&self, resources: Resources) -> Result<(), UpdateResourcesError> {
        self.qos().add(self.spec().qos, self.uid(), &resources);
        self.update(self.cgroup().to_owned(), resources).await
    }

    async fn update(&self, cgroup: String, resources: Resources) -> Result<(), UpdateResourcesError> {
        let cgroups = self.cgroups().clone();
        let name = cgroup.clone();
        // A lower memory limit makes the kernel reclaim before it answers.
        tokio::task::spawn_blocking(move || cgroups.update(&name, &resources))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|source| UpdateResourcesError::Write { cgroup, source })
    }
}
