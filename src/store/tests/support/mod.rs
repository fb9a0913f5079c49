//! What the scenarios share: entries with known content, waiting for answers, copying and
//! damaging directories. No scenario lives here.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failing test is the answer")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use ackord_store::{Done, Entry, GroupId, Mark, OpenError, Store, StoreError, StoreOptions};
use bytes::Bytes;

/// How long the lock of a store that was dropped may be held by somebody else.
const UNLOCKED: Duration = Duration::from_secs(10);

pub const G: GroupId = GroupId(1);

pub fn mark(term: u64, index: u64) -> Mark {
    Mark { term, node: 1, index }
}

/// An entry whose content tells where it belongs.
pub fn entry(group: GroupId, term: u64, index: u64) -> Entry {
    let len = 20 + (index * 37 + term * 11) % 300;
    let mut data = format!("{group}/{term}/{index}/").into_bytes();
    data.resize(len as usize, b'a' + (index % 26) as u8);
    Entry { mark: mark(term, index), data: Bytes::from(data) }
}

pub fn entries(group: GroupId, term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(group, term, index)).collect()
}

pub type Answer = Receiver<Result<(), StoreError>>;

/// A `done` and where its answer arrives.
pub fn answer() -> (Done, Answer) {
    let (sender, receiver) = sync_channel(1);
    let done: Done = Box::new(move |result| {
        let _unread = sender.send(result);
    });
    (done, receiver)
}

/// Runs a request and waits for its answer.
pub fn wait(request: impl FnOnce(Done)) -> Result<(), StoreError> {
    let (done, answer) = answer();
    request(done);
    answer.recv().expect("every request is answered")
}

pub fn append(store: &Store, group: GroupId, term: u64, range: std::ops::Range<u64>) {
    wait(|done| store.append(group, entries(group, term, range), done)).unwrap();
}

pub fn vote(store: &Store, group: GroupId, text: &'static str) {
    wait(|done| store.save_vote(group, Bytes::from_static(text.as_bytes()), done)).unwrap();
}

/// Everything a group's log holds, read in small pieces.
pub fn contents(store: &Store, group: GroupId) -> Vec<Entry> {
    let state = store.log_state(group);
    let Some(last) = state.last else {
        return Vec::new();
    };
    let mut at = state.purged.map_or(0, |purged| purged.index + 1);
    let mut out = Vec::new();
    while at <= last.index {
        let piece = store.read(group, at..last.index + 1, 2000).unwrap();
        assert!(!piece.is_empty());
        at += piece.len() as u64;
        out.extend(piece);
    }
    out
}

pub fn open(dir: &Path) -> Store {
    let until = Instant::now() + UNLOCKED;
    loop {
        match Store::open(StoreOptions::small(dir)) {
            // A process that another test just starts has this one's descriptors, and so the lock of
            // a store that was dropped, until it begins.
            Err(OpenError::Locked(_)) if Instant::now() < until => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

pub fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_under(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Copies a directory as a power cut would leave it. The high-water file comes first: it must
/// never be newer than the log.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut files = files_under(from);
    files.sort_by_key(|path| !path.ends_with("high-water"));
    for path in files {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        match std::fs::copy(&path, &target) {
            Ok(_) => {}
            // A running store renames its spare files.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("copy {}: {error}", path.display()),
        }
    }
}

/// Small and good enough: splitmix64. The seed is the bug report.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// What is done to one file.
#[derive(Clone, Copy, Debug)]
pub enum Harm {
    FlipBit { bit: u64 },
    CutAt { len: u64 },
    Remove,
    Zero { from: u64, to: u64 },
}

pub fn harm(path: &Path, harm: Harm) {
    let mut raw = std::fs::read(path).unwrap();
    match harm {
        Harm::FlipBit { bit } => raw[(bit / 8) as usize] ^= 1 << (bit % 8),
        Harm::CutAt { len } => raw.truncate(len as usize),
        Harm::Remove => return std::fs::remove_file(path).unwrap(),
        Harm::Zero { from, to } => raw[from as usize..to as usize].fill(0),
    }
    std::fs::write(path, raw).unwrap();
}

/// A random harm that fits the file; `None` when there is nothing to harm.
pub fn choose_harm(random: &mut Random, path: &Path) -> Option<Harm> {
    let len = std::fs::metadata(path).unwrap().len();
    if len == 0 {
        return None;
    }
    Some(match random.below(10) {
        0..=5 => Harm::FlipBit { bit: random.below(len * 8) },
        6..=7 => Harm::CutAt { len: random.below(len) },
        8 => {
            let from = random.below(len);
            let to = (from + 1 + random.below(600)).min(len);
            Harm::Zero { from, to }
        }
        _ => Harm::Remove,
    })
}

/// How many random trials, and their seed: `ACKORD_DAMAGE_TRIALS` and `ACKORD_DAMAGE_SEED`.
pub fn trials(default: u64) -> (u64, u64) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("ACKORD_DAMAGE_TRIALS").unwrap_or(default);
    let seed = number("ACKORD_DAMAGE_SEED").unwrap_or(20_240_601);
    eprintln!("replay with ACKORD_DAMAGE_TRIALS={count} ACKORD_DAMAGE_SEED={seed}");
    (count, seed)
}
