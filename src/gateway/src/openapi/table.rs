//! The operations, in the order of the addresses. A new one is a few lines here.

use ackord_wire::Code;
use ackord_wire::resource::{
    Client, ClientBody, Cluster, ClusterViews, Health, Instance, NewToken, Node, PAGE_MAX, Page,
    Queue, RaiseResult, Reloaded, SeekBody, Service, ServiceBody, SessionPage, Site, SiteBody,
    SiteStructure, Subscription, Token, TokenBody, User, UserBody,
};
use ackord_wire::structure::Structure;

use super::operation::{Body, Kind, Needs, Operation, Param, delete, get, post, put};
use super::{govern, letter, push};
use crate::http::detailed::LIMIT_MAX;

pub const LIMIT: Param = Param::new(
    "limit",
    Kind::Whole { min: 1, max: PAGE_MAX as u64 },
    "Items of the page at most; 100 when absent.",
);
pub const AFTER: Param =
    Param::new("after", Kind::Text, "The `next` of the page before; absent for the first.");
pub const CONSISTENCY: Param = Param::new(
    "consistency",
    Kind::Choice(&["linearizable", "local"]),
    "`local` reads the state as applied on this node, which may lag but always answers.",
);
pub const PREFIX: Param =
    Param::new("prefix", Kind::Text, "Only those whose name or id begins like this.");
const REBUILD: Param =
    Param::new("rebuild", Kind::Flag, "Another type or author: a new life, queues are dropped.");

/// What every list takes.
const PAGED: &[Param] = &[LIMIT, AFTER, CONSISTENCY];
const FILTERED: &[Param] = &[LIMIT, AFTER, CONSISTENCY, PREFIX];

/// A list of a site, or of sites.
fn list(label: &'static str, summary: &'static str) -> Operation {
    get(label, summary).needs(Needs::Read).problems(&[
        Code::NotFound,
        Code::Unavailable,
        Code::Invalid,
    ])
}

/// One object of a site.
fn one(label: &'static str, summary: &'static str, needs: Needs) -> Operation {
    get(label, summary)
        .needs(needs)
        .query(&[CONSISTENCY])
        .problems(&[Code::NotFound, Code::Unavailable])
}

/// Every operation once.
pub fn operations() -> Vec<Operation> {
    let mut operations = node();
    operations.extend(cluster());
    operations.extend(sites());
    operations.extend(accounts());
    operations.extend(tokens());
    operations.extend(queues());
    operations.extend(govern::govern());
    operations.extend(push::pushes());
    operations.extend(letter::letters());
    operations.extend(govern::streams());
    operations.extend(events());
    operations
}

fn node() -> Vec<Operation> {
    const SITE: Param = Param::required("site", Kind::Text, "The name of the site.");
    const CURSOR: Param = Param::new(
        "cursor",
        Kind::Text,
        "From the `Link` of the page before; absent for the first.",
    );
    const FIGURES: Param = Param::new(
        "limit",
        Kind::Whole { min: 1, max: LIMIT_MAX as u64 },
        "Objects of the page at most; 500 when absent.",
    );
    vec![
        get("openapi", "This document.").answers_media("application/json", "OpenAPI 3.1."),
        get("live", "Whether the process answers.").answers::<Health>(200, "It does."),
        get("startup", "Whether the node has started; once it has, it stays so.")
            .answers::<Health>(200, "It has.")
            .problems(&[Code::Unavailable]),
        get("ready", "Whether the node takes sessions.")
            .answers::<Health>(200, "It does.")
            .problems(&[Code::Unavailable, Code::ShuttingDown]),
        get("metrics", "Metrics in the text format of Prometheus.")
            .answers_media("text/plain; version=0.0.4; charset=utf-8", "The metrics.")
            .problems(&[Code::Internal]),
        get("metrics-detailed", "Figures of single objects of a site, in the same format.")
            .needs(Needs::Read)
            .query(&[SITE, CURSOR, FIGURES, CONSISTENCY])
            .answers_media(
                "text/plain; version=0.0.4; charset=utf-8",
                "A page; the header `Link` names the next one, if there is one.",
            )
            .problems(&[Code::NotFound, Code::Unavailable]),
        get("node", "The node that answers: whether it is ready, its memory and its disk.")
            .needs(Needs::Node)
            .answers::<Node>(200, "The node."),
        post("reload", "Lets the node read its configuration again.")
            .needs(Needs::Node)
            .answers::<Reloaded>(200, "What counts now, and what takes a restart.")
            .problems(&[Code::Conflict, Code::Internal])
            .unkeyed(),
    ]
}

fn cluster() -> Vec<Operation> {
    const FORCE: Param =
        Param::new("force", Kind::Flag, "Also while groups need the node: it is lost.");
    const ATTEMPT: Param = Param::required(
        "attempt",
        Kind::Pattern("^[0-9a-fA-F]{32}$"),
        "The restore that this part belongs to, random.",
    );
    const PART: Param = Param::required(
        "part",
        Kind::Whole { min: 0, max: u32::MAX as u64 },
        "The number of the part, from 0 on.",
    );
    let act = |label, summary| {
        post(label, summary)
            .needs(Needs::Node)
            .query(&[FORCE])
            .answers::<Cluster>(200, "The cluster as it is then.")
            .problems(&[Code::Conflict])
            .unkeyed()
    };
    vec![
        get("cluster", "The cluster as this node sees it.")
            .needs(Needs::Node)
            .answers::<Cluster>(200, "The cluster."),
        get("cluster-views", "The cluster as each of its nodes sees it.")
            .needs(Needs::Node)
            .answers::<ClusterViews>(200, "What each node sees, and those that did not answer."),
        post("compare", "Makes every replica take the hash of its state at the same log entry.")
            .needs(Needs::Node)
            .answers::<Cluster>(200, "The cluster, with this node's hashes.")
            .unkeyed(),
        get("backup", "All rows of the sites of a partition at one moment.")
            .needs(Needs::Node)
            .answers_media("application/octet-stream", "The rows, their number and their hash.")
            .problems(&[Code::NotFound, Code::Unavailable]),
        post("restore", "Puts a part of a site back that does not exist.")
            .needs(Needs::Node)
            .query(&[ATTEMPT, PART])
            .takes_media("application/octet-stream", Body::Optional)
            .answers::<Health>(200, "The part is put.")
            .problems(&[Code::Conflict, Code::AlreadyExists])
            .unkeyed(),
        act("drain", "The node shall neither vote nor lead."),
        act("undrain", "The node shall vote and lead again."),
        act("remove", "The node is no member any more."),
        act("leave", "The node shall be no member once no group needs it."),
    ]
}

fn sites() -> Vec<Operation> {
    const DRY_RUN: Param =
        Param::new("dry_run", Kind::Flag, "Only says whether it would be taken; changes nothing.");
    let changes = [Code::Conflict, Code::AlreadyExists];
    vec![
        get("sites", "The sites, by name.")
            .needs(Needs::Node)
            .query(FILTERED)
            .answers::<Page<Site>>(200, "A page.")
            .problems(&[Code::Unavailable]),
        one("site", "A site.", Needs::Read).answers::<Site>(200, "The site."),
        put("site", "Makes a site, or changes its settings.")
            .needs(Needs::Admin)
            .takes::<SiteBody>()
            .answers::<Site>(200, "It was there, and has these settings now.")
            .answers::<Site>(201, "It was made.")
            .or_gone()
            .problems(&changes),
        delete("site", "Deletes a site with everything in it.").needs(Needs::Node),
        one("structure", "The structure of a site.", Needs::Member)
            .answers::<SiteStructure>(200, "The structure as it holds."),
        put("structure", "Applies a structure.")
            .needs(Needs::Admin)
            .query(&[REBUILD, DRY_RUN])
            .takes_required::<Structure>()
            .answers::<SiteStructure>(200, "The structure as it holds.")
            .answers_nothing(
                "With `dry_run`: it would be taken; without, that the site is gone since.",
            )
            .problems(&changes),
        list("sessions", "The sessions that are open now, over all nodes.")
            .query(&[LIMIT, AFTER, CONSISTENCY])
            .query(&[
                Param::new(
                    "kind",
                    Kind::Choice(&["client", "service", "stateless"]),
                    "Only sessions of this kind.",
                ),
                Param::new("id", Kind::Text, "Only sessions of this client or service."),
            ])
            .answers::<SessionPage>(200, "A page."),
    ]
}

fn accounts() -> Vec<Operation> {
    const ONLINE: Param =
        Param::new("online", Kind::Flag, "Only services that are connected, or only those not.");
    const ROLE: Param = Param::new("role", Kind::Text, "Only users that hold this role.");
    let conflict = [Code::Conflict];
    vec![
        list("services", "The services of a site, by id.")
            .query(FILTERED)
            .query(&[ONLINE])
            .answers::<Page<Service>>(200, "A page."),
        one("service", "A service.", Needs::ReadService).answers::<Service>(200, "The service."),
        put("service", "Makes a service if there is none of this id.")
            .needs(Needs::Admin)
            .takes::<ServiceBody>()
            .answers::<Service>(200, "It was there.")
            .answers::<Service>(201, "It was made.")
            .or_gone()
            .problems(&[Code::AlreadyExists, Code::Conflict]),
        delete("service", "Deletes a service with its queues.").needs(Needs::Admin),
        post("apply-declared", "Applies the structure that a parked service declared.")
            .needs(Needs::Admin)
            .query(&[REBUILD])
            .answers::<SiteStructure>(200, "The structure as it holds.")
            .or_gone()
            .problems(&conflict),
        list("clients", "The clients of a site, by id.")
            .query(FILTERED)
            .answers::<Page<Client>>(200, "A page."),
        one("client", "A client.", Needs::ReadClient).answers::<Client>(200, "The client."),
        put("client", "Makes a client, or changes its user.")
            .needs(Needs::Admin)
            .takes::<ClientBody>()
            .answers::<Client>(200, "It was there, and has this user now.")
            .answers::<Client>(201, "It was made.")
            .or_gone()
            .problems(&[Code::Conflict, Code::UnknownClient]),
        delete("client", "Deletes a client with its private events and cursors.")
            .needs(Needs::Admin)
            .problems(&[Code::UnknownClient]),
        list("users", "The users of a site, by id.")
            .query(FILTERED)
            .query(&[ROLE])
            .answers::<Page<User>>(200, "A page."),
        one("user", "A user.", Needs::Read).answers::<User>(200, "The user."),
        put("user", "Makes a user, or changes its roles.")
            .needs(Needs::Admin)
            .takes::<UserBody>()
            .answers::<User>(200, "It was there, and has these roles now.")
            .answers::<User>(201, "It was made.")
            .or_gone()
            .problems(&conflict),
        delete("user", "Deletes a user; its clients are guests then.")
            .needs(Needs::Admin)
            .problems(&conflict),
    ]
}

fn tokens() -> Vec<Operation> {
    const PRINCIPAL: Param = Param::new(
        "principal",
        Kind::Pattern("^(admin|operator|observer|(service|client):.*)$"),
        "Only tokens of this principal.",
    );
    vec![
        list("tokens", "The tokens of a site, by id, without their secrets.")
            .query(FILTERED)
            .query(&[PRINCIPAL])
            .answers::<Page<Token>>(200, "A page."),
        post("tokens", "Makes a token.")
            .needs(Needs::Admin)
            .takes_required::<TokenBody>()
            .answers::<NewToken>(201, "The only time that it is shown.")
            .problems(&[Code::Conflict, Code::AlreadyExists, Code::UnknownClient]),
        one("token", "A token, without its secret.", Needs::Read)
            .answers::<Token>(200, "The token."),
        delete("token", "Revokes a token; its sessions are closed.").needs(Needs::Admin),
    ]
}

fn queues() -> Vec<Operation> {
    const CLIENT: Param = Param::new("client", Kind::Text, "Only those of this client.");
    const EVENT: Param = Param::new("event", Kind::Text, "Only those of this event.");
    let unknown = [Code::UnknownClient, Code::UnknownEvent, Code::Conflict];
    vec![
        list("queues", "What is retained of each event, by its name.")
            .query(FILTERED)
            .answers::<Page<Queue>>(200, "A page."),
        list("queue", "The instances that are retained of an event, by id.")
            .query(PAGED)
            .answers::<Page<Instance>>(200, "A page; it ends early at 1 MiB of arguments."),
        list("subscriptions", "The subscriptions of a site, by client and number.")
            .query(FILTERED)
            .query(&[CLIENT, EVENT])
            .answers::<Page<Subscription>>(200, "A page; without what only sessions know."),
        get("client-subscriptions", "The subscriptions of a client, by number.")
            .needs(Needs::ReadClient)
            .query(PAGED)
            .answers::<Page<Subscription>>(200, "A page.")
            .problems(&[Code::NotFound, Code::Unavailable]),
        one("subscription", "A subscription.", Needs::ReadClient)
            .answers::<Subscription>(200, "The subscription."),
        delete("subscription", "Ends a subscription.").needs(Needs::Operate).problems(&unknown),
        post("seek", "Sets the cursor of a subscription.")
            .needs(Needs::Operate)
            .takes_required::<SeekBody>()
            .answers::<Subscription>(200, "The subscription as it is then.")
            .or_gone()
            .problems(&unknown),
    ]
}

fn events() -> Vec<Operation> {
    const NULL: Param = Param::new("null", Kind::Flag, "A null-event; it has no body.");
    const CLIENT: Param = Param::new("client", Kind::Text, "The addressee of a private event.");
    const LIFETIME: Param = Param::new(
        "lifetime_s",
        Kind::Whole { min: 1, max: u32::MAX as u64 },
        "A lifetime shorter than the definition's.",
    );
    let socket = |label, summary, needs| {
        get(label, summary)
            .needs(needs)
            .upgrades("A WebSocket of one of the subprotocols `ackord.v1.json`, `ackord.v1.cbor`.")
            .problems(&[Code::SiteBlank, Code::ShuttingDown])
    };
    vec![
        post("raise", "Raises an event.")
            .needs(Needs::Service)
            .query(&[NULL, CLIENT, LIFETIME])
            .takes_media("*/*", Body::Optional)
            .answers::<RaiseResult>(200, "It is stored.")
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
                Code::RateLimited,
                Code::QuotaExceeded,
            ]),
        socket("service-socket", "Connects a service.", Needs::Service),
        socket("client-socket", "Connects a client.", Needs::ClientOrGuest),
    ]
}
