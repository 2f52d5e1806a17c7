//! Deployment

use k8s_openapi::api::apps::v1::Deployment;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Deployment>::namespaced("deployment").build()
}
