//! EndpointSlice

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<EndpointSlice>::namespaced("endpointslice").build()
}
