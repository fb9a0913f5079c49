//! A peer that says what it likes: bytes on a socket, and WebSocket frames that no library would
//! send.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::Running;

/// How long the broker may be silent: no deadline of these tests is as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection without manners.
pub struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
}

/// How the broker ended a WebSocket.
#[derive(Debug, PartialEq)]
pub struct Ended {
    /// The code of the `closing` frame.
    pub code: String,
    /// The number of the close frame.
    pub number: u16,
    pub reconnect: bool,
}

impl Ended {
    pub fn new(code: &str, number: u16, reconnect: bool) -> Self {
        Self { code: code.to_owned(), number, reconnect }
    }
}

impl Raw {
    pub async fn connect(node: &Running) -> Self {
        let stream = TcpStream::connect(&node.base[7..]).await.unwrap();
        Self { stream, input: Vec::new() }
    }

    /// A WebSocket in JSON.
    pub async fn upgraded(node: &Running, path: &str, token: Option<&str>) -> Self {
        Self::upgraded_as(node, path, token, "ackord.v1.json").await
    }

    pub async fn upgraded_as(
        node: &Running,
        path: &str,
        token: Option<&str>,
        protocol: &str,
    ) -> Self {
        Self::connect(node).await.upgrade(node, path, token, protocol).await
    }

    /// A WebSocket in JSON with little room for what is not read.
    pub async fn upgraded_narrow(node: &Running, path: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(node.base[7..].parse().unwrap()).await.unwrap();
        let raw = Self { stream, input: Vec::new() };
        raw.upgrade(node, path, None, "ackord.v1.json").await
    }

    async fn upgrade(
        self,
        node: &Running,
        path: &str,
        token: Option<&str>,
        protocol: &str,
    ) -> Self {
        let mut raw = self;
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             sec-websocket-extensions: permessage-deflate\r\n\
             sec-websocket-protocol: {protocol}\r\n{}\r\n",
            &node.base[7..],
            token.unwrap_or_default(),
        );
        raw.send(head.as_bytes()).await;
        while !raw.input.windows(4).any(|window| window == b"\r\n\r\n") {
            assert!(raw.read().await, "no answer to the upgrade");
        }
        let end = raw.input.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head: Vec<u8> = raw.input.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        raw
    }

    /// Sends bytes; whoever has closed the connection does not hear them.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes).await;
    }

    /// Sends a text message.
    pub async fn say(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes())).await;
    }

    /// Everything that comes until the broker closes.
    pub async fn rest(mut self) -> String {
        while self.read().await {}
        String::from_utf8_lossy(&self.input).into_owned()
    }

    async fn read(&mut self) -> bool {
        let mut buffer = vec![0; 16 * 1024];
        let reading = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        match reading.expect("the broker says something or closes") {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }

    /// The next frame of the broker: its opcode and its payload.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, start, end)) = parse(&self.input) {
                let payload = self.input[start..end].to_vec();
                self.input.drain(..end);
                return Some((opcode, payload));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next JSON frame of this kind; others are passed over.
    pub async fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let (opcode, payload) = self.next().await.expect("the connection is open");
            if opcode == 1
                && let Ok(mut frame) = serde_json::from_slice::<Value>(&payload)
                && let Some(body) = frame.get_mut(kind)
            {
                return body.take();
            }
        }
    }

    /// What the broker says when it closes.
    pub async fn end(mut self) -> Ended {
        let mut closing = Value::Null;
        while let Some((opcode, payload)) = self.next().await {
            match opcode {
                1 => {
                    let frame: Value = serde_json::from_slice(&payload).unwrap();
                    if let Some(body) = frame.get("closing") {
                        closing = body.clone();
                    }
                }
                8 => {
                    return Ended {
                        code: closing["code"].as_str().unwrap_or("none").to_owned(),
                        number: u16::from_be_bytes([payload[0], payload[1]]),
                        reconnect: closing["reconnect"] == true,
                    };
                }
                _ => {}
            }
        }
        Ended::new("lost", 0, false)
    }
}

fn parse(input: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*input.first()?, *input.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*input.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*input.get(2..)?.first_chunk()?)).unwrap()),
        short => (2, usize::from(short)),
    };
    (input.len() >= start + length).then_some((first & 0x0f, start, start + length))
}

/// A masked frame with this first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    let mask = [7, 1, 9, 3];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}
