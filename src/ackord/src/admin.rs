//! The client of the broker's administration over HTTP.
//!
//! Resources stay JSON values: the command line prints what the broker says, also what a newer
//! one says. A request goes to the given addresses in turn until one is reached.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long a download may take.
const DOWNLOAD_MAX: Duration = Duration::from_secs(3600);
/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Items asked for per page of a list.
const PAGE: u32 = 500;

/// A broker and the token to administer it with.
#[derive(Clone, Debug)]
pub struct Admin {
    http: reqwest::Client,
    urls: Vec<String>,
    token: Option<String>,
}

/// A refusal as the broker words it.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// Why, for a person.
    pub detail: String,
}

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub enum AdminError {
    /// No address answered.
    Unreachable(String),
    /// The broker said no.
    Problem(Problem),
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Unreachable(why) => unreachable(&why),
            AdminError::Problem(problem) => {
                let Problem { status, code, detail } = problem;
                let exit = if status >= 500 { Exit::Unreachable } else { Exit::Refused };
                let failure = Failure::new(exit, format!("{detail} ({code})"));
                match status {
                    401 => failure.hint("is this the right token, for this site?"),
                    403 => failure.hint("this needs an administrator's token"),
                    _ => failure,
                }
            }
        }
    }
}

/// The failure to reach a broker at all.
pub fn unreachable(why: &str) -> Failure {
    Failure::new(Exit::Unreachable, format!("the broker cannot be reached: {why}"))
        .hint("`ackord dev` starts one; --url or ACKORD_URL says where it is")
}

impl Admin {
    /// A client of the broker at these addresses.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_MAX)
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .build()
            .map_err(|error| Failure::new(Exit::Configuration, format!("no HTTP: {error}")))?;
        let plain = |url: String| match url.split_once("://") {
            Some(("ws", rest)) => format!("http://{rest}"),
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(_) | None => url,
        };
        Ok(Self { http, urls: urls.into_iter().map(plain).collect(), token })
    }

    /// Sends a request; the answer's body, `Null` where there is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let text = self.text(method, path, body).await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| {
            AdminError::Unreachable(format!("{path} did not answer in JSON: {error}"))
        })
    }

    /// Sends a request; the answer's body as text.
    pub async fn text(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, AdminError> {
        let mut last = String::new();
        for url in &self.urls {
            let mut request = self.http.request(method.clone(), format!("{url}{path}"));
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Ok(response) => return answer(response).await,
                // Only an attempt that reached nobody is repeated elsewhere: nothing happens twice.
                Err(error) if error.is_connect() => last = format!("{url}: {}", causes(&error)),
                Err(error) => return Err(AdminError::Unreachable(causes(&error))),
            }
        }
        Err(AdminError::Unreachable(last))
    }

    /// `GET` of bytes, piece by piece as they come.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, AdminError> {
        let mut last = String::new();
        for url in &self.urls {
            // As long as it takes, while it comes.
            let mut request = self.http.get(format!("{url}{path}")).timeout(DOWNLOAD_MAX);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    last = format!("{url}: {}", causes(&error));
                    continue;
                }
            };
            if !response.status().is_success() {
                return answer(response).await.map(|_| Ok(()));
            }
            loop {
                match response.chunk().await {
                    Ok(Some(piece)) => {
                        if let Err(error) = take(&piece) {
                            return Ok(Err(error));
                        }
                    }
                    Ok(None) => return Ok(Ok(())),
                    Err(error) => return Err(AdminError::Unreachable(causes(&error))),
                }
            }
        }
        Err(AdminError::Unreachable(last))
    }

    /// `POST` of bytes.
    pub async fn upload(&self, path: &str, body: Vec<u8>) -> Result<(), AdminError> {
        let mut last = String::new();
        for url in &self.urls {
            let mut request = self.http.post(format!("{url}{path}")).body(body.clone());
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            match request.send().await {
                Ok(response) => return answer(response).await.map(drop),
                Err(error) if error.is_connect() => last = format!("{url}: {}", causes(&error)),
                Err(error) => return Err(AdminError::Unreachable(causes(&error))),
            }
        }
        Err(AdminError::Unreachable(last))
    }

    /// `GET` of one resource.
    pub async fn get(&self, path: &str) -> Result<Value, AdminError> {
        self.send(Method::GET, path, None).await
    }

    /// `GET` of one resource, `None` where there is none.
    pub async fn find(&self, path: &str) -> Result<Option<Value>, AdminError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(AdminError::Problem(problem)) if problem.status == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `PUT` of one resource.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `DELETE` of one resource.
    pub async fn delete(&self, path: &str) -> Result<Value, AdminError> {
        self.send(Method::DELETE, path, None).await
    }

    /// Every item of a paged list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, AdminError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let from = after.as_deref().map(|id| format!("&after={}", segment(id)));
            let query = format!("{path}?limit={PAGE}{}", from.unwrap_or_default());
            let page = self.get(&query).await?;
            let (mut more, next) = match page {
                Value::Array(items) => (items, None),
                Value::Object(mut page) => {
                    let next = page.remove("next").and_then(|next| match next {
                        Value::String(next) => Some(next),
                        Value::Number(next) => Some(next.to_string()),
                        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                    });
                    let items = match page.remove("items") {
                        Some(Value::Array(items)) => items,
                        Some(_) | None => Vec::new(),
                    };
                    (items, next)
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    (Vec::new(), None)
                }
            };
            let empty = more.is_empty();
            items.append(&mut more);
            match next {
                // A page that repeats its own start would never end.
                Some(next) if !empty && after.as_ref() != Some(&next) => after = Some(next),
                Some(_) | None => return Ok(items),
            }
        }
    }
}

async fn answer(response: reqwest::Response) -> Result<String, AdminError> {
    let status = response.status();
    let text = response.text().await.map_err(|error| AdminError::Unreachable(causes(&error)))?;
    if status.is_success() { Ok(text) } else { Err(AdminError::Problem(problem(status, &text))) }
}

fn problem(status: StatusCode, text: &str) -> Problem {
    let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let detail = field("detail").or_else(|| field("title")).unwrap_or_else(|| status.to_string());
    let detail = match field("field") {
        Some(field) if !detail.contains(&field) => format!("{field}: {detail}"),
        Some(_) | None => detail,
    };
    let code = field("code").unwrap_or_else(|| format!("http-{}", status.as_u16()));
    Problem { status: status.as_u16(), code, detail }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

/// A name as one segment of a path or value of a query.
pub fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_data_in_a_path() {
        assert_eq!(segment("a b/c?d"), "a%20b%2Fc%3Fd");
        assert_eq!(segment("boiler-1.x_y~"), "boiler-1.x_y~");
    }

    #[test]
    fn a_problem_names_the_field_once() {
        let text = r#"{"detail":"too long","field":"name","code":"invalid"}"#;
        let problem = problem(StatusCode::UNPROCESSABLE_ENTITY, text);
        assert_eq!((problem.detail.as_str(), problem.code.as_str()), ("name: too long", "invalid"));
    }
}
