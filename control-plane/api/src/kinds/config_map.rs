//! ConfigMap

use k8s_openapi::api::core::v1::ConfigMap;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<ConfigMap>::namespaced("configmap").build()
}
