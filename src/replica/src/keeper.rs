//! Sees to it that the directory knows this node as it is.

use std::sync::Arc;
use std::time::Duration;

use ackord_machine::site::{Command, DirectoryCommand, NodeInfo, NodeState};

use crate::founding::{self, Agreed};
use crate::partition::Partition;

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long one proposal is tried.
const PROPOSE_LIMIT: Duration = Duration::from_secs(10);

/// What is to be done about the directory.
enum Lack {
    Nothing,
    /// It does not know what the founding has agreed on.
    Founding(Command),
    /// It knows this node as it was.
    Announcement(Command),
    /// It has not got to this node here.
    Patience,
    /// It says that this node is no member any more.
    Membership,
}

/// Takes the founding and what this node says about itself into the directory; returns when that
/// is done.
pub(crate) async fn run(directory: Arc<Partition>, agreed: Option<Agreed>, info: NodeInfo) {
    loop {
        match lack(&directory, agreed.as_ref(), &info) {
            Lack::Nothing => break,
            Lack::Founding(command) | Lack::Announcement(command) => {
                if let Err(error) = directory.propose_until(command, PROPOSE_LIMIT).await {
                    tracing::warn!(%error, "the directory could not be told of this node yet");
                }
            }
            Lack::Patience => {}
            Lack::Membership => {
                tracing::error!("this node was removed from the cluster: stop it");
                return;
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    if agreed.is_some()
        && let Err(error) = founding::finished(&directory.shared.options.dir)
    {
        tracing::warn!(%error, "the founding is not put aside; the next start does");
    }
}

fn lack(directory: &Partition, agreed: Option<&Agreed>, info: &NodeInfo) -> Lack {
    let id = directory.shared.node;
    let applied = directory.applied.read();
    let known = applied.state.directory();
    if known.cluster().is_none() {
        return agreed.map_or(Lack::Patience, |agreed| Lack::Founding(agreed.command()));
    }
    match known.node(id) {
        None => Lack::Patience,
        Some(row) if row.state == NodeState::Removed => Lack::Membership,
        Some(row) if row.info == *info => Lack::Nothing,
        Some(_) => {
            let info = info.clone();
            Lack::Announcement(Command::Directory(DirectoryCommand::Announce { id, info }))
        }
    }
}
