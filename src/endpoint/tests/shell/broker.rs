//! A broker in the test's own process: accepts endpoints on a real socket and hands each
//! connection to the test, which speaks the frames.

use ackord_wire::Codec;
use ackord_wire::frame::{
    Accepted, ClientFrame, ClientMessage, ClientWelcome, EventMessage, Mode, Position,
    ServiceFrame, ServiceMessage, ServiceState, ServiceWelcome, Subscribed, SubscribedItem, Sync,
};
use ackord_wire::payload::Data;
use ackord_wire::structure::Category;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::told::PATIENCE;

pub struct Broker {
    listener: TcpListener,
    pub url: String,
}

/// One endpoint's connection.
pub struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub codec: Codec,
    pub path: String,
    pub token: Option<String>,
}

impl Broker {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    async fn tcp(&self) -> TcpStream {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        accepted.expect("an endpoint connects").unwrap().0
    }

    /// The next connection that is upgraded.
    pub async fn accept(&self) -> Peer {
        loop {
            let tcp = self.tcp().await;
            tcp.set_nodelay(true).unwrap();
            let (mut path, mut token, mut codec) = (String::new(), None, Codec::Json);
            // The handshake crate's own type of answer is that large.
            #[allow(clippy::result_large_err)]
            let look = |request: &Request, mut response: Response| {
                path = request.uri().path().to_owned();
                let header =
                    |name: &str| request.headers().get(name)?.to_str().ok().map(str::to_owned);
                token = header("authorization");
                let protocol = header("sec-websocket-protocol").unwrap();
                codec = Codec::from_subprotocol(&protocol).unwrap();
                let value = HeaderValue::from_str(&protocol).unwrap();
                response.headers_mut().insert("sec-websocket-protocol", value);
                Ok(response)
            };
            if let Ok(socket) = tokio_tungstenite::accept_hdr_async(tcp, look).await {
                return Peer { socket, codec, path, token };
            }
        }
    }

    /// Answers the next connection with a status instead of an upgrade.
    pub async fn refuse(&self, status: u16, retry_after: Option<u32>, body: &str) {
        let tcp = self.tcp().await;
        #[allow(clippy::result_large_err)]
        let refuse = |_: &Request, _: Response| {
            let mut response = ErrorResponse::new(Some(body.to_owned()));
            *response.status_mut() = status.try_into().unwrap();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            Err(response)
        };
        let refused = tokio_tungstenite::accept_hdr_async(tcp, refuse).await;
        assert!(refused.is_err());
    }
}

impl Peer {
    /// The next frame; `None` when the endpoint has closed.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            match next.expect("the endpoint says something")? {
                Ok(Message::Binary(bytes)) => return Some(self.codec.decode(&bytes).unwrap()),
                Ok(Message::Text(text)) => {
                    return Some(self.codec.decode(text.as_bytes()).unwrap());
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            }
        }
    }

    pub async fn send<T: Serialize>(&mut self, frame: &T) {
        let bytes = self.codec.encode(frame);
        let message = match self.codec {
            Codec::Json => Message::text(String::from_utf8(bytes).unwrap()),
            Codec::Cbor => Message::binary(bytes),
        };
        self.socket.send(message).await.unwrap();
    }

    /// Queues a frame without writing it out.
    pub async fn feed<T: Serialize>(&mut self, frame: &T) {
        let bytes = self.codec.encode(frame);
        self.socket.feed(Message::binary(bytes)).await.unwrap();
    }

    pub async fn flush(&mut self) {
        self.socket.flush().await.unwrap();
    }

    /// A frame that has arrived already.
    pub fn ready<T: DeserializeOwned>(&mut self) -> Option<T> {
        use futures_util::FutureExt as _;
        match self.socket.next().now_or_never()?? {
            Ok(Message::Binary(bytes)) => Some(self.codec.decode(&bytes).unwrap()),
            _ => None,
        }
    }

    pub async fn welcome_service(&mut self, last: u64) -> ackord_wire::frame::ServiceHello {
        let Some(ServiceFrame::Hello(hello)) = self.next().await else { panic!("no hello") };
        self.send(&ServiceMessage::Welcome(service_welcome(last))).await;
        hello
    }

    pub async fn raise(&mut self) -> ackord_wire::frame::Raise {
        match self.next().await {
            Some(ServiceFrame::Raise(raise)) => raise,
            other => panic!("no raise: {other:?}"),
        }
    }

    pub async fn accept(&mut self, seq: u64, instance_id: u64) {
        let (ignored, duplicate, instance_id) = (false, false, Some(instance_id));
        let accepted = Accepted { seq, instance_id, ignored, duplicate };
        self.send(&ServiceMessage::Accepted(accepted)).await;
    }

    /// Welcomes a client and takes the list of its subscriptions.
    pub async fn welcome_client(&mut self) -> Vec<ackord_wire::frame::Subscription> {
        self.welcome_client_as(None).await
    }

    /// As [`Self::welcome_client`], and says that it delivers in this mode, if there is one.
    pub async fn welcome_client_as(
        &mut self,
        mode: Option<Mode>,
    ) -> Vec<ackord_wire::frame::Subscription> {
        let Some(ClientFrame::Hello(_)) = self.next().await else { panic!("no hello") };
        self.send(&ClientMessage::Welcome(client_welcome(Sync::Send))).await;
        let Some(ClientFrame::Subscriptions(list)) = self.next().await else { panic!("no list") };
        let accepted = list.items.iter().zip(1..).map(|(item, subscription)| SubscribedItem {
            event: item.event.clone(),
            subscription,
            position: Position { incarnation: 1, generation: 0, instance_id: 0 },
            granted: true,
            resumed: None,
            mode: mode.unwrap_or(item.mode),
        });
        let subscribed = Subscribed { accepted: accepted.collect(), ..Subscribed::default() };
        self.send(&ClientMessage::Subscribed(subscribed)).await;
        list.items
    }

    pub async fn ack(&mut self) -> ackord_wire::frame::Ack {
        match self.next().await {
            Some(ClientFrame::Ack(ack)) => ack,
            other => panic!("no ack: {other:?}"),
        }
    }
}

pub fn service_welcome(last: u64) -> ServiceWelcome {
    ServiceWelcome {
        service: "s".to_owned(),
        epoch: 1,
        incarnation: 1,
        state: ServiceState { online: true, reason: None },
        last,
        superseded: false,
        window: 1024,
        keepalive_s: 60,
        args_bytes_max: 2048,
        addresses: Vec::new(),
    }
}

pub fn client_welcome(sync: Sync) -> ClientWelcome {
    ClientWelcome {
        client: Some("c".to_owned()),
        epoch: 1,
        incarnation: 1,
        sync,
        keepalive_s: 60,
        addresses: Vec::new(),
    }
}

pub fn delivery(subscription: u32, event: &str, instance_id: u64) -> ClientMessage {
    ClientMessage::Event(Box::new(EventMessage {
        subscription,
        attempt: 1,
        age: 0,
        generation: 0,
        event: event.to_owned(),
        category: Category::Queueing,
        service: "s".to_owned(),
        incarnation: 1,
        instance_id,
        created_ms: 1_700_000_000_000,
        content_type: None,
        args: None,
        data: Some(Data(b"{}".to_vec().into())),
        original_id: None,
        traceparent: None,
        tracestate: None,
    }))
}
