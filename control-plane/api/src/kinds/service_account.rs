//! ServiceAccount

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<ServiceAccount>::namespaced("serviceaccount").build()
}
