//! The stable codes of refusals, problems and closes. Retired, never reused.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $retryable:literal;)*) => {
        /// Why something was refused; the text is what appears in frames and problem documents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
            /// A code of a newer broker.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl Code {
            /// Every code of this version, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// Whether the same request may succeed later without a change.
            pub fn retryable(self) -> bool {
                match self {
                    $(Self::$variant => $retryable,)*
                    Self::Unknown => false,
                }
            }
        }
    };
}

codes! {
    /// The site has no event of this name.
    UnknownEvent = "unknown-event", 404, false;
    /// The event has another category.
    WrongCategory = "wrong-category", 409, false;
    /// The arguments exceed the limit.
    ArgumentsTooLarge = "arguments-too-large", 413, false;
    /// A null of an event that is not Replacing.
    NullNotAllowed = "null-not-allowed", 422, false;
    /// A private event needs an addressee.
    ClientRequired = "client-required", 422, false;
    /// Only a private event has an addressee.
    ClientNotAllowed = "client-not-allowed", 422, false;
    /// The addressee is not registered.
    UnknownClient = "unknown-client", 404, false;
    /// The lifetime is out of range.
    LifetimeOutOfRange = "lifetime-out-of-range", 422, false;
    /// The number lies above the next one.
    OutOfSequence = "out-of-sequence", 409, true;
    /// The number was used for another event: take a new store uid.
    SequenceReused = "sequence-reused", 409, false;
    /// The store was retired: discard what it holds.
    StoreSuperseded = "store-superseded", 409, false;
    /// The raise names another store than the session's.
    WrongStore = "wrong-store", 409, false;
    /// The idempotency key was used for another event.
    KeyReused = "idempotency-key-reused", 422, false;
    /// As many idempotency keys are remembered as may be.
    TooManyKeys = "too-many-idempotency-keys", 429, true;
    /// The site is blank and services may not construct it.
    SiteBlank = "site-blank", 409, true;
    /// The site has another service type or contract author.
    ServiceTypeConflict = "service-type-conflict", 409, true;
    /// The site has another structure.
    SiteStructureMismatch = "site-structure-mismatch", 409, true;
    /// Too much is queued here; try again.
    Busy = "busy", 503, true;
    /// The node holds as much state as it may.
    OverCapacity = "over-capacity", 507, true;
    /// The disk is nearly full.
    DiskFull = "disk-full", 507, true;
    /// Nobody knows whether it happened.
    UnknownOutcome = "unknown-outcome", 504, false;
    /// The node cannot serve this now; another one may.
    Unavailable = "unavailable", 503, true;
    /// A newer session of the same account has taken over.
    Replaced = "replaced", 409, false;
    /// The account is not registered, or was deleted.
    NotRegistered = "not-registered", 404, false;
    /// The account may not enter, or the token does not allow it.
    AccessDenied = "access-denied", 403, false;
    /// The token is missing, malformed, unknown or revoked.
    BadCredentials = "bad-credentials", 401, false;
    /// A frame was malformed or out of turn.
    ProtocolViolation = "protocol-violation", 400, false;
    /// A frame or body exceeds the limit.
    TooLarge = "too-large", 413, false;
    /// A field is missing, malformed or out of bounds.
    Invalid = "invalid", 422, false;
    /// The change contradicts what is there.
    Conflict = "conflict", 409, false;
    /// Something of this name exists.
    AlreadyExists = "already-exists", 409, false;
    /// No such object.
    NotFound = "not-found", 404, false;
    /// The method is not allowed here.
    MethodNotAllowed = "method-not-allowed", 405, false;
    /// The peer was silent for too long.
    IdleTimeout = "idle-timeout", 408, true;
    /// The peer did not read fast enough.
    SlowConsumer = "slow-consumer", 408, true;
    /// The node is shutting down.
    ShuttingDown = "shutting-down", 503, true;
    /// The site was rebuilt: connect again.
    SiteRebuilt = "site-rebuilt", 409, true;
    /// The endpoint said goodbye.
    Goodbye = "goodbye", 200, false;
    /// The object is not as the request expects it: read it again.
    PreconditionFailed = "precondition-failed", 412, false;
    /// Faster than allowed; come again when told.
    RateLimited = "rate-limited", 429, true;
    /// The site has as much of this as it may have.
    QuotaExceeded = "quota-exceeded", 429, true;
    /// An administrator ended the session; connect again.
    Kicked = "kicked", 409, true;
    /// More connections, subscriptions or objects than allowed.
    LimitReached = "limit-reached", 429, true;
    /// The broker made a mistake.
    Internal = "internal", 500, true;
    /// The token has expired: come again with a new one.
    CredentialsExpired = "credentials-expired", 401, false;
    /// The mode of a subscription is not for this transport, or a setting does not belong to it.
    BadQos = "bad-qos", 422, false;
    /// The host is not one that the operator allows.
    CallbackNotAllowed = "callback-not-allowed", 403, false;
    /// The callback did not answer the challenge.
    CallbackUnverified = "callback-unverified", 422, false;
    /// The nodes of the cluster are others than the endpoint was told: connect again.
    AddressesChanged = "addresses-changed", 503, true;
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let texts: Vec<&str> = Self::ALL.iter().map(|code| code.as_str()).collect();
        schemars::json_schema!({
            "description": "Why something was refused. Newer brokers may have more.",
            "type": "string", "enum": texts,
        })
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The WebSocket close code that goes with the `closing` frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode {
    /// 4000..=4999.
    pub number: u16,
    /// Why.
    pub code: Code,
    /// Whether to connect again.
    pub reconnect: bool,
}

/// Every close code. 44xx: connect again; 45xx: do not.
pub const CLOSE_CODES: &[CloseCode] = &[
    CloseCode { number: 4400, code: Code::ShuttingDown, reconnect: true },
    CloseCode { number: 4401, code: Code::IdleTimeout, reconnect: true },
    CloseCode { number: 4402, code: Code::SlowConsumer, reconnect: true },
    CloseCode { number: 4403, code: Code::Unavailable, reconnect: true },
    CloseCode { number: 4404, code: Code::Busy, reconnect: true },
    CloseCode { number: 4405, code: Code::SiteRebuilt, reconnect: true },
    CloseCode { number: 4406, code: Code::Internal, reconnect: true },
    CloseCode { number: 4407, code: Code::LimitReached, reconnect: true },
    CloseCode { number: 4408, code: Code::StoreSuperseded, reconnect: true },
    CloseCode { number: 4409, code: Code::SequenceReused, reconnect: true },
    CloseCode { number: 4410, code: Code::Kicked, reconnect: true },
    CloseCode { number: 4411, code: Code::RateLimited, reconnect: true },
    CloseCode { number: 4412, code: Code::QuotaExceeded, reconnect: true },
    CloseCode { number: 4413, code: Code::CredentialsExpired, reconnect: true },
    CloseCode { number: 4414, code: Code::AddressesChanged, reconnect: true },
    CloseCode { number: 4500, code: Code::Goodbye, reconnect: false },
    CloseCode { number: 4501, code: Code::BadCredentials, reconnect: false },
    CloseCode { number: 4502, code: Code::NotRegistered, reconnect: false },
    CloseCode { number: 4503, code: Code::Replaced, reconnect: false },
    CloseCode { number: 4504, code: Code::ProtocolViolation, reconnect: false },
    CloseCode { number: 4505, code: Code::AccessDenied, reconnect: false },
    CloseCode { number: 4506, code: Code::TooLarge, reconnect: false },
    CloseCode { number: 4507, code: Code::Invalid, reconnect: false },
];

impl CloseCode {
    /// The close code of a reason; a reason without one closes as [`Code::Internal`].
    pub fn of(code: Code) -> Self {
        let find = |wanted| CLOSE_CODES.iter().copied().find(|close| close.code == wanted);
        find(code).or_else(|| find(Code::Internal)).unwrap_or(CLOSE_CODES[0])
    }

    /// Whether to connect again after this close number; unknown numbers say yes.
    pub fn reconnects(number: u16) -> bool {
        CLOSE_CODES.iter().find(|close| close.number == number).is_none_or(|close| close.reconnect)
    }
}
