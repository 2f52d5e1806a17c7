//! What a server keeps beside its store: the authority's key, its own identity as a member, the join token.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use flotilla_pki::{
    CertificateRequest, ClientTls, ClusterCa, FetchCaError, Identity, IssueError, JoinToken, Subject,
    TlsError, channel, create_private_folder, fetch_ca,
};
use flotilla_proto::node::{JoinRequest, Role, nodes_client::NodesClient};
use serde::{Deserialize, Serialize};

use crate::{JoinOptions, Options, kubeconfig::kubeconfig};

/// Why a server has not what it needs to start.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The member's record is damaged.
    #[error("{path} is damaged; restore it, or empty the data folder and join again")]
    Member {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Another name than the one that the member was made with.
    #[error(
        "the data folder belongs to server {kept:?}, not {given:?}: start it with --name {kept}, or use another folder"
    )]
    Name {
        /// In the folder.
        kept: String,
        /// On the command line.
        given: String,
    },
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The token cannot be read.
    #[error(transparent)]
    Token(#[from] flotilla_pki::ParseTokenError),
    /// The cluster's authority cannot be fetched.
    #[error("cannot join the cluster")]
    FetchCa(#[from] FetchCaError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] TlsError),
    /// The server that was asked to let this one in refused.
    #[error("{server} did not let this server join: {message}")]
    Refused {
        /// The server that was asked.
        server: String,
        /// Its words.
        message: String,
    },
}

/// The names of the service by which pods reach the API.
const SERVICE_NAMES: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Who this server is in the cluster; never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Identity in consensus.
    pub(crate) id: u64,
    /// Node name.
    pub(crate) name: String,
}

impl Member {
    /// A member that never was one.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            id: member_id(),
            name: name.to_owned(),
        }
    }
}

/// The secrets of the cluster and the identity of this server.
pub(crate) struct Material {
    pub(crate) ca: ClusterCa,
    pub(crate) service_account_key_pem: String,
    pub(crate) member: Member,
    /// Serves, and calls peers. Made anew at each start, for the address of this start.
    pub(crate) identity: Identity,
}

impl Material {
    /// Reads the folder; if it is new, starts a cluster or joins one.
    pub(crate) async fn obtain(options: &Options) -> Result<Self, MaterialError> {
        let folder = Folder {
            path: options.data_dir.join("pki"),
        };
        create_private_folder(&folder.path).map_err(|source| MaterialError::Write {
            path: folder.path.clone(),
            source,
        })?;
        // The member's record is written last, so a start that was cut short begins anew.
        let member_path = folder.path.join("member.json");
        let (ca, service_account_key_pem, member) = if member_path.exists() {
            folder.load(&options.name)?
        } else {
            let (ca, service_account_key_pem) = match &options.join {
                None => (ClusterCa::generate()?, new_key()?),
                Some(join) => ask_to_join(join, options).await?,
            };
            let member = Member::new(&options.name);
            folder.save(&ca, &service_account_key_pem, &member)?;
            (ca, service_account_key_pem, member)
        };
        let identity = ca.issue(&subject(options))?;
        Ok(Self {
            ca,
            service_account_key_pem,
            member,
            identity,
        })
    }

    /// The identity of this server as a node, for the agent in its process.
    pub(crate) fn node_identity(&self) -> Result<Identity, MaterialError> {
        Ok(self.ca.issue(&Subject::Node(self.member.name.clone()))?)
    }

    /// Writes `admin.kubeconfig` for this server's address, unless it is there.
    pub(crate) fn write_admin_kubeconfig(&self, options: &Options) -> Result<(), MaterialError> {
        let path = options.data_dir.join("admin.kubeconfig");
        if path.exists() {
            return Ok(());
        }
        let admin = self.ca.issue(&Subject::Admin("kubernetes-admin".into()))?;
        write_private(
            &path,
            &kubeconfig(&format!("https://{}", options.advertised()), &admin),
        )
    }
}

/// Writes what a server that starts in the folder finds as its own.
pub(crate) fn save(
    data_dir: &Path,
    ca: &ClusterCa,
    service_account_key_pem: &str,
    member: &Member,
) -> Result<(), MaterialError> {
    let path = data_dir.join("pki");
    create_private_folder(&path).map_err(|source| MaterialError::Write {
        path: path.clone(),
        source,
    })?;
    Folder { path }.save(ca, service_account_key_pem, member)
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), MaterialError> {
    flotilla_pki::write_private(path, text.as_bytes()).map_err(|source| MaterialError::Write {
        path: path.to_owned(),
        source,
    })
}

struct Folder {
    path: PathBuf,
}

impl Folder {
    fn load(&self, name: &str) -> Result<(ClusterCa, String, Member), MaterialError> {
        let path = self.path.join("member.json");
        let member: Member = serde_json::from_str(&self.read("member.json")?)
            .map_err(|source| MaterialError::Member { path, source })?;
        if member.name != name {
            return Err(MaterialError::Name {
                kept: member.name,
                given: name.to_owned(),
            });
        }
        let ca = ClusterCa::load(&self.read("ca.crt")?, &self.read("ca.key")?)?;
        Ok((ca, self.read("service-account.key")?, member))
    }

    fn save(
        &self,
        ca: &ClusterCa,
        service_account_key_pem: &str,
        member: &Member,
    ) -> Result<(), MaterialError> {
        write_private(&self.path.join("ca.crt"), ca.certificate_pem())?;
        write_private(&self.path.join("ca.key"), ca.key_pem())?;
        write_private(&self.path.join("service-account.key"), service_account_key_pem)?;
        let record = serde_json::to_string(member).expect("a member can be written as JSON");
        write_private(&self.path.join("member.json"), &record)
    }

    fn read(&self, name: &str) -> Result<String, MaterialError> {
        let path = self.path.join(name);
        fs::read_to_string(&path).map_err(|source| MaterialError::Read { path, source })
    }
}

async fn ask_to_join(join: &JoinOptions, options: &Options) -> Result<(ClusterCa, String), MaterialError> {
    let token: JoinToken = join.token.parse()?;
    let ca_pem = fetch_ca(&join.server, token.ca_fingerprint).await?;
    let request = JoinRequest {
        token: token.credential(),
        role: Role::Server.into(),
        node_name: options.name.clone(),
        csr_der: CertificateRequest::generate()?.csr_der.into(),
    };
    let refused = |message: String| MaterialError::Refused {
        server: join.server.clone(),
        message,
    };
    let mut client = NodesClient::new(channel(&join.server, &ClientTls::anonymous(&ca_pem)?));
    let response = client
        .join(request)
        .await
        .map_err(|status| refused(status.message().to_owned()))?
        .into_inner();
    let secrets = response
        .server_secrets
        .ok_or_else(|| refused("it sent no keys".to_owned()))?;
    Ok((
        ClusterCa::load(&ca_pem, &secrets.ca_key_pem)?,
        secrets.service_account_key_pem,
    ))
}

fn new_key() -> Result<String, IssueError> {
    // The authority's kind of key is what JWTs of service accounts are signed with as well (ES256).
    Ok(ClusterCa::generate()?.key_pem().to_owned())
}

/// Random, never zero, and small enough for JSON numbers.
fn member_id() -> u64 {
    rand::random_range(1..1 << 52)
}

fn subject(options: &Options) -> Subject {
    // Pods reach the API by the service's address and names.
    let service = options.service_cidr.kubernetes();
    let mut addresses = vec![options.address, [127, 0, 0, 1].into(), service.into()];
    let mut names: Vec<String> = SERVICE_NAMES.map(str::to_owned).into();
    for san in &options.tls_san {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    Subject::Server {
        name: options.name.clone(),
        addresses,
        names,
    }
}
