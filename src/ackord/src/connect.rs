//! Where the broker is, which site, which token: from flags, environment, the context and files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::args::Connect;
use crate::context;
use crate::exit::Failure;

/// Where a broker is looked for when nothing says otherwise; `ackord dev` listens there.
pub const URL_DEFAULT: &str = "http://127.0.0.1:4655";

/// What is trusted for `https` and `wss`, where that was said: the file and its text.
static TRUSTED: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();

/// From now on these authorities are trusted, and no others.
pub fn trust(file: &Path) -> Result<(), Failure> {
    let unusable = |why: String| {
        Failure::usage(format!("--ca {}: {why}", file.display()))
            .hint("a PEM file with the certificates of the authorities to trust")
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let known = reqwest::Certificate::from_pem_bundle(&pem);
    if known.map_err(|error| unusable(error.to_string()))?.is_empty() {
        return Err(unusable("no certificate in it".to_owned()));
    }
    TRUSTED.get_or_init(|| (file.to_owned(), pem));
    Ok(())
}

/// The authorities that are trusted instead of the web's, PEM.
pub fn roots() -> Option<&'static [u8]> {
    TRUSTED.get().map(|(_, pem)| pem.as_slice())
}

/// The file that they came from.
pub fn roots_file() -> Option<&'static Path> {
    TRUSTED.get().map(|(file, _)| file.as_path())
}

impl Connect {
    /// The addresses of the broker, without trailing slashes.
    pub fn urls(&self) -> Result<Vec<String>, Failure> {
        urls(&given(&self.urls))
    }

    /// The site; needed.
    pub fn site(&self) -> Result<String, Failure> {
        self.site_maybe().ok_or_else(|| {
            Failure::usage("no site is given")
                .hint("give --site SITE, set ACKORD_SITE, or use a context that has one")
        })
    }

    /// The site, if there is one.
    pub fn site_maybe(&self) -> Option<String> {
        let given = self.site.clone().filter(|site| !site.is_empty());
        given.or_else(|| context::chosen()?.site.clone())
    }

    /// The site named by an argument, else by `--site`.
    pub fn site_or(&self, name: Option<&String>) -> Result<String, Failure> {
        name.map_or_else(|| self.site(), |name| Ok(name.clone()))
    }

    /// The token, if there is one.
    pub fn token_maybe(&self) -> Result<Option<String>, Failure> {
        token(self.token.as_deref(), self.token_file.as_deref())
    }

    /// The file that holds the token, where it comes from one: it may be renewed there.
    pub fn token_file(&self) -> Option<PathBuf> {
        match (&self.token, &self.token_file) {
            (Some(_), _) => None,
            (None, Some(file)) => Some(file.clone()),
            (None, None) => variable("ACKORD_TOKEN")
                .is_none()
                .then(|| variable("ACKORD_TOKEN_FILE"))?
                .map(Into::into)
                .or_else(|| context::chosen()?.token_file.clone()),
        }
    }

    /// The token; needed.
    pub fn token(&self) -> Result<String, Failure> {
        self.token_maybe()?.ok_or_else(|| {
            Failure::usage("no token is given").hint(
                "give --token or --token-file, set ACKORD_TOKEN or ACKORD_TOKEN_FILE, or use a \
                     context that has one",
            )
        })
    }
}

/// The addresses that options or environment give, else those of the context.
pub fn given(urls: &[String]) -> Vec<String> {
    let of_context = || context::chosen().map(|context| context.urls.clone());
    if urls.is_empty() { of_context().unwrap_or_default() } else { urls.to_vec() }
}

/// The addresses of the broker, without trailing slashes.
pub fn urls(given: &[String]) -> Result<Vec<String>, Failure> {
    let given: Vec<&str> = given.iter().map(|url| url.trim()).filter(|u| !u.is_empty()).collect();
    if given.is_empty() {
        return Ok(vec![URL_DEFAULT.to_owned()]);
    }
    given
        .into_iter()
        .map(|url| {
            if has_user(url) {
                // It is not repeated: there may be a password in it.
                return Err(Failure::usage(
                    "--url: an address must not have a user or password in it",
                )
                .hint("a token tells who asks: --token-file, ACKORD_TOKEN or a context"));
            }
            let known = ["http://", "https://", "ws://", "wss://"];
            if known.iter().any(|scheme| url.starts_with(scheme)) {
                Ok(url.trim_end_matches('/').to_owned())
            } else {
                Err(Failure::usage(format!("`{url}` is no address of a broker"))
                    .hint(format!("write it like {URL_DEFAULT}")))
            }
        })
        .collect()
}

/// Whether an address names who asks, as `http://user:password@host` does.
fn has_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@'))
}

/// A token from a flag, a file, `ACKORD_TOKEN`, `ACKORD_TOKEN_FILE` or the context, in this order.
pub fn token(flag: Option<&str>, file: Option<&Path>) -> Result<Option<String>, Failure> {
    if let Some(token) = flag {
        return Ok(Some(token.trim().to_owned()));
    }
    if let Some(file) = file {
        return read_token(file).map(Some);
    }
    if let Some(token) = variable("ACKORD_TOKEN") {
        return Ok(Some(token.trim().to_owned()));
    }
    if let Some(file) = variable("ACKORD_TOKEN_FILE") {
        return read_token(Path::new(&file)).map(Some);
    }
    let Some(context) = context::chosen() else { return Ok(None) };
    match (&context.token, &context.token_file) {
        (Some(token), _) => Ok(Some(token.clone())),
        (None, Some(file)) => read_token(file).map(Some),
        (None, None) => Ok(None),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Asks this file for a token, now and whenever an endpoint connects.
pub fn renewed(file: PathBuf) -> impl Fn() -> Option<String> + Send + Sync {
    move || read_token(&file).ok()
}

fn read_token(file: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("the token file {} cannot be read: {error}", file.display()))
    })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_and_no_trailing_slash() {
        let given = |url: &str| urls(&[url.to_owned()]).map_err(|failure| failure.message);
        assert_eq!(given("http://a:1/"), Ok(vec!["http://a:1".to_owned()]));
        assert_eq!(given("wss://a"), Ok(vec!["wss://a".to_owned()]));
        assert!(given("a:1").is_err());
        assert_eq!(given("http://a/@b"), Ok(vec!["http://a/@b".to_owned()]));
        for secret in ["http://me:secret@a:1", "wss://secret@a", "me:secret@a"] {
            let why = given(secret).unwrap_err();
            assert!(why.contains("--url") && !why.contains("secret"), "{why}");
        }
        assert_eq!(urls(&[]).map_err(|failure| failure.message), Ok(vec![URL_DEFAULT.to_owned()]));
    }
}
