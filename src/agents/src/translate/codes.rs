//! Which public code each refusal, rejection, failure and close reason has.

use std::borrow::Cow;

use ackord_machine::session::{CloseReason, Failed};
use ackord_machine::site::limits::CONTENT_TYPE_BYTES_MAX;
use ackord_machine::site::{Parked, Refusal, Rejection};
use ackord_replica::ProposeError;
use ackord_wire::Code;

use super::failed;

/// The code of a refusal.
pub fn refusal_code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::UnknownSite
        | Refusal::UnknownService
        | Refusal::UnknownUser
        | Refusal::UnknownToken
        | Refusal::UnknownSubscription
        | Refusal::UnknownDeadLetter => Code::NotFound,
        Refusal::UnknownClient => Code::UnknownClient,
        Refusal::UnknownEvent => Code::UnknownEvent,
        Refusal::WrongCategory => Code::WrongCategory,
        Refusal::AlreadyExists => Code::AlreadyExists,
        Refusal::StaleEpoch { .. } | Refusal::Overtaken { .. } => Code::Replaced,
        Refusal::StalePosition => Code::Conflict,
        Refusal::WrongStore => Code::WrongStore,
        Refusal::StoreSuperseded => Code::StoreSuperseded,
        Refusal::OutOfSequence { .. } | Refusal::NotYet => Code::OutOfSequence,
        Refusal::SequenceReused => Code::SequenceReused,
        Refusal::KeyReused => Code::KeyReused,
        Refusal::TooManyKeys => Code::TooManyKeys,
        Refusal::Parked(parked) => parked_code(*parked),
        Refusal::SiteBlank => Code::SiteBlank,
        Refusal::AccessDenied => Code::AccessDenied,
        Refusal::OverCapacity => Code::OverCapacity,
        Refusal::Invalid(_) => Code::Invalid,
        Refusal::BadQuality(_) => Code::BadQos,
        Refusal::Conflict { .. } => Code::Conflict,
        Refusal::Kicked => Code::Kicked,
        Refusal::Precondition => Code::PreconditionFailed,
        Refusal::RateLimited { .. } => Code::RateLimited,
        Refusal::QuotaExceeded { .. } => Code::QuotaExceeded,
        Refusal::LimitReached { .. } => Code::LimitReached,
    }
}

/// The code of a rejection.
pub fn rejection_code(rejection: Rejection) -> Code {
    match rejection {
        Rejection::UnknownEvent => Code::UnknownEvent,
        Rejection::WrongCategory => Code::WrongCategory,
        Rejection::ArgumentsTooLarge { .. } | Rejection::ContentTypeTooLong { .. } => {
            Code::ArgumentsTooLarge
        }
        Rejection::NullNotAllowed => Code::NullNotAllowed,
        Rejection::ClientRequired => Code::ClientRequired,
        Rejection::ClientNotAllowed => Code::ClientNotAllowed,
        Rejection::UnknownClient => Code::UnknownClient,
        Rejection::LifetimeOutOfRange { .. } => Code::LifetimeOutOfRange,
    }
}

/// What a rejection says to a person.
pub fn rejection_detail(rejection: Rejection) -> Cow<'static, str> {
    let detail = match rejection {
        Rejection::UnknownEvent => "event: the site has none of this name",
        Rejection::WrongCategory => "category: the event has another one",
        Rejection::ArgumentsTooLarge { given, most } => {
            return format!("args: 0..={most} bytes, was {given}").into();
        }
        Rejection::ContentTypeTooLong { given } => {
            return format!("content_type: 0..={CONTENT_TYPE_BYTES_MAX} bytes, was {given}").into();
        }
        Rejection::NullNotAllowed => "args: only a replacing event may be null",
        Rejection::ClientRequired => "client: a private event needs an addressee",
        Rejection::ClientNotAllowed => "client: only a private event has an addressee",
        Rejection::UnknownClient => "client: not registered",
        Rejection::LifetimeOutOfRange { given, most: 0 } => {
            return format!("lifetime_s: the event has none, was {given}").into();
        }
        Rejection::LifetimeOutOfRange { given, most } => {
            return format!("lifetime_s: 1..={most}, was {given}").into();
        }
    };
    detail.into()
}

/// The code of a reason to be parked.
pub fn parked_code(parked: Parked) -> Code {
    match parked {
        Parked::SiteBlank => Code::SiteBlank,
        Parked::ServiceTypeConflict => Code::ServiceTypeConflict,
        Parked::StructureMismatch => Code::SiteStructureMismatch,
    }
}

/// The code of a failed proposal.
pub fn failed_code(failed: Failed) -> Code {
    match failed {
        Failed::Busy => Code::Busy,
        Failed::OverCapacity => Code::OverCapacity,
        Failed::DiskFull => Code::DiskFull,
        Failed::Unavailable => Code::Unavailable,
        Failed::Unknown => Code::UnknownOutcome,
    }
}

/// The code of a failed proposal, as the replica reports it.
pub fn propose_code(error: ProposeError) -> Code {
    failed_code(failed(error))
}

/// The code of a close.
pub fn close_code(reason: CloseReason) -> Code {
    match reason {
        CloseReason::Goodbye => Code::Goodbye,
        CloseReason::Replaced => Code::Replaced,
        CloseReason::Kicked => Code::Kicked,
        CloseReason::NotRegistered => Code::NotRegistered,
        CloseReason::AccessDenied => Code::AccessDenied,
        CloseReason::TokenRevoked => Code::BadCredentials,
        CloseReason::CredentialsExpired => Code::CredentialsExpired,
        CloseReason::SiteRebuilt => Code::SiteRebuilt,
        CloseReason::ProtocolViolation => Code::ProtocolViolation,
        CloseReason::Invalid => Code::Invalid,
        CloseReason::LimitReached => Code::LimitReached,
        CloseReason::Busy => Code::Busy,
        CloseReason::Unavailable => Code::Unavailable,
        CloseReason::SequenceReused => Code::SequenceReused,
        CloseReason::StoreSuperseded => Code::StoreSuperseded,
        CloseReason::IdleTimeout => Code::IdleTimeout,
        CloseReason::SlowConsumer => Code::SlowConsumer,
        CloseReason::ShuttingDown => Code::ShuttingDown,
        CloseReason::AddressesChanged => Code::AddressesChanged,
        CloseReason::Internal => Code::Internal,
    }
}
