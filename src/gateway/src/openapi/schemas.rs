//! The schemas of the wire's types, as requests have them and as answers do.
//!
//! The same type may be described in two ways: what a request may leave out is always there in an
//! answer, and an answer never says `null` for what it leaves out. Where the two differ, the
//! request's is called `…Request`.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use super::operation::Describe;

const AT: &str = "#/components/schemas/";

/// Collects what is referred to.
pub struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = AT.trim_start_matches('#').into();
        settings.meta_schema = None;
    })
}

impl Schemas {
    pub fn new() -> Self {
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    /// The schema of a type in a request. References are to be renamed by [`Schemas::finish`].
    pub fn request(&mut self, of: Describe) -> Value {
        of(&mut self.requests).to_value()
    }

    /// The schema of a type in an answer.
    pub fn answer(&mut self, of: Describe) -> Value {
        let mut schema = of(&mut self.answers);
        never_null(&mut schema);
        schema.to_value()
    }

    /// Everything that is referred to, by name, and the names of requests' types that another one
    /// has, too.
    pub fn finish(mut self) -> (Map<String, Value>, Vec<String>) {
        let mut whole = self.answers.take_definitions(true);
        for schema in whole.values_mut() {
            if let Ok(schema) = <&mut Schema>::try_from(schema) {
                never_null(schema);
            }
        }
        let requests = self.requests.take_definitions(true);
        // What refers to something that differs, differs.
        let mut renamed: Vec<String> = Vec::new();
        loop {
            let differs = |name: &String, schema: &Value| {
                let renamed_inside = renamed.iter().any(|other| refers(schema, other));
                whole.get(name).is_some_and(|answer| answer != schema || renamed_inside)
            };
            let found = requests
                .iter()
                .find(|(name, schema)| !renamed.contains(name) && differs(name, schema));
            match found {
                Some((name, _)) => renamed.push(name.clone()),
                None => break,
            }
        }
        for (name, mut schema) in requests {
            rename(&mut schema, &renamed);
            let name = if renamed.contains(&name) { format!("{name}Request") } else { name };
            whole.entry(name).or_insert(schema);
        }
        whole.values_mut().for_each(plain);
        (whole, renamed)
    }
}

/// Makes of comments in the code what a person reads elsewhere.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(about)) = map.get_mut("description") {
                *about = about.replace("[`", "`").replace("`]", "`").replace('\n', " ");
            }
            map.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn refers(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(map) => {
            map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix(AT)) == Some(name)
                || map.values().any(|value| refers(value, name))
        }
        Value::Array(items) => items.iter().any(|value| refers(value, name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Makes references to these names lead to the requests' types.
pub fn rename(value: &mut Value, renamed: &[String]) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get_mut("$ref")
                && to.strip_prefix(AT).is_some_and(|name| renamed.iter().any(|other| other == name))
            {
                to.push_str("Request");
            }
            map.values_mut().for_each(|value| rename(value, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, renamed)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A property that may be absent is absent rather than `null`.
fn never_null(schema: &mut Schema) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let is_required = |name: &str| {
        required.as_array().is_some_and(|names| names.iter().any(|other| other == name))
    };
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (_, property) in properties.iter_mut().filter(|(name, _)| !is_required(name)) {
        // Any value at all is described by `true`.
        let Value::Object(property) = property else { continue };
        property.remove("default");
        if let Some(Value::Array(types)) = property.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [one] = &types[..] {
                let one = one.clone();
                property.insert("type".to_owned(), one);
            }
        }
        if let Some(Value::Array(kinds)) = property.get_mut("anyOf") {
            kinds.retain(|kind| kind.get("type").is_none_or(|kind| kind != "null"));
            if let [Value::Object(one)] = &kinds[..] {
                let one = one.clone();
                property.remove("anyOf");
                property.extend(one);
            }
        }
    }
}
