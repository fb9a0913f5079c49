//! What is said of one operation: who may, what it takes, what it answers.

use ackord_wire::Code;
use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Everyone, without a token.
    Nobody,
    /// The node's administrator.
    Node,
    /// The node's administrator, about a site.
    NodeOfSite,
    /// The site's administrator.
    Admin,
    /// Whoever keeps the site running.
    Operate,
    /// Whoever may read everything of the site.
    Read,
    /// Anybody of the site.
    Member,
    /// Whoever may read the site, and the service itself.
    ReadService,
    /// Whoever may read the site, and the client itself.
    ReadClient,
    /// A service, by its own token.
    Service,
    /// A client by its own token, or a guest without one.
    ClientOrGuest,
}

impl Needs {
    /// For a person.
    pub fn about(self) -> &'static str {
        match self {
            Self::Nobody => "Open to everyone.",
            Self::Node | Self::NodeOfSite => "Takes the node's administration token.",
            Self::Admin => "Takes a token that administers the site.",
            Self::Operate => "Takes a token that administers or operates the site.",
            Self::Read => "Takes a token that may read the site.",
            Self::Member => "Takes any token of the site.",
            Self::ReadService => "Takes the service's own token, or one that may read the site.",
            Self::ReadClient => "Takes the client's own token, or one that may read the site.",
            Self::Service => "Takes the token of a service.",
            Self::ClientOrGuest => {
                "Takes the token of a client, or none where guests are admitted."
            }
        }
    }

    /// The refusals that follow from it.
    pub fn problems(self) -> &'static [Code] {
        match self {
            Self::Nobody => &[],
            Self::Node => &[Code::BadCredentials],
            Self::NodeOfSite
            | Self::Admin
            | Self::Operate
            | Self::Read
            | Self::Member
            | Self::ReadService
            | Self::ReadClient
            | Self::Service
            | Self::ClientOrGuest => {
                &[Code::BadCredentials, Code::AccessDenied, Code::Unavailable, Code::RateLimited]
            }
        }
    }
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that may be given repeatedly.
    Texts,
    /// A whole number.
    Whole { min: u64, max: u64 },
    /// `true`, `false`, or without a value, which is true.
    Flag,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Text of this pattern.
    Pattern(&'static str),
}

/// A parameter of the query.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: Kind,
    pub required: bool,
}

impl Param {
    /// One that may be left out.
    pub const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, about, kind, required: false }
    }

    /// One that must be there.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, about, kind, required: true }
    }
}

/// How a type is described.
pub type Describe = fn(&mut SchemaGenerator) -> Schema;

/// A body.
#[derive(Clone, Copy)]
pub enum Content {
    /// JSON of a type.
    Json(Describe),
    /// Anything that is announced as this.
    Media(&'static str),
}

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// See the module. Built by [`get`], [`put`], [`post`] and [`delete`] and what follows them.
pub struct Operation {
    /// The label of its address.
    pub label: &'static str,
    pub method: &'static str,
    pub summary: &'static str,
    pub needs: Needs,
    pub query: Vec<Param>,
    pub body: Option<(Content, Body)>,
    /// Status, what it means, what comes with it.
    pub answers: Vec<(u16, &'static str, Option<Content>)>,
    pub problems: Vec<Code>,
    /// Whether it takes an `Idempotency-Key`.
    pub keyed: bool,
}

/// Whether a body must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// An empty one is an empty object, which will do.
    Optional,
    Required,
}

/// What every act may come to.
const ACT: [Code; 10] = [
    Code::PreconditionFailed,
    Code::LimitReached,
    Code::QuotaExceeded,
    Code::Invalid,
    Code::NotFound,
    Code::Busy,
    Code::Unavailable,
    Code::UnknownOutcome,
    Code::OverCapacity,
    Code::DiskFull,
];

fn operation(method: &'static str, label: &'static str, summary: &'static str) -> Operation {
    Operation {
        label,
        method,
        summary,
        needs: Needs::Nobody,
        query: Vec::new(),
        body: None,
        answers: Vec::new(),
        // The node has as many connections as it may.
        problems: vec![Code::Busy],
        keyed: false,
    }
}

/// An operation that reads.
pub fn get(label: &'static str, summary: &'static str) -> Operation {
    operation("GET", label, summary)
}

/// An operation that makes or changes something, as often as it is repeated.
pub fn put(label: &'static str, summary: &'static str) -> Operation {
    operation("PUT", label, summary).acts()
}

/// An operation that changes part of something.
pub fn patch(label: &'static str, summary: &'static str) -> Operation {
    operation("PATCH", label, summary).acts()
}

/// An operation that does something.
pub fn post(label: &'static str, summary: &'static str) -> Operation {
    operation("POST", label, summary).acts()
}

/// An operation that removes something.
pub fn delete(label: &'static str, summary: &'static str) -> Operation {
    operation("DELETE", label, summary).acts().answers_nothing("It is gone.")
}

impl Operation {
    fn acts(mut self) -> Self {
        self.keyed = true;
        self.problems(&ACT)
    }

    /// Who may; without this it is everyone.
    pub fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        let problems = needs.problems();
        // A query that is judged is one of somebody who may.
        let judged = if needs == Needs::Nobody { &[][..] } else { &[Code::Invalid] };
        self.problems(problems).problems(judged)
    }

    /// Parameters of the query.
    pub fn query(mut self, params: &[Param]) -> Self {
        self.query.extend_from_slice(params);
        self
    }

    /// A JSON body of this type; an empty one is `{}`.
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.takes_content(Content::Json(describe::<T>), Body::Optional)
    }

    /// A JSON body of this type, which `{}` is not.
    pub fn takes_required<T: JsonSchema>(self) -> Self {
        self.takes_content(Content::Json(describe::<T>), Body::Required)
    }

    /// A body of this media type.
    pub fn takes_media(self, media: &'static str, body: Body) -> Self {
        self.takes_content(Content::Media(media), body)
    }

    fn takes_content(mut self, content: Content, body: Body) -> Self {
        self.body = Some((content, body));
        self.problems(&[Code::Invalid, Code::TooLarge, Code::IdleTimeout])
    }

    /// An answer of this type.
    pub fn answers<T: JsonSchema>(mut self, status: u16, about: &'static str) -> Self {
        self.answers.push((status, about, Some(Content::Json(describe::<T>))));
        self
    }

    /// An answer of this media type.
    pub fn answers_media(mut self, media: &'static str, about: &'static str) -> Self {
        self.answers.push((200, about, Some(Content::Media(media))));
        self
    }

    /// 204.
    pub fn answers_nothing(mut self, about: &'static str) -> Self {
        self.answers.push((204, about, None));
        self
    }

    /// 204, when what was made or changed is gone before it can be shown.
    pub fn or_gone(self) -> Self {
        self.answers_nothing("It was done, and somebody has removed it again since.")
    }

    /// 101: the connection is another protocol's from then on.
    pub fn upgrades(mut self, about: &'static str) -> Self {
        self.answers.push((101, about, None));
        self
    }

    /// Refusals beside those that follow from what is said otherwise.
    pub fn problems(mut self, codes: &[Code]) -> Self {
        self.problems.extend_from_slice(codes);
        self
    }

    /// It takes no idempotency key.
    pub fn unkeyed(mut self) -> Self {
        self.keyed = false;
        self
    }
}
