//! Tickets: made for those who may, used up once by whichever node is asked.

use ackord_machine::site::{
    Command, DrawTicket, IssueTicket, Outcome, Principal, RedeemTicket, SiteName, Stamp, TokenId,
};
use ackord_wire::Code;

use crate::broker::{Broker, Refused};
use crate::{proposals, token};

/// What the bearer of a ticket is let in with.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// Who they are.
    pub principal: Principal,
    /// The token that the ticket was drawn with.
    pub token: Option<TokenId>,
    /// When what it was drawn with ends by itself, milliseconds of Unix time.
    pub until_ms: Option<u64>,
}

impl Broker {
    /// Makes a ticket: what a page puts into an address, of use once. What it opens ends with the
    /// token that it is drawn with, or at `until_ms` of Unix time. Answers its text.
    ///
    /// # Errors
    /// As [`Broker::admin`]; `limit-reached` when there are as many that are not used yet as may be, of
    /// the principal ([`crate::BrokerOptions::principal_tickets_max`]) or of the site.
    pub async fn issue_ticket(
        &self,
        site: &SiteName,
        principal: Principal,
        token: Option<TokenId>,
        until_ms: Option<u64>,
        lifetime_ms: u64,
    ) -> Result<String, Refused> {
        let id = TokenId::from(format!("k{:016x}", u64::from_le_bytes(token::random())));
        let minted = token::mint(&id);
        let ticket = IssueTicket {
            site: site.clone(),
            id,
            hash: minted.hash,
            principal,
            token,
            until: until_ms.map(Stamp),
            lifetime_ms,
        };
        let options = &self.inner().options;
        let principal_max = options.principal_tickets_max;
        let command = Command::DrawTicket(DrawTicket { ticket, principal_max });
        let patience = options.admin_deadline;
        proposals::propose_until(&self.partition(site), command, patience).await?;
        Ok(minted.text)
    }

    /// Uses a ticket up.
    ///
    /// # Errors
    /// `bad-credentials`, whatever the reason; `unavailable` when nobody can tell now.
    pub async fn redeem_ticket(&self, site: &str, ticket: &str) -> Result<Redeemed, Code> {
        let (id, hash) = token::parse(ticket).ok_or(Code::BadCredentials)?;
        let site = SiteName::from(site);
        // What is no ticket here costs no entry of the log.
        let known = || self.read_site(site.as_str(), |site, _| site.ticket(id.as_str()).is_some());
        if known() != Some(true) {
            self.confirm(site.as_str()).await?;
            if known() != Some(true) {
                return Err(Code::BadCredentials);
            }
        }
        let attempt = u64::from_le_bytes(token::random());
        let partition = self.partition(&site);
        let command = Command::RedeemTicket(RedeemTicket { site, id, hash, attempt });
        let patience = self.inner().options.admin_deadline;
        match proposals::propose_until(&partition, command, patience).await {
            Ok(Outcome::Redeemed { principal, token, until }) => {
                Ok(Redeemed { principal, token, until_ms: until.map(|stamp| stamp.0) })
            }
            Ok(_) | Err((Code::NotFound, _)) => Err(Code::BadCredentials),
            Err(_) => Err(Code::Unavailable),
        }
    }
}
