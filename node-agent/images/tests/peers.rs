//! Images from other nodes, which here are other stores.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

mod support;

use std::io::Read as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use flotilla_images::{Keyring, LayerBytes, PeerError, Peers, Store};
use futures::{StreamExt as _, stream};
use support::{Layout, Node, Proxy, Registry, Setup, layer, noise};

/// What the other node does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Honest,
    /// Goes away in the middle of every layer.
    Dying,
    /// Sends another layer than it was asked for.
    Lying,
}

struct Other {
    store: Store,
    mood: Mood,
}

#[async_trait]
impl Peers for Other {
    async fn image(&self, reference: &str) -> Result<Option<Vec<u8>>, PeerError> {
        Ok(self.store.describe_for_peers(reference)?)
    }

    async fn layer(&self, _: &str, diff_id: &str) -> Result<Option<LayerBytes>, PeerError> {
        let Some(mut file) = self.store.layer_for_peers(diff_id)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let pieces: Vec<Result<Bytes, PeerError>> = match self.mood {
            Mood::Honest => bytes
                .chunks(1000)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect(),
            Mood::Dying => vec![
                Ok(Bytes::copy_from_slice(&bytes[..bytes.len() / 2])),
                Err("gone".into()),
            ],
            Mood::Lying => vec![Ok(Bytes::from(support::gzip(&layer("app", b"evil"))))],
        };
        Ok(Some(stream::iter(pieces).boxed()))
    }
}

fn beside(other: &Node, mood: Mood) -> Node {
    let node = Node::new();
    node.puller.set_peers(Arc::new(Other {
        store: other.store.clone(),
        mood,
    }));
    node
}

fn imported() -> Node {
    let node = Node::new();
    let mut layout = Layout::new();
    layout.image("nowhere.invalid/app:1", &[(&layer("app", b"imported"), "zstd")]);
    node.store.import(layout.path()).unwrap();
    node
}

const IMPORTED: &str = "nowhere.invalid/app:1";

#[tokio::test]
async fn what_one_node_imported_all_can_run() {
    let first = imported();
    let second = beside(&first, Mood::Honest);
    let pulled = second.pull(IMPORTED).await.unwrap();
    assert_eq!(second.file(IMPORTED, "app"), b"imported");
    let image = second.store.resolve(IMPORTED).unwrap().unwrap();
    assert!(!image.is_pulled, "no registry has it");
    assert_eq!(
        image.digest,
        first.store.resolve(IMPORTED).unwrap().unwrap().digest
    );
    assert_eq!(image.id, pulled.id);
    let third = beside(&second, Mood::Honest);
    third.pull(IMPORTED).await.unwrap();
    assert_eq!(third.count("scratch"), 0);
}

#[tokio::test]
async fn a_peer_that_dies_or_lies_changes_nothing() {
    let first = imported();
    for mood in [Mood::Dying, Mood::Lying] {
        let second = beside(&first, mood);
        let refusal = second.refusal(IMPORTED).await;
        assert!(
            refusal.contains("cannot reach registry nowhere.invalid"),
            "{refusal}"
        );
        assert_eq!((second.count("layers"), second.count("archives")), (0, 0));
    }
}

#[tokio::test]
async fn layers_come_from_peers_and_otherwise_from_the_registry() {
    let registry = Registry::start(&Setup::default());
    let proxy = Proxy::start(registry.address, usize::MAX);
    let content = noise(1 << 20);
    let mut layout = Layout::new();
    layout.image("big:1", &[(&layer("big", &content), "gzip")]);
    registry.push(&layout, "big:1");
    let image = format!("{}/big:1", proxy.address);
    let first = Node::new();
    first.pull(&image).await.unwrap();
    let once = proxy.passed();
    // By its name, for it is public; and with Always by its digest, after the registry has confirmed it.
    for is_always in [false, true] {
        let second = beside(&first, Mood::Honest);
        let mut ticket = second.puller.pull(&image, Keyring::default(), is_always).unwrap();
        ticket.done().await.unwrap();
        assert_eq!(second.file(&image, "big"), content);
        assert!(second.store.resolve(&image).unwrap().unwrap().is_pulled);
    }
    assert!(
        proxy.passed() < once + 20_000,
        "the layer did not come from the registry again"
    );
    for mood in [Mood::Dying, Mood::Lying] {
        let second = beside(&first, mood);
        second.pull(&image).await.unwrap();
        assert_eq!(second.file(&image, "big"), content);
    }
}

#[tokio::test]
async fn a_private_image_is_given_only_to_those_whom_the_registry_lets_in() {
    let setup = Setup {
        credentials: Some("me:secret"),
        ..Setup::default()
    };
    let registry = Registry::start(&setup);
    let mut layout = Layout::new();
    layout.image("app:1", &[(&layer("app", b"private"), "gzip")]);
    registry.push(&layout, "app:1");
    let image = registry.image("app:1");
    let first = Node::new();
    let auth = format!(
        r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#,
        registry.address
    );
    first.write("config.json", &auth);
    first.pull(&image).await.unwrap();
    let second = beside(&first, Mood::Honest);
    let refusal = second.refusal(&image).await;
    assert!(refusal.contains("wants credentials"), "{refusal}");
    second.write("config.json", &auth);
    second.pull(&image).await.unwrap();
}
