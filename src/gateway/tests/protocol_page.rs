//! The protocol page holds what the broker understands: every example parses into its type and
//! back into itself, every kind of frame, code and close code is there, and the hash is right.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ackord_wire::code::CLOSE_CODES;
use ackord_wire::codec::set_hash;
use ackord_wire::frame::{ClientFrame, ClientMessage, ServiceFrame, ServiceMessage};
use ackord_wire::govern;
use ackord_wire::problem::Problem;
use ackord_wire::{Code, Codec, letter};
use ackord_wire::{resource, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The examples: the word behind `json`, and the text.
fn examples() -> Vec<(&'static str, &'static str)> {
    PAGE.split("```json ")
        .skip(1)
        .map(|rest| {
            let (info, rest) = rest.split_once('\n').unwrap();
            (info.trim(), rest.split_once("```").unwrap().0)
        })
        .collect()
}

/// Parses an example and writes it again: nothing may be lost, in JSON and, as it has no raw
/// arguments, in CBOR.
fn check<T: DeserializeOwned + Serialize>(text: &str) {
    let parsed: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let written: Value = serde_json::to_value(&parsed).unwrap();
    let expected: Value = serde_json::from_str(text).unwrap();
    assert_eq!(written, expected, "{text}");
    if !text.contains("\"args\"") {
        let cbor = Codec::Cbor.encode(&parsed);
        let again: T = Codec::Cbor.decode(&cbor).unwrap();
        assert_eq!(serde_json::to_value(&again).unwrap(), expected, "{text}");
    }
}

#[test]
fn every_example_is_what_its_type_says() {
    for (kind, text) in examples() {
        match kind {
            "ServiceFrame" => check::<ServiceFrame>(text),
            "ServiceMessage" => check::<ServiceMessage>(text),
            "ClientFrame" => check::<ClientFrame>(text),
            "ClientMessage" => check::<ClientMessage>(text),
            "Site" => check::<resource::Site>(text),
            "SiteStructure" => check::<resource::SiteStructure>(text),
            "Service" => check::<resource::Service>(text),
            "Client" => check::<resource::Client>(text),
            "Reloaded" => check::<resource::Reloaded>(text),
            "User" => check::<resource::User>(text),
            "NewToken" => check::<resource::NewToken>(text),
            "Token" => check::<resource::Token>(text),
            "Queue" => check::<resource::Queue>(text),
            "Instance" => check::<resource::Instance>(text),
            "Subscription" => check::<resource::Subscription>(text),
            "DeadLetter" => check::<letter::DeadLetter>(text),
            "SessionPage" => check::<resource::SessionPage>(text),
            "RaiseResult" => check::<resource::RaiseResult>(text),
            "BatchItem" => check::<resource::BatchItem>(text),
            "BatchResult" => check::<resource::BatchResult>(text),
            "Node" => check::<resource::Node>(text),
            "Cluster" => check::<resource::Cluster>(text),
            "NewTicket" => check::<govern::NewTicket>(text),
            "SiteQuotas" => check::<govern::SiteQuotas>(text),
            "AuditEntry" => check::<govern::AuditEntry>(text),
            "Why" => check::<govern::Why>(text),
            "CanI" => check::<govern::CanI>(text),
            "Problem" => check::<Problem>(text),
            "Resume" => check::<stream::Resume>(text),
            "AckBody" => check::<stream::AckBody>(text),
            "AckResult" => check::<stream::AckResult>(text),
            "AckResults" => check::<stream::AckResults>(text),
            "CloudEvent" => check::<stream::CloudEvent>(text),
            other => panic!("an example of an unknown type {other:?}"),
        }
    }
}

fn service_frame_kind(frame: &ServiceFrame) -> &'static str {
    match frame {
        ServiceFrame::Hello(_) => "hello",
        ServiceFrame::Raise(_) => "raise",
        ServiceFrame::Goodbye {} => "goodbye",
    }
}

fn service_message_kind(message: &ServiceMessage) -> &'static str {
    match message {
        ServiceMessage::Welcome(_) => "welcome",
        ServiceMessage::Accepted(_) => "accepted",
        ServiceMessage::Rejected(_) => "rejected",
        ServiceMessage::Refused(_) => "refused",
        ServiceMessage::State(_) => "state",
        ServiceMessage::Closing(_) => "closing",
    }
}

fn client_frame_kind(frame: &ClientFrame) -> &'static str {
    match frame {
        ClientFrame::Hello(_) => "hello",
        ClientFrame::Subscriptions(_) => "subscriptions",
        ClientFrame::Subscribe(_) => "subscribe",
        ClientFrame::Unsubscribe { .. } => "unsubscribe",
        ClientFrame::Ack(_) => "ack",
        ClientFrame::Nack(_) => "nack",
        ClientFrame::Working(_) => "working",
        ClientFrame::Goodbye {} => "goodbye",
    }
}

fn client_message_kind(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::Welcome(_) => "welcome",
        ClientMessage::Subscribed(_) => "subscribed",
        ClientMessage::Event(_) => "event",
        ClientMessage::Events(_) => "events",
        ClientMessage::Committed(_) => "committed",
        ClientMessage::Authority { .. } => "authority",
        ClientMessage::Presence(_) => "presence",
        ClientMessage::Closing(_) => "closing",
    }
}

/// The kinds of the examples of one type; `kind` names each variant, so a new one does not compile
/// unseen.
fn shown<T: DeserializeOwned>(of: &str, kind: fn(&T) -> &'static str) -> BTreeSet<&'static str> {
    let texts = examples().into_iter().filter(|(name, _)| *name == of);
    texts.map(|(_, text)| kind(&serde_json::from_str(text).unwrap())).collect()
}

#[test]
fn every_kind_of_frame_has_an_example() {
    let service = shown("ServiceFrame", service_frame_kind);
    assert_eq!(service, ["goodbye", "hello", "raise"].into());
    let answers = shown("ServiceMessage", service_message_kind);
    assert_eq!(answers, ["accepted", "closing", "refused", "rejected", "state", "welcome"].into());
    let client = shown("ClientFrame", client_frame_kind);
    let expected =
        ["ack", "goodbye", "hello", "nack", "subscribe", "subscriptions", "unsubscribe", "working"];
    assert_eq!(client, expected.into());
    let messages = shown("ClientMessage", client_message_kind);
    let expected = [
        "authority",
        "closing",
        "committed",
        "event",
        "events",
        "presence",
        "subscribed",
        "welcome",
    ];
    assert_eq!(messages, expected.into());
}

#[test]
fn every_code_is_listed_with_its_status() {
    for code in Code::ALL {
        let retryable = if code.retryable() { "yes" } else { "no" };
        let row = format!("| `{code}` | {} | {retryable} |", code.status());
        assert!(PAGE.contains(&row), "no row {row}");
    }
}

#[test]
fn every_close_code_is_listed_with_its_verdict() {
    for close in CLOSE_CODES {
        let verdict = if close.reconnect { "yes" } else { "no" };
        let row = format!("| {} | `{}` | {verdict}", close.number, close.code);
        assert!(PAGE.contains(&row), "no row {row}");
    }
}

#[test]
fn the_hash_of_the_example_set_is_right() {
    let list = examples().into_iter().find(|(_, text)| text.contains("\"subscriptions\"")).unwrap();
    let ClientFrame::Subscriptions(list) = serde_json::from_str(list.1).unwrap() else {
        panic!("the example is not a list");
    };
    let hash = set_hash(&list.items);
    assert!(PAGE.contains(&format!("its hash is\n`{hash}`")), "the hash is {hash}");
    let text = PAGE.split_once("```text set\n").unwrap().1.split_once("```").unwrap().0;
    let text = text.replace('\u{2192}', "\t");
    assert_eq!(text, ackord_wire::codec::set_text(&list.items));
}
