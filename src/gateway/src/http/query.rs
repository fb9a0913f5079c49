//! The query of a request: a few known parameters, everything else an error that names it.

use ackord_wire::resource::{PAGE_DEFAULT, PAGE_MAX};
use ackord_wire::{Code, Problem};
use percent_encoding::percent_decode_str;

use super::suggest;

/// Whether a read must reflect everything acknowledged before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// It must.
    #[default]
    Linearizable,
    /// The state as applied on this node is good enough.
    Local,
}

/// The parameters of a query.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Items at most.
    pub limit: usize,
    /// Only items behind this one.
    pub after: Option<String>,
}

impl Window {
    /// The name behind which the page starts; every name is behind the empty one.
    pub fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }
}

impl Query {
    /// Parses a query; only these parameters may occur, each once.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Problem> {
        Self::parse_repeated(text, known, &[])
    }

    /// As [`Query::parse`], where some may be given repeatedly.
    pub fn parse_repeated(text: &str, known: &[&str], repeated: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            let again = pairs.iter().any(|(other, _)| *other == name);
            if again && !repeated.contains(&name.as_str()) {
                return Err(invalid(&name, "may be given once"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// `true`, `false`, or present without a value, which is true.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(other) => Err(invalid(name, &format!("true or false, was {other:?}"))),
        }
    }

    /// `true` or `false`, if it is there.
    pub fn choice(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.get(name).map(|_| self.flag(name)).transpose()
    }

    /// A number, at most the largest of its type.
    pub fn number<N: TryFrom<u64>>(&self, name: &str) -> Result<Option<N>, Problem> {
        let most = u64::MAX >> (64 - 8 * size_of::<N>());
        let wrong =
            |text: &str| invalid(name, &format!("a whole number of at most {most}, was {text:?}"));
        let parse = |text: &str| {
            let number = text.parse::<u64>().ok().and_then(|number| N::try_from(number).ok());
            number.ok_or_else(|| wrong(text))
        };
        self.get(name).map(parse).transpose()
    }

    /// `consistency`.
    pub fn consistency(&self) -> Result<Consistency, Problem> {
        match self.get("consistency") {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("local") => Ok(Consistency::Local),
            Some(other) => {
                Err(invalid("consistency", &format!("linearizable or local, was {other:?}")))
            }
        }
    }

    /// `limit` and `after`.
    pub fn window(&self) -> Result<Window, Problem> {
        let limit = self.number("limit")?.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(invalid("limit", &format!("1..={PAGE_MAX}, was {limit}")));
        }
        Ok(Window { limit, after: self.get("after").map(str::to_owned) })
    }
}

/// A parameter that broke a rule.
pub fn invalid(name: &str, detail: &str) -> Problem {
    Problem::new(Code::Invalid, detail).field(format!("?{name}"))
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let detail = match suggest::nearest(name, known.iter().copied()) {
        Some(meant) => format!("no such parameter; did you mean {meant:?}?"),
        None if known.is_empty() => "this address takes no parameters".to_owned(),
        None => format!("no such parameter; there are {}", known.join(", ")),
    };
    invalid(name, &detail)
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| {
        Problem::new(Code::Invalid, "the query is not percent-encoded UTF-8").field("?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_read_and_others_named() {
        let query = Query::parse("limit=7&after=a%2Bb&x", &["limit", "after", "x"]).unwrap();
        assert_eq!(query.window().unwrap(), Window { limit: 7, after: Some("a+b".to_owned()) });
        assert!(query.flag("x").unwrap());
        let check = |text: &str, field: &str, detail: &str| {
            let problem = Query::parse(text, &["limit", "after"])
                .and_then(|query| query.window())
                .unwrap_err();
            assert_eq!(problem.field.as_deref(), Some(field), "{text}");
            assert!(problem.detail.contains(detail), "{text}: {}", problem.detail);
        };
        check("limit=0", "?limit", "1..=1000, was 0");
        check("limit=x", "?limit", "a whole number");
        check("limt=3", "?limt", "did you mean \"limit\"");
        check("limit=1&limit=2", "?limit", "once");
    }
}
