//! Real registries (Debian's docker-registry) on free ports of this machine, images to push into them, and a proxy that
//! breaks connections.

#![allow(clippy::unwrap_used, reason = "a helper of a test may fail as a test does")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flotilla_images::{Keyring, Limits, PullError, Pulled, Puller, Settings, Store};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer with one file.
pub(crate) fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Bytes that no compression shortens.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An OCI layout in a folder.
pub(crate) struct Layout {
    folder: tempfile::TempDir,
    manifests: Vec<Value>,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        fs::write(
            folder.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
        Self {
            folder,
            manifests: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.folder.path().join("blobs/sha256").join(name), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
    }

    /// Adds a manifest: tar streams with the compression of each (`gzip` or `zstd`).
    pub(crate) fn manifest(&self, architecture: &str, layers: &[(&[u8], &str)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest(tar)).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["run"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let blobs: Vec<Value> = layers
            .iter()
            .map(|(tar, compression)| {
                let bytes = match *compression {
                    "gzip" => gzip(tar),
                    _ => zstd::encode_all(*tar, 3).unwrap(),
                };
                self.blob(&format!("layer.v1.tar+{compression}"), &bytes)
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob("config.v1+json", config.to_string().as_bytes()), "layers": blobs,
        });
        self.blob("manifest.v1+json", manifest.to_string().as_bytes())
    }

    /// Names a manifest or an index.
    pub(crate) fn name(&mut self, mut descriptor: Value, name: &str) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
    }

    /// An image of this machine.
    pub(crate) fn image(&mut self, name: &str, layers: &[(&[u8], &str)]) {
        let manifest = self.manifest(architecture(), layers);
        self.name(manifest, name);
    }

    /// One name for manifests of several platforms.
    pub(crate) fn index(&mut self, name: &str, manifests: &[(&str, Value)]) {
        let entries: Vec<Value> = manifests
            .iter()
            .map(|(architecture, manifest)| {
                let mut entry = manifest.clone();
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                entry
            })
            .collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        });
        let index = self.blob("index.v1+json", index.to_string().as_bytes());
        self.name(index, name);
    }
}

pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        _ => "arm64",
    }
}

/// A private docker-registry.
pub(crate) struct Registry {
    pub(crate) address: SocketAddr,
    process: Child,
    folder: tempfile::TempDir,
    credentials: Option<&'static str>,
}

/// How a registry is set up.
#[derive(Default)]
pub(crate) struct Setup {
    /// `user:password`.
    pub(crate) credentials: Option<&'static str>,
    pub(crate) with_tls: bool,
}

impl Registry {
    pub(crate) fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let address = free_address();
        let mut http = json!({"addr": address.to_string()});
        if setup.with_tls {
            write_certificates(folder.path());
            http["tls"] = json!({"certificate": path("server.pem"), "key": path("server.key")});
        }
        let mut config = json!({
            "version": "0.1", "log": {"level": "error"}, "http": http,
            "storage": {"filesystem": {"rootdirectory": path("data")}},
        });
        if let Some(credentials) = setup.credentials {
            let (user, password) = credentials.split_once(':').unwrap();
            let made = Command::new("htpasswd")
                .args(["-Bbn", user, password])
                .output()
                .unwrap();
            fs::write(path("htpasswd"), made.stdout).unwrap();
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": path("htpasswd")}});
        }
        fs::write(path("config.yml"), config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("docker-registry is there: deploy/test installs it");
        let registry = Self {
            address,
            process,
            folder,
            credentials: setup.credentials,
        };
        let end = Instant::now() + LIMIT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "the registry does not listen");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        registry
    }

    /// The private authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// `address/name`.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Pushes the image that the layout calls `name` under that name.
    pub(crate) fn push(&self, layout: &Layout, name: &str) {
        let mut command = Command::new("skopeo");
        command.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--dest-tls-verify=false",
        ]);
        if let Some(credentials) = self.credentials {
            command.args(["--dest-creds", credentials]);
        }
        let pushed = command
            .arg(format!("oci:{}:{name}", layout.path().display()))
            .arg(format!("docker://{}", self.image(name)))
            .output()
            .expect("skopeo is there: deploy/test installs it");
        assert!(
            pushed.status.success(),
            "{}",
            String::from_utf8_lossy(&pushed.stderr)
        );
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn write_certificates(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.pem"), server.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

/// A node's store and settings.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) puller: Puller,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open_with_limits(folder.path().join("images"), limits).unwrap();
        let settings = Settings {
            registries: vec![folder.path().join("registries.yaml")],
            credentials: vec![folder.path().join("config.json")],
        };
        let puller = Puller::new(store.clone(), settings);
        Self {
            folder,
            store,
            puller,
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) async fn pull(&self, image: &str) -> Result<Pulled, Arc<PullError>> {
        self.pull_with(image, Keyring::default()).await
    }

    pub(crate) async fn pull_with(&self, image: &str, keyring: Keyring) -> Result<Pulled, Arc<PullError>> {
        self.puller
            .pull(image, keyring, false)
            .map_err(Arc::new)?
            .done()
            .await
    }

    /// What an error says, causes included.
    pub(crate) async fn refusal(&self, image: &str) -> String {
        flotilla_report::report(&*self.pull(image).await.unwrap_err())
    }

    /// The file of an image that is in some layer of it.
    pub(crate) fn file(&self, image: &str, name: &str) -> Vec<u8> {
        let image = self.store.resolve(image).unwrap().unwrap();
        let found = image
            .layers
            .iter()
            .find_map(|layer| fs::read(layer.join(name)).ok());
        found.unwrap()
    }

    pub(crate) fn count(&self, folder: &str) -> usize {
        fs::read_dir(self.folder.path().join("images").join(folder))
            .unwrap()
            .count()
    }
}

/// Passes bytes on, and breaks every connection after so many bytes of answers.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    passed: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(upstream: SocketAddr, bytes_per_connection: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            passed: Arc::default(),
            connections: Arc::default(),
        };
        let (passed, connections) = (proxy.passed.clone(), proxy.connections.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                connections.fetch_add(1, Ordering::SeqCst);
                let passed = passed.clone();
                std::thread::spawn(move || pass(&client, upstream, bytes_per_connection, &passed));
            }
        });
        proxy
    }

    /// Bytes of answers so far.
    pub(crate) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn pass(client: &TcpStream, upstream: SocketAddr, mut budget: usize, passed: &AtomicUsize) {
    let server = TcpStream::connect(upstream).unwrap();
    let (mut asked, mut there) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut asked, &mut there);
        let _ = there.shutdown(Shutdown::Both);
    });
    let (mut answers, mut back) = (server, client);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = answers.read(&mut buffer) {
        let count = count.min(budget);
        passed.fetch_add(count, Ordering::SeqCst);
        if back.write_all(&buffer[..count]).is_err() {
            break;
        }
        budget -= count;
        if budget == 0 {
            break;
        }
    }
    let _ = answers.shutdown(Shutdown::Both);
    let _ = back.shutdown(Shutdown::Both);
}
