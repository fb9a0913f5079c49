//! Whoever loses what opened a session loses the session, at every node: a token that is revoked or
//! ends by itself, an account that is kicked or deleted.
//!
//! Figures: `ackord bench revocation`. Here only the outcome counts.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ackord_wire::{ClientMessage, ServiceMessage};
use cluster_tests::admin::Admin;
use cluster_tests::cluster::Cluster;
use cluster_tests::plain::{Plain, Stream};
use cluster_tests::raw::{RawClient, RawService, service_hello, to};
use cluster_tests::site::{queueing, structure, with};
use cluster_tests::wait;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const SITE: &str = "one";
const EVENT: &str = "reading";
/// Ten times what is promised.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long the tokens that end by themselves last: until all sessions are open.
const LIFETIME_S: u64 = 15;

/// An open session, or a question that waits.
enum Session {
    Socket(RawClient),
    Service(RawService),
    Stream(Stream),
    Poll(JoinHandle<(u16, Value)>),
}

/// How a session ended.
#[derive(Debug, PartialEq)]
struct Ended {
    code: String,
    /// Of the WebSocket's close, or the status.
    number: Option<u16>,
    /// Whether to come again.
    again: bool,
}

impl Session {
    /// Waits for the end and says how it came.
    async fn end(self) -> anyhow::Result<Ended> {
        let mut closing: Option<(String, bool)> = None;
        let number = match self {
            Self::Socket(mut client) => loop {
                match client.next().await? {
                    Ok(ClientMessage::Closing(told)) => {
                        closing = Some((told.code.to_string(), told.reconnect));
                    }
                    Ok(_) => {}
                    Err(closed) => break closed.number,
                }
            },
            Self::Service(mut service) => loop {
                match service.next().await? {
                    Ok(ServiceMessage::Closing(told)) => {
                        closing = Some((told.code.to_string(), told.reconnect));
                    }
                    Ok(_) => {}
                    Err(closed) => break closed.number,
                }
            },
            Self::Stream(mut stream) => {
                while let Some(told) = stream.next().await? {
                    if told.event == "@closing" {
                        closing = Some((text(&told.data["code"]), told.data["reconnect"] == true));
                    }
                }
                None
            }
            Self::Poll(asked) => {
                let (status, problem) = asked.await?;
                closing = Some((text(&problem["code"]), problem["retryable"] == true));
                Some(status)
            }
        };
        let (code, again) = closing.unwrap_or_default();
        Ok(Ended { code, number, again })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An account of the site whose sessions are to end.
struct Account {
    /// `clients` or `services`.
    kind: &'static str,
    id: String,
    token: String,
    token_id: String,
}

/// Registers an account with a token.
async fn account(admin: &Admin, kind: &'static str, id: String, lasts: Option<u64>) -> Account {
    let call = async |method: Method, path: String, body: Value| {
        let path = format!("/v1/sites/{SITE}/{path}");
        admin.call(method, &path, Some(body)).await.expect("it is taken")
    };
    call(Method::PUT, format!("{kind}/{id}"), json!({})).await;
    let principal = if kind == "clients" { json!({"client": id}) } else { json!({"service": id}) };
    let body = json!({"principal": principal, "expires_in_s": lasts});
    let made = call(Method::POST, "tokens".to_owned(), body).await;
    Account { kind, id, token: text(&made["token"]), token_id: text(&made["id"]) }
}

/// Opens every kind of session at every node, each of an account of its own but for the polls, which
/// are all of one.
async fn sessions(
    cluster: &Cluster,
    admin: &Admin,
    lasts: Option<u64>,
) -> (Vec<Account>, Vec<(String, Session)>) {
    let (mut accounts, mut sessions) = (Vec::new(), Vec::new());
    let asker = account(admin, "clients", "asker".to_owned(), lasts).await;
    // It subscribes once, so that the questions find all as it is.
    let plain = Plain::new(SITE, Some(&asker.token));
    plain.next(cluster.url(1), &format!("event={EVENT}&wait=0")).await.expect("nothing yet");
    for node in cluster.nodes() {
        let url = cluster.url(node);
        let socket = account(admin, "clients", format!("socket-{node}"), lasts).await;
        let items = vec![to(EVENT)];
        let (client, _) =
            RawClient::subscribed(url, SITE, Some(&socket.token), items).await.expect("a session");
        sessions.push((format!("socket at {node}"), Session::Socket(client)));

        let service = account(admin, "services", format!("service-{node}"), lasts).await;
        let hello = service_hello(&format!("{node:032x}"), None);
        let opened = RawService::open(url, SITE, &service.token, hello).await.expect("a session");
        sessions.push((format!("service at {node}"), Session::Service(opened)));

        let browser = account(admin, "clients", format!("browser-{node}"), lasts).await;
        let stream = Plain::new(SITE, Some(&browser.token));
        let query = format!("event={EVENT}");
        let mut stream = stream.stream(url, &query, None).await.expect("a stream");
        while stream.next().await.expect("a head").expect("a head").event != "@subscribed" {}
        sessions.push((format!("stream at {node}"), Session::Stream(stream)));

        let (plain, url) = (plain.clone(), url.to_owned());
        let asked = tokio::spawn(async move {
            plain.ask(&url, &format!("event={EVENT}&wait=60s")).await.expect("an answer")
        });
        sessions.push((format!("poll at {node}"), Session::Poll(asked)));
        accounts.extend([socket, service, browser]);
    }
    accounts.push(asker);
    for node in cluster.nodes() {
        let metrics = format!("{}/metrics", cluster.url(node));
        wait::until_true("the question waits", async || {
            let Ok(answer) = reqwest::get(&metrics).await else { return false };
            let text = answer.text().await.unwrap_or_default();
            text.lines().any(|line| line == "ackord_sessions{kind=\"poll\"} 1")
        })
        .await;
    }
    (accounts, sessions)
}

/// What takes the sessions' ground away.
#[derive(Clone, Copy, Debug)]
enum Act {
    Revoke,
    Expire,
    Kick,
    Delete,
}

impl Act {
    /// The request that does it, of one account.
    fn request(self, account: &Account) -> Option<(Method, String)> {
        let Account { kind, id, token_id, .. } = account;
        match self {
            Self::Revoke => Some((Method::DELETE, format!("tokens/{token_id}"))),
            Self::Expire => None,
            Self::Kick => Some((Method::POST, format!("{kind}/{id}/kick"))),
            Self::Delete => Some((Method::DELETE, format!("{kind}/{id}"))),
        }
    }

    /// What everybody is told: the code, the number of a WebSocket's close, the status, and whether
    /// to come again.
    fn told(self) -> (&'static str, u16, u16, bool) {
        match self {
            Self::Revoke => ("bad-credentials", 4501, 401, false),
            Self::Expire => ("credentials-expired", 4413, 401, true),
            Self::Kick => ("kicked", 4410, 409, true),
            Self::Delete => ("not-registered", 4502, 404, false),
        }
    }
}

async fn check(act: Act) {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let admin = cluster.admin(2);
    admin.put_site(SITE, json!({"multi_service": true})).await.expect("a site");
    let declared = with(structure(&[queueing(EVENT, 10)]), "guests", json!("guest"));
    admin.put_structure(SITE, &declared).await.expect("a structure");
    let lasts = matches!(act, Act::Expire).then_some(LIFETIME_S);
    let before = Instant::now();
    let (accounts, sessions) = sessions(&cluster, &admin, lasts).await;
    let mut begun = Instant::now();
    if let Some(lasts) = lasts {
        assert!(begun - before < Duration::from_secs(lasts), "the tokens ended too soon");
        begun = before + Duration::from_secs(lasts);
    }
    // All at once, each at another node.
    let acting = accounts.iter().enumerate().filter_map(|(number, account)| {
        let (method, path) = act.request(account)?;
        let admin = cluster.admin(1 + number % cluster.size());
        Some(async move { admin.call(method, &format!("/v1/sites/{SITE}/{path}"), None).await })
    });
    let acting = join_all(acting);
    let ending = join_all(sessions.into_iter().map(|(name, session)| async move {
        let limit = begun.max(Instant::now()) + DEADLINE;
        let ended = tokio::time::timeout_at(limit.into(), session.end()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{act:?}: the {name} goes on"));
        (name, ended.expect("an end"), Instant::now())
    }));
    let (acted, ended) = tokio::join!(acting, ending);
    for done in acted {
        done.expect("it is done");
    }
    let last = ended.iter().map(|(_, _, at)| *at).max().expect("there are sessions");
    println!("{act:?}: the last of {} sessions ended after {:?}", ended.len(), last - begun);
    let (code, number, status, again) = act.told();
    let mut names = BTreeSet::new();
    for (name, ended, _) in ended {
        let (number, again) = match name.split(' ').next() {
            Some("stream") => (None, again),
            // The same request again is refused where it takes another credential.
            Some("poll") => (Some(status), again && status != 401),
            _ => (Some(number), again),
        };
        assert_eq!(ended, Ended { code: code.to_owned(), number, again }, "{act:?}: {name}");
        names.insert(name);
    }
    assert_eq!(names.len(), 12, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_sessions_at_every_node() {
    check(Act::Revoke).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_by_itself_ends_its_sessions_at_every_node() {
    check(Act::Expire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kick_ends_the_sessions_of_an_account_at_every_node() {
    check(Act::Kick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_account_loses_its_sessions_at_every_node() {
    check(Act::Delete).await;
}
