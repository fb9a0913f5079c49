//! The HTTP API as an OpenAPI 3.1 document, made from what the code has anyway.
//!
//! `route::ADDRESSES (paths, methods) + table (what each operation takes and answers) + the types of
//! ackord_wire (schemas) ─▶ document ─▶ GET /openapi.json, docs/openapi.json`
//!
//! Invariant: an address and method without an operation, or an operation without an address, fails a
//! test; so does a `docs/openapi.json` that is not this document.

mod document;
mod govern;
mod letter;
mod operation;
mod push;
mod schemas;
mod table;

use std::sync::LazyLock;

use serde_json::Value;

use crate::http::answer::Answer;

/// Made once: it does not depend on anything that runs.
static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The whole document.
pub fn document() -> Value {
    document::document(&table::operations())
}

/// `GET /openapi.json`. Open to everyone: it names no site and no account.
pub(crate) fn answer() -> Answer {
    Answer::text("application/json", TEXT.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::route::ADDRESSES;

    #[test]
    fn every_address_and_method_has_one_operation_and_every_operation_an_address() {
        let described: Vec<_> = table::operations()
            .iter()
            .map(|operation| (operation.label, operation.method))
            .collect();
        let once: BTreeSet<_> = described.iter().copied().collect();
        assert_eq!(once.len(), described.len(), "an operation is described twice");
        let served: BTreeSet<_> = ADDRESSES
            .iter()
            .flat_map(|address| address.methods.iter().map(|method| (address.label, *method)))
            // What `HEAD` answers follows from `GET`.
            .filter(|(_, method)| *method != "HEAD")
            .collect();
        let missing: Vec<_> = served.difference(&once).collect();
        assert!(
            missing.is_empty(),
            "served, and not in src/gateway/src/openapi/table.rs: {missing:?}"
        );
        let gone: Vec<_> = once.difference(&served).collect();
        assert!(gone.is_empty(), "in src/gateway/src/openapi/table.rs, and not served: {gone:?}");
    }

    #[test]
    fn the_document_of_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let mut text = serde_json::to_string_pretty(&document()).unwrap();
        text.push('\n');
        if std::env::var_os("ACKORD_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let same = kept == text;
        assert!(same, "renew it: ACKORD_WRITE_DOCS=1 cargo test -p ackord-gateway --lib openapi");
    }

    #[test]
    fn every_reference_leads_to_a_schema() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(to)) = map.get("$ref") {
                        let pointer =
                            to.strip_prefix('#').expect("a reference within the document");
                        assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
                    }
                    map.values().for_each(|value| check(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, document)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let document = document();
        check(&document, &document);
    }
}
