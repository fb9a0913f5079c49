//! The socket of a broker, and what a free port is.
//!
//! A free port is taken below the range that the system gives to outgoing connections: an endpoint
//! that tries again and again to reach a stopped broker could else be given that very port, and
//! the broker would find it taken when it comes back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::exit::{Exit, Failure};
use crate::token;

/// Where `ackord dev` listens when it may choose.
pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4655);

/// Lowest port that is given out as a free one.
const FREE_PORT_MIN: u16 = 10_000;
/// The end of that range where the system does not say where its own begins.
const FREE_PORT_END: u16 = 32_768;
/// Ports that are tried before the system is asked for any.
const ATTEMPTS: u32 = 64;
/// How long a kept port may be held by the process that had it before.
const TAKEN_MAX: Duration = Duration::from_secs(5);
/// How often it is tried in that time.
const TAKEN_INTERVAL: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This address, and no other.
    Exactly(SocketAddr),
    /// A free port of this address.
    Free(IpAddr),
    /// This address if it is free, else a free port.
    Preferred(SocketAddr),
}

impl Wanted {
    /// What `--listen` and the port that DIR keeps ask for together.
    pub fn of(listen: Option<SocketAddr>, kept: Option<u16>) -> Self {
        match (listen, kept) {
            (Some(listen), Some(kept)) if listen.port() == 0 => {
                Self::Exactly(SocketAddr::new(listen.ip(), kept))
            }
            (Some(listen), None) if listen.port() == 0 => Self::Free(listen.ip()),
            (Some(listen), _) => Self::Exactly(listen),
            (None, Some(kept)) => Self::Exactly(SocketAddr::new(DEFAULT.ip(), kept)),
            (None, None) => Self::Preferred(DEFAULT),
        }
    }
}

/// Binds what is wanted.
pub fn bind(wanted: Wanted) -> Result<TcpListener, Failure> {
    let failed = |address: &dyn std::fmt::Display, error: io::Error| {
        Failure::new(Exit::Configuration, format!("cannot listen on {address}: {error}"))
    };
    match wanted {
        Wanted::Exactly(address) => exactly(address).map_err(|error| failed(&address, error)),
        Wanted::Free(ip) => free(ip).map_err(|error| failed(&ip, error)),
        Wanted::Preferred(address) => TcpListener::bind(address)
            .or_else(|_| free(address.ip()))
            .map_err(|error| failed(&address.ip(), error)),
    }
}

fn exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + TAKEN_MAX;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(TAKEN_INTERVAL);
            }
            result => return result,
        }
    }
}

fn free(ip: IpAddr) -> io::Result<TcpListener> {
    let end = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|end| *end > FREE_PORT_MIN)
        .unwrap_or(FREE_PORT_END);
    for _ in 0..ATTEMPTS {
        let Ok(random) = token::random::<2>() else { break };
        let port = FREE_PORT_MIN + u16::from_le_bytes(random) % (end - FREE_PORT_MIN);
        if let Ok(listener) = TcpListener::bind((ip, port)) {
            return Ok(listener);
        }
    }
    TcpListener::bind((ip, 0))
}

/// The address of a broker that listens here, for endpoints on this machine.
pub fn url(scheme: &str, address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_port_is_used_again_only_where_the_caller_leaves_it_open() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let fixed: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let kept: SocketAddr = "127.0.0.1:7".parse().unwrap();
        assert_eq!(Wanted::of(Some(any), Some(7)), Wanted::Exactly(kept));
        assert_eq!(Wanted::of(Some(any), None), Wanted::Free(any.ip()));
        assert_eq!(Wanted::of(Some(fixed), Some(7)), Wanted::Exactly(fixed));
        assert_eq!(Wanted::of(None, Some(7)), Wanted::Exactly(kept));
        assert_eq!(Wanted::of(None, None), Wanted::Preferred(DEFAULT));
    }

    #[test]
    fn a_free_port_is_not_one_of_outgoing_connections() {
        let port = free(DEFAULT.ip()).unwrap().local_addr().unwrap().port();
        assert!(port >= FREE_PORT_MIN);
    }

    #[test]
    fn the_address_of_every_interface_is_reached_through_this_one() {
        assert_eq!(url("http", "0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url("https", "[::]:80".parse().unwrap()), "https://[::1]:80");
    }
}
