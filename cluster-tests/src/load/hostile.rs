//! Somebody who means no good: connections that send what nobody understands, half of it, or nothing,
//! to every node and all the time. What becomes of them is tested elsewhere; here nobody else must notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::seed::Seed;

/// Attackers at a time.
const ATTACKERS: usize = 4;
/// How long one may take to connect.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two attacks of one.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module. They stop when it is dropped.
pub struct Hostile {
    attacking: Vec<JoinHandle<()>>,
    attacks: Arc<AtomicU64>,
}

impl Hostile {
    /// Lets them begin.
    pub fn start(cluster: &Cluster, seed: &mut Seed) -> Self {
        let attacks = Arc::<AtomicU64>::default();
        let fronts: Vec<String> =
            cluster.urls_from(1).iter().map(|url| url.replace("http://", "")).collect();
        let start = |_| tokio::spawn(attack(fronts.clone(), seed.fork(), attacks.clone()));
        Self { attacking: (0..ATTACKERS).map(start).collect(), attacks }
    }

    /// Connections that reached a node.
    pub fn attacks(&self) -> u64 {
        self.attacks.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.attacking.iter().for_each(JoinHandle::abort);
    }
}

async fn attack(fronts: Vec<String>, mut seed: Seed, attacks: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let front = &fronts[seed.between(0, fronts.len() as u64) as usize];
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(front)).await;
        let Ok(Ok(mut stream)) = connected else { continue };
        attacks.fetch_add(1, Ordering::Relaxed);
        let sent = what(&mut seed);
        // Whatever comes of it.
        let _ = stream.write_all(&sent).await;
        let mut answer = [0; 256];
        let patience = seed.millis(0, 400);
        let _ = tokio::time::timeout(patience, stream.read(&mut answer)).await;
        if seed.between(0, 2) == 0 {
            let _ = stream.set_zero_linger();
        }
    }
}

/// What is sent.
fn what(seed: &mut Seed) -> Vec<u8> {
    let noise = |seed: &mut Seed, length: u64| -> Vec<u8> {
        (0..length).map(|_| seed.bits() as u8).collect()
    };
    match seed.between(0, 7) {
        0 => {
            let length = seed.between(1, 4000);
            noise(seed, length)
        }
        1 => b"GET /v1/sites/memory/events HTTP/1.1\r\nHost: x\r\nX: ".to_vec(),
        2 => b"POST /v1/sites/memory/events/reading HTTP/1.1\r\nHost: x\r\nContent-Length: \
               18446744073709551615\r\n\r\n"
            .to_vec(),
        3 => b"GET /v1/sites/memory/client HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: \
               websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
               dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer ak_of_nobody\r\n\r\n"
            .to_vec(),
        4 => format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a/".repeat(4000)).into_bytes(),
        5 => {
            let mut head = b"POST /v1/sites/plain/ack HTTP/1.1\r\nHost: x\r\nContent-Type: \
                             application/json\r\nContent-Length: 600\r\n\r\n"
                .to_vec();
            head.extend(noise(seed, 600));
            head
        }
        _ => Vec::new(),
    }
}
