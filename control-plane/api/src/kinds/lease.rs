//! Lease

use k8s_openapi::api::coordination::v1::Lease;

use crate::builder::Builder;
use crate::kind::Kind;

pub(crate) fn kind() -> Kind {
    Builder::<Lease>::namespaced("lease").build()
}
