//! A TCP link between an endpoint and a broker that can be broken.
//!
//! Invariants: bytes are forwarded unchanged and in order, or not at all; a fault is in force when
//! the call that orders it returns (nothing that arrives afterwards is forwarded). What the
//! endpoint sent is kept per connection, also while it is held back, so that a test can see what
//! was on the wire (see [`crate::wiretap`]).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether new connections are accepted; otherwise they are reset.
    refuses: bool,
    /// What the endpoint sends is read and kept, but not forwarded.
    holds_requests: bool,
    /// What the broker sends is read and thrown away.
    loses_answers: bool,
    /// Raised to end all connections that exist.
    generation: u64,
}

#[derive(Default)]
struct Seen {
    // One buffer per connection, in the order of accepting.
    sent: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

/// A link to one broker address.
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Opens a link to `target` (`host:port`).
    pub async fn start(target: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (link, state) = watch::channel(Link::default());
        let seen = Arc::new(Seen::default());
        let accepting = tokio::spawn(accept(listener, target.to_owned(), state, seen.clone()));
        Ok(Self { address, link, seen, accepting })
    }

    /// The URL of the endpoint's side.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the endpoint's side.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and refuses new ones until [`Proxy::heal`].
    pub fn cut(&self) {
        self.link.send_modify(|link| {
            link.refuses = true;
            link.generation += 1;
        });
    }

    /// Resets all connections; new ones are accepted.
    pub fn reset(&self) {
        self.link.send_modify(|link| link.generation += 1);
    }

    /// Half-open towards the broker: what endpoints send is not forwarded any more.
    pub fn hold_requests(&self) {
        self.link.send_modify(|link| link.holds_requests = true);
    }

    /// Half-open towards the endpoint: what the broker sends is lost.
    pub fn lose_answers(&self) {
        self.link.send_modify(|link| link.loses_answers = true);
    }

    /// Ends what is broken: connections that were held or robbed are reset, as their byte streams
    /// cannot go on, and new ones work.
    pub fn heal(&self) {
        self.link.send_modify(|link| {
            *link = Link { generation: link.generation + 1, ..Link::default() };
        });
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.seen.accepted.load(Ordering::SeqCst)
    }

    /// How many connections were refused so far.
    pub fn refused(&self) -> usize {
        self.seen.refused.load(Ordering::SeqCst)
    }

    /// What the endpoint sent on each connection so far, in the order of accepting.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        lock(&self.seen.sent).iter().map(|bytes| lock(bytes).clone()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    target: String,
    state: watch::Receiver<Link>,
    seen: Arc<Seen>,
) {
    while let Ok((endpoint, _)) = listener.accept().await {
        let link = *state.borrow();
        if link.refuses {
            reset(endpoint);
            seen.refused.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        seen.accepted.fetch_add(1, Ordering::SeqCst);
        let sent = Arc::new(Mutex::new(Vec::new()));
        lock(&seen.sent).push(sent.clone());
        tokio::spawn(connect(endpoint, target.clone(), state.clone(), link.generation, sent));
    }
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn connect(
    endpoint: TcpStream,
    target: String,
    mut state: watch::Receiver<Link>,
    generation: u64,
    sent: Arc<Mutex<Vec<u8>>>,
) {
    let broker = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(target)).await;
    let Ok(Ok(broker)) = broker else { return reset(endpoint) };
    let _ = (endpoint.set_nodelay(true), broker.set_nodelay(true));
    let _ = (endpoint.set_zero_linger(), broker.set_zero_linger());
    let (from_endpoint, to_endpoint) = endpoint.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (asked, answered) = (state.clone(), state.clone());
    tokio::select! {
        () = requests(from_endpoint, to_broker, asked, sent) => {}
        () = answers(from_broker, to_endpoint, answered) => {}
        _ = state.wait_for(|link| link.generation != generation) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: watch::Receiver<Link>,
    sent: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        lock(&sent).extend_from_slice(bytes);
        let holds = state.borrow().holds_requests;
        if !holds && to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<Link>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let loses = state.borrow().loses_answers;
        if !loses && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
