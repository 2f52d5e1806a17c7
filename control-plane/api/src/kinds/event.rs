//! Event

use k8s_openapi::api::core::v1::Event;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Event>::namespaced("event").build()
}
