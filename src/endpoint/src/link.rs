//! One endpoint's way to the broker: dialing, the WebSocket, keepalive, reconnecting.
//!
//! Invariants: reading goes on while a write is stuck, up to a bound, so two full sides do not
//! wait for each other; a silent or stuck connection ends after a bound; the order of frames is kept.
//! Deliberately absent: what frames mean. Whether to connect again is the machines' decision.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ackord_wire::code::{CLOSE_CODES, CloseCode};
use ackord_wire::limits::KEEPALIVE_S_DEFAULT;
use ackord_wire::{Code, Codec};
use bytes::Bytes;
use futures_util::{FutureExt as _, Sink as _, Stream as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use url::Url;

use crate::entropy::Entropy;
use crate::error::Error;
use crate::options::{TokenSource, is_token};
use crate::publish::Then;
use crate::reconnect::Reconnect;

/// How long connecting may take, with name, TLS and upgrade.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a session lasts that is worth looking for elsewhere at once.
const LASTED_MIN: Duration = Duration::from_secs(1);
/// How long a write may be stuck.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the peer may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Added to two silent keepalive intervals, for the way.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// The largest message that is read, bytes: a batch frame with room to spare.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames that wait to be written before reading stops.
const QUEUE_FRAMES_MAX: usize = 4096;
/// What is read from a connection at once, bytes. The library fills all of it with zeros before each read, and takes
/// a new one while a frame of the old one is held: with 64 KiB a subscriber took a tenth more of the CPU.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// What is written to a connection at once, bytes.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Where and as whom to connect.
pub(crate) struct Dialer {
    pub site: String,
    /// `service` or `client`.
    pub role: &'static str,
    pub token: Credential,
    pub codec: Codec,
    pub tls: Arc<rustls::ClientConfig>,
}

/// What proves who connects.
pub(crate) enum Credential {
    /// Nothing: a guest.
    Guest,
    /// This token.
    Fixed(String),
    /// The token that is there when it is asked for.
    Asked(TokenSource),
}

/// What the link has to say.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A WebSocket is open.
    Connected,
    /// An attempt failed; the next one is scheduled.
    Failed { url: String, reason: String, retry_in_ms: u64 },
    /// An attempt was refused for good.
    Refused { code: Code, detail: String },
    /// A frame.
    Frame(Bytes),
    /// The connection ended; the next attempt is scheduled.
    Lost(String),
}

struct DialError {
    reason: String,
    retry_after_ms: Option<u64>,
    terminal: Option<Code>,
}

type Dialing = Pin<Box<dyn Future<Output = Result<Connection, DialError>> + Send>>;

enum State {
    Waiting(Instant),
    Dialing(Dialing),
    Up(Box<Connection>),
    Off,
}

/// The way to the broker.
pub(crate) struct Link {
    dialer: Arc<Dialer>,
    reconnect: Reconnect,
    entropy: Entropy,
    state: State,
    /// When the broker welcomed this session.
    since: Option<Instant>,
}

impl Link {
    pub(crate) fn new(dialer: Dialer, reconnect: Reconnect, entropy: Entropy) -> Self {
        let state = State::Waiting(Instant::now());
        Self { dialer: Arc::new(dialer), reconnect, entropy, state, since: None }
    }

    /// The address in use.
    pub(crate) fn url(&self) -> &str {
        self.reconnect.url()
    }

    /// The broker's welcome: what it said about the connection.
    pub(crate) fn welcomed(&mut self, addresses: &[String], keepalive_s: u32) {
        let addresses: Vec<String> =
            addresses.iter().filter_map(|address| base_url(address).ok()).collect();
        self.reconnect.welcomed(&addresses);
        self.since = Some(Instant::now());
        if let State::Up(connection) = &mut self.state {
            connection.keepalive(keepalive_s);
        }
    }

    /// What happens next. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        loop {
            match &mut self.state {
                State::Off => std::future::pending().await,
                State::Waiting(until) => {
                    tokio::time::sleep_until(*until).await;
                    let dialer = Arc::clone(&self.dialer);
                    let url = self.reconnect.url().to_owned();
                    self.state = State::Dialing(Box::pin(async move { dialer.dial(&url).await }));
                }
                State::Dialing(dialing) => match dialing.await {
                    Ok(connection) => {
                        self.state = State::Up(Box::new(connection));
                        return LinkEvent::Connected;
                    }
                    Err(error) => return self.failed(error),
                },
                State::Up(connection) => {
                    match std::future::poll_fn(|cx| connection.poll(cx)).await {
                        Ok(frame) => return LinkEvent::Frame(frame),
                        Err(End { reason, terminal: Some(code) }) => {
                            self.state = State::Off;
                            return LinkEvent::Refused { code, detail: reason };
                        }
                        Err(End { reason, terminal: None }) => {
                            self.wait(None);
                            return LinkEvent::Lost(reason);
                        }
                    }
                }
            }
        }
    }

    /// A frame that is already here.
    pub(crate) fn next_ready(&mut self) -> Option<LinkEvent> {
        match self.state {
            State::Up(_) => self.next().now_or_never(),
            State::Off | State::Waiting(_) | State::Dialing(_) => None,
        }
    }

    fn failed(&mut self, error: DialError) -> LinkEvent {
        if let Some(code) = error.terminal {
            self.state = State::Off;
            return LinkEvent::Refused { code, detail: error.reason };
        }
        let url = self.reconnect.url().to_owned();
        let retry_in_ms = self.wait(error.retry_after_ms);
        LinkEvent::Failed { url, reason: error.reason, retry_in_ms }
    }

    fn wait(&mut self, retry_after_ms: Option<u64>) -> u64 {
        if self.since.take().is_some_and(|since| since.elapsed() >= LASTED_MIN) {
            self.reconnect.lost();
        }
        let delay_ms = self.reconnect.failed(&mut self.entropy, retry_after_ms);
        self.state = State::Waiting(Instant::now() + Duration::from_millis(delay_ms));
        delay_ms
    }

    /// Queues a frame; without a connection it is dropped, as it would be on a broken one.
    pub(crate) fn send(&mut self, frame: Vec<u8>) {
        if let State::Up(connection) = &mut self.state {
            connection.send(frame);
        }
    }

    /// Gives up the connection.
    pub(crate) fn close(&mut self, then: &Then) {
        let state = match then {
            Then::Reconnect => State::Waiting(Instant::now()),
            Then::Backoff { retry_after_ms, .. } => {
                self.wait(*retry_after_ms);
                return;
            }
            Then::Stop { .. } => State::Off,
        };
        self.state = state;
    }

    /// Writes what is queued, says goodbye on the WebSocket and waits a moment for the answer.
    pub(crate) async fn finish(&mut self) {
        if let State::Up(connection) = std::mem::replace(&mut self.state, State::Off) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.finish()).await;
        }
    }
}

impl Dialer {
    async fn dial(&self, base: &str) -> Result<Connection, DialError> {
        let failed = |reason: String| DialError { reason, retry_after_ms: None, terminal: None };
        let request = self.request(base).map_err(failed)?;
        let connector = Connector::Rustls(Arc::clone(&self.tls));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connecting = tokio_tungstenite::connect_async_tls_with_config(
            request,
            Some(config),
            true,
            Some(connector),
        );
        match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
            Err(_) => Err(failed("connecting took too long".to_owned())),
            Ok(Ok((socket, _))) => Ok(Connection::new(socket, self.codec)),
            Ok(Err(tungstenite::Error::Http(response))) => Err(refusal(&response, &self.token)),
            Ok(Err(error)) => Err(failed(error.to_string())),
        }
    }

    fn request(&self, base: &str) -> Result<tungstenite::http::Request<()>, String> {
        let mut url = Url::parse(base).map_err(|error| error.to_string())?;
        url.path_segments_mut()
            .map_err(|()| "the address has no path".to_owned())?
            .pop_if_empty()
            .extend(["v1", "sites", &self.site, self.role]);
        let mut request = url.as_str().into_client_request().map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        let protocol = HeaderValue::from_static(self.codec.subprotocol());
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let token = match &self.token {
            Credential::Guest => None,
            Credential::Fixed(token) => Some(token.clone()),
            Credential::Asked(source) => {
                let token = source().filter(|token| is_token(token));
                Some(token.ok_or_else(|| "there is no token now".to_owned())?)
            }
        };
        if let Some(token) = &token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| "the token has characters that no token has".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        Ok(request)
    }
}

/// What a refused upgrade says: a problem document if the broker wrote it, else the bare status.
fn refusal(response: &Response<Option<Vec<u8>>>, token: &Credential) -> DialError {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: Code,
        #[serde(default)]
        detail: String,
    }
    let body = response.body().as_deref().unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let status = response.status();
    let code = problem.as_ref().map(|problem| problem.code).or(match status.as_u16() {
        401 => Some(Code::BadCredentials),
        403 => Some(Code::AccessDenied),
        // Anything may answer with the other statuses: a proxy, a node that starts.
        _ => None,
    });
    let final_code = |code: &Code| match (code, token) {
        // The same token stays expired; another one may be there next time.
        (Code::CredentialsExpired, Credential::Fixed(_)) => true,
        (_, _) => CLOSE_CODES.iter().any(|close| close.code == *code && !close.reconnect),
    };
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let reason = match problem {
        Some(problem) if !problem.detail.is_empty() => problem.detail,
        Some(_) | None => format!("the upgrade was answered with {status}"),
    };
    DialError {
        reason,
        retry_after_ms: seconds.map(|seconds| seconds.saturating_mul(1000)),
        terminal: code.filter(final_code),
    }
}

/// An address as the endpoint uses it: `ws` or `wss`, host, port, and a path in front of `/v1`.
pub(crate) fn base_url(text: &str) -> Result<String, Error> {
    let invalid = |reason: &str| Error::Invalid(format!("address {text}: {reason}"));
    let mut url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
    let scheme = match url.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return Err(invalid("the scheme is not http, https, ws or wss")),
    };
    url.set_scheme(scheme).map_err(|()| invalid("no host"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(invalid("no host"));
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Trust in these roots (PEM), or in those of the web.
pub(crate) fn tls_config(roots_pem: Option<&[u8]>) -> Result<Arc<rustls::ClientConfig>, Error> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let invalid = |reason: String| Error::Invalid(format!("TLS roots: {reason}"));
    let mut roots = rustls::RootCertStore::empty();
    match roots_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
                roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(invalid("no certificate in it".to_owned()));
            }
        }
    }
    // Named, so that another provider elsewhere in the process does not make the choice ambiguous.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Why a connection ended.
struct End {
    reason: String,
    /// The broker will not have the endpoint back.
    terminal: Option<Code>,
}

impl End {
    fn of(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), terminal: None }
    }

    /// The broker's close number says what its `closing` frame said, should that have been lost.
    fn of_close(frame: Option<&CloseFrame>) -> Self {
        let Some(frame) = frame else { return Self::of("the peer closed the connection") };
        let number = u16::from(frame.code);
        let known = CLOSE_CODES.iter().find(|close: &&CloseCode| close.number == number);
        Self {
            reason: format!("closed with {number}: {}", frame.reason),
            terminal: known.filter(|close| !close.reconnect).map(|close| close.code),
        }
    }
}

/// One open WebSocket.
struct Connection {
    socket: Socket,
    codec: Codec,
    queue: VecDeque<Message>,
    unflushed: bool,
    /// Since when a write makes no progress.
    stuck_since: Option<Instant>,
    last_read: Instant,
    idle_max: Duration,
    alarm: Pin<Box<Sleep>>,
}

fn idle_max(keepalive_s: u32) -> Duration {
    Duration::from_secs(2 * u64::from(keepalive_s)) + IDLE_GRACE
}

impl Connection {
    fn new(socket: Socket, codec: Codec) -> Self {
        let (last_read, idle_max) = (Instant::now(), idle_max(KEEPALIVE_S_DEFAULT));
        let alarm = Box::pin(tokio::time::sleep_until(last_read + idle_max));
        let queue = VecDeque::new();
        let (unflushed, stuck_since) = (false, None);
        Self { socket, codec, queue, unflushed, stuck_since, last_read, idle_max, alarm }
    }

    fn keepalive(&mut self, keepalive_s: u32) {
        self.idle_max = idle_max(keepalive_s);
        self.alarm.as_mut().reset(self.last_read + self.idle_max);
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.queue.push_back(match self.codec {
            Codec::Cbor => Message::Binary(frame.into()),
            // The JSON encoder writes UTF-8.
            Codec::Json => Message::text(String::from_utf8(frame).unwrap_or_default()),
        });
    }

    /// Writes what can be written, then reads: a frame, or why the connection ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Err(error) = self.write(cx) {
            return Poll::Ready(Err(End::of(error)));
        }
        while self.queue.len() < QUEUE_FRAMES_MAX {
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(End::of("the peer closed the connection")));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(End::of(error))),
                Poll::Ready(Some(Ok(message))) => {
                    self.last_read = Instant::now();
                    match message {
                        Message::Binary(bytes) => return Poll::Ready(Ok(bytes)),
                        Message::Text(text) => return Poll::Ready(Ok(text.into())),
                        Message::Close(frame) => {
                            return Poll::Ready(Err(End::of_close(frame.as_ref())));
                        }
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                    }
                }
            }
        }
        self.watch(cx)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), tungstenite::Error> {
        let mut socket = Pin::new(&mut self.socket);
        while !self.queue.is_empty() {
            match socket.as_mut().poll_ready(cx)? {
                Poll::Pending => {
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Poll::Ready(()) => {
                    if let Some(message) = self.queue.pop_front() {
                        socket.as_mut().start_send(message)?;
                        self.unflushed = true;
                    }
                }
            }
        }
        let stuck_since = self.stuck_since.take();
        if self.unflushed {
            match socket.poll_flush(cx)? {
                Poll::Pending => self.stuck_since = stuck_since.or_else(|| Some(Instant::now())),
                Poll::Ready(()) => self.unflushed = false,
            }
        }
        Ok(())
    }

    /// The deadlines, looked at only when the alarm rings.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        if let Some(since) = self.stuck_since {
            let due = since + WRITE_TIMEOUT;
            if due < self.alarm.deadline() {
                self.alarm.as_mut().reset(due);
            }
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.stuck_since.is_some_and(|since| now >= since + WRITE_TIMEOUT) {
                return Poll::Ready(Err(End::of("the peer does not read")));
            }
            if now >= self.last_read + self.idle_max {
                return Poll::Ready(Err(End::of("the peer is silent")));
            }
            let stuck = self.stuck_since.map(|since| since + WRITE_TIMEOUT);
            let idle = self.last_read + self.idle_max;
            self.alarm.as_mut().reset(stuck.map_or(idle, |stuck| stuck.min(idle)));
        }
        Poll::Pending
    }

    async fn finish(mut self) {
        self.queue.push_back(Message::Close(None));
        // Until the peer has answered, or the connection fails: either is the end.
        while std::future::poll_fn(|cx| self.poll(cx)).await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_into_one_form() {
        for (text, base) in [
            ("http://h:1", "ws://h:1"),
            ("https://h/", "wss://h"),
            ("wss://h:7/prefix/", "wss://h:7/prefix"),
        ] {
            assert_eq!(base_url(text).unwrap(), base);
        }
        for text in ["", "h:1", "ftp://h", "http://"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_site_is_one_segment_of_the_path() {
        let dialer = Dialer {
            site: "a/b c".to_owned(),
            role: "service",
            token: Credential::Fixed("t".to_owned()),
            codec: Codec::Cbor,
            tls: tls_config(None).unwrap(),
        };
        let request = dialer.request("ws://h:1/x").unwrap();
        assert_eq!(request.uri().path(), "/x/v1/sites/a%2Fb%20c/service");
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer t");
        assert_eq!(request.headers()[header::SEC_WEBSOCKET_PROTOCOL], "ackord.v1.cbor");
    }

    #[test]
    fn refusals_are_final_only_when_they_say_so() {
        let check = |status: u16, body: &str, terminal: Option<Code>, retry_after_ms| {
            let mut response = Response::new(Some(body.as_bytes().to_vec()));
            *response.status_mut() = status.try_into().unwrap();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
            let error = refusal(&response, &Credential::Fixed("t".to_owned()));
            assert_eq!(error.terminal, terminal, "{status} {body}");
            assert_eq!(error.retry_after_ms, retry_after_ms);
        };
        check(401, "", Some(Code::BadCredentials), Some(7000));
        let expired = r#"{"code":"credentials-expired"}"#;
        check(401, expired, Some(Code::CredentialsExpired), Some(7000));
        let mut response = Response::new(Some(expired.as_bytes().to_vec()));
        *response.status_mut() = 401.try_into().unwrap();
        let renewed = Credential::Asked(Arc::new(|| None));
        assert_eq!(refusal(&response, &renewed).terminal, None);
        check(403, "no json", Some(Code::AccessDenied), Some(7000));
        check(
            404,
            r#"{"code":"not-registered","detail":"gone"}"#,
            Some(Code::NotRegistered),
            Some(7000),
        );
        check(404, r#"{"code":"not-found"}"#, None, Some(7000));
        check(503, r#"{"code":"shutting-down"}"#, None, Some(7000));
        check(502, "", None, Some(7000));
    }
}
