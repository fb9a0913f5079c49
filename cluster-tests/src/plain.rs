//! A client over plain HTTP, without any library of Ackord: a stream of Server-Sent Events, a
//! question for the next event, an acknowledgement.

use anyhow::{Context as _, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::wait;

/// Somebody who asks one site over plain HTTP, at whatever node.
#[derive(Clone)]
pub struct Plain {
    http: Client,
    site: String,
    token: Option<String>,
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Told {
    /// What to go on from after it.
    pub id: Option<String>,
    /// Its name; one that starts with `@` is none of the site's.
    pub event: String,
    /// What it says.
    pub data: Value,
}

/// A stream that is read.
pub struct Stream {
    response: reqwest::Response,
    buffer: String,
}

impl Plain {
    /// A client with this token, or a guest.
    ///
    /// # Panics
    /// When there is no HTTP client to be had.
    pub fn new(site: &str, token: Option<&str>) -> Self {
        let http = Client::builder().no_proxy().build().expect("an HTTP client");
        Self { http, site: site.to_owned(), token: token.map(str::to_owned) }
    }

    fn request(&self, method: Method, url: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/v1/sites/{}/{path}", url.trim_end_matches('/'), self.site);
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Opens a stream at a node.
    pub async fn stream(
        &self,
        url: &str,
        query: &str,
        last: Option<&str>,
    ) -> anyhow::Result<Stream> {
        let mut request = self.request(Method::GET, url, &format!("events?{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = wait::within("the head of a stream", request.send()).await?;
        if response.status() != StatusCode::OK {
            bail!("{}: {}", response.status(), response.text().await?);
        }
        Ok(Stream { response, buffer: String::new() })
    }

    /// Asks a node for the next event; `None` when there is none in time.
    pub async fn next(&self, url: &str, query: &str) -> anyhow::Result<Option<Value>> {
        let request = self.request(Method::GET, url, &format!("next?{query}"));
        let response = wait::within("an answer to a poll", request.send()).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(None),
            StatusCode::OK => Ok(Some(response.json().await?)),
            status => bail!("{status}: {}", response.text().await?),
        }
    }

    /// Asks a node for the next event; whatever it answers.
    pub async fn ask(&self, url: &str, query: &str) -> anyhow::Result<(u16, Value)> {
        let request = self.request(Method::GET, url, &format!("next?{query}"));
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Acknowledges an event at a node, by its token alone; the status and what it came to.
    pub async fn ack(&self, url: &str, event: &Value) -> anyhow::Result<(u16, Value)> {
        let token = event["ack"].as_str().with_context(|| format!("no ack token: {event}"))?;
        let request = Self { token: None, ..self.clone() }.request(Method::POST, url, "ack");
        let request = request.json(&json!({ "token": token }));
        let response = wait::within("an answer to an ack", request.send()).await?;
        Ok((response.status().as_u16(), response.json().await?))
    }
}

impl Stream {
    /// The next event; an error when the stream breaks, `None` when it ends.
    pub async fn next(&mut self) -> anyhow::Result<Option<Told>> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let told = parse(block)?;
                self.buffer = rest.to_owned();
                if let Some(told) = told {
                    return Ok(Some(told));
                }
            }
            let Some(chunk) = wait::within("a chunk", self.response.chunk()).await? else {
                return Ok(None);
            };
            self.buffer.push_str(std::str::from_utf8(&chunk)?);
        }
    }

    /// The next event of the site.
    pub async fn event(&mut self) -> anyhow::Result<Told> {
        loop {
            match self.next().await? {
                Some(told) if told.event == "@closing" => bail!("closed: {}", told.data),
                Some(told) if told.event.starts_with('@') => {}
                Some(told) => return Ok(told),
                None => bail!("the stream ended"),
            }
        }
    }
}

/// A block of lines; `None` for a comment.
fn parse(block: &str) -> anyhow::Result<Option<Told>> {
    let mut told = Told { id: None, event: String::new(), data: Value::Null };
    for line in block.lines() {
        let (field, value) = line.split_once(": ").with_context(|| format!("a field: {line}"))?;
        match field {
            "id" => told.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut told.event),
            "data" => told.data = serde_json::from_str(value)?,
            _ => {}
        }
    }
    Ok((!told.event.is_empty()).then_some(told))
}
