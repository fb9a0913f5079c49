//! Raft's view of the peers of one group.
//!
//! Errors mean what raft takes them for: `Unreachable` when there is no connection (raft pauses),
//! `Timeout` when there is one but no answer (raft goes on at once). Nothing is counted as granted
//! or stored without an answer that says so.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::append::{AppendStream, Member, Session};
use super::link::CallError;
use super::wire::{Answer, Ballot, Call, Transfer};
use super::{PeerLinks, Peers, snapshot};
use crate::confirmed::Confirmed;
use crate::listeners::Listeners;
use crate::snapshot::SnapshotFile;
use crate::types::{NodeId, RaftVote, Snapshot, TypeConfig};
use ackord_store::GroupId;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode, OptionalSend};

/// Pauses of raft's after it could not reach a member; the last one repeats.
const BACKOFF_MS: [u64; 5] = [10, 20, 50, 100, 200];
/// Opening a stream on a connection that stands is one round trip, but the machine may be busy.
const OPEN_LIMIT: Duration = Duration::from_millis(500);

/// Makes the peers of one group.
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    /// None on a node without peers: then nobody is reachable.
    pub(crate) peers: Option<Arc<Peers>>,
    /// Who waits for what is committed here.
    pub(crate) listeners: Arc<Listeners>,
    /// Since when others follow this node.
    pub(crate) confirmed: Arc<Confirmed>,
}

/// Another member of a group.
pub(crate) struct RaftPeer {
    group: u32,
    node: NodeId,
    target: NodeId,
    links: Option<Arc<PeerLinks>>,
    listeners: Arc<Listeners>,
    confirmed: Arc<Confirmed>,
    appends: Option<AppendStream>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = RaftPeer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> RaftPeer {
        let links = self.peers.as_ref().map(|peers| peers.links(target, node));
        let (listeners, confirmed) = (self.listeners.clone(), self.confirmed.clone());
        let (group, node, appends) = (self.group.0, self.node, None);
        RaftPeer { group, node, target, links, listeners, confirmed, appends }
    }
}

impl RaftPeer {
    fn links(&self) -> Result<&Arc<PeerLinks>, CallError> {
        self.links.as_ref().ok_or_else(|| CallError::unreachable("this node has no peers"))
    }

    async fn call(&self, call: Call, option: &RPCOption) -> Result<Answer, CallError> {
        self.links()?.main.call(call, option.soft_ttl()).await
    }

    /// What raft is to think of an error.
    fn failed(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        let (id, target) = (self.node, self.target);
        match error {
            CallError::Timeout(timeout) => Timeout { action, id, target, timeout }.into(),
            CallError::Unreachable(_) | CallError::Refused(_) => unreachable_for(&error).into(),
        }
    }
}

fn unreachable_for(error: &CallError) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::error(error))
}

fn voted(answer: Answer) -> Result<VoteResponse<TypeConfig>, CallError> {
    match answer {
        Answer::Voted(voted) => Ok(voted.raft()),
        Answer::Clock { .. }
        | Answer::Pulse { .. }
        | Answer::Transferred(_)
        | Answer::ReadIndex(_)
        | Answer::Received(_)
        | Answer::Installed(_)
        | Answer::Refused(_) => Err(CallError::confused()),
    }
}

impl RaftNetworkV2<TypeConfig> for RaftPeer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let once = stream::once(std::future::ready(request));
        let mut answers = self.stream_append(Box::pin(once), option).await?;
        match answers.next().await {
            Some(answer) => answer.map(AppendEntriesResponse::from),
            None => Err(unreachable_for(&CallError::confused()).into()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let (node, target) = (self.node, self.target);
            let failed = move |error| {
                let action = RPCTypes::AppendEntries;
                match error {
                    CallError::Timeout(timeout) => {
                        Timeout { action, id: node, target, timeout }.into()
                    }
                    CallError::Unreachable(_) | CallError::Refused(_) => {
                        RPCError::from(unreachable_for(&error))
                    }
                }
            };
            let kept = self.appends.take().filter(AppendStream::is_open);
            let opened = match (&self.links, kept) {
                (Some(links), Some(stream)) => Ok((links, stream)),
                (Some(links), None) => {
                    AppendStream::open(links, OPEN_LIMIT).await.map(|stream| (links, stream))
                }
                (None, _) => Err(CallError::unreachable("this node has no peers")),
            };
            let (links, stream) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    // Raft's pause after an error is before it gives out a request: if none were
                    // taken, it would try again at once, for as long as there is no connection.
                    let _unsent = input.next().await;
                    return Err(failed(error));
                }
            };
            let member = Member {
                group: self.group,
                id: target,
                links,
                listeners: &self.listeners,
                confirmed: &self.confirmed,
            };
            let session = Session::new(member, (stream, &mut self.appends), input);
            let answers =
                stream::unfold(session, Session::next).map(move |answer| answer.map_err(failed));
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::Vote { group: self.group, ballot: Ballot::of(&request) };
        let answer = self.call(call, &option).await.and_then(voted);
        answer.map_err(|error| self.failed(RPCTypes::Vote, error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::PreVote { group: self.group, ballot: Ballot::of(&request) };
        let answer = self.call(call, &option).await.and_then(voted);
        answer.map_err(|error| self.failed(RPCTypes::Vote, error))
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sending =
            async { snapshot::send(self.links()?, self.group, vote, snapshot.snapshot).await };
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = sending => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(CallError::Timeout(timeout)) => {
                    let (id, target) = (self.node, self.target);
                    Err(Timeout { action: RPCTypes::InstallSnapshot, id, target, timeout }.into())
                }
                Err(error @ (CallError::Unreachable(_) | CallError::Refused(_))) => {
                    Err(unreachable_for(&error).into())
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = Call::Transfer { group: self.group, transfer: Transfer::of(&request) };
        let failed = |error| self.failed(RPCTypes::TransferLeader, error);
        match self.call(call, &option).await.map_err(failed)? {
            Answer::Transferred(Ok(())) => Ok(Ok(())),
            Answer::Transferred(Err(why)) => {
                tracing::debug!(group = self.group, target = self.target, why, "no transfer");
                let vote = *request.from_leader();
                Ok(Err(TransferLeaderError::VoteChanged { expected: vote, actual: vote }))
            }
            Answer::Clock { .. }
            | Answer::Pulse { .. }
            | Answer::Voted(_)
            | Answer::ReadIndex(_)
            | Answer::Received(_)
            | Answer::Installed(_)
            | Answer::Refused(_) => Err(failed(CallError::confused())),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let pauses = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn given_nobody_to_reach_when_raft_appends_then_it_is_asked_for_a_request_before_it_is_told()
     {
        let mut network = Network {
            group: GroupId(0),
            node: 1,
            peers: None,
            listeners: Arc::default(),
            confirmed: Arc::default(),
        };
        let mut peer = network.new_client(2, &BasicNode::new("")).await;
        let option = || RPCOption::new(Duration::from_millis(100));
        // Raft pauses before it gives one out.
        let pausing = stream::pending::<AppendEntriesRequest<TypeConfig>>();
        assert!(peer.stream_append(pausing, option()).now_or_never().is_none());
        let none = stream::empty::<AppendEntriesRequest<TypeConfig>>();
        assert!(peer.stream_append(none, option()).await.is_err());
    }
}
