//! One request: a right one, or one with something wrong in it, and what is to be expected then.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::chance::Chance;
use crate::document::{Document, Operation};
use crate::raw::Request;
use crate::support::ADMIN;
use crate::world::World;

/// See the module.
pub struct Case {
    pub request: Request,
    /// What is wrong with it, or that nothing is.
    pub about: String,
    /// Whether it must not be taken.
    pub is_wrong: bool,
    /// The status of the refusal, where that is certain.
    pub refused: Option<u16>,
    /// What it may be instead.
    pub may_be: Vec<u16>,
    /// Whether its path may name nothing at all.
    pub leads_nowhere: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, target, headers, body } = &self.request;
        let body: String = String::from_utf8_lossy(body).chars().take(2000).collect();
        write!(f, "{}: {method} {target} {headers:?}\n{body}", self.about)
    }
}

/// Texts that are no names, or that something may stumble over.
const ODD: [&str; 14] = [
    "x",
    "..",
    "a/b",
    "a b",
    "-a",
    "\u{0}",
    "\u{202e}\u{fe0f}",
    "\u{1f4a9}\u{200d}",
    "%s%n",
    "' or 1=1 --",
    "<script>",
    "null",
    "ﬃ İ ß",
    "a\r\nb: c",
];

/// Numbers at which something may break.
const NUMBERS: [&str; 12] = [
    "-1",
    "0",
    "1",
    "1001",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "1e999",
    "0.5",
    "1.0",
];

fn odd(chance: &mut Chance) -> String {
    match chance.below(20) {
        0 => "y".repeat(3000),
        1 => (*chance.pick(&NUMBERS)).to_owned(),
        _ => (*chance.pick(&ODD)).to_owned(),
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// A request to an operation.
pub fn make(
    chance: &mut Chance,
    operation: &Operation,
    document: &Document,
    world: &World,
) -> Case {
    let mut case = right(chance, operation, document, world);
    // A third of all requests is right.
    match chance.below(12) {
        0 | 1 => wrong_query(chance, operation, &mut case),
        2..=4 => wrong_body(chance, operation, document, &mut case),
        5 => wrong_token(chance, operation, world, &mut case),
        6 => wrong_path(chance, operation, world, &mut case),
        7 => wrong_headers(chance, operation, &mut case),
        _ => {}
    }
    case
}

fn right(chance: &mut Chance, operation: &Operation, document: &Document, world: &World) -> Case {
    let mut query = Vec::new();
    for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "query") {
        if parameter["required"] == true || chance.once_in(3) {
            let name = parameter["name"].as_str().unwrap();
            query.push(format!("{name}={}", encode(&right_value(chance, parameter))));
        }
    }
    let path = world.fill(operation);
    let target = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
    let mut request = Request::new(&operation.method, &target);
    request = request.bearer(world.token(operation));
    if let Some((media, schema)) = &operation.body {
        if schema.is_null() {
            match &*operation.id {
                "post-raise" if !target.contains("null=") => {
                    request = request.header("Content-Type", "application/json");
                    request.body = br#"{"n": 7}"#.to_vec();
                }
                "post-events" => {
                    request = request.header("Content-Type", media);
                    let lines =
                        ["{\"event\": \"reading\", \"args\": 1}\n", "{\"event\": 1}\n", "\n", "{"];
                    request.body =
                        (0..4).map(|_| *chance.pick::<&str>(&lines)).collect::<String>().into();
                }
                _ => {}
            }
        } else {
            let sensible = world.sensible(&operation.id, chance).filter(|_| !chance.once_in(4));
            let body = sensible.unwrap_or_else(|| value(chance, schema, document, 0));
            request = request.header("Content-Type", media);
            request.body = body.to_string().into_bytes();
        }
    }
    if chance.once_in(8) {
        let key = format!("key-{}", chance.below(4));
        request = request.header("Idempotency-Key", key);
    }
    Case {
        request,
        about: "nothing".to_owned(),
        is_wrong: false,
        refused: None,
        may_be: Vec::new(),
        leads_nowhere: false,
    }
}

fn right_value(chance: &mut Chance, parameter: &Value) -> String {
    let schema = &parameter["schema"];
    if let Some(texts) = schema["enum"].as_array() {
        return chance.pick(texts).as_str().unwrap().to_owned();
    }
    match (schema["type"].as_str().unwrap(), parameter["name"].as_str().unwrap()) {
        ("array", "event") => (*chance.pick(&["reading", "state"])).to_owned(),
        (_, "wait") => (*chance.pick(&["0", "5ms"])).to_owned(),
        ("boolean", _) => (*chance.pick(&["true", "false", ""])).to_owned(),
        ("integer", _) => {
            let (min, max) = (&schema["minimum"], &schema["maximum"]);
            let few = min.as_u64().unwrap() + chance.below(3) as u64;
            if chance.once_in(4) { max.to_string() } else { few.to_string() }
        }
        (_, "site") => "demo".to_owned(),
        (_, "cursor") => (*chance.pick(&["queue/", "subscription/c/0", "push/"])).to_owned(),
        (_, "attempt") => format!("{:032x}", chance.next()),
        (_, "principal") => (*chance.pick(&["admin", "client:c", "service:"])).to_owned(),
        _ => (*chance.pick(&["c", "s", "u", "reading", "operator", "", "demo"])).to_owned(),
    }
}

/// A value of a schema.
fn value(chance: &mut Chance, schema: &Value, document: &Document, depth: usize) -> Value {
    let schema = document.resolve(schema);
    for several in ["oneOf", "anyOf"] {
        if let Some(kinds) = schema[several].as_array() {
            let kind = chance.pick(kinds).clone();
            return value(chance, &kind, document, depth);
        }
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(texts) = schema["enum"].as_array() {
        return chance.pick(texts).clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => chance.pick(kinds).as_str().unwrap().to_owned(),
        Value::String(kind) => kind.clone(),
        _ => return json!(["anything", 1, null]),
    };
    match kind.as_str() {
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut map = Map::new();
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if required.iter().any(|other| other == name) || chance.once_in(2) {
                    map.insert(name.clone(), value(chance, property, document, depth + 1));
                }
            }
            Value::Object(map)
        }
        "array" => {
            let count = if depth > 4 { 0 } else { chance.below(3) };
            (0..count).map(|_| value(chance, &schema["items"], document, depth + 1)).collect()
        }
        "string" if chance.once_in(6) => json!(odd(chance)),
        "string" => json!(chance.pick(&["operator", "u", "c", "s", "reading", "state", "A 1"])),
        "integer" => json!(chance.pick(&[0_u64, 1, 2, 60, 3600, 1 << 31, (1 << 53) - 1])),
        "boolean" => json!(chance.once_in(2)),
        _ => Value::Null,
    }
}

/// Marks that a refusal is certain. Who may not is told so first.
fn expect(case: &mut Case, about: impl Into<String>, status: u16) {
    case.about = about.into();
    case.is_wrong = true;
    case.refused = Some(status);
}

fn add_query(case: &mut Case, part: &str) {
    let separator = if case.request.target.contains('?') { '&' } else { '?' };
    case.request.target.push(separator);
    case.request.target.push_str(part);
}

fn wrong_query(chance: &mut Chance, operation: &Operation, case: &mut Case) {
    // What is open to everyone looks at no query; a socket's address looks at the upgrade first.
    if !operation.secured && !operation.answers.contains_key("422") {
        return add_query(case, "x=1");
    }
    let names: Vec<(&str, &Value)> = operation
        .parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .map(|parameter| (parameter["name"].as_str().unwrap(), &parameter["schema"]))
        .collect();
    let path = case.request.target.split('?').next().unwrap().to_owned();
    match chance.below(3) {
        0 => {
            add_query(case, &format!("{}=1", encode(&format!("x{}", odd(chance)))));
            expect(case, "an unknown parameter", 422);
        }
        1 => {
            add_query(case, "%ff=%fe");
            expect(case, "a query that is not UTF-8", 422);
        }
        _ if names.is_empty() => {}
        _ => {
            let (name, schema) = *chance.pick(&names);
            if chance.once_in(3) && schema["type"] != "array" {
                case.request.target = format!("{path}?{name}=1&{name}=1");
                return expect(case, format!("{name} twice"), 422);
            }
            let text = odd(chance);
            case.request.target = format!("{path}?{name}={}", encode(&text));
            case.about = format!("{name}={text:?}");
            let fits = match schema["type"].as_str().unwrap() {
                "integer" => text.parse::<u64>().is_ok_and(|number| {
                    number >= schema["minimum"].as_u64().unwrap()
                        && number <= schema["maximum"].as_u64().unwrap()
                }),
                "boolean" => ["true", "false", ""].contains(&text.as_str()),
                _ => match schema["enum"].as_array() {
                    Some(texts) => texts.iter().any(|known| *known == text.as_str()),
                    None => schema.get("pattern").is_none(),
                },
            };
            if !fits {
                let about = case.about.clone();
                expect(case, about, 422);
            }
        }
    }
}

fn wrong_body(chance: &mut Chance, operation: &Operation, document: &Document, case: &mut Case) {
    let Some((_, schema)) = &operation.body else {
        // A body where none is expected is not looked at.
        case.request.body = b"{}".to_vec();
        return;
    };
    if schema.is_null() {
        case.request.body = (0..chance.below(200)).map(|_| chance.next() as u8).collect();
        case.about = "noise".to_owned();
        return;
    }
    let text = |case: &Case| String::from_utf8_lossy(&case.request.body).into_owned();
    match chance.below(12) {
        0 => {
            let mut cut = text(case);
            cut.truncate(cut.len().saturating_sub(1));
            case.request.body = format!("{cut} ").into_bytes();
            // Nothing at all is an empty object.
            if !cut.trim().is_empty() {
                expect(case, "a body that is cut", 422);
            }
        }
        1 => {
            case.request.body.extend_from_slice(b" {}");
            expect(case, "two bodies", 422);
        }
        2 => {
            case.request.body = b"{\"\xff\": 1}".to_vec();
            expect(case, "a body that is not UTF-8", 422);
        }
        3 => {
            case.request.body = "[".repeat(60_000).into_bytes();
            expect(case, "a deep body", 422);
        }
        4 => {
            let deep = format!("{{\"x\":{}{}}}", "{\"x\":".repeat(300), "}".repeat(300));
            case.request.body = deep.into_bytes();
            expect(case, "a deep body", 422);
        }
        5 if chance.once_in(4) => {
            case.request.body = vec![b' '; (1 << 20) + 1];
            expect(case, "a body that is too large", 413);
        }
        _ => {
            let Ok(mut body) = serde_json::from_slice(&case.request.body) else { return };
            mutate(chance, &mut body);
            let mut body = body.to_string();
            if chance.once_in(5) {
                // A number that JSON has and no type.
                let number: &str = chance.pick::<&str>(&NUMBERS);
                body = body.replacen('1', number, 1);
            }
            case.request.body = body.clone().into_bytes();
            case.about = "a changed body".to_owned();
            let read = serde_json::from_str::<Value>(&body);
            let fits = read.is_ok_and(|body| document.fits(schema, &body).is_ok());
            if !fits {
                expect(case, "a body that is not as described", 422);
            }
        }
    }
}

/// Changes a value somewhere inside.
fn mutate(chance: &mut Chance, value: &mut Value) {
    let inside = !chance.once_in(3);
    match value {
        Value::Object(map) if inside && !map.is_empty() => {
            let names: Vec<String> = map.keys().cloned().collect();
            let name = chance.pick(&names).clone();
            match chance.below(4) {
                0 => drop(map.remove(&name)),
                1 => drop(map.insert(odd(chance), json!(1))),
                _ => mutate(chance, map.get_mut(&name).unwrap()),
            }
        }
        Value::Array(items) if inside && !items.is_empty() => {
            let at = chance.below(items.len());
            mutate(chance, &mut items[at]);
        }
        other => {
            *other = match chance.below(9) {
                0 => Value::Null,
                1 => json!(-1),
                2 => json!(u64::MAX),
                3 => json!(0.5),
                4 => json!([]),
                5 => json!({}),
                6 => json!(true),
                7 => json!(""),
                _ => json!(odd(chance)),
            }
        }
    }
}

fn wrong_token(chance: &mut Chance, operation: &Operation, world: &World, case: &mut Case) {
    let headers = &mut case.request.headers;
    headers.retain(|(name, _)| name != "Authorization");
    let mut give = |value: String| headers.push(("Authorization".to_owned(), value));
    let about = match chance.below(7) {
        0 => "no token",
        1 => {
            give("Basic YTpi".to_owned());
            "another scheme"
        }
        2 => {
            give("Bearer".to_owned());
            "half a header"
        }
        3 => {
            give(format!("Bearer {}", world.foreign));
            "a token of another site"
        }
        4 => {
            give(format!("Bearer {ADMIN}"));
            give(format!("Bearer {ADMIN}"));
            "two tokens"
        }
        5 => {
            give(format!("Bearer ak_t1_{}", "A".repeat(chance.below(100))));
            "an unknown token"
        }
        _ => {
            let token = *chance.pick(&world.tokens());
            give(format!("Bearer {token}"));
            case.about = "a token that may do something".to_owned();
            // Only who administers changes anything; a service raises.
            let observer = token == world.demo.observer;
            if observer && operation.needs.contains("administ") {
                expect(case, "an observer's token", 403);
                // Above the sites only one token is known.
                case.may_be = vec![401];
            }
            return;
        }
    };
    if operation.secured && !operation.answers.contains_key("101") {
        expect(case, about, 401);
    }
}

fn wrong_path(chance: &mut Chance, operation: &Operation, world: &World, case: &mut Case) {
    let mut path = operation.template.clone();
    while let Some(start) = path.find('{') {
        let end = path.find('}').unwrap();
        let name = match chance.below(4) {
            0 => "%ff".to_owned(),
            1 => world.name(&path[start + 1..end], operation),
            _ => encode(&odd(chance)),
        };
        path.replace_range(start..=end, &name);
    }
    case.about = "an odd path".to_owned();
    case.leads_nowhere = true;
    let query = case.request.target.split_once('?').map(|(_, query)| query.to_owned());
    case.request.target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
}

fn wrong_headers(chance: &mut Chance, operation: &Operation, case: &mut Case) {
    let keyed = operation.parameters.iter().any(|parameter| parameter["in"] == "header");
    let mut give = |name: &str, value: String| {
        case.request.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        case.request.headers.push((name.to_owned(), value));
    };
    match chance.below(4) {
        0 => {
            give("Idempotency-Key", "k".repeat(256));
            case.about = "a key that is too long".to_owned();
            // Whether the key or something else is judged first is not said.
            case.is_wrong = keyed;
        }
        1 => {
            give("Idempotency-Key", String::new());
            case.about = "an empty key".to_owned();
            case.is_wrong = keyed;
        }
        2 => {
            give("Content-Type", odd(chance).replace(|c: char| !c.is_ascii_graphic(), "?"));
            case.about = "an odd media type".to_owned();
        }
        _ => {
            give("Accept", "image/png".to_owned());
            case.about = "a wish for a picture".to_owned();
        }
    }
}
