//! ControllerRevision

use k8s_openapi::api::apps::v1::ControllerRevision;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<ControllerRevision>::namespaced("controllerrevision").build()
}
