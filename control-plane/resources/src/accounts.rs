//! Admission of service accounts: a new pod gets a token of the account that it names.

use flotilla_api::static_pods::{is_mirror, object_reference};
use flotilla_api::{Kind, Status, add_service_account, registry};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};

use crate::{Resources, create::random_suffix, resources::key, typed::decoded};

/// The account of pods that name none. Each namespace gets it a moment after its own creation, so it may be missing.
const DEFAULT: &str = "default";

impl Resources {
    /// Adds what the pod's account stands for; an account that does not exist keeps the pod out.
    pub(crate) async fn admit_account(
        &self,
        kind: &'static Kind,
        namespace: &str,
        pod: &mut Pod,
    ) -> Result<(), Status> {
        if is_mirror(pod) {
            return admit_mirror(kind, pod);
        }
        if !self.options.account_tokens {
            return Ok(());
        }
        let named = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let name = named.unwrap_or_else(|| DEFAULT.to_owned());
        let account = match self.account(namespace, &name).await? {
            Some(account) => account,
            None if name == DEFAULT => ServiceAccount::default(),
            None => {
                let pod = pod.metadata.name.clone().unwrap_or_default();
                let why = format!(
                    "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
                );
                return Err(Status::forbidden(kind, &pod, &why));
            }
        };
        add_service_account(pod, &account, &random_suffix());
        Ok(())
    }

    /// The account as it is known here, or if it is not, as it is now.
    async fn account(&self, namespace: &str, name: &str) -> Result<Option<ServiceAccount>, Status> {
        let key = key(registry().of::<ServiceAccount>(), namespace, name);
        let found = self.replica.snapshot().get(&key).cloned();
        let found = match found {
            Some(found) => Some(found),
            None => self.read().await?.get(&key).cloned(),
        };
        Ok(found
            .and_then(|stored| decoded::<ServiceAccount>(&stored))
            .map(|account| (*account).clone()))
    }
}

/// A mirror has no account, and refers to nothing that its node would be given with it.
fn admit_mirror(kind: &'static Kind, pod: &Pod) -> Result<(), Status> {
    let Some(found) = object_reference(pod) else {
        return Ok(());
    };
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let why = format!(
        "a mirror pod may not reference {} ({})",
        found.resource, found.field
    );
    Err(Status::forbidden(kind, name, &why))
}
