//! Pulls from a real registry: Debian's docker-registry, on this machine.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]

mod support;

use flotilla_images::Keyring;
use support::{Layout, Node, Proxy, Registry, Setup, architecture, digest, layer, noise};

fn keyring(registry: &Registry, user: &str, password: &str) -> Keyring {
    let json = serde_json::json!({"auths": {registry.address.to_string(): {"username": user, "password": password}}});
    let json = json.to_string();
    let mut keyring = Keyring::default();
    keyring
        .add_secret("kubernetes.io/dockerconfigjson", |_| Some(json.as_bytes()))
        .unwrap();
    keyring
}

#[tokio::test]
async fn tags_share_layers_whatever_their_compression() {
    let (registry, node) = (Registry::start(&Setup::default()), Node::new());
    let (base, one, two) = (layer("base", b"b"), layer("app", b"one"), layer("app", b"two"));
    let mut layout = Layout::new();
    layout.image("app:1", &[(&base, "gzip"), (&one, "zstd")]);
    layout.image("app:2", &[(&base, "gzip"), (&two, "gzip")]);
    registry.push(&layout, "app:1");
    registry.push(&layout, "app:2");

    let (first, second) = (registry.image("app:1"), registry.image("app:2"));
    let pulled = node.pull(&first).await.unwrap();
    assert_eq!(pulled.size_bytes, 4);
    assert_eq!(node.count("layers"), 2);
    node.pull(&second).await.unwrap();
    assert_eq!(node.count("layers"), 3, "the base is there once");
    assert_eq!((node.count("downloads"), node.count("scratch")), (0, 0));
    assert_eq!(node.file(&first, "app"), b"one");
    assert_eq!(node.file(&second, "app"), b"two");

    let image = node.store.resolve(&first).unwrap().unwrap();
    let by_digest = format!("{}@{}", registry.image("app"), pulled.digest);
    assert_eq!(image.digest.as_deref(), Some(by_digest.as_str()));
    assert!(image.is_pulled);
    let other = Node::new();
    assert_eq!(other.pull(&by_digest).await.unwrap().id, pulled.id);
    let again = node.pull(&first).await.unwrap();
    assert_eq!(again.id, pulled.id, "what is there already is only confirmed");
}

#[tokio::test]
async fn a_tag_that_moved_brings_the_new_image() {
    let (registry, node) = (Registry::start(&Setup::default()), Node::new());
    let image = registry.image("app:latest");
    for content in ["old", "new"] {
        let mut layout = Layout::new();
        layout.image("app:latest", &[(&layer("app", content.as_bytes()), "gzip")]);
        registry.push(&layout, "app:latest");
        node.pull(&image).await.unwrap();
        assert_eq!(node.file(&image, "app"), content.as_bytes());
    }
    assert_eq!(node.count("layers"), 1, "nobody uses the old layer");
}

#[tokio::test]
async fn an_index_gives_the_image_of_this_machine() {
    let (registry, node) = (Registry::start(&Setup::default()), Node::new());
    let mut layout = Layout::new();
    let own = layout.manifest(architecture(), &[(&layer("app", b"own"), "gzip")]);
    let foreign = layout.manifest("s390x", &[(&layer("app", b"foreign"), "gzip")]);
    layout.index("many:1", &[("s390x", foreign.clone()), (architecture(), own)]);
    layout.index("foreign:1", &[("s390x", foreign)]);
    registry.push(&layout, "many:1");
    registry.push(&layout, "foreign:1");
    let image = registry.image("many:1");
    node.pull(&image).await.unwrap();
    assert_eq!(node.file(&image, "app"), b"own");
    let refusal = node.refusal(&registry.image("foreign:1")).await;
    assert!(
        refusal.contains("no variant for linux/") && refusal.contains("linux/s390x"),
        "{refusal}"
    );
}

#[tokio::test]
async fn passwords_come_from_secrets_files_and_settings() {
    let setup = Setup {
        credentials: Some("me:secret"),
        ..Setup::default()
    };
    let registry = Registry::start(&setup);
    let mut layout = Layout::new();
    layout.image("app:1", &[(&layer("app", b"private"), "gzip")]);
    registry.push(&layout, "app:1");
    let image = registry.image("app:1");

    let refusal = Node::new().refusal(&image).await;
    assert!(refusal.contains("imagePullSecrets"), "{refusal}");
    let wrong = Node::new()
        .pull_with(&image, keyring(&registry, "me", "wrong"))
        .await;
    let wrong = wrong.unwrap_err().to_string();
    assert!(wrong.contains(r#"does not let "me" pull this"#), "{wrong}");
    Node::new()
        .pull_with(&image, keyring(&registry, "me", "secret"))
        .await
        .unwrap();

    let node = Node::new();
    let auth = format!(
        r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#,
        registry.address
    );
    node.write("config.json", &auth);
    node.pull(&image).await.unwrap();
    let node = Node::new();
    node.write(
        "registries.yaml",
        &format!(
            "configs:\n  \"{}\":\n    auth: {{username: me, password: secret}}\n",
            registry.address
        ),
    );
    node.pull(&image).await.unwrap();
    // A secret that does not work is no reason not to try the node's own credentials.
    let node = Node::new();
    node.write("config.json", &auth);
    node.pull_with(&image, keyring(&registry, "other", "wrong"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_private_authority_is_named_in_the_settings() {
    let setup = Setup {
        with_tls: true,
        ..Setup::default()
    };
    let registry = Registry::start(&setup);
    let mut layout = Layout::new();
    layout.image("app:1", &[(&layer("app", b"x"), "gzip")]);
    registry.push(&layout, "app:1");
    let image = registry.image("app:1");
    let settings = |tls: &str| format!("configs:\n  \"{}\":\n    tls: {{{tls}}}\n", registry.address);

    let node = Node::new();
    node.write("registries.yaml", &settings("insecure_skip_verify: false"));
    let refusal = node.refusal(&image).await;
    assert!(
        refusal.contains("is not trusted") && refusal.contains("ca_file"),
        "{refusal}"
    );
    node.write("registries.yaml", &settings("ca_file: /nowhere.pem"));
    let refusal = node.refusal(&image).await;
    assert!(refusal.contains("/nowhere.pem"), "{refusal}");
    node.write(
        "registries.yaml",
        &settings(&format!("ca_file: {}", registry.ca().display())),
    );
    node.pull(&image).await.unwrap();
    let careless = Node::new();
    careless.write("registries.yaml", &settings("insecure_skip_verify: true"));
    careless.pull(&image).await.unwrap();
}

#[tokio::test]
async fn mirrors_are_asked_under_their_own_names_for_things() {
    let registry = Registry::start(&Setup::default());
    let mut layout = Layout::new();
    layout.image("hub/web:1", &[(&layer("app", b"mirrored"), "gzip")]);
    registry.push(&layout, "hub/web:1");
    let node = Node::new();
    node.write(
        "registries.yaml",
        &format!(
            "mirrors:\n  registry.invalid:\n    endpoint: [\"http://127.0.0.1:9\", \"http://{}\"]\n    \
             rewrite: {{\"^library/(.*)\": \"hub/$1\"}}\n",
            registry.address
        ),
    );
    let image = "registry.invalid/library/web:1";
    node.pull(image).await.unwrap();
    assert_eq!(node.file(image, "app"), b"mirrored");
    let refusal = node.refusal("registry.invalid/library/none:1").await;
    assert!(
        refusal.contains("hub/none:1: not found")
            && refusal.contains("cannot reach registry registry.invalid"),
        "{refusal}"
    );
}

#[tokio::test]
async fn broken_downloads_go_on_where_they_stopped() {
    let registry = Registry::start(&Setup::default());
    let content = noise(3 << 20);
    let mut layout = Layout::new();
    layout.image("big:1", &[(&layer("big", &content), "gzip")]);
    registry.push(&layout, "big:1");
    let proxy = Proxy::start(registry.address, 700_000);
    let node = Node::new();
    let image = format!("{}/big:1", proxy.address);
    node.pull(&image).await.unwrap();
    assert_eq!(digest(&node.file(&image, "big")), digest(&content));
    let (passed, size) = (proxy.passed(), content.len());
    assert!(proxy.connections() >= 5, "{} connections", proxy.connections());
    assert!(
        passed < size + size / 4,
        "{passed} bytes came for {size}: some came twice"
    );
}

#[tokio::test]
async fn many_who_want_an_image_share_one_download() {
    let registry = Registry::start(&Setup::default());
    let content = noise(1 << 20);
    let mut layout = Layout::new();
    layout.image("big:1", &[(&layer("big", &content), "gzip")]);
    registry.push(&layout, "big:1");
    let proxy = Proxy::start(registry.address, usize::MAX);
    let node = Node::new();
    let image = format!("{}/big:1", proxy.address);
    let mut tickets: Vec<_> = (0..50)
        .map(|_| node.puller.pull(&image, Keyring::default(), false).unwrap())
        .collect();
    for ticket in &mut tickets {
        ticket.done().await.unwrap();
    }
    let progress = tickets[0].progress();
    assert_eq!(progress.bytes_done, progress.bytes_total);
    assert!(progress.bytes_total > 1 << 20);
    assert!(proxy.passed() < 2 * content.len(), "{} bytes", proxy.passed());
}

#[tokio::test]
async fn what_nobody_waits_for_ends_and_is_gone_on_with_later() {
    let registry = Registry::start(&Setup::default());
    let content = noise(2 << 20);
    let mut layout = Layout::new();
    layout.image("big:1", &[(&layer("big", &content), "gzip")]);
    registry.push(&layout, "big:1");
    let proxy = Proxy::start(registry.address, 500_000);
    let node = Node::new();
    let image = format!("{}/big:1", proxy.address);
    let ticket = node.puller.pull(&image, Keyring::default(), false).unwrap();
    while ticket.progress().bytes_done == 0 {
        tokio::task::yield_now().await;
    }
    drop(ticket);
    node.pull(&image).await.unwrap();
    assert_eq!(node.file(&image, "big"), content);
}

#[tokio::test]
async fn errors_teach() {
    let (registry, node) = (Registry::start(&Setup::default()), Node::new());
    let refusal = node.refusal(&registry.image("none:1")).await;
    assert!(
        refusal.contains("none:1: not found: check the image's name and tag"),
        "{refusal}"
    );
    let refusal = node.refusal("127.0.0.1:9/app:1").await;
    assert!(refusal.contains("cannot reach registry 127.0.0.1:9"), "{refusal}");
    node.write(
        "registries.yaml",
        &format!(
            "mirrors:\n  \"{0}\":\n    endpoint: [\"https://{0}\"]\n",
            registry.address
        ),
    );
    let refusal = node.refusal(&registry.image("none:1")).await;
    assert!(refusal.contains("does not answer in HTTP"), "{refusal}");
    node.write("registries.yaml", "mirrors:\n  a:\n    endpoint: [x]\n");
    let refusal = node
        .puller
        .pull("a.example/b:1", Keyring::default(), false)
        .err()
        .unwrap();
    let refusal = flotilla_report::report(&refusal);
    assert!(refusal.contains("registries.yaml:3:"), "{refusal}");
}
