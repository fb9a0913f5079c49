//! Operations and addresses put together as an OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use ackord_wire::{Problem, problem};
use serde_json::{Map, Value, json};

use super::operation::{Body, Content, Kind, Needs, Operation, Param};
use super::schemas::{Schemas, rename};
use crate::route::{ADDRESSES, Address};

const ABOUT: &str = "Every refusal is a problem document (RFC 9457) with a stable code. A method that \
an address does not have is refused 405 `method-not-allowed`, an unknown address 404 `not-found`; \
unknown fields and query parameters are refused 422 `invalid`. The protocol page says what the \
resources mean.";

pub fn document(operations: &[Operation]) -> Value {
    let mut schemas = Schemas::new();
    let mut refusals = Refusals {
        problem: schemas.answer(|generator| generator.subschema_for::<Problem>()),
        responses: Map::new(),
    };
    let mut paths = Map::new();
    for address in ADDRESSES {
        let mut item = Map::new();
        item.insert("parameters".to_owned(), path_parameters(address));
        for operation in operations.iter().filter(|operation| operation.label == address.label) {
            let described = describe(operation, address, &mut refusals, &mut schemas);
            if operation.method == "GET" && address.methods.contains(&"HEAD") {
                item.insert("head".to_owned(), head_of(&described));
            }
            item.insert(operation.method.to_lowercase(), described);
        }
        paths.insert(address.template.to_owned(), Value::Object(item));
    }
    let (definitions, renamed) = schemas.finish();
    for item in paths.values_mut() {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            if let Some(body) = operation.get_mut("requestBody") {
                rename(body, &renamed);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Ackord", "version": "v1", "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": refusals.responses,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`ak_<id>_<secret>`, or the node's administration token."},
            },
        },
    })
}

/// What an address is about: the last of its segments that is no name and no act.
fn tag(address: &Address) -> &'static str {
    let segments: Vec<&'static str> = address.template.split('/').skip(1).collect();
    match segments[..] {
        ["v1", "sites", _, "service" | "client" | "events" | "next" | "ack", ..] => "events",
        ["v1", "sites", _, kind, ..] => kind,
        ["v1", kind, ..] => kind,
        _ => "node",
    }
}

fn path_parameters(address: &Address) -> Value {
    let names = address
        .template
        .split('/')
        .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')));
    let parameter = |name: &str| {
        json!({
            "name": name, "in": "path", "required": true,
            "schema": {"type": "string", "minLength": 1},
        })
    };
    names.map(parameter).collect()
}

fn query_parameter(param: &Param) -> Value {
    let schema = match param.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Whole { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Choice(texts) => json!({"type": "string", "enum": texts}),
        Kind::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
    };
    let mut parameter = json!({
        "name": param.name, "in": "query", "description": param.about, "schema": schema,
        "required": param.required,
    });
    if matches!(param.kind, Kind::Flag) {
        parameter["allowEmptyValue"] = json!(true);
    }
    parameter
}

fn key_parameter() -> Value {
    json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "The same key with the same request is the same act, and gets its first answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": ackord_machine::site::limits::KEY_BYTES_MAX},
    })
}

fn describe(
    operation: &Operation,
    address: &Address,
    refusals: &mut Refusals,
    schemas: &mut Schemas,
) -> Value {
    let mut parameters: Vec<Value> = operation.query.iter().map(query_parameter).collect();
    if operation.keyed {
        parameters.push(key_parameter());
    }
    let security = match operation.needs {
        Needs::Nobody => json!([]),
        Needs::ClientOrGuest => json!([{"token": []}, {}]),
        _ => json!([{"token": []}]),
    };
    let method = operation.method.to_lowercase();
    let mut described = json!({
        "operationId": format!("{method}-{}", operation.label),
        "tags": [tag(address)],
        "summary": operation.summary,
        "description": operation.needs.about(),
        "security": security,
        "parameters": parameters,
        "responses": responses(operation, refusals, schemas),
    });
    if let Some((content, body)) = &operation.body {
        let content = match content {
            Content::Json(of) => json!({"application/json": {"schema": schemas.request(*of)}}),
            Content::Media(media) => json!({*media: {}}),
        };
        let required = *body == Body::Required;
        described["requestBody"] = json!({"required": required, "content": content});
    }
    described
}

fn responses(operation: &Operation, refusals: &mut Refusals, schemas: &mut Schemas) -> Value {
    let mut responses = BTreeMap::new();
    for (status, about, content) in &operation.answers {
        let mut response = json!({"description": about});
        match content {
            None => {}
            Some(Content::Json(of)) => {
                response["content"] = json!({"application/json": {"schema": schemas.answer(*of)}});
            }
            Some(Content::Media(media)) => response["content"] = json!({*media: {}}),
        }
        responses.insert(status.to_string(), response);
    }
    let mut codes: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for code in &operation.problems {
        codes.entry(code.status()).or_default().insert(code.as_str());
    }
    for (status, codes) in codes {
        responses.insert(status.to_string(), refusals.response(status, &codes));
    }
    json!(responses)
}

/// Refusals with the same codes are described once.
struct Refusals {
    problem: Value,
    responses: Map<String, Value>,
}

impl Refusals {
    /// The response for these codes of one status.
    fn response(&mut self, status: u16, codes: &BTreeSet<&str>) -> Value {
        let texts: Vec<&str> = codes.iter().copied().collect();
        let name = format!("{status}.{}", texts.join("."));
        let narrowed = json!({"type": "object", "properties": {
            "code": {"enum": codes}, "status": {"const": status},
        }});
        let described = json!({
            "description": format!("`{}`", texts.join("`, `")),
            "content": {problem::MEDIA_TYPE: {"schema": {"allOf": [self.problem, narrowed]}}},
        });
        let reference = format!("#/components/responses/{name}");
        self.responses.insert(name, described);
        json!({"$ref": reference})
    }
}

/// The same without bodies.
fn head_of(get: &Value) -> Value {
    let mut head = get.clone();
    let id = get["operationId"].as_str().unwrap_or_default().replacen("get", "head", 1);
    head["operationId"] = json!(id);
    for response in head["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(response) = response.as_object_mut() {
            response.remove("content");
        }
    }
    head
}
