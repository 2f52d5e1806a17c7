//! The kinds whose fields are known here, so that a slip is found without a server's schema.

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
    storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde_json::Value;

use super::fields::{Finding, findings};

macro_rules! known_kinds {
    ($($kind:ty),* $(,)?) => {
        /// Mistakes in the fields of an object, none for kinds that are not known here.
        pub(super) fn check(api_version: &str, kind: &str, object: &Value) -> Vec<Finding> {
            $(
                if api_version == <$kind as k8s_openapi::Resource>::API_VERSION
                    && kind == <$kind as k8s_openapi::Resource>::KIND
                {
                    return findings::<$kind>(object);
                }
            )*
            Vec::new()
        }

        /// Whether the fields of this object's kind are known here.
        pub(super) fn is_known(object: &Value) -> bool {
            $(
                (object["apiVersion"] == <$kind as k8s_openapi::Resource>::API_VERSION
                    && object["kind"] == <$kind as k8s_openapi::Resource>::KIND)
            )||*
        }
    };
}

known_kinds! {
    core::Pod, core::ConfigMap, core::Secret, core::Service, core::ServiceAccount, core::Namespace, core::Node,
    core::Endpoints, core::Event, core::PersistentVolume, core::PersistentVolumeClaim, core::ReplicationController,
    core::ResourceQuota, core::LimitRange, core::PodTemplate,
    apps::Deployment, apps::ReplicaSet, apps::StatefulSet, apps::DaemonSet, apps::ControllerRevision,
    batch::Job, batch::CronJob,
    autoscaling::HorizontalPodAutoscaler,
    networking::Ingress, networking::IngressClass, networking::NetworkPolicy,
    rbac::Role, rbac::ClusterRole, rbac::RoleBinding, rbac::ClusterRoleBinding,
    policy::PodDisruptionBudget, scheduling::PriorityClass, storage::StorageClass,
    coordination::Lease, discovery::EndpointSlice,
    apiextensions::CustomResourceDefinition,
    admissionregistration::ValidatingWebhookConfiguration, admissionregistration::MutatingWebhookConfiguration,
}
