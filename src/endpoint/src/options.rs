//! What both endpoints are told about the broker, and how it is checked.

use std::sync::Arc;
use std::time::Duration;

use ackord_wire::Codec;
use ackord_wire::limits::{KEEPALIVE_S_MAX, KEEPALIVE_S_MIN};

use crate::entropy::Entropy;
use crate::error::Error;
use crate::link::{Credential, Dialer, Link, base_url, tls_config};
use crate::reconnect::Reconnect;

/// Where a token that is renewed comes from; `None` while there is none.
pub(crate) type TokenSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Whether a text can be a token at all.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Options that both builders share.
pub(crate) struct Connect {
    pub urls: Vec<String>,
    pub site: String,
    pub token: Option<String>,
    pub token_source: Option<TokenSource>,
    pub codec: Codec,
    pub keepalive: Option<Duration>,
    pub hostname: Option<String>,
    pub reconnect_scale: f64,
    pub tls_roots_pem: Option<Vec<u8>>,
    pub seed: Option<u64>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            site: String::new(),
            token: None,
            token_source: None,
            codec: Codec::Cbor,
            keepalive: None,
            hostname: None,
            reconnect_scale: 1.0,
            tls_roots_pem: None,
            seed: None,
        }
    }
}

impl Connect {
    /// Randomness for the machine.
    pub fn entropy(&self) -> Result<Entropy, Error> {
        match self.seed {
            Some(seed) => Ok(Entropy::from_number(seed)),
            None => Entropy::from_system().map_err(|error| Error::System(error.to_string())),
        }
    }

    /// Seconds between pings that are asked for.
    pub fn keepalive_s(&self) -> Result<Option<u32>, Error> {
        let Some(interval) = self.keepalive else { return Ok(None) };
        let seconds = u32::try_from(interval.as_secs()).unwrap_or(u32::MAX);
        if !(KEEPALIVE_S_MIN..=KEEPALIVE_S_MAX).contains(&seconds) {
            let range = format!("{KEEPALIVE_S_MIN} to {KEEPALIVE_S_MAX} s");
            return Err(Error::Invalid(format!("keepalive: {range} are allowed")));
        }
        Ok(Some(seconds))
    }

    /// The host's name: the given one, else the system's. At most 255 bytes.
    pub fn hostname(&self) -> String {
        let system = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = self.hostname.clone().unwrap_or_else(system);
        let name = name.trim();
        name[..name.floor_char_boundary(255)].to_owned()
    }

    /// The way to the broker.
    pub fn link(&self, role: &'static str) -> Result<Link, Error> {
        if self.urls.is_empty() {
            return Err(Error::Invalid("no address of a broker".to_owned()));
        }
        if self.site.is_empty() {
            return Err(Error::Invalid("no site".to_owned()));
        }
        if !self.reconnect_scale.is_finite() || self.reconnect_scale < 0.0 {
            return Err(Error::Invalid("reconnect scale: not a factor".to_owned()));
        }
        if !self.token.as_deref().is_none_or(is_token) {
            return Err(Error::Invalid("the token is not a token".to_owned()));
        }
        let urls = self.urls.iter().map(|url| base_url(url)).collect::<Result<Vec<_>, _>>()?;
        let dialer = Dialer {
            site: self.site.clone(),
            role,
            token: match (&self.token_source, &self.token) {
                (Some(source), _) => Credential::Asked(Arc::clone(source)),
                (None, Some(token)) => Credential::Fixed(token.clone()),
                (None, None) => Credential::Guest,
            },
            codec: self.codec,
            tls: tls_config(self.tls_roots_pem.as_deref())?,
        };
        let reconnect = Reconnect::new(urls, self.reconnect_scale);
        Ok(Link::new(dialer, reconnect, self.entropy()?))
    }
}

/// Options that both builders have, as methods.
macro_rules! connect_methods {
    () => {
        /// Adds an address: `http(s)://` or `ws(s)://`, host and port. At least one.
        pub fn url(mut self, url: impl Into<String>) -> Self {
            self.connect.urls.push(url.into());
            self
        }

        /// The site.
        pub fn site(mut self, site: impl Into<String>) -> Self {
            self.connect.site = site.into();
            self
        }

        /// Asks for the token at every attempt to connect, for one that expires and is renewed. It is
        /// asked on the endpoint's task, so it must not block for long; without a token the attempt
        /// fails and the next one asks again. Wins over a fixed token.
        pub fn token_from(
            mut self,
            source: impl Fn() -> Option<String> + Send + Sync + 'static,
        ) -> Self {
            self.connect.token_source = Some(std::sync::Arc::new(source));
            self
        }

        /// JSON or CBOR; CBOR by default.
        pub fn codec(mut self, codec: ackord_wire::Codec) -> Self {
            self.connect.codec = codec;
            self
        }

        /// Time between the broker's pings, 10..=300 s; the broker may answer with another one.
        pub fn keepalive(mut self, interval: std::time::Duration) -> Self {
            self.connect.keepalive = Some(interval);
            self
        }

        /// The host's name as others see it; by default the system's.
        pub fn hostname(mut self, name: impl Into<String>) -> Self {
            self.connect.hostname = Some(name.into());
            self
        }

        /// Multiplies every reconnect delay; for tests.
        pub fn reconnect_scale(mut self, factor: f64) -> Self {
            self.connect.reconnect_scale = factor;
            self
        }

        /// Trusts these certificates (PEM) instead of the web's for `https` and `wss`.
        pub fn tls_roots_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
            self.connect.tls_roots_pem = Some(pem.into());
            self
        }

        /// Makes uids and jitter repeatable; for tests only: two endpoints with one seed share uids.
        pub fn seed(mut self, seed: u64) -> Self {
            self.connect.seed = Some(seed);
            self
        }
    };
}
pub(crate) use connect_methods;
