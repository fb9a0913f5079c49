//! The receiver of a push subscription: an HTTP callback that records what it is sent.
//!
//! Invariants: what is recorded had arrived as a whole, whatever became of its answer; a challenge
//! is always answered, however the receiver treats deliveries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::listener::Gate;
use crate::seed::Seed;

/// What a receiver does with deliveries.
#[derive(Clone)]
pub enum Manner {
    /// It answers 200.
    Answers,
    /// It breaks the connection of about one request in so many: before it has read it, instead of
    /// an answer, or within one.
    Breaks {
        /// One in so many.
        one_in: u64,
        /// What decides.
        seed: Seed,
    },
    /// It reads and never answers.
    Stalls,
    /// It answers 200 once the gate is open.
    Waits(Gate),
}

/// A delivery as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its `Idempotency-Key`.
    pub key: String,
    /// The instances in it, in the order of the body.
    pub ids: Vec<u64>,
}

#[derive(Default)]
struct Seen {
    arrived: Mutex<Vec<Arrived>>,
    broken: Mutex<u64>,
}

/// A callback on a port of this machine.
pub struct Receiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

impl Receiver {
    /// Opens a port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, seen) = (listener.local_addr().expect("its address"), Arc::<Seen>::default());
        let (recording, mut seeds) = (seen.clone(), Seed::new(u64::from(address.port())));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut manner = manner.clone();
                if let Manner::Breaks { seed, .. } = &mut manner {
                    // Each connection breaks at moments of its own.
                    *seed = Seed::new(seed.bits() ^ seeds.bits());
                }
                let seen = recording.clone();
                tokio::spawn(async move { serve(stream, manner, &seen).await });
            }
        });
        Self { address, seen, accepting }
    }

    /// Where it is called.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What arrived so far, in order.
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.seen.arrived).clone()
    }

    /// How many requests have arrived.
    pub fn count(&self) -> usize {
        lock(&self.seen.arrived).len()
    }

    /// The instances that arrived so far, in order, without a repetition that follows at once.
    pub fn ids(&self) -> Vec<u64> {
        let arrived = lock(&self.seen.arrived);
        let mut ids: Vec<u64> = arrived.iter().flat_map(|arrived| arrived.ids.clone()).collect();
        ids.dedup();
        ids
    }

    /// How many connections it has broken.
    pub fn broken(&self) -> u64 {
        *lock(&self.seen.broken)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one request after the other until the other side goes, or this one breaks.
async fn serve(mut stream: TcpStream, mut manner: Manner, seen: &Seen) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let request = read(&mut stream, &mut buffer).await?;
        if let Some(challenge) = request.body["challenge"].as_str() {
            stream.write_all(answer(challenge).as_bytes()).await.ok()?;
            continue;
        }
        let breaks = match &mut manner {
            Manner::Breaks { one_in, seed } => {
                (seed.between(0, *one_in) == 0).then(|| seed.between(0, 3))
            }
            Manner::Answers | Manner::Stalls | Manner::Waits(_) => None,
        };
        if breaks != Some(0) {
            let arrived = Arrived { key: request.key?, ids: ids(&request.body) };
            lock(&seen.arrived).push(arrived);
        }
        if let Some(how) = breaks {
            *lock(&seen.broken) += 1;
            if how == 2 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConte").await.ok()?;
            }
            let _ = stream.set_zero_linger();
            return None;
        }
        match &manner {
            Manner::Answers | Manner::Breaks { .. } => {}
            Manner::Waits(gate) => gate.passed().await,
            Manner::Stalls => loop {
                // Until the other side has had enough.
                if stream.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            },
        }
        stream.write_all(answer("").as_bytes()).await.ok()?;
    }
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The ids in a frame, or in a list of them.
fn ids(body: &Value) -> Vec<u64> {
    let frames = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
    frames.iter().filter_map(|frame| frame["event"]["instance_id"].as_u64()).collect()
}

struct Request {
    key: Option<String>,
    body: Value,
}

/// The next request; none when the other side has gone, or what it sent is no request.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
            let header = |name: &str| {
                let line = head.lines().find(|line| line.starts_with(name))?;
                Some(line[name.len()..].trim().to_owned())
            };
            let length: usize = header("content-length:")?.parse().ok()?;
            let (begin, end) = (at + 4, at + 4 + length);
            if buffer.len() >= end {
                let body = serde_json::from_slice(&buffer[begin..end]).ok()?;
                let key = header("idempotency-key:");
                buffer.drain(..end);
                return Some(Request { key, body });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
