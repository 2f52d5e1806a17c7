//! Namespace

use k8s_openapi::api::core::v1::Namespace;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Namespace>::cluster_scoped("namespace").build()
}
