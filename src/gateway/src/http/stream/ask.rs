//! What a client asks for: events, where to start, how to be told. From the query and the headers of
//! a request whose sender is known.

use ackord_machine::site::limits::EVENTS_MAX;
use ackord_machine::site::{Principal, Site};
use ackord_wire::frame::{Position, Start, Subscription};
use ackord_wire::{Code, Problem};
use actix_web::http::header::HeaderMap;

use super::super::query::{Query, invalid};
use super::position::Positions;

/// Parameters that streams and questions have in common.
pub const COMMON: [&str; 7] =
    ["event", "start", "ack_timeout_ms", "format", "mode", "window", "flush_ms"];
/// Of these the one that may be given repeatedly.
pub const REPEATED: &[&str] = &["event"];

/// The header in which a browser gives back the last id that it read.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As the map of the `event` frame.
    #[default]
    Ackord,
    /// As CloudEvents 1.0 in the structured mode.
    CloudEvents,
}

/// Where a client says that it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// It says nothing.
    Nothing,
    /// What it says cannot be read.
    Unreadable,
    /// Its text, and what that says.
    Read(String, Positions),
}

impl Given {
    pub fn read(text: Option<&str>) -> Self {
        match text.map(|text| (text, Positions::read(text))) {
            None | Some(("", _)) => Self::Nothing,
            Some((_, None)) => Self::Unreadable,
            Some((text, Some(positions))) => Self::Read(text.to_owned(), positions),
        }
    }

    /// What a browser says of its own accord is newer than what its page once put into the address.
    pub fn of_stream(headers: &HeaderMap, query: &Query) -> Self {
        match headers.get(LAST_EVENT_ID) {
            Some(value) => value.to_str().map_or(Self::Unreadable, |text| Self::read(Some(text))),
            None => Self::read(query.get("last_event_id")),
        }
    }

    /// The positions, as far as there are any.
    pub fn positions(&self) -> Option<&Positions> {
        match self {
            Self::Read(_, positions) => Some(positions),
            Self::Nothing | Self::Unreadable => None,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub events: Vec<String>,
    pub start: Start,
    pub ack_timeout_ms: Option<u32>,
    pub format: Format,
    pub given: Given,
}

impl Wanted {
    /// Judges the parameters; a guest has to name events, and nothing waits for its acknowledgement.
    pub fn of(query: &Query, given: Given, who: Option<&Principal>) -> Result<Self, Problem> {
        let mut events: Vec<String> = Vec::new();
        for event in query.all("event") {
            if event.is_empty() {
                return Err(invalid("event", "the name of an event, was empty"));
            }
            if !events.iter().any(|known| known == event) {
                events.push(event.to_owned());
            }
        }
        if events.len() > EVENTS_MAX {
            return Err(invalid("event", &format!("at most {EVENTS_MAX}, were {}", events.len())));
        }
        let ack_timeout_ms = query.number("ack_timeout_ms")?;
        if who.is_none() {
            if events.is_empty() {
                return Err(invalid("event", "a client without account names at least one"));
            }
            if ack_timeout_ms.is_some() {
                let detail = "a client without account acknowledges nothing";
                return Err(invalid("ack_timeout_ms", detail));
            }
        }
        check_ordered(query)?;
        let start = match query.get("start") {
            None | Some("earliest") => Start::Earliest,
            // Where it stood is not known: at the first event, never in silence somewhere else.
            Some("latest") if given == Given::Unreadable && who.is_none() => Start::Earliest,
            Some("latest") => Start::Latest,
            Some(other) => {
                return Err(invalid("start", &format!("earliest or latest, was {other:?}")));
            }
        };
        let format = match query.get("format") {
            None | Some("ackord") => Format::Ackord,
            Some("cloudevents") => Format::CloudEvents,
            Some(other) => {
                return Err(invalid("format", &format!("ackord or cloudevents, was {other:?}")));
            }
        };
        Ok(Self { events, start, ack_timeout_ms, format, given })
    }

    /// The subscriptions, with the positions that were given for the events of this site.
    pub fn subscriptions(&self, site: &Site) -> Vec<Subscription> {
        let resume = |event: &String| {
            let key = site.event_named(event)?.key;
            let position = self.given.positions()?.of(key)?;
            Some(Position {
                incarnation: position.incarnation.0,
                generation: position.generation.0,
                instance_id: position.instance.0,
            })
        };
        let subscription = |event: &String| Subscription {
            event: event.clone(),
            category: None,
            start: self.start,
            ack_timeout_ms: self.ack_timeout_ms,
            max_attempts: None,
            resume: resume(event),
            ..Subscription::default()
        };
        self.events.iter().map(subscription).collect()
    }
}

/// What a stream or a question delivers it delivers in order: other modes need a WebSocket.
fn check_ordered(query: &Query) -> Result<(), Problem> {
    let bad = |name: &str, detail: String| {
        Err(Problem::new(Code::BadQos, detail).field(format!("?{name}")))
    };
    if let Some(mode) = query.get("mode").filter(|mode| *mode != "ordered") {
        return bad("mode", format!("only ordered over HTTP, was {mode:?}"));
    }
    for (name, mode) in [("window", "twoway"), ("flush_ms", "batch")] {
        if query.get(name).is_some() {
            return bad(name, format!("only of the mode {mode}, which HTTP does not have"));
        }
    }
    Ok(())
}

/// A refusal of a subscription, named by its parameter.
pub fn refused_event(code: Code, detail: String) -> Problem {
    Problem::new(code, detail).field("?event")
}
