//! What the brokers of a cluster ask each other, and how a node gathers its own answer.
//!
//! ```text
//! Broker::ask ─▶ every node: gather ─▶ every arbiter: its sessions ─▶ joined, in order
//!             └▶ this node: gather
//! ```
//!
//! Invariants: an arbiter answers on its own thread, from its index, without a word to an actor;
//! everything has a deadline, and a part that missed it is said to be missing. `[version][postcard]`:
//! variants are appended, and what a node does not understand it says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::SiteName;
use ackord_replica::{AskError, ClusterView};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::broker::{Broker, Inner};
use crate::live::{LivePart, LiveQuery, NotReached, Reach};
use crate::trace::{TracePart, TraceQuery};

/// The version of questions and answers.
const VERSION: u8 = 2;
/// Questions that an arbiter may have waiting; more are answered without its part.
pub(crate) const GATHERS_MAX: usize = 16;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Which sessions of the site are open?
    Live(SiteName, LiveQuery),
    /// What was sent?
    Trace(TraceQuery),
    /// How do you see the cluster?
    Cluster,
}

/// What one node answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answered {
    Live(LivePart),
    Trace(TracePart),
    Cluster(Box<ClusterView>),
}

fn encode(message: &impl Serialize) -> Option<Bytes> {
    postcard::to_extend(message, vec![VERSION]).ok().map(Bytes::from)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let [VERSION, body @ ..] = bytes else { return None };
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Some(message),
        Ok(_) | Err(_) => None,
    }
}

/// A question to one arbiter about a partition's sessions.
pub(crate) struct Gather {
    pub partition: u32,
    pub site: SiteName,
    pub query: Arc<LiveQuery>,
    pub answer: oneshot::Sender<LivePart>,
}

impl Inner {
    /// Answers a question for this node.
    async fn gather(&self, question: Question) -> Answered {
        match question {
            Question::Live(site, query) => Answered::Live(self.gather_live(site, query).await),
            Question::Trace(query) => Answered::Trace(self.trace.find(&query)),
            Question::Cluster => Answered::Cluster(Box::new(self.node.cluster())),
        }
    }

    async fn gather_live(&self, site: SiteName, query: LiveQuery) -> LivePart {
        let (most, query) = (query.most(), Arc::new(query));
        let partition = self.partition_of(&site).number();
        let arbiters: Vec<mpsc::Sender<Gather>> = {
            let mut arbiters = self.arbiters.lock();
            arbiters.retain(|arbiter| !arbiter.is_closed());
            arbiters.clone()
        };
        let asking = arbiters.into_iter().map(|arbiter| {
            let (answer, answered) = oneshot::channel();
            let (site, query) = (site.clone(), query.clone());
            let sent = arbiter.try_send(Gather { partition, site, query, answer });
            async move {
                match sent {
                    // One that ends meanwhile has no sessions any more.
                    Ok(()) => answered.await.unwrap_or_default(),
                    Err(mpsc::error::TrySendError::Closed(_)) => LivePart::default(),
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        LivePart { late: true, ..LivePart::default() }
                    }
                }
            }
        });
        let limit = self.gather_limit();
        let answers = join_all(asking.map(|answer| async move {
            let late = LivePart { late: true, ..LivePart::default() };
            timeout(limit, answer).await.unwrap_or(late)
        }));
        let mut whole = LivePart::default();
        answers.await.into_iter().for_each(|part| whole.join(part));
        whole.settle(most);
        whole
    }

    /// Of the time that an answer may take, what a node takes to gather: the rest is for the way.
    fn gather_limit(&self) -> Duration {
        self.options.ask_deadline.mul_f64(0.75)
    }
}

impl Broker {
    /// Answers what other nodes ask, from now on.
    pub(crate) fn answer_others(&self) {
        // The node keeps this, and the broker keeps the node.
        let broker = Arc::downgrade(&self.inner);
        let answering = self.node().answer(Arc::new(move |asked: Bytes| {
            let broker = broker.upgrade();
            async move { encode(&broker?.gather(decode(&asked)?).await) }.boxed()
        }));
        if let Err(error) = answering {
            tracing::error!(%error, "other nodes will not learn of this one's sessions");
        }
    }

    /// The cluster as each of its nodes sees it, and the nodes that did not say.
    pub async fn views(&self) -> (BTreeMap<u64, ClusterView>, BTreeMap<u64, NotReached>) {
        let (answers, mut not_reached) = self.ask(Question::Cluster, Reach::Cluster).await;
        let mut views = BTreeMap::new();
        for (node, answer) in answers {
            match answer {
                Answered::Cluster(view) => {
                    views.insert(node, *view);
                }
                Answered::Live(_) | Answered::Trace(_) => {
                    not_reached.insert(node, NotReached::Unsupported);
                }
            }
        }
        (views, not_reached)
    }

    /// Asks this node, and the others: their answers, and who gave none.
    pub(crate) async fn ask(
        &self,
        question: Question,
        reach: Reach,
    ) -> (Vec<(u64, Answered)>, BTreeMap<u64, NotReached>) {
        let (node, deadline) = (self.node(), self.options().ask_deadline);
        let others = async {
            match (reach, encode(&question)) {
                (Reach::Cluster, Some(asked)) => node.ask_all(asked, deadline).await,
                (Reach::Node, _) | (Reach::Cluster, None) => Vec::new(),
            }
        };
        let (own, others) = tokio::join!(self.inner.gather(question.clone()), others);
        let mut answers = vec![(node.id(), own)];
        let mut not_reached = BTreeMap::new();
        for (id, answer) in others {
            match answer {
                Ok(bytes) => match decode(&bytes) {
                    Some(answer) => answers.push((id, answer)),
                    None => {
                        not_reached.insert(id, NotReached::Unsupported);
                    }
                },
                Err(error) => {
                    tracing::debug!(node = id, %error, "a node did not answer");
                    not_reached.insert(id, reason(&error));
                }
            }
        }
        (answers, not_reached)
    }
}

fn reason(error: &AskError) -> NotReached {
    match error {
        AskError::Unreachable(_) => NotReached::Unreachable,
        AskError::Timeout(_) => NotReached::Late,
        AskError::Unsupported => NotReached::Unsupported,
        AskError::Busy | AskError::Failed | AskError::TooLong { .. } => NotReached::Busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_nothing_and_no_panic() {
        let query = LiveQuery { kind: None, id: None, lanes: false, after: None, limit: 7 };
        let question = encode(&Question::Live("plant".into(), query)).unwrap();
        assert!(decode::<Question>(&question).is_some());
        let newer_kind = [VERSION, 200, 1, 2, 3];
        let newer_version = [VERSION + 1, 0];
        let longer = [&question[..], &[0]].concat();
        for unknown in [&[][..], &newer_kind, &newer_version, &longer, &question[..3]] {
            assert!(decode::<Question>(unknown).is_none(), "{unknown:?}");
        }
    }
}
