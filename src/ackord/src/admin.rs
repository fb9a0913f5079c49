//! The client of the broker's administration over HTTP.
//!
//! Resources stay JSON values: the command line prints what the broker says, also what a newer
//! one says. A request goes to the given addresses in turn, from the one on that answered last, until
//! one has an answer; one that might be carried out twice, until one is reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::connect;
use crate::exit::{Exit, Failure};

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long an address may take to answer a read while there are others to ask: its node may hang.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How long a download may send nothing, before its first byte and between two.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Items asked for per page of a list.
const PAGE: usize = 500;
/// What the TLS library calls a server that shows the certificate of an authority as its own.
const AUTHORITY_SHOWN: &str = "CaUsedAsEndEntity";

/// A broker and the token to administer it with.
#[derive(Clone, Debug)]
pub struct Admin {
    http: reqwest::Client,
    urls: Vec<String>,
    /// Which address answered last.
    answered: Arc<AtomicUsize>,
    token: Option<String>,
}

/// Whether a request whose fate is not known may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It changes nothing, or nothing more.
    Harmless,
    /// It might be carried out twice.
    Never,
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
    /// Whether the same request may have another answer later, or elsewhere.
    pub retryable: bool,
}

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub enum AdminError {
    /// No address answered.
    Unreachable(String),
    /// One answered what no broker says.
    Unreadable(String),
    /// The broker said no.
    Problem(Problem),
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Unreachable(why) => unreachable(&why),
            AdminError::Unreadable(why) => Failure::new(Exit::Unreachable, why)
                .hint("is it a broker that --url names, and one of this release?"),
            AdminError::Problem(problem) => {
                let Problem { status, code, detail, retryable: _ } = problem;
                let exit = if status >= 500 { Exit::Unreachable } else { Exit::Refused };
                let failure = Failure::coded(exit, detail, code);
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
    let failure = Failure::new(Exit::Unreachable, format!("the broker cannot be reached: {why}"));
    let usual = "`ackord dev` starts one; --url or ACKORD_URL says where it is";
    failure.hint(certificate_hint(why).unwrap_or(usual))
}

/// What to do about a certificate for which there is no connection, where that is known.
pub fn certificate_hint(why: &str) -> Option<&'static str> {
    why.contains(AUTHORITY_SHOWN).then_some(
        "the certificate says that it is an authority: make it with `-addext \
         basicConstraints=critical,CA:FALSE`, or sign it by an authority and give that one",
    )
}

impl Admin {
    /// A client of the broker at these addresses.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<Self, Failure> {
        let wrong = |error| Failure::new(Exit::Configuration, format!("no HTTP: {error}"));
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT_MAX).no_proxy();
        if let Some(roots) = connect::roots() {
            http = http.tls_built_in_root_certs(false);
            for root in reqwest::Certificate::from_pem_bundle(roots).map_err(wrong)? {
                http = http.add_root_certificate(root);
            }
        }
        let http = http.build().map_err(wrong)?;
        let urls = urls.into_iter().map(plain).collect();
        Ok(Self { http, urls, answered: Arc::default(), token })
    }

    /// The same client at other addresses.
    #[must_use]
    pub fn at(&self, urls: &[String]) -> Self {
        let urls = urls.iter().cloned().map(plain).collect();
        Self { urls, answered: Arc::default(), ..self.clone() }
    }

    /// A client for each address alone.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.urls.iter().map(|url| self.at(std::slice::from_ref(url)))
    }

    /// Sends a request; the answer's body, `Null` where there is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        parse(path, &self.text(method, path, body).await?)
    }

    /// Sends a request; the answer's body as text.
    pub async fn text(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, AdminError> {
        let again = if method == Method::GET { Again::Harmless } else { Again::Never };
        self.ask(again, |url| {
            let request = self.http.request(method.clone(), format!("{url}{path}"));
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        })
        .await
    }

    /// `GET` of bytes, piece by piece as they come.
    pub async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<std::io::Result<()>, AdminError> {
        let silent = || AdminError::Unreachable(format!("nothing came for {SILENCE_MAX:?}"));
        let mut failed = None;
        for (index, url) in self.in_turn() {
            let request = self.authorized(self.http.get(format!("{url}{path}")));
            let first = async {
                let mut response = request.send().await.map_err(|error| lost(url, &error))?;
                if !response.status().is_success() {
                    return answer(url, response).await.map(|_nothing| None);
                }
                let first = response.chunk().await.map_err(|error| lost(url, &error))?;
                Ok(first.map(|first| (response, first)))
            };
            let first = tokio::time::timeout(SILENCE_MAX, first).await;
            let begun = match first.unwrap_or_else(|_elapsed| Err(silent())) {
                Ok(begun) => begun,
                // Nothing of it has been taken yet.
                Err(error) if elsewhere(&error, Again::Harmless) => {
                    failed = Some(worse(failed, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.answered.store(index, Ordering::Relaxed);
            let Some((mut response, mut piece)) = begun else { return Ok(Ok(())) };
            // As long as it takes, while it comes.
            loop {
                if let Err(error) = take(&piece) {
                    return Ok(Err(error));
                }
                let next = tokio::time::timeout(SILENCE_MAX, response.chunk()).await;
                match next.map_err(|_elapsed| silent())?.map_err(|error| lost(url, &error))? {
                    Some(next) => piece = next,
                    None => return Ok(Ok(())),
                }
            }
        }
        Err(failed.unwrap_or_else(nowhere))
    }

    /// `POST` of bytes that may come again without harm.
    pub async fn upload(&self, path: &str, body: Vec<u8>) -> Result<(), AdminError> {
        self.ask(Again::Harmless, |url| self.http.post(format!("{url}{path}")).body(body.clone()))
            .await
            .map(drop)
    }

    /// Sends a request to one address after the other until one has an answer that counts.
    async fn ask(
        &self,
        again: Again,
        request: impl Fn(&str) -> RequestBuilder,
    ) -> Result<String, AdminError> {
        let mut failed = None;
        for (turn, (index, url)) in self.in_turn().enumerate() {
            let others = turn + 1 < self.urls.len();
            let limit = if others && again == Again::Harmless { ATTEMPT_MAX } else { REQUEST_MAX };
            let request = self.authorized(request(url)).timeout(limit);
            let (answer, reached) = match request.send().await {
                Ok(response) => (answer(url, response).await, true),
                Err(error) => (Err(lost(url, &error)), !error.is_connect()),
            };
            match answer {
                // What reached nobody was not done.
                Err(error) if !reached || elsewhere(&error, again) => {
                    failed = Some(worse(failed, error));
                }
                answer => {
                    if !matches!(answer, Err(AdminError::Unreachable(_))) {
                        self.answered.store(index, Ordering::Relaxed);
                    }
                    return answer;
                }
            }
        }
        Err(failed.unwrap_or_else(nowhere))
    }

    /// All addresses with their places, from the one on that answered last.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &String)> {
        let first = self.answered.load(Ordering::Relaxed);
        let all = || self.urls.iter().enumerate();
        all().skip(first).chain(all().take(first))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// `GET` of one resource.
    pub async fn get(&self, path: &str) -> Result<Value, AdminError> {
        self.send(Method::GET, path, None).await
    }

    /// `GET` of one resource with its revision, where it has one.
    pub async fn get_tagged(&self, path: &str) -> Result<(Value, Option<String>), AdminError> {
        let mut failed = None;
        for url in self.in_turn().map(|(_, url)| url) {
            let request =
                self.authorized(self.http.get(format!("{url}{path}"))).timeout(ATTEMPT_MAX);
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    failed = Some(worse(failed, lost(url, &error)));
                    continue;
                }
            };
            let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
            let tag = tag.map(str::to_owned);
            match answer(url, response).await {
                Ok(text) => return Ok((parse(path, &text)?, tag)),
                Err(error) if elsewhere(&error, Again::Harmless) => {
                    failed = Some(worse(failed, error));
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(nowhere))
    }

    /// `PUT` of one resource, if it still has this revision.
    pub async fn put_at(
        &self,
        path: &str,
        body: &Value,
        revision: Option<&str>,
    ) -> Result<Value, AdminError> {
        let request = |url: &str| {
            let request = self.http.put(format!("{url}{path}")).json(body);
            match revision {
                Some(tag) => request.header("If-Match", tag),
                None => request,
            }
        };
        parse(path, &self.ask(Again::Never, request).await?)
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

    /// `PATCH` of one resource.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.send(Method::PATCH, path, Some(body)).await
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
        self.list_where(path, &[], usize::MAX).await
    }

    /// The items of a paged list that these parameters let pass, up to so many.
    pub async fn list_where(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        most: usize,
    ) -> Result<Vec<Value>, AdminError> {
        let mut items = Vec::new();
        let mut pages = Pages::of(path, parameters, most);
        while items.len() < most
            && let Some(page) = pages.next(self).await?
        {
            items.extend(page.items);
        }
        items.truncate(most);
        Ok(items)
    }
}

/// The pages of a list, one after the other.
pub struct Pages {
    /// The path with the parameters that every page has.
    path: String,
    after: Option<String>,
    over: bool,
}

/// A part of a list.
pub struct ListPage {
    /// Its items; there may be none where a filter lets few pass.
    pub items: Vec<Value>,
    /// What else the answer has beside its items.
    pub rest: serde_json::Map<String, Value>,
}

impl Pages {
    /// The pages of this list; `most` is how many items are of use.
    pub fn of(path: &str, parameters: &[(&str, &str)], most: usize) -> Self {
        let mut path = format!("{path}?limit={}", most.clamp(1, PAGE));
        for (name, value) in parameters {
            path.push_str(&format!("&{name}={}", segment(value)));
        }
        Self { path, after: None, over: false }
    }

    /// Begins behind this place instead of at the start.
    #[must_use]
    pub fn behind(mut self, after: Option<String>) -> Self {
        self.after = after;
        self
    }

    /// Whether the last page was had.
    pub fn over(&self) -> bool {
        self.over
    }

    /// The next page; `None` behind the last.
    pub async fn next(&mut self, admin: &Admin) -> Result<Option<ListPage>, AdminError> {
        if self.over {
            return Ok(None);
        }
        let from = self.after.as_deref().map(|id| format!("&after={}", segment(id)));
        let answer = admin.get(&format!("{}{}", self.path, from.unwrap_or_default())).await?;
        let no_list = || unreadable(&self.path, "no list");
        let (items, mut rest) = match answer {
            Value::Array(items) => (items, serde_json::Map::new()),
            Value::Object(mut rest) => match rest.remove("items") {
                Some(Value::Array(items)) => (items, rest),
                Some(_) | None => return Err(no_list()),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(no_list());
            }
        };
        let next = rest.remove("next").and_then(|next| match next {
            Value::String(next) => Some(next),
            Value::Number(next) => Some(next.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        // A page that repeats its own start would never end.
        self.over = next.is_none() || next == self.after;
        self.after = next;
        Ok(Some(ListPage { items, rest }))
    }
}

/// The address for HTTP of one that may be for WebSockets.
fn plain(url: String) -> String {
    match url.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(_) | None => url,
    }
}

/// An answer's body, `Null` where there is none.
fn parse(path: &str, text: &str) -> Result<Value, AdminError> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|error| unreadable(path, &format!("not JSON, {error}")))
}

/// An answer that is not what was asked for. Its text is not repeated: it may be anything.
fn unreadable(path: &str, what: &str) -> AdminError {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    AdminError::Unreadable(format!("the answer to {path} cannot be read: {what}"))
}

/// Whether another address is asked after this answer.
fn elsewhere(error: &AdminError, again: Again) -> bool {
    match (error, again) {
        (AdminError::Unreachable(_), Again::Harmless) => true,
        (AdminError::Unreachable(_), Again::Never) | (AdminError::Unreadable(_), _) => false,
        (AdminError::Problem(problem), Again::Harmless) => {
            problem.status == 503 && problem.retryable
        }
        // Nothing was done: else the code would be `unknown-outcome`.
        (AdminError::Problem(problem), Again::Never) => {
            problem.status == 503 && problem.retryable && problem.code == "unavailable"
        }
    }
}

/// Of two failures the one to tell: what a broker says tells more than that there is none.
fn worse(before: Option<AdminError>, now: AdminError) -> AdminError {
    match (before, now) {
        (Some(before @ AdminError::Problem(_)), AdminError::Unreachable(_)) => before,
        (_, now) => now,
    }
}

fn nowhere() -> AdminError {
    AdminError::Unreachable("there is no address".to_owned())
}

fn lost(url: &str, error: &reqwest::Error) -> AdminError {
    AdminError::Unreachable(format!("{url}: {}", causes(error)))
}

async fn answer(url: &str, response: reqwest::Response) -> Result<String, AdminError> {
    let status = response.status();
    let text = response.text().await.map_err(|error| lost(url, &error))?;
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
    let retryable = body.get("retryable").and_then(Value::as_bool).unwrap_or(false);
    Problem { status: status.as_u16(), code, detail, retryable }
}

/// What is behind an error, in its innermost words.
pub fn causes(error: &dyn std::error::Error) -> String {
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
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn names_are_data_in_a_path() {
        assert_eq!(segment("a b/c?d"), "a%20b%2Fc%3Fd");
        assert_eq!(segment("boiler-1.x_y~"), "boiler-1.x_y~");
    }

    /// A node that gives each request the same answer, and counts them; without one it hangs.
    fn node(answer: Option<&'static str>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // The request is in one piece as long as it is short.
                let read = stream.read(&mut [0; 4096]).unwrap();
                count.fetch_add(usize::from(read > 0), Ordering::SeqCst);
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                    None => hanging.push(stream),
                }
            }
        });
        (url, asked)
    }

    fn ask(method: Method, nodes: &[&str]) -> Result<String, AdminError> {
        let admin = Admin::new(nodes.iter().map(|url| (*url).to_owned()).collect(), None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(admin.text(method, "/v1/x", None))
    }

    const DONE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone";
    const UNAVAILABLE: &str = "HTTP/1.1 503 x\r\ncontent-length: 39\r\nconnection: close\r\n\r\n\
                               {\"code\":\"unavailable\",\"retryable\":true}";
    const BUSY: &str = "HTTP/1.1 503 x\r\ncontent-length: 32\r\nconnection: close\r\n\r\n\
                        {\"code\":\"busy\",\"retryable\":true}";
    const CONFLICT: &str = "HTTP/1.1 409 x\r\ncontent-length: 19\r\nconnection: close\r\n\r\n\
                            {\"code\":\"conflict\"}";

    #[test]
    fn another_node_is_asked_when_the_first_one_did_nothing() {
        let ((done, _), gone) = (node(Some(DONE)), "http://127.0.0.1:1");
        let ((unavailable, _), (busy, _)) = (node(Some(UNAVAILABLE)), node(Some(BUSY)));
        let (conflict, _) = node(Some(CONFLICT));
        for method in [Method::GET, Method::POST] {
            assert_eq!(ask(method.clone(), &[gone, &unavailable, &done]).unwrap(), "done");
            let code = |nodes: &[&str]| match ask(method.clone(), nodes) {
                Err(AdminError::Problem(problem)) => problem.code,
                other => panic!("{other:?}"),
            };
            assert_eq!(code(&[&conflict, &done]), "conflict");
            assert_eq!(code(&[&unavailable, gone]), "unavailable");
        }
        assert_eq!(ask(Method::GET, &[&busy, &done]).unwrap(), "done");
        let refused = ask(Method::POST, &[&busy, &done]);
        assert!(matches!(refused, Err(AdminError::Problem(_))), "{refused:?}");
    }

    #[test]
    fn a_node_that_hangs_does_not_keep_a_read_from_the_next_one() {
        let ((hung, asked), (done, _)) = (node(None), node(Some(DONE)));
        let admin = Admin::new(vec![hung, done], None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for method in [Method::GET, Method::GET, Method::POST] {
            let answer = runtime.block_on(admin.text(method, "/v1/x", None));
            assert_eq!(answer.unwrap(), "done");
        }
        // The node that answered is asked first from then on.
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_problem_names_the_field_once() {
        let text = r#"{"detail":"too long","field":"name","code":"invalid"}"#;
        let problem = problem(StatusCode::UNPROCESSABLE_ENTITY, text);
        assert_eq!((problem.detail.as_str(), problem.code.as_str()), ("name: too long", "invalid"));
    }
}
