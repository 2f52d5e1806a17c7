//! Service

use k8s_openapi::api::core::v1::Service;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Service>::namespaced("service").build()
}
