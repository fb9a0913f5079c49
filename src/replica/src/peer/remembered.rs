//! How far the stores of other nodes had got, as they said.
//!
//! `hello, pulse ─▶ node, run, number of its last durable write ─▶ kept, and in a file now and then`
//!
//! A store counts its writes, over all runs of the process. Invariant: nothing is heard from a node
//! whose process began with less than the node had said before: its disk is an older copy, or has
//! lost what it had called durable, and the votes and entries that the others count on are gone.
//! Within one run words may overtake each other, so that only the highest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::hello::Refusal;
use crate::types::NodeId;

/// How far the file may lag behind.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Beside the log.
const FILE: &str = "peers";
const HEAD: &str = "ackord-peers 1";

/// See the module.
pub(super) struct Remembered {
    file: PathBuf,
    state: Mutex<State>,
}

struct State {
    known: BTreeMap<NodeId, Known>,
    saved: Instant,
    changed: bool,
}

/// What a node said last.
#[derive(Clone, Copy)]
struct Known {
    /// The run of the process that said it; `None` when it is from the file.
    run: Option<u64>,
    stored: u64,
}

impl Remembered {
    /// What is known from runs before of this node. A file that cannot be read is as none: it helps
    /// to find what is wrong with others, nothing here depends on it.
    pub(super) fn load(dir: &std::path::Path) -> Self {
        let file = dir.join(FILE);
        let known = match std::fs::read_to_string(&file) {
            Ok(text) => parse(&text).unwrap_or_else(|| {
                tracing::warn!(file = %file.display(), "a damaged file is not used");
                BTreeMap::new()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(file = %file.display(), %error, "a file cannot be read");
                }
                BTreeMap::new()
            }
        };
        let known = known.into_iter().map(|(node, stored)| (node, Known { run: None, stored }));
        let state = State { known: known.collect(), saved: Instant::now(), changed: false };
        Self { file, state: Mutex::new(state) }
    }

    /// A run of a node's process says how far its store is.
    pub(super) fn heard(&self, node: NodeId, run: u64, stored: u64) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        match state.known.get(&node) {
            Some(known) if known.run != Some(run) && stored < known.stored => {
                return Err(Refusal::WentBack { node, stored, known: known.stored });
            }
            Some(known) if known.run == Some(run) && stored <= known.stored => return Ok(()),
            Some(_) | None => {}
        }
        state.known.insert(node, Known { run: Some(run), stored });
        state.changed = true;
        Ok(())
    }

    /// Nodes that are no members any more.
    pub(super) fn forget(&self, removed: &BTreeSet<NodeId>) {
        let mut state = self.state.lock();
        let before = state.known.len();
        state.known.retain(|node, _| !removed.contains(node));
        state.changed |= state.known.len() < before;
    }

    /// What a node said last.
    #[cfg(test)]
    pub(super) fn of(&self, node: NodeId) -> Option<u64> {
        self.state.lock().known.get(&node).map(|known| known.stored)
    }

    /// Whether it is time to save; whoever is told so is to do it.
    pub(super) fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let due = state.changed && state.saved.elapsed() >= SAVE_INTERVAL;
        if due {
            state.saved = Instant::now();
        }
        due
    }

    /// Writes the file. Blocks.
    pub(super) fn save(&self) {
        let known = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.changed) {
                return;
            }
            state.known.iter().map(|(node, known)| (*node, known.stored)).collect()
        };
        if let Err(error) = ackord_store::replace_file(&self.file, render(&known).as_bytes()) {
            tracing::warn!(file = %self.file.display(), %error, "a file cannot be written");
        }
    }
}

fn render(known: &BTreeMap<NodeId, u64>) -> String {
    let mut text = format!("{HEAD}\n");
    for (node, stored) in known {
        // A string takes everything.
        let _ = writeln!(text, "{node} {stored}");
    }
    let crc = crc32fast::hash(text.as_bytes());
    let _ = writeln!(text, "crc {crc:08x}");
    text
}

fn parse(text: &str) -> Option<BTreeMap<NodeId, u64>> {
    let line = |line: &str| {
        let (node, stored) = line.split_once(' ')?;
        Some((node.parse().ok()?, stored.parse().ok()?))
    };
    let lines = text.lines().skip(1).take_while(|line| !line.starts_with("crc"));
    let known = lines.map(line).collect::<Option<_>>()?;
    // Only one text stands for these values, so comparing it checks everything at once.
    (render(&known) == text).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn went_back(node: NodeId, stored: u64, known: u64) -> Result<(), Refusal> {
        Err(Refusal::WentBack { node, stored, known })
    }

    #[test]
    fn given_another_run_when_it_has_less_than_the_node_said_then_it_is_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::load(dir.path());
        assert_eq!(remembered.heard(2, 7, 100), Ok(()));
        assert_eq!(remembered.heard(2, 7, 120), Ok(()));
        assert_eq!(remembered.heard(2, 7, 110), Ok(()), "an older word of the same run");
        assert_eq!(remembered.heard(2, 8, 119), went_back(2, 119, 120));
        assert_eq!(remembered.heard(2, 9, 120), Ok(()));
        assert_eq!(remembered.heard(3, 7, 1), Ok(()), "another node");
        // Whoever was removed comes back as nobody.
        remembered.forget(&[2].into());
        assert_eq!(remembered.heard(2, 8, 1), Ok(()));
    }

    #[test]
    fn given_a_file_when_it_is_read_again_then_it_counts_and_damage_is_as_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::load(dir.path());
        remembered.heard(2, 7, 120).unwrap();
        remembered.heard(3, 8, 90).unwrap();
        assert!(!remembered.is_due(), "not that often");
        remembered.save();
        let again = Remembered::load(dir.path());
        assert_eq!(again.heard(2, 7, 119), went_back(2, 119, 120));
        assert_eq!(again.heard(3, 9, 90), Ok(()));

        let file = dir.path().join(FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        for damaged in ["", "ackord-peers 1\n", &text.replace("120", "121"), &text[1..]] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(Remembered::load(dir.path()).heard(2, 7, 1), Ok(()), "{damaged:?}");
        }
    }
}
