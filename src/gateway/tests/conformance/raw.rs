//! Requests as bytes, so that nothing between the test and the node mends them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

/// No answer takes so long unless something hangs.
const ANSWER: Duration = Duration::from_secs(20);

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query, as they are sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        Self { method: method.to_owned(), target: target.to_owned(), headers, body }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: node\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len()));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = String::from_utf8_lossy(&self.body).chars().take(2000).collect();
        write!(f, "{} {:?}\n{body}", self.status, self.headers)
    }
}

impl Reply {
    /// The first header of this name, in lowercase.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Asks on a connection of its own.
pub async fn ask(base: &str, request: &Request) -> Reply {
    let asking = async {
        let address = base.trim_start_matches("http://");
        let socket = TcpStream::connect(address).await.unwrap();
        let (mut from, mut to) = socket.into_split();
        let bytes = request.bytes();
        // A node that refuses need not read what it refuses: then writing fails.
        // The half to write with stays open: a peer that closes it wants no answer.
        let writing = async { drop(to.write_all(&bytes).await) };
        let mut answer = Vec::new();
        let reading = async {
            let mut piece = vec![0; 16 << 10];
            // What came before a reset counts; a stream has no end, so its head is enough.
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                answer.extend_from_slice(&piece[..read]);
                if is_stream(&answer) {
                    break;
                }
            }
        };
        tokio::join!(reading, writing);
        answer
    };
    let answer = timeout(ANSWER, asking).await;
    let answer = answer.unwrap_or_else(|_| panic!("no answer to {request:?}"));
    parse(&answer).unwrap_or_else(|| {
        panic!("no HTTP in answer to {request:?}: {}", String::from_utf8_lossy(&answer))
    })
}

/// Whether nothing ends it: a stream, or a WebSocket.
fn is_stream(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    head.contains("text/event-stream") || head.starts_with("http/1.1 101")
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let rest = &answer[end + 4..];
    let chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value.eq_ignore_ascii_case("chunked"));
    let body = match (chunked, is_stream(answer)) {
        (_, true) => Vec::new(),
        (true, false) => unchunk(rest)?,
        (false, false) => rest.to_vec(),
    };
    Some(Reply { status, headers, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
    Some(body)
}
