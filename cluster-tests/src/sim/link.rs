//! Connections of the simulated network: ordered while they live, cut at any moment.
//!
//! Invariants: frames of one direction arrive in the order they were sent, each at most once; of a
//! cut connection a prefix of each direction arrives. The two ends learn of a cut at different
//! times, so frames of an old connection can reach the broker after those of its successor.
//! Every frame passes through the production codec.

use std::collections::BTreeMap;

use ackord_wire::Codec;
use ackord_wire::frame::{ClientFrame, ServiceFrame};

use super::broker::{LinkId, Say};
use crate::seed::Seed;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The service with this index.
    Service(usize),
    /// The client with this index.
    Client(usize),
}

/// What a connection carries.
#[derive(Clone, Debug)]
pub enum Frame {
    /// From a service.
    Service(ServiceFrame),
    /// From a client.
    Client(ClientFrame),
    /// From the broker.
    Broker(Say),
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    codec: Codec,
    /// The latest arrival so far: towards the broker, towards the peer.
    arrivals: [u64; 2],
    /// From when on nothing arrives any more: towards the broker, towards the peer.
    ends: [u64; 2],
}

/// All connections.
#[derive(Debug, Default)]
pub struct Links {
    links: BTreeMap<LinkId, Link>,
    opened: u64,
    delay_ms_max: u64,
}

impl Links {
    /// A network whose frames take up to `delay_ms_max`.
    pub fn new(delay_ms_max: u64) -> Self {
        Self { links: BTreeMap::new(), opened: 0, delay_ms_max }
    }

    /// A new connection; the peer's first frame cannot arrive before the returned time.
    pub fn open(&mut self, peer: Peer, now: u64, seed: &mut Seed) -> (LinkId, u64) {
        self.opened += 1;
        let id = LinkId(self.opened);
        let codec = if seed.between(0, 2) == 0 { Codec::Json } else { Codec::Cbor };
        let open = now + seed.between(1, self.delay_ms_max + 1);
        let link = Link { peer, codec, arrivals: [open, open], ends: [u64::MAX, u64::MAX] };
        self.links.insert(id, link);
        (id, open)
    }

    /// Who is at the other end.
    pub fn peer(&self, link: LinkId) -> Option<Peer> {
        self.links.get(&link).map(|link| link.peer)
    }

    /// Sends a frame: when and as what it arrives, if it does.
    pub fn send(
        &mut self,
        id: LinkId,
        frame: Frame,
        now: u64,
        seed: &mut Seed,
    ) -> Option<(u64, Frame)> {
        let link = self.links.get_mut(&id)?;
        let direction = usize::from(matches!(frame, Frame::Broker(_)));
        let arrival = (now + seed.between(1, self.delay_ms_max + 1)).max(link.arrivals[direction]);
        link.arrivals[direction] = arrival;
        (arrival < link.ends[direction]).then(|| (arrival, recoded(frame, link.codec)))
    }

    /// Whether what was sent before a cut still arrives now.
    pub fn carries(&self, id: LinkId, to_broker: bool, now: u64) -> bool {
        let direction = usize::from(!to_broker);
        self.links.get(&id).is_some_and(|link| now < link.ends[direction])
    }

    /// Cuts a connection: the times at which broker and peer learn of it.
    pub fn cut(&mut self, id: LinkId, now: u64, seed: &mut Seed) -> Option<(u64, u64)> {
        let delay = self.delay_ms_max * 4;
        let link = self.links.get_mut(&id)?;
        link.ends = [now + seed.between(0, delay), now + seed.between(0, delay)]
            .map(|end| end.max(now + 1));
        Some((link.ends[0], link.ends[1]))
    }

    /// The connections that were not forgotten.
    pub fn all(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }
}

/// Through the codec and back.
fn recoded(frame: Frame, codec: Codec) -> Frame {
    // A frame that the codec does not carry is a bug to be found here.
    match frame {
        Frame::Service(frame) => {
            Frame::Service(codec.decode(&codec.encode(&frame)).expect("a service frame"))
        }
        Frame::Client(frame) => {
            Frame::Client(codec.decode(&codec.encode(&frame)).expect("a client frame"))
        }
        // Payload fields depend on the codec that the session was told; those go as they are.
        Frame::Broker(say) => Frame::Broker(say),
    }
}
