//! A bare protocol client: frames over a WebSocket, without any of the SDK's rules.
//!
//! For what the SDK hides or never does: a number sent twice, a hole, a late acknowledgement.

use ackord_wire::structure::Structure;
use ackord_wire::{ClientFrame, ClientMessage, Code, Codec, ServiceFrame, ServiceMessage, frame};
use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::wait;

/// How a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// The WebSocket close number, if there was one.
    pub number: Option<u16>,
}

/// A WebSocket that speaks frames of one kind.
struct Frames {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    codec: Codec,
}

impl Frames {
    async fn open(
        url: &str,
        path: &str,
        token: Option<&str>,
        codec: Codec,
    ) -> anyhow::Result<Self> {
        let url = url.replacen("http", "ws", 1);
        let mut request = format!("{}{path}", url.trim_end_matches('/')).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", HeaderValue::from_static(codec.subprotocol()));
        if let Some(token) = token {
            headers.insert("Authorization", HeaderValue::from_str(&format!("Bearer {token}"))?);
        }
        let (socket, _) = wait::within("the WebSocket", connect_async(request)).await?;
        Ok(Self { socket, codec })
    }

    async fn send<T: Serialize>(&mut self, frame: &T) -> anyhow::Result<()> {
        self.send_bytes(self.codec.encode(frame)).await
    }

    async fn send_bytes(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let message = match self.codec {
            Codec::Json => Message::text(String::from_utf8(bytes)?),
            Codec::Cbor => Message::binary(bytes),
        };
        Ok(self.socket.send(message).await?)
    }

    async fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Result<T, Closed>> {
        loop {
            let message = wait::within("a message of the broker", self.socket.next()).await;
            match message {
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Ok(Err(Closed::default()));
                }
                Some(Err(Error::Protocol(_) | Error::Io(_))) => return Ok(Err(Closed::default())),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Message::Text(text))) => {
                    let frame = self.codec.decode(text.as_bytes());
                    return Ok(Ok(frame.with_context(|| text.to_string())?));
                }
                Some(Ok(Message::Binary(bytes))) => return Ok(Ok(self.codec.decode(&bytes)?)),
                Some(Ok(Message::Close(close))) => {
                    return Ok(Err(Closed { number: close.map(|close| close.code.into()) }));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }
}

/// A service without the SDK.
pub struct RawService {
    frames: Frames,
    /// What the broker answered to the hello.
    pub welcome: frame::ServiceWelcome,
}

impl RawService {
    /// Opens a session with this hello.
    pub async fn open(
        url: &str,
        site: &str,
        token: &str,
        hello: frame::ServiceHello,
    ) -> anyhow::Result<Self> {
        let path = format!("/v1/sites/{site}/service");
        let mut frames = Frames::open(url, &path, Some(token), Codec::Json).await?;
        frames.send(&ServiceFrame::Hello(hello)).await?;
        match frames.next::<ServiceMessage>().await? {
            Ok(ServiceMessage::Welcome(welcome)) => Ok(Self { frames, welcome }),
            other => bail!("no welcome but {other:?}"),
        }
    }

    /// Opens a session and gives what the broker answered instead of a welcome.
    pub async fn refused(
        url: &str,
        site: &str,
        token: &str,
        hello: frame::ServiceHello,
    ) -> anyhow::Result<Code> {
        let path = format!("/v1/sites/{site}/service");
        let mut frames = Frames::open(url, &path, Some(token), Codec::Json).await?;
        frames.send(&ServiceFrame::Hello(hello)).await?;
        match frames.next::<ServiceMessage>().await? {
            Ok(ServiceMessage::Closing(closing)) => Ok(closing.code),
            other => bail!("not closed but {other:?}"),
        }
    }

    /// Raises an event with JSON arguments under a number of the test's choice.
    pub async fn raise(&mut self, seq: u64, event: &str, args: &str) -> anyhow::Result<()> {
        self.send(raise(seq, event, Some(args))?).await
    }

    /// Sends a raise frame.
    pub async fn send(&mut self, raise: frame::Raise) -> anyhow::Result<()> {
        self.frames.send(&ServiceFrame::Raise(raise)).await
    }

    /// The broker's next message.
    pub async fn next(&mut self) -> anyhow::Result<Result<ServiceMessage, Closed>> {
        self.frames.next().await
    }

    /// The broker's next message, which must be an acceptance.
    pub async fn accepted(&mut self) -> anyhow::Result<frame::Accepted> {
        match self.next().await? {
            Ok(ServiceMessage::Accepted(accepted)) => Ok(accepted),
            other => bail!("not accepted but {other:?}"),
        }
    }

    /// The broker's next message, which must be a rejection.
    pub async fn rejected(&mut self) -> anyhow::Result<frame::Rejected> {
        match self.next().await? {
            Ok(ServiceMessage::Rejected(rejected)) => Ok(rejected),
            other => bail!("not rejected but {other:?}"),
        }
    }

    /// The broker's next message, which must be a refusal.
    pub async fn refusal(&mut self) -> anyhow::Result<frame::Refused> {
        match self.next().await? {
            Ok(ServiceMessage::Refused(refused)) => Ok(refused),
            other => bail!("not refused but {other:?}"),
        }
    }
}

/// A raise frame; no arguments make a null-event.
pub fn raise(seq: u64, event: &str, args: Option<&str>) -> anyhow::Result<frame::Raise> {
    let args = args.map(serde_json::from_str).transpose()?;
    Ok(frame::Raise {
        seq,
        event: event.to_owned(),
        category: None,
        content_type: None,
        args,
        data: None,
        client: None,
        lifetime_s: None,
        traceparent: None,
        tracestate: None,
    })
}

/// A hello of a service with this store.
pub fn service_hello(store: &str, structure: Option<Structure>) -> frame::ServiceHello {
    frame::ServiceHello {
        structure,
        store: store.to_owned(),
        continues: None,
        service_version: String::new(),
        hostname: String::new(),
        window: None,
        keepalive_s: None,
    }
}

/// A client without the SDK.
pub struct RawClient {
    frames: Frames,
    /// What the broker answered to the hello.
    pub welcome: frame::ClientWelcome,
}

impl RawClient {
    /// Opens a session; `set` is the hash of the client's set.
    pub async fn open(
        url: &str,
        site: &str,
        token: Option<&str>,
        set: Option<String>,
    ) -> anyhow::Result<Self> {
        let path = format!("/v1/sites/{site}/client");
        let mut frames = Frames::open(url, &path, token, Codec::Json).await?;
        let hello = frame::ClientHello { set, ..frame::ClientHello::default() };
        frames.send(&ClientFrame::Hello(hello)).await?;
        match frames.next::<ClientMessage>().await? {
            Ok(ClientMessage::Welcome(welcome)) => Ok(Self { frames, welcome }),
            other => bail!("no welcome but {other:?}"),
        }
    }

    /// Opens a session and gives what the broker answered instead of a welcome.
    pub async fn refused(url: &str, site: &str, token: Option<&str>) -> anyhow::Result<Code> {
        let path = format!("/v1/sites/{site}/client");
        let mut frames = Frames::open(url, &path, token, Codec::Json).await?;
        frames.send(&ClientFrame::Hello(frame::ClientHello::default())).await?;
        match frames.next::<ClientMessage>().await? {
            Ok(ClientMessage::Closing(closing)) => Ok(closing.code),
            other => bail!("not closed but {other:?}"),
        }
    }

    /// Opens a session and makes `items` the whole set.
    pub async fn subscribed(
        url: &str,
        site: &str,
        token: Option<&str>,
        items: Vec<frame::Subscription>,
    ) -> anyhow::Result<(Self, frame::Subscribed)> {
        let set = ackord_wire::codec::set_hash(&items);
        let mut client = Self::open(url, site, token, Some(set)).await?;
        if client.welcome.sync == frame::Sync::Send || token.is_none() {
            client.send(ClientFrame::Subscriptions(frame::SubscriptionList { items })).await?;
        }
        let subscribed = client.subscriptions().await?;
        Ok((client, subscribed))
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: ClientFrame) -> anyhow::Result<()> {
        self.frames.send(&frame).await
    }

    /// The broker's next message; presence and authority are left out.
    pub async fn next(&mut self) -> anyhow::Result<Result<ClientMessage, Closed>> {
        loop {
            let message = self.frames.next::<ClientMessage>().await?;
            match message {
                Ok(ClientMessage::Presence(_) | ClientMessage::Authority { .. }) => {}
                message => return Ok(message),
            }
        }
    }

    /// The broker's next message, which must be about subscriptions.
    pub async fn subscriptions(&mut self) -> anyhow::Result<frame::Subscribed> {
        match self.next().await? {
            Ok(ClientMessage::Subscribed(subscribed)) => Ok(subscribed),
            other => bail!("not subscribed but {other:?}"),
        }
    }

    /// The broker's next message, which must be an event.
    pub async fn event(&mut self) -> anyhow::Result<frame::EventMessage> {
        match self.next().await? {
            Ok(ClientMessage::Event(event)) => Ok(*event),
            other => bail!("no event but {other:?}"),
        }
    }

    /// The broker's next message, which must confirm a cursor.
    pub async fn committed(&mut self) -> anyhow::Result<u64> {
        match self.next().await? {
            Ok(ClientMessage::Committed(ack)) => Ok(ack.instance_id),
            other => bail!("no committed cursor but {other:?}"),
        }
    }

    /// Acknowledges an event.
    pub async fn ack(&mut self, event: &frame::EventMessage) -> anyhow::Result<()> {
        self.send(ClientFrame::Ack(ack_of(event))).await
    }

    /// Acknowledges an event and awaits that the cursor is committed.
    pub async fn handle(&mut self, event: &frame::EventMessage) -> anyhow::Result<()> {
        self.ack(event).await?;
        let committed = self.committed().await?;
        if committed != event.instance_id {
            bail!("{committed} was committed instead of {}", event.instance_id);
        }
        Ok(())
    }
}

/// What names an event's instance.
pub fn ack_of(event: &frame::EventMessage) -> frame::Ack {
    frame::Ack {
        subscription: event.subscription,
        instance_id: event.instance_id,
        generation: Some(event.generation),
    }
}

/// A subscription to an event with all options at their defaults.
pub fn to(event: &str) -> frame::Subscription {
    frame::Subscription { event: event.to_owned(), ..frame::Subscription::default() }
}
