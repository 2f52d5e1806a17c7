//! The node's certificate: got with a join token, kept on disk, renewed while running.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flotilla_pki::{
    CertificateRequest, ClientTls, FetchCaError, Identity, IdentityError, IssueError, JoinToken,
    ParseTokenError, TlsError,
};
use flotilla_proto::node::nodes_client::NodesClient;
use flotilla_proto::node::{JoinRequest, RenewRequest, Role};
use flotilla_report::report;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::directory::Directory;

/// Makes the channel to a server from its address.
pub(crate) type Connector = Arc<dyn Fn(&str) -> Channel + Send + Sync>;

/// Between attempts to join or to renew.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks at the certificate's age.
const RENEWAL_CHECK: Duration = Duration::from_secs(60);
/// A server that does not answer within this time is passed over.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// An attempt to join that takes longer, for whatever reason, is begun anew: it has three steps.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data folder has no certificate, and no token was given.
    #[error("this node has not joined a cluster yet: give it a join token and a server's address")]
    NoToken,
    /// What was given is no token.
    #[error("the join token is malformed")]
    Token(#[from] ParseTokenError),
    /// The certificate on disk cannot be used.
    #[error("the node's certificate cannot be read or kept")]
    Identity(#[from] IdentityError),
    /// No key could be made.
    #[error("cannot make a key for this node")]
    Key(#[from] IssueError),
    /// The certificate or CA is not usable.
    #[error("the certificates cannot be used")]
    Tls(#[from] TlsError),
    /// The server is not the token's.
    #[error("cannot verify the cluster")]
    Ca(#[from] FetchCaError),
    /// The server was asked and has not answered.
    #[error("the server does not answer")]
    Silent,
    /// The server refuses the node.
    #[error("the cluster refuses this node: {}", .0.message())]
    Refused(Box<tonic::Status>),
}

/// The newest channel maker; it changes when the certificate is renewed.
pub(crate) fn connector(identity: &Identity) -> Result<Connector, TlsError> {
    let tls = ClientTls::with_identity(identity)?;
    Ok(Arc::new(move |address: &str| {
        flotilla_pki::channel(address, &tls)
    }))
}

/// Loads the node's certificate, or joins; tries until a server answers.
pub(crate) async fn obtain(
    folder: &Path,
    token: Option<&str>,
    node_name: &str,
    directory: &Directory,
) -> Result<Identity, JoinError> {
    if let Some(identity) = Identity::load(folder)? {
        return Ok(identity);
    }
    let token: JoinToken = token.ok_or(JoinError::NoToken)?.parse()?;
    let mut is_told = false;
    loop {
        let servers = directory.servers().borrow().clone();
        for address in &servers {
            let joined = timeout(JOIN_LIMIT, join(address, &token, node_name, directory)).await;
            match joined.unwrap_or(Err(JoinError::Silent)) {
                Ok(identity) => {
                    std::fs::create_dir_all(folder).map_err(|source| IdentityError::Write {
                        path: folder.to_owned(),
                        source,
                    })?;
                    identity.save(folder)?;
                    tracing::info!(server = address, "joined the cluster");
                    return Ok(identity);
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(
                        server = address,
                        error = report(&error),
                        "cannot join yet; trying on"
                    );
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether trying again cannot help. A server that is starting is `Unavailable` or not there.
fn is_final(error: &JoinError) -> bool {
    use tonic::Code;
    match error {
        JoinError::Refused(status) => {
            matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument
            )
        }
        JoinError::Ca(FetchCaError::Pin { .. }) => true,
        JoinError::Ca(_) | JoinError::Silent => false,
        _ => true,
    }
}

async fn join(
    address: &str,
    token: &JoinToken,
    node_name: &str,
    directory: &Directory,
) -> Result<Identity, JoinError> {
    let refused = |status| JoinError::Refused(Box::new(status));
    let ca = flotilla_pki::fetch_ca(address, token.ca_fingerprint).await?;
    let tls = ClientTls::anonymous(&ca)?;
    let request = CertificateRequest::generate()?;
    let message = JoinRequest {
        token: token.credential(),
        role: Role::Agent.into(),
        node_name: node_name.to_owned(),
        csr_der: request.csr_der.clone().into(),
    };
    let mut client = NodesClient::new(flotilla_pki::channel(address, &tls));
    let mut call = tonic::Request::new(message);
    call.set_timeout(CALL_LIMIT);
    let answer = client.join(call).await.map_err(refused)?.into_inner();
    directory.update(&answer.servers);
    Ok(request.identity(answer.certificate_pem, answer.ca_pem))
}

/// Renews the certificate once two thirds of its life are over, until shutdown.
pub(crate) async fn renew_forever(
    folder: PathBuf,
    directory: Arc<Directory>,
    connectors: watch::Sender<Connector>,
    shutdown: CancellationToken,
) {
    let mut pause = RENEWAL_CHECK;
    loop {
        // Both arms only wait.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match renew_if_due(&folder, &directory, &connectors).await {
            Ok(()) => RENEWAL_CHECK,
            Err(error) => {
                tracing::warn!(
                    error = report(&error),
                    "the node's certificate cannot be renewed yet"
                );
                RENEWAL_CHECK / 6
            }
        };
    }
}

async fn renew_if_due(
    folder: &Path,
    directory: &Directory,
    connectors: &watch::Sender<Connector>,
) -> Result<(), JoinError> {
    let Some(identity) = Identity::load(folder)? else {
        return Err(JoinError::NoToken);
    };
    if !is_renewal_due(folder, &identity)? {
        return Ok(());
    }
    let request = CertificateRequest::generate()?;
    let mut refusal = None;
    let servers = directory.servers().borrow().clone();
    for address in &servers {
        let channel = (connectors.borrow().clone())(address);
        let mut call = tonic::Request::new(RenewRequest {
            csr_der: request.csr_der.clone().into(),
        });
        call.set_timeout(CALL_LIMIT);
        match NodesClient::new(channel).renew(call).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let renewed = request.identity(answer.certificate_pem, answer.ca_pem);
                renewed.save(folder)?;
                connectors.send_replace(connector(&renewed)?);
                tracing::info!(server = address, "the node's certificate is renewed");
                return Ok(());
            }
            Err(status) => refusal = Some(status),
        }
    }
    let status = refusal.unwrap_or_else(|| tonic::Status::unavailable("no server is known"));
    Err(JoinError::Refused(Box::new(status)))
}

/// The file's time stands for the begin of the certificate's life.
fn is_renewal_due(folder: &Path, identity: &Identity) -> Result<bool, IdentityError> {
    let end = identity.peer()?.not_after_unix;
    let path = folder.join(flotilla_pki::IDENTITY_FILE);
    let unix = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    let begin = std::fs::metadata(&path).and_then(|meta| meta.modified());
    let begin = begin
        .map(unix)
        .map_err(|source| IdentityError::Read { path, source })?;
    Ok(unix(std::time::SystemTime::now()) >= begin + (end - begin) / 3 * 2)
}

#[cfg(test)]
mod tests;
