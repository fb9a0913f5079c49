//! Datagrams: handed to the socket, or dropped and counted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ackord_machine::session::{PushAnswer, PushRequest};
use ackord_machine::site::{Mode, PushTarget, SiteName};
use ackord_wire::Code;
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Pushes, encode};
use crate::broker::Refused;

/// How long a datagram waits for room in the socket.
const ROOM_LIMIT: Duration = Duration::from_millis(100);
/// How long a name is looked up.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Sends what a request holds. Never fails: what does not leave is counted as dropped.
pub(crate) async fn send(
    pushes: &Pushes,
    site: &SiteName,
    request: &PushRequest,
    packet_bytes_default: u32,
) -> PushAnswer {
    let count = request.parcels.len() as u32;
    let nothing = PushAnswer::Sent { sent: 0, dropped: count };
    let PushTarget::Udp { address, ttl, interface, packet_bytes_max } = &request.spec.target else {
        return nothing;
    };
    let open = async {
        let to = resolve(pushes, address).await?;
        let interface = interface.as_deref().and_then(|text| text.parse().ok());
        Ok::<_, io::Error>((open(to, *ttl, interface)?, to))
    };
    let (socket, to) = match open.await {
        Ok(open) => open,
        Err(error) => {
            tracing::debug!(%site, push = %request.push, %error, "datagrams are dropped");
            return nothing;
        }
    };
    let most = packet_bytes_max.unwrap_or(packet_bytes_default) as usize;
    let events = request.parcels.iter().map(|parcel| encode::event(site, request, parcel));
    let mut sent = 0;
    for (packet, holds) in packets(events, most, request.spec.quality.mode == Mode::Batch) {
        // Nobody there, or no room: it may be lost, and is.
        if let Ok(Ok(_)) = timeout(ROOM_LIMIT, socket.send_to(&packet, to)).await {
            sent += holds;
        }
    }
    PushAnswer::Sent { sent, dropped: count - sent }
}

/// What goes into each packet, and how many events that are. What is larger than a packet is left
/// out.
fn packets(events: impl Iterator<Item = Bytes>, most: usize, is_batch: bool) -> Vec<(Bytes, u32)> {
    if !is_batch {
        return events.filter(|event| event.len() <= most).map(|event| (event, 1)).collect();
    }
    let (mut packets, mut open, mut bytes) = (Vec::new(), Vec::new(), 2);
    let close = |open: &mut Vec<Bytes>, packets: &mut Vec<(Bytes, u32)>| {
        if !open.is_empty() {
            let holds = open.len() as u32;
            packets.push((encode::list(open.drain(..)), holds));
        }
    };
    for event in events.filter(|event| event.len() + 2 <= most) {
        if bytes + event.len() + 1 > most {
            close(&mut open, &mut packets);
            bytes = 2;
        }
        bytes += event.len() + usize::from(!open.is_empty());
        open.push(event);
    }
    close(&mut open, &mut packets);
    packets
}

/// The first address of a target that may be sent to.
async fn resolve(pushes: &Pushes, address: &str) -> io::Result<SocketAddr> {
    let found = timeout(LOOKUP_LIMIT, pushes.lookups.addresses(address)).await??;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let mut permitted = found.into_iter().filter(|found| pushes.allow.permits(host, found.ip()));
    let denied = || io::Error::new(io::ErrorKind::PermissionDenied, "the address is not allowed");
    permitted.next().ok_or_else(denied)
}

/// Judges a target before it is registered.
///
/// # Errors
/// `invalid` for what is none, `callback-not-allowed` for one that may not be sent to.
pub(crate) async fn check(pushes: &Pushes, address: &str) -> Result<(), Refused> {
    match resolve(pushes, address).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let detail = "the address is not one that the operator allows (`push.hosts`)";
            Err((Code::CallbackNotAllowed, detail.to_owned()))
        }
        Err(error) => Err((Code::Invalid, format!("address: `host:port`: {error}"))),
    }
}

fn open(to: SocketAddr, ttl: Option<u32>, interface: Option<IpAddr>) -> io::Result<UdpSocket> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    socket.bind(&any.into())?;
    if to.ip().is_multicast() {
        let hops = ttl.unwrap_or(1);
        match (to, interface) {
            (SocketAddr::V4(_), Some(IpAddr::V4(interface))) => {
                socket.set_multicast_if_v4(&interface)?;
                socket.set_multicast_ttl_v4(hops)?;
            }
            (SocketAddr::V4(_), _) => socket.set_multicast_ttl_v4(hops)?,
            (SocketAddr::V6(_), _) => socket.set_multicast_hops_v6(hops)?,
        }
    }
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(events: &[usize], most: usize, is_batch: bool) -> Vec<(usize, u32)> {
        let events = events.iter().map(|size| Bytes::from(vec![b'1'; *size]));
        packets(events, most, is_batch).iter().map(|(it, holds)| (it.len(), *holds)).collect()
    }

    #[test]
    fn a_packet_holds_no_more_than_it_may() {
        assert_eq!(sizes(&[10, 100, 20], 50, false), [(10, 1), (20, 1)]);
        assert_eq!(sizes(&[10, 10, 10], 50, true), [(34, 3)]);
        assert_eq!(sizes(&[10, 10, 10, 10, 10], 34, true), [(34, 3), (23, 2)]);
        assert_eq!(sizes(&[48, 49, 1], 50, true), [(50, 1), (3, 1)]);
    }
}
