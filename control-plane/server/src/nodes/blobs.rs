//! What one node has of an image, for another: asked of the nodes that may have it, and relayed.
//!
//! Nodes that list the image in their status are asked first, then a few others, whose status may be older than what
//! they have. Who asks verifies what comes.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::node::{BlobChunk, BlobRequest};
use flotilla_store::ResourceName;
use flotilla_tunnel::{Ends, request};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::Status;

use super::Nodes;

/// So many nodes are asked for one thing, at most.
const NODES_MAX: usize = 16;
/// So many of them at the same time.
const AT_ONCE: usize = 4;
/// The search for a node that has it takes no longer; a registry may have answered by then.
const SEARCH_LIMIT: Duration = Duration::from_secs(5);
/// A node that sends nothing for this long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(10);

/// What the asking node gets.
pub(super) type Chunks = BoxStream<'static, Result<BlobChunk, Status>>;

impl Nodes {
    /// Finds a node that has what `asker` wants, and passes on what it sends.
    pub(super) async fn relay_blob(&self, asker: &str, wanted: BlobRequest) -> Result<Chunks, Status> {
        let request = match (wanted.image.as_str(), wanted.layer.as_str()) {
            ("", "") => return Err(Status::invalid_argument("neither an image nor a layer is named")),
            (image, "") => request::BlobRequest::Image(image.to_owned()),
            (_, layer) => request::BlobRequest::Layer(layer.to_owned()),
        };
        let json = Bytes::from(serde_json::to_vec(&request).expect("two strings are plain data"));
        let candidates = self.who_may_have(&wanted.image, asker);
        let mut answers = stream::iter(candidates)
            .map(|node| {
                let json = json.clone();
                async move { self.open_stream(&node, request::BLOB, json).await }
            })
            .buffer_unordered(AT_ONCE);
        let search = async {
            loop {
                match answers.next().await {
                    Some(Ok(ends)) => return Some(ends),
                    // It has not, or is away: another may have.
                    Some(Err(_)) => {}
                    None => return None,
                }
            }
        };
        let found = tokio::time::timeout(SEARCH_LIMIT, search).await.ok().flatten();
        found
            .map(chunks)
            .ok_or_else(|| Status::not_found("no other node has it"))
    }

    /// Nodes with a session here, those first that list the image.
    fn who_may_have(&self, image: &str, asker: &str) -> Vec<String> {
        let connected = self.connected_nodes();
        let mut others: Vec<String> = connected.into_iter().filter(|node| node != asker).collect();
        let snapshot = self.inner.resources.replica().snapshot();
        // As it stands in the JSON of a node's status; the names of images need no escapes.
        let quoted = format!("\"{image}\"");
        let lists = |json: &[u8]| {
            !image.is_empty() && json.windows(quoted.len()).any(|part| part == quoted.as_bytes())
        };
        let nodes = ResourceName::new("", "nodes");
        let listing: Vec<&str> = snapshot
            .list(&nodes, None, None)
            .filter(|node| lists(&node.json))
            .map(|node| &*node.key.name)
            .collect();
        others.sort_by_key(|node| !listing.contains(&node.as_str()));
        others.truncate(NODES_MAX);
        others
    }
}

fn chunks(ends: Ends) -> Chunks {
    let pieces = stream::unfold(Some(ends), |ends| async {
        let mut ends = ends?;
        match tokio::time::timeout(STALL_LIMIT, ends.incoming.recv()).await {
            Ok(Some(frame)) if frame.close => None,
            Ok(Some(frame)) => Some((Ok(BlobChunk { data: frame.data }), Some(ends))),
            Ok(None) | Err(_) => {
                let gone = Status::unavailable("the node that was sending has gone, or stands still");
                Some((Err(gone), None))
            }
        }
    });
    pieces.boxed()
}

#[cfg(test)]
mod tests {
    use flotilla_tunnel::Frame;

    use super::*;

    #[tokio::test]
    async fn only_a_closed_stream_ends_without_an_error() {
        for (closes, expected) in [(true, ["ab", "end"]), (false, ["ab", "error"])] {
            let (here, there) = flotilla_tunnel::pair();
            there
                .outgoing
                .send(Frame::data(request::DATA, "ab"))
                .await
                .unwrap();
            if closes {
                there.outgoing.send(Frame::close(request::DATA)).await.unwrap();
            }
            drop(there);
            let mut chunks = chunks(here);
            let mut found = Vec::new();
            for _ in 0..2 {
                found.push(match chunks.next().await {
                    Some(Ok(chunk)) => String::from_utf8(chunk.data.to_vec()).unwrap(),
                    Some(Err(_)) => "error".to_owned(),
                    None => "end".to_owned(),
                });
            }
            assert_eq!(found, expected);
        }
    }
}
