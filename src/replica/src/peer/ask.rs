//! Questions of the layer above, to its counterpart on another node: bytes there, bytes back.
//!
//! `Node::ask ─▶ the second connection, which carries bulk ═▶ the answerer, on a thread of its own`
//!
//! Invariants: sizes and numbers are bounded on both sides and a deadline covers everything, so that
//! no question delays what raft says or keeps anything for long; a question is asked once and never
//! sent on; what is in it is the layer above's own matter, with a version of its own. A node whose
//! release has no questions is not asked: it would take one for garbage.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;

use super::PeerLinks;
use super::link::{CallError, Connection};

/// The longest question, bytes.
pub const QUESTION_BYTES_MAX: usize = 64 << 10;
/// The longest answer, bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Questions to one node that may wait for their answers.
pub(super) const ASKED_MAX: usize = 16;
/// Questions of all nodes together that may be worked on.
const ANSWERED_MAX: usize = 64;
/// The longest that a question may be worked on, whatever its deadline.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The first peer protocol with questions.
const VERSION: u8 = 2;

pub(super) const PATH_ASK: &str = "/ackord.peer/ask";

/// What answers other nodes' questions; `None` for one that it does not understand. It runs on a
/// thread of its own, which a panic does not end.
pub type Answerer = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Option<Bytes>> + Send + Sync>;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection to the node, it broke, or there is no such node.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Its release knows no such question.
    #[error("its release does not know the question")]
    Unsupported,
    /// As many questions as may be are waiting, here or there.
    #[error("too many questions at once")]
    Busy,
    /// The question or its answer exceeds what may be sent, bytes.
    #[error("{bytes} bytes, at most {bytes_max} are sent")]
    TooLong {
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// Answering it failed there.
    #[error("it failed there")]
    Failed,
}

impl AskError {
    /// Whether the same question may have an answer later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) | Self::Busy | Self::Failed => true,
            Self::Unsupported | Self::TooLong { .. } => false,
        }
    }
}

impl From<CallError> for AskError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unreachable(why) => Self::Unreachable(why.to_string()),
            CallError::Timeout(limit) => Self::Timeout(limit),
            CallError::Refused(why) => Self::Unreachable(why),
        }
    }
}

/// A question on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// Milliseconds after which nobody waits for the answer any more.
    within_ms: u32,
    question: Bytes,
}

/// What a [`Question`] is answered. Variants are appended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Answer(Bytes),
    Unsupported,
    Busy,
    TooLong { bytes: u64 },
    Failed,
}

/// The asking side. The deadline covers everything.
pub(super) async fn ask(
    links: &PeerLinks,
    question: Bytes,
    deadline: Duration,
) -> Result<Bytes, AskError> {
    if question.len() > QUESTION_BYTES_MAX {
        let bytes = question.len();
        return Err(AskError::TooLong { bytes, bytes_max: QUESTION_BYTES_MAX });
    }
    let Ok(_place) = links.asking.try_acquire() else { return Err(AskError::Busy) };
    let asking = async {
        // One that is known to be away need not be tried on a second connection.
        links.main.connection(deadline).await?;
        let connection = links.bulk().connection(deadline).await?;
        if connection.line.agreed.version < VERSION {
            return Err(AskError::Unsupported);
        }
        let within_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        send(&connection, Question { within_ms, question }).await
    };
    timeout(deadline, asking).await.map_err(|_| AskError::Timeout(deadline))?
}

async fn send(connection: &Connection, question: Question) -> Result<Bytes, AskError> {
    let mut client = connection.client();
    client.ready().await.map_err(|error| AskError::Unreachable(error.to_string()))?;
    let path = PathAndQuery::from_static(PATH_ASK);
    let reply = client.unary(Request::new(question), path, connection.codec()).await;
    match reply.map_err(|status| connection.broken(&status))?.into_inner() {
        Reply::Answer(answer) => Ok(answer),
        Reply::Unsupported => Err(AskError::Unsupported),
        Reply::Busy => Err(AskError::Busy),
        Reply::TooLong { bytes } => Err(too_long(bytes)),
        Reply::Failed => Err(AskError::Failed),
    }
}

fn too_long(bytes: u64) -> AskError {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    AskError::TooLong { bytes, bytes_max: ANSWER_BYTES_MAX }
}

/// The answering side of a node.
pub(super) struct Answers {
    answerer: OnceLock<(Answerer, Thread)>,
    places: Arc<Semaphore>,
    /// Whether the runtime that is current is to answer, in place of a thread.
    here: bool,
}

impl Answers {
    pub(super) fn of(here: bool) -> Self {
        let places = Arc::new(Semaphore::new(ANSWERED_MAX));
        Self { answerer: OnceLock::new(), places, here }
    }

    /// Takes questions from now on; only the first answerer counts.
    pub(super) fn begin(&self, answerer: Answerer) -> std::io::Result<()> {
        if self.answerer.get().is_none() {
            // When two begin at the same time the thread of one of them ends again.
            let _second = self.answerer.set((answerer, Thread::start(self.here)?));
        }
        Ok(())
    }

    pub(super) async fn answer(&self, question: Question) -> Reply {
        let Question { within_ms, question } = question;
        let Some((answerer, thread)) = self.answerer.get() else { return Reply::Unsupported };
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Reply::Busy };
        let within = Duration::from_millis(within_ms.into()).min(ANSWER_LIMIT);
        let answerer = answerer.clone();
        // Also the call itself is made there: whatever it does is not done on raft's threads. It ends
        // in time by itself, should the connection end before.
        let work = thread.spawn(async move {
            let _place = place;
            timeout(within, async { answerer(question).await }).await
        });
        match work.await {
            Ok(Ok(Some(answer))) if answer.len() > ANSWER_BYTES_MAX => {
                Reply::TooLong { bytes: answer.len() as u64 }
            }
            Ok(Ok(Some(answer))) => Reply::Answer(answer),
            Ok(Ok(None)) => Reply::Unsupported,
            Ok(Err(_elapsed)) => Reply::Failed,
            Err(_panicked_or_stopped) => Reply::Failed,
        }
    }
}

/// The thread that answers; without a runtime, that of whoever asks.
struct Thread(Option<Runtime>);

impl Thread {
    fn start(here: bool) -> std::io::Result<Self> {
        if here {
            return Ok(Self(None));
        }
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("ackord-answers").enable_time();
        Ok(Self(Some(runtime.build()?)))
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        match &self.0 {
            Some(runtime) => runtime.spawn(work),
            None => tokio::spawn(work),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The node may be dropped on another runtime, where blocking is not possible.
            runtime.shutdown_background();
        }
    }
}
