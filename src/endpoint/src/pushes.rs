//! Push subscriptions of a client, registered by itself: the broker then carries events to its
//! callback or socket, whether the client is connected or not.
//!
//! Every request may be sent again, to the next address: making, ending and resuming a push
//! subscription twice comes to the same as once.

use std::time::Duration;

use ackord_wire::problem::Problem;
use ackord_wire::push::{Push, PushBody};
use ackord_wire::resource::Page;
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::error::Error;
use crate::link::{base_url, tls_config};

/// How long one request may take: the broker asks the callback before it answers.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long an attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Push subscriptions asked for at once.
const PAGE: &str = "500";

/// Why a request about push subscriptions came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The broker refused it.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Box<Problem>),
    /// No address answered.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// What answered is no broker.
    #[error("not the answer of a broker: {0}")]
    Unreadable(String),
}

impl PushError {
    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.retryable,
            Self::Unreachable(_) => true,
            Self::Unreadable(_) => false,
        }
    }
}

/// The push subscriptions that a token may see and change: a client's own, or those of a site.
#[derive(Clone, Debug)]
pub struct Pushes {
    http: reqwest::Client,
    /// Of the site's push subscriptions, at each address.
    urls: Vec<Url>,
    token: String,
}

impl Pushes {
    /// Asks the brokers at these addresses (`http(s)://` or `ws(s)://`), in turn. `roots_pem` is
    /// trusted instead of the web's certificates, where it is given.
    ///
    /// # Errors
    /// An address, the token or a certificate that is none.
    pub fn new<U: AsRef<str>>(
        urls: impl IntoIterator<Item = U>,
        site: &str,
        token: impl Into<String>,
        roots_pem: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let urls = urls.into_iter().map(|url| site_url(url.as_ref(), site));
        let urls = urls.collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(Error::Invalid("no address of a broker".to_owned()));
        }
        let token = token.into();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Invalid("the token is not a token".to_owned()));
        }
        let tls = (*tls_config(roots_pem)?).clone();
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .connect_timeout(CONNECT_MAX)
            .timeout(REQUEST_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Error::System(error.to_string()))?;
        Ok(Self { http, urls, token })
    }

    /// Registers a push subscription, or changes one: its cursor and state stay. A callback must
    /// answer the broker's challenge first.
    ///
    /// # Errors
    /// It was refused, and nothing is registered; or nobody answered, and it is not known.
    pub async fn put(&self, id: &str, body: &PushBody) -> Result<Push, PushError> {
        let body = serde_json::to_vec(body);
        let body = body.map_err(|error| PushError::Unreadable(error.to_string()))?;
        read(self.ask(Method::PUT, &[id], Some(body)).await?).await
    }

    /// One push subscription: its state and why, its cursor, what waits.
    ///
    /// # Errors
    /// There is none of this id, or nobody answered.
    pub async fn show(&self, id: &str) -> Result<Push, PushError> {
        read(self.ask(Method::GET, &[id], None).await?).await
    }

    /// All of them, by id.
    ///
    /// # Errors
    /// It was refused, or nobody answered.
    pub async fn list(&self) -> Result<Vec<Push>, PushError> {
        let (mut items, mut after) = (Vec::new(), String::new());
        loop {
            let query = [("limit", PAGE), ("after", after.as_str())];
            let query = if after.is_empty() { &query[..1] } else { &query[..] };
            let page: Page<Push> = read(self.ask_for(Method::GET, &[], query, None).await?).await?;
            items.extend(page.items);
            let Some(next) = page.next else { return Ok(items) };
            after = next;
        }
    }

    /// Starts one again that was cancelled or is offline.
    ///
    /// # Errors
    /// There is none of this id, or nobody answered.
    pub async fn resume(&self, id: &str) -> Result<Push, PushError> {
        read(self.ask(Method::POST, &[id, "resume"], None).await?).await
    }

    /// Ends one, with its cursor. That there is none of this id is no error.
    ///
    /// # Errors
    /// It was refused, or nobody answered.
    pub async fn delete(&self, id: &str) -> Result<(), PushError> {
        match self.ask(Method::DELETE, &[id], None).await {
            Err(PushError::Refused(problem)) if problem.status == 404 => Ok(()),
            other => other.map(|_gone| ()),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Vec<u8>>,
    ) -> Result<Response, PushError> {
        self.ask_for(method, path, &[], body).await
    }

    /// Asks each address until one answers.
    async fn ask_for(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Response, PushError> {
        let mut failed = PushError::Unreachable("no address".to_owned());
        for base in &self.urls {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.extend(path);
            }
            let request = self.http.request(method.clone(), url).bearer_auth(&self.token);
            let mut request = request.query(query);
            if let Some(body) = &body {
                request = request.header("Content-Type", "application/json").body(body.clone());
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    failed = PushError::Unreachable(whole(&error));
                    continue;
                }
            };
            if response.status().is_success() {
                return Ok(response);
            }
            let elsewhere = response.status() == StatusCode::SERVICE_UNAVAILABLE;
            failed = refused(response).await;
            if !elsewhere {
                break;
            }
        }
        Err(failed)
    }
}

/// The push subscriptions of a site, as the address of a broker has them.
fn site_url(text: &str, site: &str) -> Result<Url, Error> {
    let invalid = |reason: String| Error::Invalid(format!("address {text}: {reason}"));
    let base = base_url(text)?;
    let base = base.replacen("ws", "http", 1);
    let mut url = Url::parse(&base).map_err(|error| invalid(error.to_string()))?;
    url.path_segments_mut()
        .map_err(|()| invalid("no host".to_owned()))?
        .pop_if_empty()
        .extend(["v1", "sites", site, "pushes"]);
    Ok(url)
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, PushError> {
    response.json().await.map_err(|error| PushError::Unreadable(whole(&error)))
}

async fn refused(response: Response) -> PushError {
    let status = response.status();
    match response.json().await {
        Ok(problem) => PushError::Refused(Box::new(problem)),
        Err(_) => PushError::Unreadable(format!("status {status}")),
    }
}

/// An error with what it came from.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_the_site_whatever_its_scheme_and_path() {
        for (text, expected) in [
            ("http://h:7400", "http://h:7400/v1/sites/a%20b/pushes"),
            ("wss://h/prefix/", "https://h/prefix/v1/sites/a%20b/pushes"),
        ] {
            assert_eq!(site_url(text, "a b").unwrap().as_str(), expected);
        }
        assert!(site_url("ftp://h", "s").is_err());
    }

    #[test]
    fn what_is_no_option_is_told() {
        let none: [&str; 0] = [];
        assert!(Pushes::new(none, "s", "t", None).is_err());
        assert!(Pushes::new(["http://h"], "s", "a b", None).is_err());
        assert!(Pushes::new(["http://h"], "s", "t", Some(b"none")).is_err());
        assert!(Pushes::new(["http://h"], "s", "t", None).is_ok());
    }
}
