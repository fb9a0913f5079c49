//! A reader of Server-Sent Events, and short ways to raise and acknowledge.

#![allow(dead_code, clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};

use super::{Demo, Reply, Running, reply};

/// Nothing here takes so long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// One event of a stream, or a comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub id: Option<String>,
    pub event: String,
    pub data: Value,
    pub retry: Option<u64>,
    pub comment: Option<String>,
}

/// A stream that is read.
pub struct Stream {
    response: reqwest::Response,
    buffer: String,
    /// The last id that was read.
    pub last_id: Option<String>,
    /// What the head says of where it goes on.
    pub resume: Value,
}

impl Stream {
    /// Opens a stream, or gives the answer that refused it. The first event must be where it goes on.
    pub async fn open(request: reqwest::RequestBuilder) -> Result<Self, Reply> {
        let response = tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap();
        if response.status() != 200 {
            return Err(Reply {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                text: response.text().await.unwrap(),
            });
        }
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-accel-buffering"), "no");
        let resume = serde_json::from_str(&header("ackord-resume")).unwrap();
        Ok(Self { response, buffer: String::new(), last_id: None, resume })
    }

    /// The next event or comment; `None` at the end.
    pub async fn next(&mut self) -> Option<Said> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("something is said in time")
    }

    async fn read(&mut self) -> Option<Said> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let said = parse(block);
                self.buffer = rest.to_owned();
                if said.id.is_some() {
                    self.last_id.clone_from(&said.id);
                }
                return Some(said);
            }
            let chunk = self.response.chunk().await.ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next one of this name; others are passed over.
    pub async fn until(&mut self, event: &str) -> Said {
        self.next_that(|said| said.event == event).await
    }

    /// The next event of the site.
    pub async fn event(&mut self) -> Said {
        self.next_that(|said| !said.event.is_empty() && !said.event.starts_with('@')).await
    }

    /// The next one that is so, whatever heartbeats come before it.
    async fn next_that(&mut self, is_so: impl Fn(&Said) -> bool) -> Said {
        let looking = async {
            loop {
                let said = self.read().await.expect("the stream goes on");
                if is_so(&said) {
                    return said;
                }
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("it is said in time")
    }

    /// What these next events say.
    pub async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            numbers.push(self.event().await.data["args"]["n"].as_u64().unwrap());
        }
        numbers
    }

    /// The closing event, and that nothing follows it.
    pub async fn end(&mut self) -> Said {
        let closing = self.until("@closing").await;
        assert_eq!(self.next().await, None);
        closing
    }
}

fn parse(block: &str) -> Said {
    let mut said = Said::default();
    for line in block.lines() {
        let (field, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
        match field {
            "" => said.comment = Some(value.to_owned()),
            "id" => said.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut said.event),
            "data" => said.data = serde_json::from_str(value).unwrap(),
            "retry" => said.retry = Some(value.parse().unwrap()),
            other => panic!("no such field {other:?}"),
        }
    }
    said
}

impl Running {
    /// A stream of the demo site.
    pub async fn stream(&self, token: Option<&str>, query: &str) -> Result<Stream, Reply> {
        self.stream_after(token, query, None).await
    }

    /// The same after the event of this id.
    pub async fn stream_after(
        &self,
        token: Option<&str>,
        query: &str,
        last: Option<&str>,
    ) -> Result<Stream, Reply> {
        let path = format!("/v1/sites/demo/events?{query}");
        let mut request = self.request(reqwest::Method::GET, &path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Stream::open(request).await
    }

    /// Raises an event that says a number.
    pub async fn raise(&self, demo: &Demo, event: &str, n: u64) -> u64 {
        self.raise_json(demo, event, json!({ "n": n })).await
    }

    pub async fn raise_json(&self, demo: &Demo, event: &str, args: Value) -> u64 {
        let path = format!("/v1/sites/demo/events/{event}");
        let raised = self.call(Some(&demo.service), "POST", &path, Some(args)).await.is(200);
        raised["instance_id"].as_u64().unwrap()
    }

    /// Acknowledges by token alone.
    pub async fn ack(&self, token: &str) -> Reply {
        let body = Some(json!({ "token": token }));
        self.call(None, "POST", "/v1/sites/demo/ack", body).await
    }

    /// Asks for the next event.
    pub async fn poll(&self, token: Option<&str>, query: &str) -> Reply {
        let path = format!("/v1/sites/demo/next?{query}");
        let asking = self.call(token, "GET", &path, None);
        tokio::time::timeout(PATIENCE, asking).await.expect("an answer in time")
    }

    /// Asks for the next event on a connection of its own, in the background.
    pub fn asking(&self, token: Option<&str>, query: &str) -> tokio::task::JoinHandle<Reply> {
        let path = format!("/v1/sites/demo/next?{query}");
        let mut request = self.request(reqwest::Method::GET, &path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        tokio::spawn(async move {
            tokio::time::timeout(PATIENCE, reply(request)).await.expect("an answer in time")
        })
    }

    /// Waits until the metrics have a line that starts so.
    pub async fn until_metric(&self, line: &str) {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..5000 {
            let text = self.call(None, "GET", "/metrics", None).await.text;
            if text.lines().any(|found| found.starts_with(line)) {
                return;
            }
            looks.tick().await;
        }
        panic!("waited in vain for {line}");
    }
}
