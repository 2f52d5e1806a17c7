//! ReplicaSet

use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<ReplicaSet>::namespaced("replicaset").build()
}
