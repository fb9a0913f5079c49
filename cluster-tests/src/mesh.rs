//! The links between the nodes of a cluster, and between each node and everyone else.
//!
//! `node 2 ─▶ relay of node 1 ─▶ node 1`, `endpoint ─▶ front relay of node 1 ─▶ node 1`
//!
//! Every node connects from an address of its own, so a relay knows who is at both ends of a
//! connection, and one matrix says from whom to whom bytes pass. Invariants: bytes arrive unchanged
//! and in order; what is sent while the way is blocked waits and arrives when it is open again, as
//! TCP would send it again, however stale it is by then; an end is passed on like a byte; no
//! connection comes about while either direction is blocked; where a node is down, connections are
//! refused, at an address that stays its own. A slow way delays each piece by a time of its own, and
//! pieces of one connection never overtake each other: those of two connections do. Every piece that
//! a fault held is counted, so that a fault that met nothing is known.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::seed::Seed;

/// Whoever is no node: endpoints.
pub const OUTSIDE: usize = 0;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// One direction between two ends, or both ends of a connection.
type Way = (usize, usize);

/// How slow a way is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slow {
    /// What each piece is delayed by at least.
    pub delay: Duration,
    /// What may be added to it, anew for each piece.
    pub jitter: Duration,
    /// Bytes per second of each connection; none is as many as there are.
    pub drip: Option<u32>,
}

/// The state of every way: row by row, from whom, then to whom.
#[derive(Clone, Debug)]
struct Ways {
    size: usize,
    blocked: Vec<bool>,
    slow: Vec<Slow>,
    /// Between whom connections are open at one end only; raised for each time that they become so.
    half_open: Vec<u64>,
    /// Pieces that were held back.
    held: Arc<AtomicU64>,
    /// Raised to end all connections between two.
    generation: Vec<u64>,
}

impl Ways {
    fn at(&self, (from, to): Way) -> usize {
        from * self.size + to
    }

    fn is_blocked(&self, way: Way) -> bool {
        self.blocked[self.at(way)]
    }

    fn is_open(&self, (a, b): Way) -> bool {
        !self.is_blocked((a, b)) && !self.is_blocked((b, a))
    }

    fn generation(&self, (a, b): Way) -> u64 {
        self.generation[self.at((a.min(b), a.max(b)))]
    }

    fn half_open(&self, (a, b): Way) -> u64 {
        self.half_open[self.at((a.min(b), a.max(b)))]
    }

    fn reset(&mut self, (a, b): Way) {
        let at = self.at((a.min(b), a.max(b)));
        self.generation[at] += 1;
    }
}

/// A way to one socket of a node.
struct Relay {
    node: usize,
    target: SocketAddr,
    address: SocketAddr,
    /// Keeps the address while nobody listens there.
    _reserved: TcpSocket,
    accepting: Option<JoinHandle<()>>,
}

/// The links of a cluster. Dropping it ends them all.
pub struct Mesh {
    ways: watch::Sender<Ways>,
    addresses: Vec<IpAddr>,
    relays: Vec<Relay>,
}

impl Mesh {
    /// A mesh of nodes 1, 2, ... that connect from these addresses; all ways are open.
    pub fn new(addresses: Vec<IpAddr>) -> Self {
        let size = addresses.len() + 1;
        let blocked = vec![false; size * size];
        let ways = Ways {
            size,
            blocked,
            slow: vec![Slow::default(); size * size],
            half_open: vec![0; size * size],
            held: Arc::default(),
            generation: vec![0; size * size],
        };
        Self { ways: watch::Sender::new(ways), addresses, relays: Vec::new() }
    }

    /// Makes a way to a node's socket and gives its address; refused until [`Mesh::up`].
    pub fn relay(&mut self, node: usize, target: SocketAddr) -> io::Result<SocketAddr> {
        let reserved = socket(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = reserved.local_addr()?;
        let relay = Relay { node, target, address, _reserved: reserved, accepting: None };
        self.relays.push(relay);
        Ok(address)
    }

    /// Takes connections to a node from now on. An error may pass: a way that went down a moment
    /// ago is still being closed.
    pub fn up(&mut self, node: usize) -> io::Result<()> {
        let down = |relay: &&mut Relay| relay.node == node && relay.accepting.is_none();
        for relay in self.relays.iter_mut().filter(down) {
            let listener = socket(relay.address)?.listen(BACKLOG)?;
            let (ways, addresses) = (self.ways.subscribe(), self.addresses.clone());
            let accepting = accept(listener, node, relay.target, ways, addresses);
            relay.accepting = Some(tokio::spawn(accepting));
        }
        Ok(())
    }

    /// Refuses connections to a node from now on.
    pub fn down(&mut self, node: usize) {
        for relay in self.relays.iter_mut().filter(|relay| relay.node == node) {
            if let Some(accepting) = relay.accepting.take() {
                accepting.abort();
            }
        }
    }

    fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.addresses.len()
    }

    /// Lets no byte pass from one to the other, or lets them pass again.
    pub fn set_blocked(&self, from: usize, to: usize, blocked: bool) {
        self.ways.send_modify(|ways| {
            let at = ways.at((from, to));
            ways.blocked[at] = blocked;
        });
    }

    /// Blocks both ways between a node and all other nodes; endpoints still reach it.
    pub fn cut_from_peers(&self, node: usize) {
        self.set_cut_from_peers(node, true);
    }

    /// Opens both ways between a node and all other nodes.
    pub fn rejoin_peers(&self, node: usize) {
        self.set_cut_from_peers(node, false);
    }

    fn set_cut_from_peers(&self, node: usize, cut: bool) {
        for other in self.nodes().filter(|other| *other != node) {
            self.set_blocked(node, other, cut);
            self.set_blocked(other, node, cut);
        }
    }

    /// Blocks both ways between a node and all endpoints.
    pub fn cut_from_endpoints(&self, node: usize) {
        self.set_blocked(node, OUTSIDE, true);
        self.set_blocked(OUTSIDE, node, true);
    }

    /// Blocks all ways to and from a node.
    pub fn cut_alone(&self, node: usize) {
        self.cut_from_peers(node);
        self.cut_from_endpoints(node);
    }

    /// Opens all ways, and makes them fast.
    pub fn heal(&self) {
        self.ways.send_modify(|ways| {
            ways.blocked.fill(false);
            ways.slow.fill(Slow::default());
        });
    }

    /// Makes the way from one to the other slow.
    pub fn set_slow(&self, from: usize, to: usize, slow: Slow) {
        self.ways.send_modify(|ways| {
            let at = ways.at((from, to));
            ways.slow[at] = slow;
        });
    }

    /// Lets the connections between two end at the accepting end, of which the other end is told
    /// nothing.
    pub fn half_open(&self, a: usize, b: usize) {
        self.ways.send_modify(|ways| {
            let at = ways.at((a.min(b), a.max(b)));
            ways.half_open[at] += 1;
        });
    }

    /// Pieces that were held back by blocked and slow ways so far, and connections that were reset or
    /// made half open.
    pub fn held(&self) -> u64 {
        self.ways.borrow().held.load(Ordering::Relaxed)
    }

    /// Ends all connections between two.
    pub fn reset(&self, a: usize, b: usize) {
        self.ways.send_modify(|ways| ways.reset((a, b)));
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for node in self.nodes() {
            self.down(node);
        }
    }
}

/// A socket at this address, beside others that do not listen there.
pub fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    node: usize,
    target: SocketAddr,
    ways: watch::Receiver<Ways>,
    addresses: Vec<IpAddr>,
) {
    while let Ok((stream, from)) = listener.accept().await {
        let known = addresses.iter().position(|address| *address == from.ip());
        let from = known.map_or(OUTSIDE, |index| index + 1);
        tokio::spawn(connect(stream, (from, node), target, ways.clone()));
    }
}

/// Carries one connection until it ends or is reset.
async fn connect(
    mut stream: TcpStream,
    ends: Way,
    target: SocketAddr,
    mut ways: watch::Receiver<Ways>,
) {
    let generation = {
        let now = ways.borrow_and_update();
        now.is_open(ends).then(|| (now.generation(ends), now.half_open(ends)))
    };
    let held = ways.borrow().held.clone();
    let Some((generation, half_open)) = generation else {
        held.fetch_add(1, Ordering::Relaxed);
        // A first packet would be lost: there is no connection, now or later.
        let _ = ways.wait_for(|ways| ways.is_open(ends)).await;
        return;
    };
    let Ok(mut onward) = TcpStream::connect(target).await else {
        // Nobody listens: refused, as nearly as that can be said by now.
        let _ = stream.set_zero_linger();
        return;
    };
    let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
    let ended = {
        let (from_opener, to_opener) = stream.split();
        let (from_node, to_node) = onward.split();
        let (opener, node) = ends;
        let there = pass(from_opener, to_node, (opener, node), ways.clone());
        let back = pass(from_node, to_opener, (node, opener), ways.clone());
        tokio::select! {
            _ = async { tokio::join!(there, back) } => Ended::Itself,
            now = ways.wait_for(|ways| {
                ways.generation(ends) != generation || ways.half_open(ends) != half_open
            }) => match now {
                Ok(now) if now.generation(ends) == generation => Ended::HalfOpen,
                Ok(_) | Err(_) => Ended::Reset,
            },
        }
    };
    if ended != Ended::Itself {
        held.fetch_add(1, Ordering::Relaxed);
        let _ = onward.set_zero_linger();
    }
    drop(onward);
    if ended == Ended::HalfOpen {
        // It reads on and answers nothing, until somebody gives up.
        let mut nowhere = tokio::io::sink();
        let reading = tokio::io::copy(&mut stream, &mut nowhere);
        tokio::select! {
            _ = reading => {}
            _ = ways.wait_for(|ways| ways.generation(ends) != generation) => {}
        }
    }
    if ended != Ended::Itself {
        let _ = stream.set_zero_linger();
    }
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Itself,
    Reset,
    HalfOpen,
}

/// Pieces of a connection that may be on their way at once.
const PIECES: usize = 256;

/// Passes on what one end sends, each piece when its time has come, and then that it has ended.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    mut ways: watch::Receiver<Ways>,
) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let slow = ways.clone();
    let taking = async move {
        // Which piece is held for how long is not replayed: the pieces themselves are not.
        let mut seed = Seed::new((way.0 * 64 + way.1) as u64);
        let mut buffer = vec![0; 16 * 1024];
        let mut last = Instant::now();
        loop {
            let length = from.read(&mut buffer).await.unwrap_or(0);
            let due = due(&slow, way, length, &mut seed).max(last);
            last = due;
            let piece = buffer[..length].to_vec();
            if sender.send((due, piece)).await.is_err() || length == 0 {
                return;
            }
        }
    };
    let giving = async move {
        while let Some((due, piece)) = pieces.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if ways.borrow().is_blocked(way) {
                ways.borrow().held.fetch_add(1, Ordering::Relaxed);
                if ways.wait_for(|ways| !ways.is_blocked(way)).await.is_err() {
                    return;
                }
            }
            if piece.is_empty() {
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(taking, giving);
}

/// When a piece that was taken now is passed on.
fn due(ways: &watch::Receiver<Ways>, way: Way, length: usize, seed: &mut Seed) -> Instant {
    let ways = ways.borrow();
    let slow = ways.slow[ways.at(way)];
    let now = Instant::now();
    if slow == Slow::default() {
        return now;
    }
    ways.held.fetch_add(1, Ordering::Relaxed);
    let jitter = slow.jitter.as_micros() as u64;
    let jitter = Duration::from_micros(if jitter == 0 { 0 } else { seed.between(0, jitter) });
    let drip = slow.drip.map(|rate| Duration::from_secs_f64(length as f64 / f64::from(rate)));
    now + slow.delay + jitter + drip.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::wait;

    async fn pair(mesh: &mut Mesh) -> (TcpStream, TcpStream, SocketAddr) {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = mesh.relay(1, node.local_addr().unwrap()).unwrap();
        let refused = TcpStream::connect(relay).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        mesh.up(1).unwrap();
        let opener = TcpStream::connect(relay).await.unwrap();
        let (accepted, _) = node.accept().await.unwrap();
        (opener, accepted, relay)
    }

    #[tokio::test]
    async fn what_is_sent_over_a_blocked_way_arrives_when_it_is_open_and_the_other_way_works() {
        let mut mesh = Mesh::new(vec!["127.9.9.1".parse().unwrap()]);
        let (mut opener, mut node, _) = pair(&mut mesh).await;
        mesh.set_blocked(OUTSIDE, 1, true);
        opener.write_all(b"late").await.unwrap();
        node.write_all(b"now").await.unwrap();
        let mut now = [0; 3];
        wait::within("the open way", opener.read_exact(&mut now)).await.unwrap();
        assert_eq!(node.try_read(&mut now).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        mesh.heal();
        let mut late = [0; 4];
        wait::within("what waited", node.read_exact(&mut late)).await.unwrap();
        assert_eq!(&late, b"late");
    }

    #[tokio::test]
    async fn a_connection_over_a_blocked_way_comes_to_nothing_and_a_reset_ends_one() {
        let mut mesh = Mesh::new(vec!["127.9.9.1".parse().unwrap()]);
        let (mut opener, _node, relay) = pair(&mut mesh).await;
        mesh.reset(OUTSIDE, 1);
        let mut buffer = [0; 1];
        let ended = wait::within("the reset", opener.read(&mut buffer)).await;
        assert!(!ended.is_ok_and(|length| length > 0));
        mesh.cut_alone(1);
        let mut held = TcpStream::connect(relay).await.unwrap();
        mesh.heal();
        let ended = wait::within("the end", held.read(&mut buffer)).await;
        assert!(!ended.is_ok_and(|length| length > 0));
    }

    #[tokio::test]
    async fn pieces_of_a_slow_way_come_late_and_in_order_and_are_counted() {
        let mut mesh = Mesh::new(vec!["127.9.9.1".parse().unwrap()]);
        let (mut opener, mut node, _) = pair(&mut mesh).await;
        let delay = Duration::from_millis(30);
        let jitter = Duration::from_millis(30);
        mesh.set_slow(OUTSIDE, 1, Slow { delay, jitter, drip: Some(1000) });
        let since = Instant::now();
        for byte in 0..20_u8 {
            opener.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut all = [0; 20];
        wait::within("all pieces", node.read_exact(&mut all)).await.unwrap();
        assert!(since.elapsed() >= delay && all.is_sorted(), "{:?} {all:?}", since.elapsed());
        assert!(mesh.held() > 0);
    }

    #[tokio::test]
    async fn the_opener_of_a_half_open_connection_is_told_nothing_until_it_is_reset() {
        let mut mesh = Mesh::new(vec!["127.9.9.1".parse().unwrap()]);
        let (mut opener, mut node, _) = pair(&mut mesh).await;
        mesh.half_open(OUTSIDE, 1);
        let mut buffer = [0; 1];
        let ended = wait::within("the end", node.read(&mut buffer)).await;
        assert!(!ended.is_ok_and(|length| length > 0));
        opener.write_all(b"anybody?").await.unwrap();
        assert_eq!(opener.try_read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        mesh.reset(OUTSIDE, 1);
        let ended = wait::within("the reset", opener.read(&mut buffer)).await;
        assert!(!ended.is_ok_and(|length| length > 0));
    }
}
