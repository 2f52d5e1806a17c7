//! The same reads and writes in the words of each store.
//!
//! An object has a kibibyte as it is stored. Keys are numbers in a space (a namespace, or a prefix).

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_store::{Draft, Key, Operation, Require, ResourceName, Transaction};
use http::{Method, Request};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::connection::Piece;

/// Stands once in every object and nowhere else, so that events can be counted without being decoded.
pub(super) const MARK: u8 = b'~';
const OBJECT_BYTES: usize = 1024;
/// What a ConfigMap has besides its data, about: names, uid, times, resource version.
const OBJECT_FRAME_BYTES: usize = 230;

/// How a store is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Protocol {
    /// Kubernetes' REST API, with ConfigMaps.
    Api,
    /// The call by which our servers hand transactions to their leader: the store without the API.
    Peer,
    /// etcd's v3 API.
    Etcd,
}

/// etcd's messages, as far as they are used. Field numbers are those of etcd's `rpc.proto`.
mod messages {
    use bytes::Bytes;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct PutRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) value: Bytes,
    }

    /// The keys from one to another; without the other, one.
    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Range {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) range_end: Bytes,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct WatchRequest {
        #[prost(message, tag = "1")]
        pub(super) create: Option<Range>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Header {
        #[prost(uint64, tag = "2")]
        pub(super) member_id: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct StatusResponse {
        #[prost(message, tag = "1")]
        pub(super) header: Option<Header>,
        #[prost(uint64, tag = "4")]
        pub(super) leader: u64,
    }
}

impl Protocol {
    /// Stores a new object.
    pub(super) fn create(self, space: &str, number: usize) -> Request<Piece> {
        match self {
            Protocol::Api => api(Method::POST, &collection(space), config_map(space, number)),
            Protocol::Peer | Protocol::Etcd => self.write(space, number),
        }
    }

    /// Stores an object that is there in a new state.
    pub(super) fn write(self, space: &str, number: usize) -> Request<Piece> {
        match self {
            Protocol::Api => {
                let path = format!("{}/{}", collection(space), name(number));
                api(Method::PUT, &path, config_map(space, number))
            }
            Protocol::Peer => rpc("/flotilla.peer.v1.Peer/Propose", &proposal(space, number)),
            Protocol::Etcd => {
                let value = filler(OBJECT_BYTES).into();
                let key = etcd_key(space, &name(number));
                rpc("/etcdserverpb.KV/Put", &messages::PutRequest { key, value })
            }
        }
    }

    /// Reads an object as it is now.
    pub(super) fn read(self, space: &str, number: usize) -> Request<Piece> {
        match self {
            Protocol::Api => {
                let path = format!("{}/{}", collection(space), name(number));
                api(Method::GET, &path, Bytes::new())
            }
            Protocol::Peer => unreachable!("servers do not read from each other"),
            Protocol::Etcd => {
                let key = etcd_key(space, &name(number));
                let range_end = Bytes::new();
                rpc("/etcdserverpb.KV/Range", &messages::Range { key, range_end })
            }
        }
    }

    /// Reads all objects of a space as they are now.
    pub(super) fn list(self, space: &str) -> Request<Piece> {
        match self {
            Protocol::Api => api(Method::GET, &collection(space), Bytes::new()),
            Protocol::Peer => unreachable!("servers do not read from each other"),
            Protocol::Etcd => rpc("/etcdserverpb.KV/Range", &whole(space)),
        }
    }

    /// Follows all changes of a space from now on.
    pub(super) fn watch(self, space: &str) -> Request<Piece> {
        match self {
            Protocol::Api => {
                let path = format!(
                    "{}?watch=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
                    collection(space)
                );
                api(Method::GET, &path, Bytes::new())
            }
            Protocol::Peer => unreachable!("servers do not watch each other"),
            Protocol::Etcd => {
                let create = Some(whole(space));
                let mut request = rpc("/etcdserverpb.Watch/Watch", &messages::WatchRequest { create });
                request.body_mut().stays_open = true;
                request
            }
        }
    }

    /// Makes room for a space, where that is needed.
    pub(super) fn make_space(self, space: &str) -> Option<Request<Piece>> {
        let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{space}"}}}}"#);
        (self == Protocol::Api).then(|| api(Method::POST, "/api/v1/namespaces", body.into()))
    }
}

/// Asks a member of etcd for its state.
pub(super) fn etcd_status() -> Request<Piece> {
    rpc("/etcdserverpb.Maintenance/Status", &messages::Range::default())
}

/// Whether the member that gave this answer to [`etcd_status`] leads.
pub(super) fn leads(answer: &Bytes) -> bool {
    let status = messages::StatusResponse::decode(answer.slice(FRAME_BYTES..)).expect("it is a status");
    status
        .header
        .is_some_and(|header| header.member_id == status.leader)
}

fn name(number: usize) -> String {
    format!("object-{number:06}")
}

fn collection(space: &str) -> String {
    format!("/api/v1/namespaces/{space}/configmaps")
}

/// Never the same twice: storing again what is stored would change nothing.
fn filler(bytes: usize) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut filler = format!("{number:016x}{}", char::from(MARK));
    filler.extend(std::iter::repeat_n('x', bytes - filler.len()));
    filler
}

fn config_map(space: &str, number: usize) -> Bytes {
    let (name, value) = (name(number), filler(OBJECT_BYTES - OBJECT_FRAME_BYTES));
    Bytes::from(format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"{space}"}},"data":{{"value":"{value}"}}}}"#
    ))
}

fn api(method: Method, path: &str, body: Bytes) -> Request<Piece> {
    let has_body = !body.is_empty();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://kubernetes{path}"))
        .header("accept", "application/json");
    if has_body {
        request = request.header("content-type", "application/json");
    }
    let body = Piece {
        bytes: has_body.then_some(body),
        stays_open: false,
    };
    request.body(body).expect("the request is well-formed")
}

/// Bytes before a gRPC message: no compression, and its length.
const FRAME_BYTES: usize = 5;

fn rpc(path: &str, message: &impl Message) -> Request<Piece> {
    let mut body = BytesMut::with_capacity(FRAME_BYTES + message.encoded_len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).expect("messages are small"));
    message.encode(&mut body).expect("there is room");
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://store{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Piece {
            bytes: Some(body.freeze()),
            stays_open: false,
        })
        .expect("the request is well-formed")
}

/// The transaction that the API server would propose for the same ConfigMap.
fn proposal(space: &str, number: usize) -> flotilla_proto::peer::ProposeRequest {
    let (name, value) = (name(number), filler(OBJECT_BYTES - OBJECT_FRAME_BYTES));
    let before = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#;
    let json = format!(
        r#"{before}"creationTimestamp":"2026-01-01T00:00:00Z","name":"{name}","namespace":"{space}","uid":"00000000-0000-4000-8000-000000000000"}},"data":{{"value":"{value}"}}}}"#
    );
    let draft = Draft {
        json: Bytes::from(json),
        revision_at: before.len(),
    };
    let put = Operation::Put {
        key: Key::new(ResourceName::new("", "configmaps"), space, name),
        draft,
        require: Require::Anything,
    };
    let transaction = Transaction {
        operations: vec![put],
        fence: None,
    };
    let transaction = postcard::to_stdvec(&transaction).expect("transactions can be encoded");
    flotilla_proto::peer::ProposeRequest {
        transaction: transaction.into(),
    }
}

fn etcd_key(space: &str, name: &str) -> Bytes {
    Bytes::from(format!("{space}/{name}"))
}

fn whole(space: &str) -> messages::Range {
    messages::Range {
        key: etcd_key(space, ""),
        // The byte after the slash.
        range_end: Bytes::from(format!("{space}0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_a_kibibyte_and_one_mark() {
        let body = config_map("bench", 7);
        assert_eq!(body.iter().filter(|byte| **byte == MARK).count(), 1);
        assert!((900..=OBJECT_BYTES).contains(&body.len()), "{}", body.len());
    }

    #[test]
    fn messages_are_as_etcd_reads_them() {
        let request = Protocol::Etcd.read("a", 1);
        let body = request.body().bytes.clone();
        assert_eq!(body.as_deref(), Some(&b"\0\0\0\0\x11\x0a\x0fa/object-000001"[..]));
    }
}
