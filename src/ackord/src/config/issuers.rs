//! `[[jwt]]`: the issuers whose tokens are believed, one table each.
//!
//! The file has them as tables; a variable or a flag as the same list written in one line.

use ackord_gateway::{
    IssuerOptions, KeyFile, LEEWAY_S_DEFAULT, LEEWAY_S_MAX, ROLE_CLAIM_DEFAULT, SITE_CLAIM_DEFAULT,
    nearest_name,
};
use serde_json::{Value as Json, json};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// The most issuers of a node.
pub const ISSUERS_MAX: usize = 16;

/// A field of such a table.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// Its default as TOML; none where it must be given, or excludes another.
    pub default: Option<&'static str>,
    /// What it is, in one line.
    pub doc: &'static str,
}

/// How the value of a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A text or a list of texts.
    Texts,
    /// A number of seconds.
    Seconds,
}

/// The fields of such a table.
pub static FIELDS: &[Field] = &[
    Field { name: "issuer", kind: Kind::Text, default: None, doc: "`iss` of its tokens." },
    Field {
        name: "audience",
        kind: Kind::Texts,
        default: None,
        doc: "`aud` of a token must name one of these.",
    },
    Field {
        name: "algorithms",
        kind: Kind::Texts,
        default: None,
        doc: "How its tokens are signed: `EdDSA`, `ES256`, `ES384`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`; with `secret_file` only `HS256`, `HS384`, `HS512`. Nothing else is accepted, whatever a token says of itself.",
    },
    Field {
        name: "jwks_file",
        kind: Kind::Text,
        default: None,
        doc: "Its public keys, a JWK set; read again when it changes. `kid` of a token names one of them.",
    },
    Field {
        name: "secret_file",
        kind: Kind::Text,
        default: None,
        doc: "Instead of `jwks_file`: a secret of at least 32 bytes that the issuer shares with the node.",
    },
    Field {
        name: "site_claim",
        kind: Kind::Text,
        default: Some("\"ackord_site\""),
        doc: "The claim that names the site, or a list of sites, for which the token is good.",
    },
    Field {
        name: "role_claim",
        kind: Kind::Text,
        default: Some("\"ackord_role\""),
        doc: "The claim that names the role: `admin`, `operator`, `observer`, `service:ID` or `client:ID`.",
    },
    Field {
        name: "leeway_s",
        kind: Kind::Seconds,
        default: Some("30"),
        doc: "By how much the issuer's clock may differ, at most 300.",
    },
];

/// What is in one table so far.
#[derive(Default)]
struct Raw {
    issuer: Option<String>,
    audience: Vec<String>,
    algorithms: Vec<String>,
    jwks_file: Option<String>,
    secret_file: Option<String>,
    site_claim: Option<String>,
    role_claim: Option<String>,
    leeway_s: Option<u64>,
}

/// The issuers of a list of tables.
pub fn read(list: &DeArray<'_>) -> Result<Vec<IssuerOptions>, String> {
    if list.len() > ISSUERS_MAX {
        return Err(format!("jwt: at most {ISSUERS_MAX} issuers, was {}", list.len()));
    }
    let issuers: Result<Vec<_>, _> = list.iter().map(one).collect();
    let issuers = issuers?;
    for (at, issuer) in issuers.iter().enumerate() {
        if issuers[..at].iter().any(|other| other.issuer == issuer.issuer) {
            return Err(format!("jwt: two tables of the issuer {:?}", issuer.issuer));
        }
    }
    Ok(issuers)
}

/// The issuers of a list written in one line.
pub fn read_text(text: &str) -> Result<Vec<IssuerOptions>, String> {
    let line = format!("jwt = {text}");
    let wrong = || "jwt: not a list of tables such as [{issuer = \"…\", …}]".to_owned();
    let parsed = DeTable::parse(&line).map_err(|_| wrong())?;
    let value = parsed.get_ref().get("jwt").ok_or_else(wrong)?;
    read(value.get_ref().as_array().ok_or_else(wrong)?)
}

fn one(value: &Spanned<DeValue<'_>>) -> Result<IssuerOptions, String> {
    let DeValue::Table(table) = value.get_ref() else {
        return Err("jwt: not a list of tables".to_owned());
    };
    let mut raw = Raw::default();
    for (name, value) in table {
        let (name, value) = (name.get_ref().as_ref(), value.get_ref());
        let text = || value.as_str().map(str::to_owned).ok_or(format!("jwt.{name}: not a text"));
        match name {
            "issuer" => raw.issuer = Some(text()?),
            "audience" => raw.audience = texts(name, value)?,
            "algorithms" => raw.algorithms = texts(name, value)?,
            "jwks_file" => raw.jwks_file = Some(text()?),
            "secret_file" => raw.secret_file = Some(text()?),
            "site_claim" => raw.site_claim = Some(text()?),
            "role_claim" => raw.role_claim = Some(text()?),
            "leeway_s" => {
                let seconds = value.as_integer().and_then(|number| number.as_str().parse().ok());
                let seconds = seconds.filter(|seconds| *seconds <= LEEWAY_S_MAX);
                let wrong = || format!("jwt.leeway_s: must be 0..={LEEWAY_S_MAX}");
                raw.leeway_s = Some(seconds.ok_or_else(wrong)?);
            }
            unknown => {
                let hint = nearest_name(unknown, FIELDS.iter().map(|field| field.name))
                    .map(|name| format!("; did you mean `{name}`?"))
                    .unwrap_or_default();
                return Err(format!("unknown key `jwt.{unknown}`{hint}"));
            }
        }
    }
    let keys = match (raw.jwks_file, raw.secret_file) {
        (Some(file), None) => KeyFile::Jwks(file.into()),
        (None, Some(file)) => KeyFile::Secret(file.into()),
        (_, _) => return Err("jwt: needs jwks_file or secret_file, and not both".to_owned()),
    };
    Ok(IssuerOptions {
        issuer: raw.issuer.ok_or("jwt: needs issuer")?,
        audience: raw.audience,
        algorithms: raw.algorithms,
        keys,
        site_claim: raw.site_claim.unwrap_or_else(|| SITE_CLAIM_DEFAULT.to_owned()),
        role_claim: raw.role_claim.unwrap_or_else(|| ROLE_CLAIM_DEFAULT.to_owned()),
        leeway_s: raw.leeway_s.unwrap_or(LEEWAY_S_DEFAULT),
    })
}

fn texts(name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = || format!("jwt.{name}: not a list of texts");
    match value {
        DeValue::String(text) => Ok(vec![text.to_string()]),
        DeValue::Array(items) => items
            .iter()
            .map(|item| item.get_ref().as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}

/// As JSON.
pub fn json(issuers: &[IssuerOptions]) -> Json {
    let one = |issuer: &IssuerOptions| {
        let (name, file) = match &issuer.keys {
            KeyFile::Jwks(file) => ("jwks_file", file),
            KeyFile::Secret(file) => ("secret_file", file),
        };
        json!({
            "issuer": issuer.issuer, "audience": issuer.audience, "algorithms": issuer.algorithms,
            name: file, "site_claim": issuer.site_claim, "role_claim": issuer.role_claim,
            "leeway_s": issuer.leeway_s,
        })
    };
    issuers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_what_it_needs_and_nothing_else() {
        let good = "issuer = 'i', audience = 'a', algorithms = ['EdDSA']";
        let read = read_text(&format!("[{{{good}, jwks_file = 'f'}}]")).unwrap();
        assert_eq!(read[0].audience, ["a"]);
        assert_eq!((read[0].site_claim.as_str(), read[0].leeway_s), ("ackord_site", 30));
        let check = |text: &str, wanted: &str| {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        };
        check("1", "not a list of tables");
        check("[1]", "not a list of tables");
        check("[{", "not a list of tables");
        check(&format!("[{{{good}}}]"), "needs jwks_file or secret_file");
        check(&format!("[{{{good}, jwks_file = 'f', secret_file = 'g'}}]"), "not both");
        check(&format!("[{{{good}, jwks_fle = 'f'}}]"), "did you mean `jwks_file`");
        check(&format!("[{{{good}, jwks_file = 'f', leeway_s = 301}}]"), "must be 0..=300");
        check("[{audience = 7}]", "jwt.audience: not a list of texts");
        let twice = format!("{{{good}, jwks_file = 'f'}}");
        check(&format!("[{twice}, {twice}]"), "two tables of the issuer");
    }

    #[test]
    fn the_defaults_that_are_documented_are_those_that_count() {
        let of = |name| FIELDS.iter().find(|field| field.name == name).and_then(|f| f.default);
        assert_eq!(of("site_claim"), Some(format!("{SITE_CLAIM_DEFAULT:?}")).as_deref());
        assert_eq!(of("role_claim"), Some(format!("{ROLE_CLAIM_DEFAULT:?}")).as_deref());
        assert_eq!(of("leeway_s"), Some(LEEWAY_S_DEFAULT.to_string()).as_deref());
    }
}
