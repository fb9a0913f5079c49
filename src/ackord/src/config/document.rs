//! What the table of keys says of itself: the example file, the page of the documentation, the JSON
//! Schema, and the values in force.

use std::fmt::Write as _;

use ackord_gateway::LEEWAY_S_MAX;
use serde_json::{Map, Value as Json, json};

use super::issuers::{FIELDS, ISSUERS_MAX, Kind};
use super::judge::Config;
use super::key::{Change, Key, Type, Value};
use super::settings::Settings;
use super::sources::Origin;
use super::table::{self, SECTIONS};

/// What the page says before the keys.
const INTRODUCTION: &str = include_str!("introduction.md");
/// Longest line of a comment in the example, characters.
const COMMENT_WIDTH: usize = 100;
/// What is shown instead of a secret.
const HIDDEN: &str = "(hidden)";

/// The default of a key as TOML; none where it is unset.
fn default_of(key: &Key) -> Option<String> {
    match key.get(&Settings::default()) {
        Value::None => None,
        value => Some(value.to_string()),
    }
}

/// A file with every key: what is commented out shows its default, or an example of a value.
pub fn example() -> String {
    let mut out = String::from(
        "# The configuration of `ackord serve`. What is commented out shows its default, or what may\n\
         # be written there.\n",
    );
    for section in SECTIONS {
        if !section.name.is_empty() {
            out.push('\n');
            comment(section.doc, &mut out);
            // Writing to a text cannot fail, here and below.
            if section.name == "jwt" {
                issuer_example(&mut out);
                continue;
            }
            let _ = writeln!(out, "[{}]", section.name);
        }
        for key in section.keys {
            out.push('\n');
            comment(&described(key), &mut out);
            let name = inside(key, section.name);
            let (given, value) = match (key.path, key.default, default_of(key)) {
                ("data", ..) => (true, key.example.unwrap_or_default().to_owned()),
                ("listen", _, Some(value)) => (true, value),
                (_, None, Some(value)) if value != "\"\"" && value != "[]" => (false, value),
                (..) => (false, key.example.map_or_else(|| key.min.to_string(), str::to_owned)),
            };
            let _ = writeln!(out, "{}{name} = {value}", if given { "" } else { "# " });
        }
    }
    out
}

/// A table of `jwt`, commented out: it has no defaults that could be shown.
fn issuer_example(out: &mut String) {
    out.push_str("# [[jwt]]\n");
    for field in FIELDS {
        comment(field.doc, out);
        let value = match field.name {
            "issuer" => "\"https://login.example\"",
            "audience" => "[\"ackord\"]",
            "algorithms" => "[\"EdDSA\", \"ES256\", \"RS256\"]",
            "jwks_file" => "\"/etc/ackord/jwks.json\"",
            "secret_file" => "\"/run/secrets/ackord-jwt\"",
            _ => field.default.unwrap_or_default(),
        };
        let _ = writeln!(out, "# {} = {value}", field.name);
    }
}

/// The name of a key inside its table.
fn inside(key: &Key, section: &str) -> &'static str {
    key.path.strip_prefix(section).map_or(key.path, |rest| rest.trim_start_matches('.'))
}

/// What a key is, with its unit, bounds and the default that is said in words.
fn described(key: &Key) -> String {
    let mut text = key.doc.to_owned();
    let bounds = bounds(key);
    match (key.unit(), bounds) {
        (Some(unit), Some(bounds)) => {
            let _ = write!(text, " {}{}, {bounds}.", unit[..1].to_uppercase(), &unit[1..]);
        }
        (None, Some(bounds)) => {
            let _ = write!(text, " {bounds}.");
        }
        (_, None) => {}
    }
    if let Some(default) = key.default {
        let _ = write!(text, " Default: {default}.");
    }
    text
}

fn bounds(key: &Key) -> Option<String> {
    (key.value_type() == Type::Number).then(|| format!("{}..={}", key.min, key.max))
}

fn comment(text: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
            let _ = writeln!(out, "{line}");
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut out = INTRODUCTION.to_owned();
    for section in SECTIONS {
        let title = if section.name.is_empty() { "The node" } else { section.name };
        let _ = write!(out, "\n### {title}\n\n{}\n\n", section.doc);
        out.push_str("| key | value | default | change | |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} |",
                key.path,
                value_words(key),
                default_words(key),
                change_word(key.change),
                key.doc,
            );
        }
        if section.name == "jwt" {
            issuer_rows(&mut out);
        }
    }
    let _ = write!(
        out,
        "\n## An example\n\n`ackord serve --example` prints this file.\n\n```toml\n{}```\n",
        example()
    );
    out
}

fn issuer_rows(out: &mut String) {
    for field in FIELDS {
        let value = match field.kind {
            Kind::Text => "text",
            Kind::Texts => "list of texts",
            Kind::Seconds => "seconds",
        };
        let default = field.default.map_or("none".to_owned(), |default| format!("`{default}`"));
        let (name, doc) = (field.name, field.doc);
        let _ = writeln!(out, "| `{name}` | {value} | {default} | reload | {doc} |");
    }
}

fn value_words(key: &Key) -> String {
    match (key.value_type(), key.unit(), bounds(key)) {
        (Type::Number, Some(unit), Some(bounds)) => format!("{unit}, {bounds}"),
        (Type::Number, None, Some(bounds)) => bounds,
        (Type::Number, _, None) => "number".to_owned(),
        (Type::Truth, ..) => "`true`, `false`".to_owned(),
        (Type::Text, ..) if !key.choices.is_empty() => key.choice_words().unwrap_or_default(),
        (Type::Text, ..) if key.secret => "text, secret".to_owned(),
        (Type::Text, ..) => "text".to_owned(),
        (Type::Texts, ..) => "list of texts".to_owned(),
        (Type::Issuers, ..) => "tables".to_owned(),
    }
}

fn default_words(key: &Key) -> String {
    match (key.default, default_of(key)) {
        (Some(words), _) => words.to_owned(),
        (None, Some(value)) if value == "\"\"" || value == "[]" => "none".to_owned(),
        (None, Some(value)) => format!("`{value}`"),
        (None, None) => "none".to_owned(),
    }
}

fn change_word(change: Change) -> &'static str {
    match change {
        Change::Reload => "reload",
        Change::Restart => "restart",
    }
}

/// The JSON Schema of the file, for editors and other tools.
pub fn schema() -> Json {
    let mut root = table_schema("The configuration of a node of Ackord.");
    for key in table::keys() {
        insert(&mut root, key.path, key_schema(key));
    }
    let tables = |section: &&table::Section| !matches!(section.name, "" | "jwt");
    for section in SECTIONS.iter().filter(tables) {
        root["properties"][section.name]["description"] = json!(section.doc);
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("ackord.toml");
    root
}

fn table_schema(description: &str) -> Json {
    json!({
        "type": "object",
        "description": description,
        "additionalProperties": false,
        "properties": {},
    })
}

fn insert(table: &mut Json, path: &str, schema: Json) {
    match path.split_once('.') {
        None => table["properties"][path] = schema,
        Some((name, rest)) => {
            let below = &mut table["properties"][name];
            if below.is_null() {
                *below = table_schema("");
            }
            insert(below, rest, schema);
        }
    }
}

fn key_schema(key: &Key) -> Json {
    let mut schema = Map::new();
    let mut put = |name: &str, value: Json| schema.insert(name.to_owned(), value);
    match key.value_type() {
        Type::Number => {
            put("type", json!("integer"));
            put("minimum", json!(key.min));
            put("maximum", json!(key.max));
        }
        Type::Truth => drop(put("type", json!("boolean"))),
        Type::Text => {
            put("type", json!("string"));
            if !key.choices.is_empty() {
                put("enum", json!(key.choices));
            }
        }
        Type::Texts => {
            put("type", json!(["array", "string"]));
            put("items", json!({"type": "string"}));
            put("maxItems", json!(super::key::LIST_MAX));
        }
        Type::Issuers => {
            put("type", json!("array"));
            put("items", issuer_schema());
            put("maxItems", json!(ISSUERS_MAX));
        }
    }
    put("description", json!(described(key)));
    if let Some(words) = key.default {
        put("x-ackord-default", json!(words));
    } else {
        match key.get(&Settings::default()) {
            Value::None => {}
            value => drop(put("default", value.json())),
        }
    }
    put("x-ackord-change", json!(change_word(key.change)));
    if key.secret {
        put("writeOnly", json!(true));
    }
    Json::Object(schema)
}

fn issuer_schema() -> Json {
    let mut schema = table_schema("An issuer of JWTs.");
    for field in FIELDS {
        let mut value = match field.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Texts => json!({"type": ["array", "string"], "items": {"type": "string"}}),
            Kind::Seconds => json!({"type": "integer", "minimum": 0, "maximum": LEEWAY_S_MAX}),
        };
        value["description"] = json!(field.doc);
        schema["properties"][field.name] = value;
    }
    schema["required"] = json!(["issuer", "audience", "algorithms"]);
    schema
}

/// The values in force, one object per key; secrets are not shown.
pub fn shown(config: &Config) -> Vec<Json> {
    let origin = |key: &Key| config.origins.get(key.path).unwrap_or(&Origin::Default).to_string();
    table::keys()
        .map(|key| {
            let value = match (key.get(&config.settings), key.default) {
                (Value::None, _) => Json::Null,
                (_, _) if key.secret => json!(HIDDEN),
                (value, _) => value.json(),
            };
            json!({"key": key.path, "value": value, "origin": origin(key)})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ackord_agents::{BrokerOptions, PushOptions, SpanOptions};
    use ackord_gateway::GatewayLimits;

    use super::super::sources::{Gathered, gather_file};
    use super::*;

    fn gathered(text: &str) -> Gathered {
        let mut gathered = Gathered::new();
        gather_file("example.toml".as_ref(), text, &mut gathered);
        gathered
    }

    #[test]
    fn the_example_is_a_valid_file_with_the_defaults() {
        let given = gathered(&example());
        assert_eq!(given.problems, [""; 0]);
        for key in table::keys().filter(|key| key.path != "data") {
            assert_eq!(key.get(&given.settings), key.get(&Settings::default()), "{}", key.path);
        }
    }

    #[test]
    fn every_line_that_the_example_comments_out_is_valid_too() {
        let assignments = |line: &str| {
            let code = line.contains(" = ") || line.starts_with("# [[");
            // Of two keys that exclude each other one is enough.
            line.starts_with("# ") && code && !line.starts_with("# secret_file")
        };
        let text: Vec<String> = example()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if assignments(line) => rest.to_owned(),
                Some(_) | None => line.to_owned(),
            })
            .collect();
        let given = gathered(&text.join("\n"));
        assert_eq!(given.problems, [""; 0]);
        assert_eq!(given.origins.len(), table::keys().count());
        assert_eq!(given.settings.issuers.len(), 1);
    }

    #[test]
    fn every_default_lies_within_its_bounds_and_every_variable_names_one_key() {
        let mut variables = std::collections::BTreeSet::new();
        for key in table::keys() {
            let default = key.get(&Settings::default());
            if default != Value::None {
                let set = key.set(&mut Settings::default(), default);
                assert_eq!(set, Ok(()), "{}", key.path);
            }
            assert!(variables.insert(key.variable()), "{}", key.path);
            let beside = table::keys().filter(|other| other.path == key.path).count();
            assert_eq!(beside, 1, "{}", key.path);
            assert!(key.doc.ends_with('.'), "{}", key.path);
        }
    }

    /// Does not compile when a bound is added that no key sets.
    #[test]
    fn every_bound_of_the_front_and_of_sessions_has_a_key() {
        let GatewayLimits {
            connections_max: _,
            frame_bytes_max: _,
            fragments_max: _,
            control_frames_per_s_max: _,
            body_bytes_max: _,
            heartbeat_s: _,
            poll_wait_max: _,
            batch_items_max: _,
            batch_item_bytes_max: _,
            outbox_messages: _,
            head_deadline: _,
            body_deadline: _,
            frame_deadline: _,
            read_deadline: _,
            keep_alive: _,
            write_deadline: _,
            close_deadline: _,
            stop_deadline: _,
        } = GatewayLimits::default();
        let BrokerOptions {
            addresses: _,
            sessions_max: _,
            polls_max: _,
            principal_tickets_max: _,
            polling_session: _,
            window_default: _,
            window_max: _,
            keepalive_s_default: _,
            keepalive_s_min: _,
            keepalive_s_max: _,
            ack_timeout_ms_default: _,
            hello_timeout: _,
            write_deadline: _,
            confirmation_delay: _,
            admin_deadline: _,
            confirm_deadline: _,
            ask_deadline: _,
            trace_entries: _,
            shutdown_deadline: _,
            push,
            spans: SpanOptions { endpoint: _, sample_per_million: _, queue_max: _, timeout: _ },
        } = BrokerOptions::default();
        let PushOptions {
            hosts: _,
            subscriptions_max: _,
            requests_max: _,
            site_requests_max: _,
            host_requests_max: _,
            ca_file: _,
            packet_bytes_max: _,
            discard_interval_ms_min: _,
            drain: _,
        } = push;
        let of = |name| SECTIONS.iter().find(|section| section.name == name).map(|s| s.keys.len());
        assert_eq!((of("front"), of("sessions"), of("push")), (Some(18), Some(19), Some(8)));
    }

    #[test]
    fn the_schema_knows_every_key_and_no_other() {
        let schema = schema();
        for key in table::keys() {
            let mut at = &schema;
            for part in key.path.split('.') {
                assert_eq!(at["additionalProperties"], false, "{}", key.path);
                at = &at["properties"][part];
            }
            assert!(at["description"].is_string(), "{}", key.path);
        }
    }

    #[test]
    fn the_page_is_the_one_in_the_repository() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        // A difference of one line says where; the whole page would hide it.
        for (line, (is, should)) in kept.lines().zip(page().lines()).enumerate() {
            assert_eq!(is, should, "line {}: `ackord config doc` prints the page", line + 1);
        }
        assert_eq!(kept.len(), page().len(), "`ackord config doc` prints the page");
    }
}
