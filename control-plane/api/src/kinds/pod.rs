//! Pod

use k8s_openapi::api::core::v1::Pod;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Pod>::namespaced("pod").build()
}
