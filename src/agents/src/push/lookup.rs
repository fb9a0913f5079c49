//! Names are looked up on threads that other work of the node needs too: so many at once, no more.
//!
//! Invariant: a lookup that nobody waits for any more holds its place until it has ended: its thread
//! is as busy as before.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Lookups at once.
const LOOKUPS_MAX: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Lookups {
    room: Arc<Semaphore>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Lookups {
    /// The addresses of `host:port`. A number needs no lookup.
    pub async fn addresses(&self, of: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = of.parse() {
            return Ok(vec![address]);
        }
        let room = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        let of = of.to_owned();
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host(of).await.map(Iterator::collect);
            drop(room);
            found
        });
        lookup.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn so_many_at_once_and_numbers_beside_them() {
        let lookups = Lookups { room: Arc::new(Semaphore::new(1)) };
        let held = lookups.room.clone().acquire_owned().await.unwrap();
        let number = lookups.addresses("127.0.0.1:9").await.unwrap();
        assert_eq!(number, ["127.0.0.1:9".parse().unwrap()]);
        let mut name = Box::pin(lookups.addresses("localhost:9"));
        poll_fn(|context| {
            assert!(name.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(held);
        assert!(name.await.unwrap().iter().all(|found| found.ip().is_loopback()));
        assert_eq!(lookups.room.available_permits(), 1);
    }
}
