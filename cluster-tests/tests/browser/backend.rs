//! The web server that the page comes from, as an application would have one: it serves the page, holds the tokens of
//! the accounts and draws tickets with them, and takes the page's reports.
//!
//! One request for each connection, of bounded length. Deliberately absent: everything else of HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cluster_tests::wait;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The page with the followers.
const PAGE: &str = include_str!("page.html");
/// One of an origin that is not allowed.
const STRANGER: &str = include_str!("stranger.html");
/// A report is the longest request: all ids that four followers have seen.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// A node that is down or not ready must not keep a ticket from being drawn elsewhere.
const TICKET: Duration = Duration::from_secs(2);

/// What a follower of the page says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Follower {
    /// The ids of what it handled, in order.
    pub seen: Vec<u64>,
    /// How often a node took it in.
    pub opened: usize,
    /// How often of these the browser came again by itself.
    pub again: usize,
    /// What should not have happened.
    pub notes: Vec<String>,
}

/// All followers by name.
pub type Followers = BTreeMap<String, Follower>;

/// What the page follows, and whose tickets it may have.
pub struct Followed {
    pub nodes: Vec<String>,
    pub site: String,
    pub event: String,
    /// Tokens by account.
    pub tokens: BTreeMap<String, String>,
}

/// Where the server will be.
pub struct Place(TcpListener);

impl Place {
    pub async fn new() -> anyhow::Result<Self> {
        Ok(Self(TcpListener::bind("127.0.0.1:0").await?))
    }

    fn origin_at(&self, host: &str) -> anyhow::Result<String> {
        Ok(format!("http://{host}:{}", self.0.local_addr()?.port()))
    }

    /// The origin of the page.
    pub fn origin(&self) -> anyhow::Result<String> {
        self.origin_at("127.0.0.1")
    }

    /// Serves the page from now on.
    pub fn serve(self, followed: Followed) -> anyhow::Result<Backend> {
        let stranger = format!("{}/stranger", self.origin_at("localhost")?);
        let http = Client::builder().no_proxy().timeout(TICKET).build()?;
        let (followers, strange) = (watch::Sender::default(), watch::Sender::default());
        let shared = Arc::new(Shared { followed, stranger, http, followers, strange });
        let serving = tokio::spawn(serve(self.0, shared.clone()));
        Ok(Backend { shared, serving })
    }
}

/// The running server.
pub struct Backend {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Backend {
    /// What the followers have reported.
    pub fn followers(&self) -> Followers {
        self.shared.followers.borrow().clone()
    }

    /// What became of the attempts of the page that is not allowed.
    pub async fn stranger(&self) -> Value {
        let mut strange = self.shared.strange.subscribe();
        let told = wait::within("the other page", strange.wait_for(Option::is_some)).await;
        told.ok().and_then(|told| told.clone()).unwrap_or_default()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Shared {
    followed: Followed,
    /// Where the page is that is not allowed.
    stranger: String,
    http: Client,
    followers: watch::Sender<Followers>,
    strange: watch::Sender<Option<Value>>,
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = exchange(stream, &shared).await {
                println!("a request of the page: {error:#}");
            }
        });
    }
}

/// Answers one request. A browser also opens connections that it then does not need.
async fn exchange(mut stream: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let Some((line, body)) = read(&mut stream).await? else { return Ok(()) };
    let (status, kind, text) = match shared.answer(&line, &body).await {
        Ok((kind, text)) => ("200 OK", kind, text),
        Err(error) => ("503 Service Unavailable", "text/plain", format!("{line}: {error:#}")),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// Method and path, and the body; `None` where nothing is asked.
async fn read(stream: &mut TcpStream) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        anyhow::ensure!(bytes.len() < REQUEST_BYTES_MAX, "a head too long");
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes)?;
    let mut lines = head.lines();
    let line = lines.next().context("a request")?;
    let line = line.rsplit_once(' ').context("a version")?.0.to_owned();
    let length = lines.filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map(|(_, value)| value.trim().parse()).next().unwrap_or(Ok(0))?;
    anyhow::ensure!(length <= REQUEST_BYTES_MAX, "a body too long");
    let mut body = body;
    while body.len() < length {
        anyhow::ensure!(stream.read_buf(&mut body).await? > 0, "the body is cut off");
    }
    Ok(Some((line, body)))
}

impl Shared {
    /// The media type and text of an answer.
    async fn answer(&self, line: &str, body: &[u8]) -> anyhow::Result<(&'static str, String)> {
        const HTML: &str = "text/html";
        const JSON: &str = "application/json";
        match line {
            "GET /" => return Ok((HTML, PAGE.to_owned())),
            "GET /stranger" => return Ok((HTML, STRANGER.to_owned())),
            "GET /config" => {
                let Followed { nodes, site, event, .. } = &self.followed;
                let stranger = &self.stranger;
                let config =
                    json!({"nodes": nodes, "site": site, "event": event, "stranger": stranger});
                return Ok((JSON, config.to_string()));
            }
            "POST /report" => {
                self.followers.send_replace(serde_json::from_slice(body)?);
                return Ok((JSON, "{}".to_owned()));
            }
            "POST /stranger" => {
                self.strange.send_replace(Some(serde_json::from_slice(body)?));
                return Ok((JSON, "{}".to_owned()));
            }
            _ => {}
        }
        match line.strip_prefix("POST /ticket/") {
            Some(account) => Ok((JSON, self.ticket(account).await?)),
            None => bail!("not here"),
        }
    }

    /// Draws a ticket at whatever node answers.
    async fn ticket(&self, account: &str) -> anyhow::Result<String> {
        let token = self.followed.tokens.get(account).context("no such account")?;
        for node in &self.followed.nodes {
            let url = format!("{node}/v1/sites/{}/tickets", self.followed.site);
            let asked = self.http.post(url).bearer_auth(token).json(&json!({})).send().await;
            if let Ok(answer) = asked
                && answer.status().is_success()
                && let Ok(text) = answer.text().await
            {
                return Ok(text);
            }
        }
        bail!("no node draws a ticket")
    }
}
