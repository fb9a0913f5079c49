//! Appends to one member of one group: a stream on which several are under way at a time.
//!
//! `raft's requests ─▶ at most APPENDS_IN_FLIGHT_MAX unanswered ─▶ answers, in the same order`
//!
//! Invariants: a stream is used by one session at a time and handed to the next only when every
//! request on it has been answered, so answers never mix; a request that stays unanswered ends the
//! session.
//! What says only what is committed may wait for what follows, or never be sent: see `pace`.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;

use super::PeerLinks;
use super::link::{CallError, Connection, PATH_APPEND};
use super::pace::Pace;
use super::wire::{Append, Appended};
use crate::confirmed::Confirmed;
use crate::listeners::Listeners;
use crate::types::{NodeId, RaftVote, TypeConfig};

/// Appends to one member that may be unanswered.
pub(super) const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// Bytes of them after which no further one is sent.
const APPEND_BYTES_IN_FLIGHT_MAX: usize = 8 << 20;
/// How long the oldest may wait: the member has to write and sync it.
const APPEND_LIMIT: Duration = Duration::from_secs(2);
/// An open stream without an unanswered request.
pub(super) struct AppendStream {
    sender: mpsc::Sender<Append>,
    answers: Streaming<Appended>,
    connection: Connection,
}

impl AppendStream {
    pub(super) async fn open(links: &PeerLinks, limit: Duration) -> Result<Self, CallError> {
        let connection = links.main.connection(limit).await?;
        let (sender, receiver) = mpsc::channel(APPENDS_IN_FLIGHT_MAX);
        let messages = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let answers = connection.stream(PATH_APPEND, messages, limit).await?;
        Ok(Self { sender, answers, connection })
    }

    /// Whether its connection stood when last looked at.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// To whom a session sends, and whom it tells.
pub(super) struct Member<'s> {
    pub(super) group: u32,
    pub(super) id: NodeId,
    pub(super) links: &'s PeerLinks,
    pub(super) listeners: &'s Listeners,
    pub(super) confirmed: &'s Confirmed,
}

/// A request that was sent.
struct Sent {
    bytes: usize,
    vote: RaftVote,
    at: Instant,
}

/// One session of raft's on a stream.
pub(super) struct Session<'s, S> {
    member: Member<'s>,
    /// Where the stream is left for the next session.
    home: &'s mut Option<AppendStream>,
    stream: Option<AppendStream>,
    input: Option<S>,
    pace: Pace<AppendEntriesRequest<TypeConfig>>,
    unanswered: VecDeque<Sent>,
    deadline: Instant,
}

impl<'s, S> Session<'s, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// What `input` asks for, on `stream`, which is left at `home` when it is over.
    pub(super) fn new(
        member: Member<'s>,
        (stream, home): (AppendStream, &'s mut Option<AppendStream>),
        input: S,
    ) -> Self {
        Self {
            member,
            home,
            stream: Some(stream),
            input: Some(input),
            pace: Pace::new(Instant::now()),
            unanswered: VecDeque::new(),
            deadline: Instant::now(),
        }
    }

    /// The next answer; `None` when everything was answered, or after an answer that ends it.
    pub(super) async fn next(
        mut self,
    ) -> Option<(Result<StreamAppendResult<TypeConfig>, CallError>, Self)> {
        loop {
            let kept_back = self.pace.until();
            if self.input.is_none() && kept_back.is_none() && self.unanswered.is_empty() {
                *self.home = self.stream.take();
                return None;
            }
            let room = self.unanswered.len() < APPENDS_IN_FLIGHT_MAX
                && self.unanswered.iter().map(|sent| sent.bytes).sum::<usize>()
                    < APPEND_BYTES_IN_FLIGHT_MAX;
            // When raft has ended nothing follows that would say it too.
            let patience = kept_back.filter(|_| self.input.is_some());
            let stream = self.stream.as_mut()?;
            let sent = tokio::select! {
                biased;
                answer = stream.answers.next(), if !self.unanswered.is_empty() => {
                    let result = match answer {
                        Some(Ok(appended)) => Ok(appended.raft()),
                        Some(Err(status)) => Err(stream.connection.broken(&status)),
                        None => Err(CallError::unreachable("the stream of appends has ended")),
                    };
                    let sent = self.unanswered.pop_front();
                    // Who finds a conflict follows too; who has voted for another does not.
                    let follows = matches!(
                        result,
                        Ok(Ok(_) | Err(StreamAppendError::Conflict(_)))
                    );
                    if let Some(sent) = sent.filter(|_| follows) {
                        self.member.confirmed.note(self.member.id, sent.vote, sent.at);
                    }
                    self.deadline = Instant::now() + APPEND_LIMIT;
                    if !matches!(result, Ok(Ok(_))) {
                        // Requests behind it are not answered.
                        self.stream = None;
                    }
                    return Some((result, self));
                }
                request = next_of(&mut self.input), if room && self.input.is_some() => {
                    match request {
                        Some(request) => {
                            let (has_entries, awaited) =
                                (!request.entries.is_empty(), self.member.listeners.lately());
                            let now = self.pace.take(Instant::now(), request, has_entries, awaited);
                            self.send(now)
                        }
                        None => {
                            self.input = None;
                            Ok(())
                        }
                    }
                }
                () = wait(patience), if room && kept_back.is_some() => {
                    let now = self.pace.give();
                    self.send(now)
                }
                () = sleep_until(self.deadline), if !self.unanswered.is_empty() => {
                    Err(CallError::Timeout(APPEND_LIMIT))
                }
            };
            if let Err(error) = sent {
                self.stream = None;
                return Some((Err(error), self));
            }
        }
    }

    fn send(&mut self, request: Option<AppendEntriesRequest<TypeConfig>>) -> Result<(), CallError> {
        let Some(request) = request else { return Ok(()) };
        let Some(stream) = &self.stream else { return Err(CallError::confused()) };
        let append = Append::of(self.member.group, &request)
            .map_err(|error| CallError::unreachable(error.to_string()))?;
        let sent = Sent { bytes: append.bytes(), vote: request.vote, at: Instant::now() };
        // There is room for as many as may be unanswered, so it is full only when it is closed.
        stream
            .sender
            .try_send(append)
            .map_err(|_| CallError::unreachable("the stream of appends is closed"))?;
        if self.unanswered.is_empty() {
            self.deadline = Instant::now() + APPEND_LIMIT;
        }
        self.unanswered.push_back(sent);
        self.member.links.appends_in_flight(self.unanswered.len());
        Ok(())
    }
}

/// Waits until then, or not at all.
async fn wait(until: Option<Instant>) {
    if let Some(until) = until {
        sleep_until(until).await;
    }
}

async fn next_of<S: Stream + Unpin>(input: &mut Option<S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}
