//! Endpoints

use k8s_openapi::api::core::v1::Endpoints;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Endpoints>::namespaced("endpoints").build()
}
