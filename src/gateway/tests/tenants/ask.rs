//! One request of somebody of the first tenant, with something of the other one in it.

use serde_json::{Value, json};

use crate::case::Case;
use crate::chance::Chance;
use crate::document::Operation;
use crate::raw::Request;
use crate::rival::Loot;
use crate::support::ADMIN;
use crate::world::World;

/// What an operation is to a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It is of a site: nothing of another one shows in it.
    Site,
    /// It is of the node or of all sites: nobody of a site gets anything.
    Node,
    /// It is open to everyone and the same for everyone.
    Open,
    /// It is of one site, which the query names, and tells of moments.
    Figures,
    /// It is open to everyone and counts what all sites do together: it names none of them.
    Totals,
}

impl Scope {
    /// Judged by the address. A new one above the sites has to be added here.
    pub fn of(operation: &Operation) -> Self {
        match &*operation.template {
            "/openapi.json" | "/healthz/live" | "/healthz/startup" | "/healthz/ready" => Self::Open,
            "/metrics/detailed" => Self::Figures,
            "/metrics" => Self::Totals,
            "/v1/sites" | "/v1/audit" | "/v1/node" | "/v1/node/reload" => Self::Node,
            template if template.starts_with("/v1/cluster") => Self::Node,
            "/v1/sites/{site}" => Self::Site,
            template if template.starts_with("/v1/sites/{site}/") => Self::Site,
            other => panic!("what is {other} to a tenant?"),
        }
    }
}

/// Who asks: a kind of bearer, known by its number in all worlds.
const KINDS: usize = 7;

/// The token of this kind in a world of the first tenant; `None` is nobody.
fn bearer(kind: usize, world: &World, operator: &str) -> Option<String> {
    let demo = &world.demo;
    let token = match kind {
        0 | 1 => &demo.admin,
        2 => operator,
        3 => &demo.observer,
        4 => &demo.service,
        5 => &demo.client,
        _ => return None,
    };
    Some(token.to_owned())
}

/// Whose address a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Own,
    Rival,
    Missing,
}

/// Turns a case into a request of the first tenant. Draws the same in every world.
pub fn wear(
    chance: &mut Chance,
    operation: &Operation,
    case: Case,
    (world, operator): (&World, &str),
    (rival, loot): (&str, &Loot),
) -> (Request, At) {
    let mut request = case.request;
    request.headers.retain(|(name, _)| name != "Authorization");
    let kind = chance.below(KINDS + 2);
    let mut at = *chance.pick(&[At::Own, At::Own, At::Own, At::Rival, At::Missing]);
    let stolen = chance.pick(&loot.bearers).clone();
    let token = if kind < KINDS { bearer(kind, world, operator) } else { Some(stolen) };
    if kind >= KINDS {
        // At the other's address its token is good, and that is how it should be.
        at = if at == At::Rival { At::Own } else { at };
    }
    if chance.below(3) > 0 {
        lure(chance, operation, &mut request, loot);
    }
    if let Some(site) = match at {
        At::Own => None,
        At::Rival => Some(rival),
        At::Missing => Some("missing"),
    } {
        request.target = elsewhere(&request.target, site);
    }
    steady(operation, &mut request);
    if operation.answers.contains_key("101") && chance.once_in(2) {
        let protocol = ("Sec-WebSocket-Protocol", "ackord.v1.json");
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            protocol,
        ] {
            request = request.header(name, value);
        }
    }
    if let Some(token) = token {
        assert_ne!(token, ADMIN);
        request = request.bearer(&token);
    }
    (request, at)
}

/// The same address of another site.
fn elsewhere(target: &str, site: &str) -> String {
    if let Some((address, query)) =
        target.split_once("?").filter(|(at, _)| *at == "/metrics/detailed")
    {
        let part = |part: &str| match part.starts_with("site=") {
            true => format!("site={site}"),
            false => part.to_owned(),
        };
        let query: Vec<String> = query.split('&').map(part).collect();
        return format!("{address}?{}", query.join("&"));
    }
    let Some(rest) = target.strip_prefix("/v1/sites/") else { return target.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    format!("/v1/sites/{site}{}", &rest[end..])
}

/// Puts something of the other tenant into a request.
fn lure(chance: &mut Chance, operation: &Operation, request: &mut Request, loot: &Loot) {
    let word = chance.pick(&loot.words).clone();
    match chance.below(6) {
        0 => {
            request.target = replace_segment(chance, &operation.template, &request.target, &word);
        }
        1 | 2 => {
            let names: Vec<&str> = operation
                .parameters
                .iter()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            if names.is_empty() {
                return;
            }
            let name = *chance.pick(&names);
            let of = match name {
                "after" if operation.id == "get-next" => &loot.positions,
                "after" => &loot.cursors,
                "last_event_id" => &loot.positions,
                "ticket" => &loot.tickets,
                _ => &loot.words,
            };
            let value = chance.pick(of).clone();
            let value = if name == "principal" { format!("client:{value}") } else { value };
            let value = value.replace('/', "%2F").replace(' ', "%20");
            let path = request.target.split('?').next().unwrap();
            request.target = format!("{path}?{name}={value}");
            for parameter in &operation.parameters {
                let (other, required) = (&parameter["name"], &parameter["required"]);
                if required == true && parameter["in"] == "query" && other != name {
                    request.target.push_str(&format!("&{}=reading", other.as_str().unwrap()));
                }
            }
        }
        3 => {
            let (name, value) = match chance.below(4) {
                0 => ("Idempotency-Key", chance.pick(&loot.keys).clone()),
                1 => ("If-Match", chance.pick(&loot.tags).clone()),
                2 => ("Last-Event-ID", chance.pick(&loot.positions).clone()),
                _ => ("Request-Id", chance.pick(&loot.keys).clone()),
            };
            request.headers.retain(|(other, _)| other != name);
            request.headers.push((name.to_owned(), value));
        }
        _ if operation.id == "post-ack" => {
            let ack = chance.pick(&loot.acks).clone();
            request.body = if chance.once_in(2) {
                json!({ "token": ack }).to_string().into_bytes()
            } else {
                json!({ "tokens": [ack, word] }).to_string().into_bytes()
            };
        }
        _ => {
            if let Ok(mut body) = serde_json::from_slice::<Value>(&request.body) {
                replace_text(chance, &mut body, &word);
                request.body = body.to_string().into_bytes();
            }
        }
    }
}

/// Names something else in a path, not the site.
fn replace_segment(chance: &mut Chance, template: &str, target: &str, word: &str) -> String {
    let named: Vec<usize> = template
        .split('/')
        .enumerate()
        .filter(|(_, part)| part.starts_with('{') && *part != "{site}")
        .map(|(at, _)| at)
        .collect();
    if named.is_empty() {
        return target.to_owned();
    }
    let at = *chance.pick(&named);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parts: Vec<&str> = path.split('/').collect();
    if let Some(part) = parts.get_mut(at) {
        *part = word;
    }
    let path = parts.join("/");
    if query.is_empty() { path } else { format!("{path}?{query}") }
}

/// Replaces a text somewhere inside.
fn replace_text(chance: &mut Chance, value: &mut Value, word: &str) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let at = chance.below(map.len());
            replace_text(chance, map.values_mut().nth(at).unwrap(), word);
        }
        Value::Array(items) if !items.is_empty() => {
            let at = chance.below(items.len());
            replace_text(chance, &mut items[at], word);
        }
        Value::String(text) => word.clone_into(text),
        _ => {}
    }
}

/// Takes out what ends by the clock while the test runs, and what would be named at random.
fn steady(operation: &Operation, request: &mut Request) {
    if request.target.contains("lifetime_s=") {
        request.target = request.target.split('?').next().unwrap().to_owned();
    }
    if let Ok(mut body) = serde_json::from_slice::<Value>(&request.body)
        && let Some(seconds) = body.get_mut("expires_in_s").filter(|it| it.is_u64())
        && seconds.as_u64() < Some(3600)
    {
        *seconds = json!(3600);
        request.body = body.to_string().into_bytes();
    }
    let keyed = |name: &str| name == "Idempotency-Key" || name == "Request-Id";
    if operation.id == "post-tokens" && !request.headers.iter().any(|(name, _)| keyed(name)) {
        let key = format!("made-{:x}", crate::fingerprint(&request.body));
        request.headers.push(("Idempotency-Key".to_owned(), key));
    }
}
