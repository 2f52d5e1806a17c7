//! Secret

use k8s_openapi::api::core::v1::Secret;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Secret>::namespaced("secret").build()
}
