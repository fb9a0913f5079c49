//! The operations by which a site is kept in order, and those of clients over plain HTTP.

use ackord_wire::Code;
use ackord_wire::govern::{
    AuditEntry, CanI, NewTicket, Quotas, SiteQuotas, SubscriptionBody, TicketBody, Why,
};
use ackord_wire::resource::{Client, Page, Service, Subscription};
use ackord_wire::stream::{AckAnswer, AckBody};

use super::operation::{Body, Kind, Needs, Operation, Param, get, post, put};
use super::table::{AFTER, CONSISTENCY, LIMIT};

/// Acts of whoever keeps a site running, and what may be asked about it.
pub fn govern() -> Vec<Operation> {
    const CLIENT: Param = Param::required("client", Kind::Text, "The client.");
    const EVENT: Param = Param::required("event", Kind::Text, "The event.");
    const INSTANCE: Param =
        Param::required("instance_id", Kind::Whole { min: 0, max: 1 << 53 }, "The instance.");
    const ACT: Param = Param::required(
        "act",
        Kind::Choice(&["administer", "operate", "read", "connect", "receive", "raise"]),
        "What they want to do.",
    );
    const OF_ENTRIES: [Param; 3] = [
        Param::new("who", Kind::Text, "Only acts of this credential."),
        Param::new("act", Kind::Text, "Only this act."),
        Param::new("result", Kind::Text, "Only acts that came to this."),
    ];
    let unknown = [Code::UnknownEvent, Code::UnknownClient, Code::Conflict];
    let flow = |label, summary| {
        post(label, summary)
            .needs(Needs::Operate)
            .answers::<Subscription>(200, "The subscription as it is then.")
            .or_gone()
            .problems(&unknown)
    };
    vec![
        put("subscription", "Makes a subscription for a client, or changes its options.")
            .needs(Needs::Operate)
            .takes::<SubscriptionBody>()
            .answers::<Subscription>(200, "The subscription.")
            .or_gone()
            .problems(&unknown)
            .problems(&[Code::SiteBlank, Code::BadQos]),
        flow("pause", "Holds the deliveries of a subscription back."),
        flow("resume", "Lets a paused subscription go on."),
        post("kick-client", "Ends a client's session; it may come again.")
            .needs(Needs::Operate)
            .answers::<Client>(200, "The client.")
            .or_gone()
            .problems(&unknown),
        post("kick-service", "Ends a service's session; it may come again.")
            .needs(Needs::Operate)
            .answers::<Service>(200, "The service.")
            .or_gone(),
        get("quotas", "What a site may use, and what it uses.")
            .needs(Needs::Read)
            .query(&[CONSISTENCY])
            .answers::<SiteQuotas>(200, "The quotas.")
            .problems(&[Code::NotFound, Code::Unavailable]),
        put("quotas", "Bounds what a site may use.")
            .needs(Needs::NodeOfSite)
            .takes::<Quotas>()
            .answers::<SiteQuotas>(200, "The quotas as they hold.")
            .or_gone(),
        post("tickets", "Makes a ticket, for the address of a WebSocket or a stream, once.")
            .needs(Needs::Member)
            .takes::<TicketBody>()
            .answers::<NewTicket>(201, "The ticket.")
            .problems(&[Code::UnknownClient])
            .unkeyed(),
        get("audit", "The record of acts and refused attempts, the newest first.")
            .needs(Needs::Read)
            .query(&[LIMIT, AFTER, CONSISTENCY])
            .query(&OF_ENTRIES)
            .answers::<Page<AuditEntry>>(200, "A page.")
            .problems(&[Code::NotFound, Code::Unavailable]),
        get("cluster-audit", "The record of what belongs to no site, the newest first.")
            .needs(Needs::Node)
            .query(&[LIMIT, AFTER, CONSISTENCY])
            .query(&OF_ENTRIES)
            .answers::<Page<AuditEntry>>(200, "A page.")
            .problems(&[Code::Unavailable]),
        get("why", "What became of an instance, and why a client got it or did not.")
            .needs(Needs::Member)
            .query(&[CLIENT, EVENT, INSTANCE, CONSISTENCY])
            .answers::<Why>(200, "The answer.")
            .problems(&[Code::NotFound, Code::Unavailable]),
        get("can-i", "Whether somebody may do something now, and why.")
            .needs(Needs::Member)
            .query(&[
                ACT,
                Param::new("event", Kind::Text, "The event."),
                Param::new("client", Kind::Text, "The client; `guest` for one without account."),
                Param::new("service", Kind::Text, "The service."),
                CONSISTENCY,
            ])
            .answers::<CanI>(200, "The answer.")
            .problems(&[Code::NotFound, Code::Unavailable]),
    ]
}

/// Events over plain HTTP.
pub fn streams() -> Vec<Operation> {
    const EVENT: Param = Param::new("event", Kind::Texts, "The events to subscribe to.");
    const START: Param = Param::new(
        "start",
        Kind::Choice(&["earliest", "latest"]),
        "Where new subscriptions start.",
    );
    const TIMEOUT: Param = Param::new(
        "ack_timeout_ms",
        Kind::Whole { min: 1, max: 3_600_000 },
        "Until an unacknowledged event is sent again.",
    );
    const FORMAT: Param =
        Param::new("format", Kind::Choice(&["ackord", "cloudevents"]), "How events are written.");
    const MODE: Param =
        Param::new("mode", Kind::Choice(&["ordered"]), "The only one that there is over HTTP.");
    let asked = [
        Code::SiteBlank,
        Code::BadQos,
        Code::ShuttingDown,
        Code::UnknownEvent,
        Code::WrongCategory,
        Code::NotFound,
        Code::Replaced,
        Code::NotRegistered,
        Code::LimitReached,
        Code::RateLimited,
        Code::QuotaExceeded,
        Code::IdleTimeout,
        Code::UnknownOutcome,
    ];
    vec![
        get("events", "Events as a stream (Server-Sent Events).")
            .needs(Needs::ClientOrGuest)
            .query(&[EVENT, START, TIMEOUT, FORMAT, MODE])
            .query(&[
                Param::new("last_event_id", Kind::Text, "Where to go on, as `Last-Event-ID`."),
                Param::new("ticket", Kind::Text, "A ticket instead of a token."),
            ])
            .answers_media("text/event-stream", "The stream.")
            .problems(&asked),
        post("events", "Raises events: lines of JSON, or CloudEvents.")
            .needs(Needs::Service)
            .takes_media("application/x-ndjson", Body::Required)
            .answers_media("*/*", "What each event came to, in their order.")
            .problems(&[
                Code::UnknownEvent,
                Code::WrongCategory,
                Code::ArgumentsTooLarge,
                Code::NullNotAllowed,
                Code::ClientRequired,
                Code::ClientNotAllowed,
                Code::UnknownClient,
                Code::LifetimeOutOfRange,
                Code::KeyReused,
                Code::TooManyKeys,
                Code::SiteBlank,
            ]),
        get("next", "Waits for the next event of a client.")
            .needs(Needs::ClientOrGuest)
            .query(&[EVENT, START, TIMEOUT, FORMAT, MODE])
            .query(&[
                Param::new("wait", Kind::Text, "How long: `30s`, `500ms` or seconds."),
                Param::new("after", Kind::Text, "Where a guest goes on, as it was answered."),
            ])
            .answers_media("*/*", "The event, with its ack token: JSON, or a CloudEvent.")
            .answers_nothing("There was none.")
            .problems(&asked),
        post("ack", "Acknowledges deliveries by their ack tokens; an event as it was received will do, too.")
            .takes_required::<AckBody>()
            .answers::<AckAnswer>(200, "Where the cursor stands; for several, `results`.")
            .problems(&[
                Code::AccessDenied,
                Code::BadCredentials,
                Code::Replaced,
                Code::Kicked,
                Code::Conflict,
                Code::UnknownClient,
                Code::RateLimited,
            ])
            .unkeyed(),
    ]
}
