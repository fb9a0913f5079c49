//! A link to one node that a scenario can cut: a TCP proxy on loopback.
//!
//! Every byte that other nodes send to the node goes through it, so cutting it cuts the node's
//! listening side off; what the node itself opens goes through the proxies of the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Where connections go; `None` closes them.
    target: Mutex<Option<SocketAddr>>,
    /// Counted up to close every connection.
    cuts: watch::Sender<u64>,
    /// A connection that has carried so many bytes is closed, once.
    budget: AtomicU64,
    budget_used: AtomicUsize,
    frozen: watch::Sender<bool>,
    deaf: watch::Sender<bool>,
    /// Pieces that were kept from the node.
    kept: AtomicUsize,
}

impl Proxy {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: Mutex::new(None),
            cuts: watch::Sender::new(0),
            budget: AtomicU64::new(u64::MAX),
            budget_used: AtomicUsize::new(0),
            frozen: watch::Sender::new(false),
            deaf: watch::Sender::new(false),
            kept: AtomicUsize::new(0),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let state = accepting.clone();
                tokio::spawn(async move { carry(&state, from).await });
            }
        });
        Self { address, state }
    }

    /// Lets connections through to `target` from now on.
    pub(super) fn open(&self, target: SocketAddr) {
        *self.state.target.lock() = Some(target);
    }

    /// Closes every connection and lets no new one through.
    pub(super) fn cut(&self) {
        *self.state.target.lock() = None;
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Carries nothing any more in either direction, and closes nothing.
    pub(super) fn freeze(&self) {
        self.state.frozen.send_replace(true);
    }

    /// Keeps from the node what it is sent, for as long as it is deaf; what it answers gets through.
    pub(super) fn deafen(&self, deaf: bool) {
        self.state.deaf.send_replace(deaf);
    }

    /// How many pieces were kept from the node.
    pub(super) fn kept(&self) -> usize {
        self.state.kept.load(Ordering::SeqCst)
    }

    /// Closes the next connection that has carried so many bytes towards the node, once.
    pub(super) fn cut_once_after(&self, bytes: u64) {
        self.state.budget.store(bytes, Ordering::SeqCst);
    }

    /// How many connections were closed for that.
    pub(super) fn cut_midway(&self) -> usize {
        self.state.budget_used.load(Ordering::SeqCst)
    }
}

async fn carry(state: &State, mut from: TcpStream) {
    let mut cuts = state.cuts.subscribe();
    let mut frozen = state.frozen.subscribe();
    let mut deaf = state.deaf.subscribe();
    let Some(target) = *state.target.lock() else { return };
    let Ok(mut to) = TcpStream::connect(target).await else { return };
    from.set_nodelay(true).unwrap();
    to.set_nodelay(true).unwrap();
    let (mut from_reads, mut from_writes) = from.split();
    let (mut to_reads, mut to_writes) = to.split();
    let there = async {
        let mut carried = 0;
        let (mut piece, mut unsent) = (vec![0; 64 << 10], Vec::new());
        loop {
            let count = tokio::select! {
                read = from_reads.read(&mut piece) => match read {
                    Ok(count @ 1..) => count,
                    _ => return,
                },
                _ = deaf.changed() => 0,
            };
            unsent.extend_from_slice(&piece[..count]);
            if *deaf.borrow_and_update() {
                state.kept.fetch_add(usize::from(count > 0), Ordering::SeqCst);
                continue;
            }
            if to_writes.write_all(&unsent).await.is_err() {
                return;
            }
            unsent.clear();
            carried += count as u64;
            let budget = state.budget.load(Ordering::SeqCst);
            if carried > budget
                && state
                    .budget
                    .compare_exchange(budget, u64::MAX, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            {
                state.budget_used.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = copy(&mut to_reads, &mut from_writes) => {}
        _ = cuts.changed() => {}
        () = async { drop(frozen.wait_for(|frozen| *frozen).await) } => {
            // What comes is never read: both sides see a link on which nothing moves.
            let _ = cuts.changed().await;
        }
    }
}
