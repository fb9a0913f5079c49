//! The handshake before a callback is registered: it must answer a challenge that nobody can guess,
//! so that nobody has the broker call somebody who did not ask for it.

use std::time::Duration;

use ackord_machine::site::{PushId, PushSpec, PushTarget, SiteName, Trouble};
use ackord_wire::Code;
use ackord_wire::payload::JSON;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

use super::Pushes;
use super::callback::{Call, Over, Unanswered, host_of, parse};
use super::encode::{self, Encoded};
use crate::broker::{Broker, Refused};
use crate::token;

/// How long a callback has to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the answer that are read.
const ANSWER_BYTES_MAX: usize = 4096;

impl Broker {
    /// Judges the target of a push subscription, see `push/handshake.rs`.
    ///
    /// # Errors
    /// `invalid`, `callback-not-allowed` or `callback-unverified`.
    pub async fn verify_push(
        &self,
        site: &SiteName,
        id: &PushId,
        spec: &PushSpec,
    ) -> Result<(), Refused> {
        self.inner().pushes.verify(site, id, spec).await
    }

    /// Judges a push subscription by the limits of the deployment.
    ///
    /// # Errors
    /// `invalid`.
    pub fn judge_push(&self, spec: &PushSpec) -> Result<(), Refused> {
        self.inner().pushes.judge(spec)
    }

    /// Whether there may be one more push subscription, of all sites.
    ///
    /// # Errors
    /// `limit-reached`.
    pub fn has_room_for_push(&self) -> Result<(), Refused> {
        let most = self.inner().pushes.options.subscriptions_max;
        let mut count = 0;
        self.read_all(|site| count += site.pushes().count());
        if count < most {
            return Ok(());
        }
        Err((Code::LimitReached, format!("limit push.subscriptions_max: at most {most}")))
    }

    /// Instances under way of a push subscription, if this node serves it.
    pub fn push_in_flight(&self, site: &str, id: &str) -> Option<usize> {
        self.inner().pushes.in_flight(site, id)
    }
}

impl Pushes {
    /// Judges what can only be judged outside of the state: that the target may be delivered to, and
    /// that it wants to be.
    ///
    /// # Errors
    /// `invalid`, `callback-not-allowed` or `callback-unverified`.
    pub async fn verify(
        &self,
        site: &SiteName,
        id: &PushId,
        spec: &PushSpec,
    ) -> Result<(), Refused> {
        self.judge(spec)?;
        match &spec.target {
            PushTarget::Http { url } => {
                if parse(url).is_none() {
                    let detail = "url: `http` or `https` with a host and without a password";
                    return Err((Code::Invalid, detail.to_owned()));
                }
                timeout(LIMIT, self.shake(site, id, spec, url))
                    .await
                    .unwrap_or(Err(Trouble::Timeout))
                    .map_err(refused)?
            }
            PushTarget::Udp { address, interface, .. } => {
                let is_number = |text: &String| text.parse::<std::net::IpAddr>().is_ok();
                if interface.as_ref().is_some_and(|text| !is_number(text)) {
                    let detail = "interface: the address of one, for instance 192.0.2.1";
                    return Err((Code::Invalid, detail.to_owned()));
                }
                super::socket::check(self, address).await?;
                true
            }
        }
        .then_some(())
        .ok_or_else(|| {
            let detail = "the callback answered 2xx without the challenge in its body";
            (Code::CallbackUnverified, detail.to_owned())
        })
    }

    /// Judges a subscription by the limits of the deployment.
    ///
    /// # Errors
    /// `invalid`.
    pub fn judge(&self, spec: &PushSpec) -> Result<(), Refused> {
        let (least, given) = (self.options.discard_interval_ms_min, spec.discard_interval_ms());
        if given < least {
            let detail = format!("discard_interval_ms: at least {least}, was {given}");
            return Err((Code::Invalid, detail));
        }
        Ok(())
    }

    /// Whether the callback gave the challenge back.
    async fn shake(
        &self,
        site: &SiteName,
        id: &PushId,
        spec: &PushSpec,
        url: &str,
    ) -> Result<bool, Trouble> {
        let challenge = URL_SAFE_NO_PAD.encode(token::random::<32>());
        let host = host_of(url).ok_or(Trouble::NotAllowed)?;
        let _pass = self.gate.pass(site, &host).await;
        let call = Call {
            url,
            over: Over::Fresh,
            encoded: Encoded { media: JSON, body: encode::challenge(site, id, &challenge) },
            secret: spec.secret.as_ref(),
            timeout: LIMIT,
            headers: vec![
                ("Ackord-Handshake", "1".to_owned()),
                ("Ackord-Site", site.to_string()),
                ("Ackord-Push", id.to_string()),
            ],
            written: None,
        };
        let answer = self.callbacks.send(call).await;
        let mut response = answer.map_err(|unanswered| match unanswered {
            Unanswered::Failed(trouble) => trouble,
            Unanswered::Stale => Trouble::Broken,
        })?;
        if !response.status().is_success() {
            return Err(Trouble::Status(response.status().as_u16()));
        }
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Ok(false);
            }
            answer.extend_from_slice(&chunk);
        }
        let object = serde_json::from_slice::<serde_json::Value>(&answer).ok();
        let named = object.as_ref().and_then(|object| object["challenge"].as_str());
        let given = named.map_or(answer.trim_ascii(), str::as_bytes);
        Ok(given.ct_eq(challenge.as_bytes()).into())
    }
}

fn refused(trouble: Trouble) -> Refused {
    match trouble {
        Trouble::NotAllowed => {
            let detail = "the host is not one that the operator allows (`push.hosts`)";
            (Code::CallbackNotAllowed, detail.to_owned())
        }
        other => {
            let detail = format!("the callback did not answer the challenge: {other}");
            (Code::CallbackUnverified, detail)
        }
    }
}
