//! Node

use k8s_openapi::api::core::v1::Node;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Node>::cluster_scoped("node").build()
}
