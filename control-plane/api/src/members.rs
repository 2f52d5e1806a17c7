//! `flotilla.dev`: the servers of the cluster as objects. Made from what consensus knows, never stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, ListableResource, Metadata, Resource};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// A server of the cluster: a member of its consensus.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    /// The name is the server's, the uid is its identity in consensus.
    pub metadata: ObjectMeta,
    /// What is known of it.
    pub status: MemberStatus,
}

/// What is known of a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberStatus {
    /// `host:port` that other servers dial.
    pub address: String,
    /// `Leader`, `Voter` or `Learner`.
    pub role: String,
    /// The last log entry that it surely has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// How many entries it lacks of the leader's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// When the leader last had an answer of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heard_time: Option<Time>,
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(Self::KIND, 4)?;
        object.serialize_field("apiVersion", Self::API_VERSION)?;
        object.serialize_field("kind", Self::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("status", &self.status)?;
        object.end()
    }
}

impl Resource for Member {
    const API_VERSION: &'static str = "flotilla.dev/v1alpha1";
    const GROUP: &'static str = "flotilla.dev";
    const KIND: &'static str = "Member";
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "members";
    type Scope = ClusterResourceScope;
}

impl ListableResource for Member {
    const LIST_KIND: &'static str = "MemberList";
}

impl Metadata for Member {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
