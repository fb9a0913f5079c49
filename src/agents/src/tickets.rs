//! Tickets: made for those who may, used up once by whichever node is asked.

use ackord_machine::site::{
    Command, IssueTicket, Outcome, Principal, RedeemTicket, SiteName, TokenId,
};
use ackord_wire::Code;

use crate::broker::{Broker, Refused};
use crate::{proposals, token};

impl Broker {
    /// Makes a ticket: what a page puts into an address, of use once. Answers its text.
    ///
    /// # Errors
    /// As [`Broker::admin`].
    pub async fn issue_ticket(
        &self,
        site: &SiteName,
        principal: Principal,
        token: Option<TokenId>,
        lifetime_ms: u64,
    ) -> Result<String, Refused> {
        let id = TokenId::from(format!("k{:016x}", u64::from_le_bytes(token::random())));
        let minted = token::mint(&id);
        let command = Command::IssueTicket(IssueTicket {
            site: site.clone(),
            id,
            hash: minted.hash,
            principal,
            token,
            lifetime_ms,
        });
        let patience = self.inner().options.admin_deadline;
        proposals::propose_until(&self.partition(site), command, patience).await?;
        Ok(minted.text)
    }

    /// Uses a ticket up: who its bearer is, and the token that it was drawn with.
    ///
    /// # Errors
    /// `bad-credentials`, whatever the reason; `unavailable` when nobody can tell now.
    pub async fn redeem_ticket(
        &self,
        site: &str,
        ticket: &str,
    ) -> Result<(Principal, Option<TokenId>), Code> {
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
            Ok(Outcome::Redeemed { principal, token }) => Ok((principal, token)),
            Ok(_) | Err((Code::NotFound, _)) => Err(Code::BadCredentials),
            Err(_) => Err(Code::Unavailable),
        }
    }
}
