//! The administration API over HTTP, as far as the tests use it.
//!
//! Answers are JSON values: the tests look at what any HTTP client would see.

use std::time::Duration;

use ackord_wire::Code;
use anyhow::{Context as _, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A node that is not a member of its cluster yet takes connections and says nothing.
const ANSWER: Duration = Duration::from_secs(2);

/// A problem document, or the status of an answer that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// Why, for a person.
    pub detail: String,
    /// The field it is about.
    pub field: Option<String>,
}

/// An administrator's connection to one node.
///
/// One per test: its connections belong to the runtime they were opened on.
#[derive(Clone)]
pub struct Admin {
    url: String,
    token: String,
    http: reqwest::Client,
}

impl Admin {
    /// Speaks to `url` with `token`.
    pub fn new(url: &str, token: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { url, token: token.to_owned(), http: reqwest::Client::new() }
    }

    /// Sends a request; a problem is an error that can be downcast to nothing but its text.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        match self.ask(method.clone(), path, body).await? {
            Ok(value) => Ok(value),
            Err(problem) => bail!("{method} {path}: {problem:?}"),
        }
    }

    /// Sends a request and gives the answer or the problem.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Result<Value, Problem>> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        request = request.bearer_auth(&self.token).timeout(crate::wait::PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            let value = if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text) };
            return Ok(Ok(value.with_context(|| text.clone())?));
        }
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        Ok(Err(Problem {
            status: status.as_u16(),
            code: serde_json::from_value(body["code"].clone()).unwrap_or(Code::Unknown),
            detail: body["detail"].as_str().unwrap_or(&text).to_owned(),
            field: body["field"].as_str().map(str::to_owned),
        }))
    }

    async fn put(&self, path: &str, body: Value) -> anyhow::Result<()> {
        self.call(Method::PUT, path, Some(body)).await.map(drop)
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// All items of a list as the node itself has it, confirmed by no other.
    pub async fn local(&self, list: &str) -> anyhow::Result<Vec<Value>> {
        let mut items: Vec<Value> = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("{list}?consistency=local&limit=1000{after}");
            let page = self.get(&path).await?;
            items.extend(page["items"].as_array().context("no items in the answer")?.clone());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }

    async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Log syncs of this run of the node, or none when it does not say within [`ANSWER`].
    pub async fn syncs(&self) -> Option<u64> {
        let asked = self.http.get(format!("{}/metrics", self.url)).timeout(ANSWER);
        let text = asked.send().await.ok()?.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix("ackord_log_syncs_total ")?.parse().ok())
    }

    /// Whether the node is ready to serve, and says so within [`ANSWER`].
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/healthz/ready", self.url)).timeout(ANSWER);
        asked.send().await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    /// Creates a site or changes its settings.
    pub async fn put_site(&self, site: &str, settings: Value) -> anyhow::Result<()> {
        self.put(&format!("/v1/sites/{site}"), settings).await
    }

    /// Applies a structure.
    pub async fn put_structure(&self, site: &str, structure: &Value) -> anyhow::Result<()> {
        self.put(&format!("/v1/sites/{site}/structure"), structure.clone()).await
    }

    /// Applies a structure that may be refused.
    pub async fn try_structure(
        &self,
        site: &str,
        structure: &Value,
    ) -> anyhow::Result<Result<Value, Problem>> {
        let path = format!("/v1/sites/{site}/structure");
        self.ask(Method::PUT, &path, Some(structure.clone())).await
    }

    /// The site's structure, in `structure`, with its hash and the site's incarnation.
    pub async fn structure(&self, site: &str) -> anyhow::Result<Value> {
        self.get(&format!("/v1/sites/{site}/structure")).await
    }

    /// Applies what a parked service declared.
    pub async fn apply_declared(&self, site: &str, service: &str) -> anyhow::Result<()> {
        let path = format!("/v1/sites/{site}/services/{service}/apply-declared");
        self.call(Method::POST, &path, Some(json!({}))).await.map(drop)
    }

    /// Registers a service and gives its token.
    pub async fn service(&self, site: &str, id: &str) -> anyhow::Result<String> {
        self.put(&format!("/v1/sites/{site}/services/{id}"), json!({})).await?;
        self.token(site, json!({ "service": id })).await
    }

    /// The service as the broker has it.
    pub async fn get_service(&self, site: &str, id: &str) -> anyhow::Result<Value> {
        self.get(&format!("/v1/sites/{site}/services/{id}")).await
    }

    /// Registers a client of a user (or a guest) and gives its token.
    pub async fn client(&self, site: &str, id: &str, user: Option<&str>) -> anyhow::Result<String> {
        self.put_client(site, id, user).await?;
        self.token(site, json!({ "client": id })).await
    }

    /// Registers a client or gives it another user.
    pub async fn put_client(&self, site: &str, id: &str, user: Option<&str>) -> anyhow::Result<()> {
        self.put(&format!("/v1/sites/{site}/clients/{id}"), json!({ "user": user })).await
    }

    /// Removes a client.
    pub async fn delete_client(&self, site: &str, id: &str) -> anyhow::Result<()> {
        self.delete(&format!("/v1/sites/{site}/clients/{id}")).await
    }

    /// Registers a user or gives it other roles.
    pub async fn put_user(&self, site: &str, id: &str, roles: &[&str]) -> anyhow::Result<()> {
        self.put(&format!("/v1/sites/{site}/users/{id}"), json!({ "roles": roles })).await
    }

    /// As [`Admin::put_user`], within [`ANSWER`] and only over what was read before, so that a try
    /// that was given up cannot come about later; whether it is known to be done.
    pub async fn put_user_over(&self, site: &str, id: &str, roles: &[&str]) -> bool {
        let url = format!("{}/v1/sites/{site}/users/{id}", self.url);
        let putting = async {
            let read = self.http.get(&url).bearer_auth(&self.token).send().await?;
            let read = read.error_for_status()?;
            let tag = read.headers().get("etag").cloned().context("no ETag in the answer")?;
            let body: Value = read.json().await?;
            if body["roles"] == json!(roles) {
                return anyhow::Ok(true);
            }
            let put = self.http.put(&url).bearer_auth(&self.token).header("If-Match", tag);
            let put = put.json(&json!({ "roles": roles })).send().await?;
            Ok(put.status().is_success())
        };
        let put = tokio::time::timeout(ANSWER, putting).await;
        put.is_ok_and(|put| put.unwrap_or(false))
    }

    /// Removes a user.
    pub async fn delete_user(&self, site: &str, id: &str) -> anyhow::Result<()> {
        self.delete(&format!("/v1/sites/{site}/users/{id}")).await
    }

    /// Makes a token.
    pub async fn token(&self, site: &str, principal: Value) -> anyhow::Result<String> {
        let body = json!({ "principal": principal });
        let answer =
            self.call(Method::POST, &format!("/v1/sites/{site}/tokens"), Some(body)).await?;
        Ok(answer["token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// The ids of the instances that are retained for an event, ascending.
    pub async fn retained(&self, site: &str, event: &str) -> anyhow::Result<Vec<u64>> {
        let mut ids: Vec<u64> = Vec::new();
        loop {
            let after = ids.last().copied().unwrap_or(0);
            let path = format!("/v1/sites/{site}/queues/{event}?limit=1000&after={after}");
            let page = self.get(&path).await?;
            let items = page["items"].as_array().context("no items in the answer")?;
            ids.extend(items.iter().filter_map(|item| item["instance_id"].as_u64()));
            if page["next"].is_null() || items.is_empty() {
                return Ok(ids);
            }
        }
    }

    /// The cursor of a client's subscription, if it has one.
    pub async fn cursor(
        &self,
        site: &str,
        client: &str,
        event: &str,
    ) -> anyhow::Result<Option<u64>> {
        let path = format!("/v1/sites/{site}/clients/{client}/subscriptions/{event}");
        match self.ask(Method::GET, &path, None).await? {
            Ok(value) => Ok(Some(
                value["position"]["instance_id"].as_u64().context("no cursor in the answer")?,
            )),
            Err(problem) if problem.status == 404 => Ok(None),
            Err(problem) => bail!("{path}: {problem:?}"),
        }
    }
}
