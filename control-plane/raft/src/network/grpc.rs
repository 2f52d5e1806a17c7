//! Calls over gRPC: one channel per address, and the shell around [`PeerService`].

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use flotilla_proto::peer::peer_client::PeerClient;
use flotilla_proto::peer::peer_server::{Peer, PeerServer};
use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, ConfirmMemberRequest, ConfirmMemberResponse, EndTermRequest,
    EndTermResponse, MemberStatesRequest, MemberStatesResponse, ProposeRequest, ProposeResponse, RaftMessage,
    ReadIndexRequest, ReadIndexResponse, RemoveMemberRequest, RemoveMemberResponse, SnapshotChunk,
    SpaceReport, SpaceReportResponse, TakeOverRequest, TakeOverResponse,
};
use flotilla_report::report;
use futures::FutureExt as _;
use futures::stream::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Call, CallError, Transport};
use crate::platform::DiskFile;
use crate::service::{AnswerError, PeerService};

/// Makes a lazy channel to `host:port`. TLS is the caller's.
pub type PeerConnector = Arc<dyn Fn(&str) -> Channel + Send + Sync>;

/// Entries may be megabytes; openraft's messages hold several.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the network.
const SNAPSHOT_CHUNKS_AHEAD: usize = 2;

/// Says which cluster the caller belongs to.
const CLUSTER: &str = "flotilla-cluster";
/// Says which version of these calls the caller speaks.
const PROTOCOL: &str = "flotilla-peer-protocol";
/// Of this program: raised when a message changes its meaning, or its encoding in a way that protobuf cannot bridge.
const PROTOCOL_VERSION: u32 = 1;
/// Marks the refusal of a caller that was left behind.
const LEFT_BEHIND: &str = "flotilla-left-behind";

/// Calls over gRPC.
pub(crate) struct GrpcTransport {
    connector: PeerConnector,
    clients: Mutex<HashMap<String, PeerClient<Channel>>>,
    /// The caller's cluster, once it has one.
    cluster: RwLock<Option<AsciiMetadataValue>>,
}

impl GrpcTransport {
    /// Calls over the connector's channels, one for each address.
    pub(crate) fn new(connector: PeerConnector) -> GrpcTransport {
        GrpcTransport {
            connector,
            clients: Mutex::default(),
            cluster: RwLock::default(),
        }
    }

    /// A message with what every call says of its caller.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(PROTOCOL, AsciiMetadataValue::from(PROTOCOL_VERSION));
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = &*cluster {
            metadata.insert(CLUSTER, cluster.clone());
        }
        request
    }

    /// A client for the server at an address; connects when it is used.
    fn client(&self, address: &str) -> PeerClient<Channel> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(address) {
            return client.clone();
        }
        let client = PeerClient::new((self.connector)(address))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        clients.insert(address.to_owned(), client.clone());
        client
    }
}

impl Transport for GrpcTransport {
    fn introduce(&self, cluster: &str) {
        let value = cluster.parse().ok();
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn append_entries(&self, address: &str, message: Bytes) -> Call<Bytes> {
        let (mut client, request) = (
            self.client(address),
            self.request(RaftMessage { payload: message }),
        );
        async move { payload(client.append_entries(request).await) }.boxed()
    }

    fn vote(&self, address: &str, message: Bytes) -> Call<Bytes> {
        let (mut client, request) = (
            self.client(address),
            self.request(RaftMessage { payload: message }),
        );
        async move { payload(client.vote(request).await) }.boxed()
    }

    fn install_snapshot(&self, address: &str, header: Bytes, file: Arc<dyn DiskFile>) -> Call<Bytes> {
        let mut client = self.client(address);
        let (chunks, stream) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
        let request = self.request(ReceiverStream::new(stream));
        async move {
            // It ends by itself, with the file or with the call.
            let _reading = tokio::task::spawn_blocking(move || send_chunks(&*file, header, &chunks));
            payload(client.install_snapshot(request).await)
        }
        .boxed()
    }

    fn propose(&self, address: &str, request: ProposeRequest) -> Call<ProposeResponse> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.propose(request).await) }.boxed()
    }

    fn read_index(&self, address: &str) -> Call<ReadIndexResponse> {
        let (mut client, request) = (self.client(address), self.request(ReadIndexRequest {}));
        async move { message(client.read_index(request).await) }.boxed()
    }

    fn add_member(&self, address: &str, request: AddMemberRequest) -> Call<AddMemberResponse> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.add_member(request).await) }.boxed()
    }

    fn report_space(&self, address: &str, report: SpaceReport) -> Call<()> {
        let (mut client, request) = (self.client(address), self.request(report));
        async move { message(client.report_space(request).await).map(|SpaceReportResponse {}| ()) }.boxed()
    }

    fn end_term(&self, address: &str, request: EndTermRequest) -> Call<EndTermResponse> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.end_term(request).await) }.boxed()
    }

    fn take_over(&self, address: &str, request: TakeOverRequest) -> Call<()> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.take_over(request).await).map(|TakeOverResponse {}| ()) }.boxed()
    }

    fn member_states(&self, address: &str) -> Call<MemberStatesResponse> {
        let (mut client, request) = (self.client(address), self.request(MemberStatesRequest {}));
        async move { message(client.member_states(request).await) }.boxed()
    }

    fn remove_member(&self, address: &str, request: RemoveMemberRequest) -> Call<RemoveMemberResponse> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.remove_member(request).await) }.boxed()
    }

    fn confirm_member(&self, address: &str, request: ConfirmMemberRequest) -> Call<ConfirmMemberResponse> {
        let (mut client, request) = (self.client(address), self.request(request));
        async move { message(client.confirm_member(request).await) }.boxed()
    }
}

fn payload(answer: Result<Response<RaftMessage>, Status>) -> Result<Bytes, CallError> {
    message(answer).map(|message| message.payload)
}

fn message<T>(answer: Result<Response<T>, Status>) -> Result<T, CallError> {
    answer.map(Response::into_inner).map_err(|status| {
        if never_sent(&status) {
            CallError::NotDelivered(report(&status))
        } else if status.metadata().contains_key(LEFT_BEHIND) {
            CallError::LeftBehind(status.message().to_owned())
        } else if status.code() == Code::FailedPrecondition {
            CallError::Refused(status.message().to_owned())
        } else {
            CallError::Unknown(status.to_string())
        }
    })
}

/// Whether a call surely did not reach the other server: no connection could be made.
fn never_sent(status: &Status) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
                    | io::ErrorKind::AddrNotAvailable
            );
        }
        source = error.source();
    }
    false
}

/// Sends a whole file; ends early when the receiver is gone. Blocks.
fn send_chunks(file: &dyn DiskFile, header: Bytes, chunks: &mpsc::Sender<SnapshotChunk>) {
    let mut header = Some(header);
    let mut offset = 0;
    loop {
        let mut data = vec![0; SNAPSHOT_CHUNK_BYTES];
        let read = match file.read_at(&mut data, offset) {
            Ok(read) => read,
            Err(error) => {
                // The receiver notices that the file is not whole, and openraft tries again.
                tracing::error!(error = report(&error), ?file, "a snapshot cannot be read");
                return;
            }
        };
        data.truncate(read);
        let chunk = SnapshotChunk {
            header: header.take().unwrap_or_default(),
            offset,
            data: Bytes::from(data),
        };
        if read == 0 || chunks.blocking_send(chunk).is_err() {
            return;
        }
        offset += read as u64;
    }
}

/// The shell that lets [`PeerService`] be called over gRPC.
pub struct GrpcPeerService(PeerService);

/// What a gRPC server serves.
pub(crate) fn grpc_service(service: PeerService) -> PeerServer<GrpcPeerService> {
    PeerServer::new(GrpcPeerService(service))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

impl GrpcPeerService {
    /// Refuses callers of other clusters, and of releases that this one does not understand.
    fn check<T>(&self, request: &Request<T>, joins: bool) -> Result<(), Status> {
        let text = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        let protocol = text(PROTOCOL)
            .and_then(|version| version.parse::<u32>().ok())
            .unwrap_or(0);
        if protocol > PROTOCOL_VERSION {
            let reason = format!(
                "the caller speaks version {protocol} of the servers' protocol, this server up to {PROTOCOL_VERSION}: \
                 upgrade this server first"
            );
            return Err(Status::failed_precondition(reason));
        }
        let judged = self.0.check_caller(text(CLUSTER), joins);
        judged.map_err(|error| status(&error))
    }
}

#[tonic::async_trait]
impl Peer for GrpcPeerService {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.check(&request, false)?;
        raft_message(self.0.append_entries(request.into_inner().payload).await)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        self.check(&request, false)?;
        raft_message(self.0.vote(request.into_inner().payload).await)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        self.check(&request, false)?;
        let chunks = request
            .into_inner()
            .map(|chunk| chunk.map_err(|status| AnswerError::Failed(status.to_string())));
        raft_message(self.0.install_snapshot(chunks.boxed()).await)
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.propose(request.into_inner()).await)
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.read_index().await)
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<AddMemberResponse>, Status> {
        self.check(&request, true)?;
        response(self.0.add_member(request.into_inner()).await)
    }

    async fn report_space(
        &self,
        request: Request<SpaceReport>,
    ) -> Result<Response<SpaceReportResponse>, Status> {
        self.check(&request, false)?;
        let done = self.0.report_space(request.into_inner());
        response(done.map(|()| SpaceReportResponse {}))
    }

    async fn end_term(&self, request: Request<EndTermRequest>) -> Result<Response<EndTermResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.end_term(&request.into_inner()))
    }

    async fn take_over(
        &self,
        request: Request<TakeOverRequest>,
    ) -> Result<Response<TakeOverResponse>, Status> {
        self.check(&request, false)?;
        let done = self.0.take_over(&request.into_inner()).await;
        response(done.map(|()| TakeOverResponse {}))
    }

    async fn member_states(
        &self,
        request: Request<MemberStatesRequest>,
    ) -> Result<Response<MemberStatesResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.member_states())
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.remove_member(&request.into_inner()).await)
    }

    async fn confirm_member(
        &self,
        request: Request<ConfirmMemberRequest>,
    ) -> Result<Response<ConfirmMemberResponse>, Status> {
        self.check(&request, false)?;
        response(self.0.confirm_member(&request.into_inner()).await)
    }
}

fn raft_message(answer: Result<Bytes, AnswerError>) -> Result<Response<RaftMessage>, Status> {
    response(answer.map(|payload| RaftMessage { payload }))
}

fn response<T>(answer: Result<T, AnswerError>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| status(&error))
}

fn status(error: &AnswerError) -> Status {
    let text = error.to_string();
    match error {
        AnswerError::Stopping => Status::unavailable(text),
        AnswerError::Refused(_) => Status::failed_precondition(text),
        AnswerError::LeftBehind(_) => {
            let mut status = Status::failed_precondition(text);
            status
                .metadata_mut()
                .insert(LEFT_BEHIND, AsciiMetadataValue::from_static("true"));
            status
        }
        AnswerError::Unreadable => Status::invalid_argument(text),
        AnswerError::Failed(_) => Status::internal(text),
    }
}
