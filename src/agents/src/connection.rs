//! The seam between the front and a session: bytes in, bytes out, nothing of HTTP or sockets.

use std::fmt;
use std::rc::Rc;

use ackord_machine::session::Named;
use ackord_machine::site::{Principal, SiteName, TokenId};
use ackord_wire::Codec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::notice::Notice;
use crate::outbox::Outbox;

/// How a peer is connected. Variants are appended: nodes tell each other of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Server-sent events over HTTP.
    EventStream,
    /// One request after the other over HTTP.
    LongPoll,
}

/// What the front knows about a connection that it hands over.
///
/// When the outbox is full the session stops reading and sending; when it stays full for the write deadline
/// the session ends as a slow consumer, with a close behind what the outbox holds. A front that is
/// stuck in a write to such a peer has to give that up by itself.
#[derive(Debug)]
pub struct Connection {
    /// The site, as the address names it; it need not exist.
    pub site: SiteName,
    /// Who it is; `None` is a stateless guest.
    pub principal: Option<Principal>,
    /// The token that proved it: the session closes when it is revoked.
    pub token: Option<TokenId>,
    /// When the credentials end, milliseconds of Unix time: the session closes then.
    pub expires_ms: Option<u64>,
    /// The encoding that was negotiated.
    pub codec: Codec,
    /// Where the session writes to. The session ends when its receiver is dropped.
    pub outbox: Outbox,
    /// How it is connected.
    pub transport: Transport,
    /// The peer's address, for logs and those who look.
    pub peer: Box<str>,
}

/// What the front reads from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// One message: the encoding of one frame.
    Frame(Bytes),
    /// The answer to a ping: the peer is alive.
    Pong,
    /// The peer is gone. The end of the stream means the same.
    Closed,
}

/// Tells a session that the transport has taken what came with it; dropped, it tells nothing.
#[derive(Clone)]
pub struct Receipt {
    notice: Rc<Notice>,
    named: Named,
}

impl Receipt {
    pub(crate) fn new(notice: &Rc<Notice>, named: Named) -> Self {
        Self { notice: notice.clone(), named }
    }

    /// It has.
    pub fn written(self) {
        self.notice.mark_written(self.named);
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Receipt").field(&self.named).finish()
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        self.named == other.named && Rc::ptr_eq(&self.notice, &other.notice)
    }
}

impl Eq for Receipt {}

/// What the front writes to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// One message: a text message for JSON, a binary one for CBOR.
    Frame(Bytes),
    /// The same, and the session is to be told when the transport has taken it.
    Receipted(Bytes, Receipt),
    /// A protocol-level ping.
    Ping,
    /// Close the connection; nothing follows.
    Close {
        /// The close number, see `ackord_wire::code::CLOSE_CODES`.
        number: u16,
        /// The stable code, as text.
        reason: String,
    },
}
