//! What a refused HTTP request gets: a problem document (RFC 9457, `application/problem+json`).
//!
//! Invariant: `status`, `type` and the default of `retryable` follow from `code`. The document
//! names the field and the limit where there is one; it never holds a secret.

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The prefix of [`Problem::kind`]; the code follows. An identifier, not an address.
pub const TYPE_PREFIX: &str = "urn:ackord:problem:";

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// `urn:ackord:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words; the same for every problem of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The code.
    pub code: Code,
    /// What is wrong with this request, for a person.
    pub detail: String,
    /// The path of the field that is wrong: of the body (`events[3].size`), a query parameter
    /// (`?limit`), a header (`Authorization`) or a part of the address (`{site}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// Seconds to wait before that, as in the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem of this code.
    ///
    /// ```
    /// use ackord_wire::{Code, problem::Problem};
    /// let problem = Problem::new(Code::NotFound, "no client \"c9\"").field("{id}");
    /// assert_eq!((problem.status, problem.retryable), (404, false));
    /// assert_eq!(problem.title, "not found");
    /// ```
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{code}"),
            title: code.as_str().replace('-', " "),
            status: code.status(),
            code,
            detail: detail.into(),
            field: None,
            retryable: code.retryable(),
            retry_after_s: None,
        }
    }

    /// Names the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Overrides whether the same request may succeed later, where the caller knows better.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}
