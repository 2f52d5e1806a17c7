//! ReplicationController

use k8s_openapi::api::core::v1::ReplicationController;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<ReplicationController>::namespaced("replicationcontroller").build()
}
