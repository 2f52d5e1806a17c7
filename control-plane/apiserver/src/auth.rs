//! Who is asking, and whether they may.

mod authorize;
mod impersonate;
mod tokens;

pub(crate) use authorize::{Attributes, allowed, check};
pub(crate) use impersonate::impersonated;
pub use tokens::ServiceAccountKeys;
pub(crate) use tokens::{AccountToken, Reference};

/// Group of those who may do everything.
pub(crate) const GROUP_MASTERS: &str = "system:masters";
/// Group of everybody who has proved who they are.
pub(crate) const GROUP_AUTHENTICATED: &str = "system:authenticated";
const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of those who may read metrics, as Kubernetes has it.
const GROUP_MONITORING: &str = "system:monitoring";
const GROUP_NODES: &str = "system:nodes";
const USER_ANONYMOUS: &str = "system:anonymous";

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, such as a certificate's common name.
    pub name: String,
    /// The groups, such as a certificate's organisations.
    pub groups: Vec<String>,
}

impl User {
    /// Somebody who has shown nothing.
    pub(crate) fn anonymous() -> Self {
        Self {
            name: USER_ANONYMOUS.to_owned(),
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
        }
    }

    /// Adds the group that everybody gets who has proved who they are.
    pub(crate) fn authenticated(mut self) -> Self {
        if !self.is_in(GROUP_AUTHENTICATED) {
            self.groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        self
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|found| found == group)
    }
}
