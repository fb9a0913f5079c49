//! What services and clients have in common: a connection to some node, given up when it is silent.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use ackord_wire::Codec;
use bytes::Bytes;
use cluster_tests::seed::Seed;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Duration, Instant, timeout_at};
use turmoil::net::tcp::OwnedWriteHalf;

use crate::frames::{self, Message};
use crate::host::FRONT_PORT;
use crate::net::{SharedWeather, connect_within};

/// Seconds between the broker's pings,
pub const KEEPALIVE_S: u32 = 1;
/// and how long nothing may be heard.
const SILENCE: Duration = Duration::from_millis(2500);
/// Lines that an endpoint remembers.
const DIARY: usize = 12;
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Where an endpoint is, and where it may connect to.
pub struct Place {
    pub name: String,
    pub nodes: Vec<String>,
    pub weather: SharedWeather,
    pub seed: RefCell<Seed>,
    /// What it did last, for a person.
    pub diary: RefCell<VecDeque<String>>,
}

impl Place {
    pub fn note(&self, what: impl Into<String>) {
        let mut diary = self.diary.borrow_mut();
        if diary.len() == DIARY {
            diary.pop_front();
        }
        diary.push_back(format!(
            "{:?} {}",
            turmoil::sim_elapsed().unwrap_or_default(),
            what.into()
        ));
    }

    /// A connection to one of the nodes.
    pub async fn connect(self: &Rc<Self>) -> io::Result<Line> {
        let at = self.seed.borrow_mut().between(0, self.nodes.len() as u64) as usize;
        self.note(format!("connects to {}", self.nodes[at]));
        let address = format!("{}:{FRONT_PORT}", self.nodes[at]);
        let stream = connect_within(&self.weather, &self.name, &address, CONNECT_LIMIT).await?;
        let (mut read, mut write) = stream.into_split();
        frames::write(&mut write, &Message::Frame(self.name.clone().into())).await?;
        let (sender, heard) = mpsc::channel(1);
        let reading = spawn_local(async move {
            while let Ok(message) = frames::read(&mut read).await {
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
        Ok(Line { write, heard, reading, last: Instant::now() })
    }

    /// A pause between two connections.
    pub fn pause(&self) -> Duration {
        self.seed.borrow_mut().millis(10, 200)
    }
}

/// A connection that stands.
pub struct Line {
    write: OwnedWriteHalf,
    heard: mpsc::Receiver<Message>,
    reading: JoinHandle<()>,
    /// When something was heard last.
    last: Instant,
}

impl Line {
    pub async fn say(&mut self, frame: &impl Serialize) -> io::Result<()> {
        let bytes = Codec::Json.encode(frame);
        frames::write(&mut self.write, &Message::Frame(bytes.into())).await
    }

    /// The next frame; pings are answered. An error once the connection is closed or silent. May be
    /// given up in the middle and called again, but for an answer to a ping.
    pub async fn hear(&mut self) -> io::Result<Bytes> {
        loop {
            let heard = timeout_at(self.last + SILENCE, self.heard.recv()).await;
            self.last = Instant::now();
            match heard {
                Ok(Some(Message::Frame(bytes))) => return Ok(bytes),
                Ok(Some(Message::Ping)) => frames::write(&mut self.write, &Message::Pong).await?,
                Ok(Some(Message::Pong)) => {}
                Ok(Some(Message::Close) | None) => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
