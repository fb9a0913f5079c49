//! Receivers of push subscriptions on this machine, as reliable as a workload needs them.
//!
//! Deliberately absent: everything of HTTP that the broker does not send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::error::Error;

/// One in so many requests is broken off by a receiver that is restless.
const BREAKS: u64 = 10;
/// Bytes of a request after which it is none of the broker's: a batch has about 1 MiB.
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// What a receiver does with deliveries; a challenge is always answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Answers,
    /// It resets the connection of every delivery instead of answering.
    Aborts,
    /// It breaks one in [`BREAKS`] connections instead of answering.
    Restless,
    /// It reads and never answers.
    Stalls,
}

/// Who is shown deliveries.
type Note = dyn Fn(&Value) + Send + Sync;

/// A callback; it ends when dropped.
pub(crate) struct Callback {
    pub(crate) url: String,
    taken: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Callback {
    pub(crate) async fn start(manner: Manner) -> Result<Self, Error> {
        Self::noting(manner, |_| {}).await
    }

    /// One that shows the body of every delivery to somebody.
    pub(crate) async fn noting(
        manner: Manner,
        note: impl Fn(&Value) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let note: Arc<Note> = Arc::new(note);
        let unable = |error: std::io::Error| Error::Endpoint(format!("no receiver: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(unable)?;
        let url = format!("http://{}/", listener.local_addr().map_err(unable)?);
        let taken = Arc::new(AtomicU64::new(0));
        let counted = taken.clone();
        let accepting = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while serving.try_join_next().is_some() {}
                let (counted, note) = (counted.clone(), note.clone());
                serving.spawn(async move { serve(stream, manner, &counted, &*note).await });
            }
        });
        Ok(Self { url, taken, accepting })
    }

    /// Requests that arrived as a whole.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves one request after the other; none when the connection has ended.
async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    taken: &AtomicU64,
    note: &Note,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let body = read(&mut stream, &mut buffer).await?;
        // A delivery has no such field.
        let challenge = body["challenge"].as_str();
        let number = match challenge {
            Some(_) => 0,
            None => {
                note(&body);
                taken.fetch_add(1, Ordering::Relaxed) + 1
            }
        };
        match manner {
            Manner::Aborts if number > 0 => {
                // A reset, not an end. Where there is none to be had the connection ends.
                let _ = stream.set_zero_linger();
                return None;
            }
            Manner::Restless if number % BREAKS == 1 => return None,
            Manner::Stalls if number > 0 => loop {
                buffer.clear();
                if stream.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            },
            Manner::Answers | Manner::Aborts | Manner::Restless | Manner::Stalls => {}
        }
        let body = challenge.unwrap_or_default();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// The body of the next request.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Value> {
    loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
            let (begin, end) = (at + 4, at + 4 + length.trim().parse::<usize>().ok()?);
            if end > REQUEST_BYTES_MAX {
                return None;
            }
            if buffer.len() >= end {
                let body = serde_json::from_slice(&buffer[begin..end]).ok()?;
                buffer.drain(..end);
                return Some(body);
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
