//! Peers' calls over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::peer::{
    AddMemberRequest, AddMemberResponse, ConfirmMemberRequest, ConfirmMemberResponse, EndTermRequest,
    EndTermResponse, MemberStatesResponse, ProposeRequest, ProposeResponse, ReadIndexResponse,
    RemoveMemberRequest, RemoveMemberResponse, SnapshotChunk, SpaceReport, TakeOverRequest,
};
use flotilla_raft::platform::DiskFile;
use flotilla_raft::{AnswerError, Call, CallError, Transport};
use futures::future::ready;
use futures::stream::{self, StreamExt as _};
use futures::{FutureExt as _, TryFutureExt as _};

use super::{HostId, Network};

/// The way of one host to all others.
pub(crate) struct HostTransport {
    pub(crate) host: HostId,
    pub(crate) network: Network,
}

/// Snapshots are small here, and should have several pieces.
const PIECE_BYTES: usize = 400;

fn to_call_error(error: AnswerError) -> CallError {
    match error {
        AnswerError::Refused(reason) => CallError::Refused(reason),
        AnswerError::LeftBehind(reason) => CallError::LeftBehind(reason),
        error => CallError::Unknown(error.to_string()),
    }
}

impl Transport for HostTransport {
    fn append_entries(&self, address: &str, message: Bytes) -> Call<Bytes> {
        self.network.call(self.host, address, "append", move |target| {
            let message = message.clone();
            async move { target.service.append_entries(message).await }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn vote(&self, address: &str, message: Bytes) -> Call<Bytes> {
        self.network.call(self.host, address, "vote", move |target| {
            let message = message.clone();
            async move { target.service.vote(message).await }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn install_snapshot(&self, address: &str, header: Bytes, file: Arc<dyn DiskFile>) -> Call<Bytes> {
        let pieces = match pieces(header, &*file) {
            Ok(pieces) => pieces,
            Err(error) => return ready(Err(CallError::Unknown(error.to_string()))).boxed(),
        };
        let network = self.network.clone();
        self.network.call(self.host, address, "snapshot", move |target| {
            let (pieces, network) = (pieces.clone(), network.clone());
            let arriving = stream::iter(pieces).then(move |piece| {
                let longest = network.weather().snapshot_piece_ms;
                let delay = Duration::from_millis(network.chance.number(0..longest + 1));
                tokio::time::sleep(delay).map(move |()| Ok(piece))
            });
            async move { target.service.install_snapshot(arriving.boxed()).await }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn propose(&self, address: &str, request: ProposeRequest) -> Call<ProposeResponse> {
        self.network.call(self.host, address, "propose", move |target| {
            let request = request.clone();
            async move { target.service.propose(request).await }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn read_index(&self, address: &str) -> Call<ReadIndexResponse> {
        self.network
            .call(self.host, address, "read index", move |target| {
                async move { target.service.read_index().await }
                    .map_err(to_call_error)
                    .boxed()
            })
    }

    fn add_member(&self, address: &str, request: AddMemberRequest) -> Call<AddMemberResponse> {
        self.network
            .call(self.host, address, "add member", move |target| {
                let request = request.clone();
                async move { target.service.add_member(request).await }
                    .map_err(to_call_error)
                    .boxed()
            })
    }

    fn report_space(&self, address: &str, report: SpaceReport) -> Call<()> {
        self.network.call(self.host, address, "space", move |target| {
            let done = target.service.report_space(report.clone());
            ready(done.map_err(to_call_error)).boxed()
        })
    }

    fn end_term(&self, address: &str, request: EndTermRequest) -> Call<EndTermResponse> {
        self.network.call(self.host, address, "end term", move |target| {
            async move { target.service.end_term(&request) }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn take_over(&self, address: &str, request: TakeOverRequest) -> Call<()> {
        self.network.call(self.host, address, "take over", move |target| {
            async move { target.service.take_over(&request).await }
                .map_err(to_call_error)
                .boxed()
        })
    }

    fn remove_member(&self, address: &str, request: RemoveMemberRequest) -> Call<RemoveMemberResponse> {
        self.network
            .call(self.host, address, "remove member", move |target| {
                async move { target.service.remove_member(&request).await }
                    .map_err(to_call_error)
                    .boxed()
            })
    }

    fn confirm_member(&self, address: &str, request: ConfirmMemberRequest) -> Call<ConfirmMemberResponse> {
        self.network
            .call(self.host, address, "confirm member", move |target| {
                async move { target.service.confirm_member(&request).await }
                    .map_err(to_call_error)
                    .boxed()
            })
    }

    fn member_states(&self, address: &str) -> Call<MemberStatesResponse> {
        self.network
            .call(self.host, address, "member states", move |target| {
                async move { target.service.member_states() }
                    .map_err(to_call_error)
                    .boxed()
            })
    }
}

fn pieces(header: Bytes, file: &dyn DiskFile) -> std::io::Result<Vec<SnapshotChunk>> {
    let mut pieces = Vec::new();
    let mut header = Some(header);
    let mut offset = 0;
    loop {
        let mut data = vec![0; PIECE_BYTES];
        let read = file.read_at(&mut data, offset)?;
        if read == 0 {
            return Ok(pieces);
        }
        data.truncate(read);
        pieces.push(SnapshotChunk {
            header: header.take().unwrap_or_default(),
            offset,
            data: Bytes::from(data),
        });
        offset += read as u64;
    }
}
