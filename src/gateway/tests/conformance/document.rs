//! The OpenAPI document of a node, as a test uses it: operations, and judges of bodies.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ackord_wire::Code;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::raw::Reply;
use crate::support::Running;

/// One operation as it is described.
pub struct Operation {
    pub id: String,
    /// Who may, for a person.
    pub needs: String,
    pub method: String,
    pub template: String,
    /// Whether it is refused without a token.
    pub secured: bool,
    pub parameters: Vec<Value>,
    /// The body by its media type.
    pub body: Option<(String, Value)>,
    /// What is described, by status.
    pub answers: BTreeMap<String, Value>,
}

/// See the module.
pub struct Document {
    pub operations: Vec<Operation>,
    /// The methods of each path, sorted.
    pub paths: BTreeMap<String, Vec<String>>,
    components: Value,
    validators: Mutex<BTreeMap<String, &'static Validator>>,
}

impl Document {
    /// As the node gives it out.
    pub async fn of(node: &Running) -> Self {
        let document = node.call(None, "GET", "/openapi.json", None).await.is(200);
        let mut components = document["components"].clone();
        // Readers ignore what they do not know; here nothing may come that is not described.
        for schema in components["schemas"].as_object_mut().unwrap().values_mut() {
            if schema.get("properties").is_some() {
                schema["additionalProperties"] = json!(false);
            }
        }
        let mut operations = Vec::new();
        let mut paths = BTreeMap::new();
        for (template, item) in document["paths"].as_object().unwrap() {
            let mut methods = Vec::new();
            for (method, described) in item.as_object().unwrap() {
                if method == "parameters" {
                    continue;
                }
                let method = method.to_uppercase();
                methods.push(method.clone());
                operations.push(operation(template, method, described));
            }
            methods.sort_unstable();
            paths.insert(template.clone(), methods);
        }
        Self { operations, paths, components, validators: Mutex::default() }
    }

    /// What a reference leads to.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(to) => {
                let at = to.strip_prefix("#/components").unwrap();
                self.resolve(self.components.pointer(at).unwrap())
            }
            None => value,
        }
    }

    /// Whether a value is of a schema.
    pub fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let key = schema.to_string();
        let validator = *self.validators.lock().unwrap().entry(key).or_insert_with(|| {
            let mut whole = schema.clone();
            whole["components"] = self.components.clone();
            // They live as long as the test.
            Box::leak(Box::new(jsonschema::validator_for(&whole).unwrap()))
        });
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }

    /// Judges the body of an answer that is no refusal.
    pub fn judge_answer(&self, reply: &Reply, described: &Value) -> Result<(), String> {
        let Some(content) = self.resolve(described).get("content").and_then(Value::as_object)
        else {
            let empty = reply.body.is_empty();
            return if empty { Ok(()) } else { Err("a body that is not described".to_owned()) };
        };
        let kind = reply.header("content-type").unwrap_or_default();
        let Some(media) = content.get(kind).or(content.get("*/*")) else {
            return Err(format!("{kind:?} is not described"));
        };
        let Some(schema) = media.get("schema") else { return Ok(()) };
        let value = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        self.fits(schema, &value)
    }

    /// Judges a refusal; by the description of its status, if there is one.
    pub fn judge_problem(&self, reply: &Reply, described: Option<&Value>) -> Result<(), String> {
        if let Some(described) = described {
            self.judge_answer(reply, described)?;
        }
        let problem: Value =
            serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        let code = problem["code"].as_str().unwrap_or_default();
        let Some(code) = Code::ALL.iter().find(|known| known.as_str() == code) else {
            return Err(format!("{code:?} is no code"));
        };
        let retry_after = problem.get("retry_after_s").map(Value::to_string);
        let right = problem["status"] == reply.status
            && code.status() == reply.status
            && problem["type"] == format!("urn:ackord:problem:{code}")
            && reply.header("content-type") == Some("application/problem+json")
            && reply.header("retry-after").map(str::to_owned) == retry_after
            && (reply.status != 401 || reply.header("www-authenticate").is_some());
        if right { Ok(()) } else { Err("the problem contradicts itself".to_owned()) }
    }
}

fn operation(template: &str, method: String, described: &Value) -> Operation {
    let body = described.get("requestBody").map(|body| {
        let (media, content) = body["content"].as_object().unwrap().iter().next().unwrap();
        (media.clone(), content.get("schema").cloned().unwrap_or(Value::Null))
    });
    let answers = described["responses"].as_object().unwrap();
    let security = described["security"].as_array().unwrap();
    Operation {
        id: described["operationId"].as_str().unwrap().to_owned(),
        needs: described["description"].as_str().unwrap().to_owned(),
        method,
        template: template.to_owned(),
        secured: !security.is_empty() && !security.contains(&json!({})),
        parameters: described["parameters"].as_array().unwrap().clone(),
        body,
        answers: answers.iter().map(|(status, answer)| (status.clone(), answer.clone())).collect(),
    }
}
