//! What each site has in a partition's queue, so that none fills it for the others.
//!
//! A site may add a command only while it has fewer, and fewer bytes, than [`SHARE`] times what is
//! still free (the dynamic thresholds of Choudhury and Hahne, 1998). A site that is alone gets nine
//! tenths of the queue; as the queue empties, several greedy ones come to equal parts. What is of no
//! site (ticks, the directory) is bounded by the queue alone.

use std::collections::HashMap;

use ackord_machine::site::{Command, SiteName};

/// How many times as much as is free one site may have.
const SHARE: usize = 9;

/// What is queued of one site.
#[derive(Clone, Copy, Default)]
struct Part {
    count: usize,
    bytes: usize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Shares {
    sites: HashMap<SiteName, Part>,
}

/// What is free of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Free {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Shares {
    /// Whether a command of this site may be added.
    pub(crate) fn allows(&self, site: Option<&SiteName>, free: Free) -> bool {
        let Some(part) = site.and_then(|site| self.sites.get(site)) else { return true };
        part.count < free.count.saturating_mul(SHARE)
            && part.bytes < free.bytes.saturating_mul(SHARE)
    }

    /// A command of so many bytes was added.
    pub(crate) fn add(&mut self, site: Option<&SiteName>, bytes: usize) {
        let Some(site) = site else { return };
        match self.sites.get_mut(site) {
            Some(part) => {
                part.count += 1;
                part.bytes += bytes;
            }
            None => drop(self.sites.insert(site.clone(), Part { count: 1, bytes })),
        }
    }

    /// A command of so many bytes was taken out.
    pub(crate) fn remove(&mut self, site: Option<&SiteName>, bytes: usize) {
        let Some(site) = site else { return };
        let Some(part) = self.sites.get_mut(site) else { return };
        part.count -= 1;
        part.bytes -= bytes;
        if part.count == 0 {
            self.sites.remove(site);
        }
    }
}

/// The site that a command is of.
pub(crate) fn site_of(command: &Command) -> Option<&SiteName> {
    match command {
        Command::AttachService(attach) => Some(&attach.site),
        Command::DetachService { site, .. }
        | Command::AttachClient { site, .. }
        | Command::Admin { site, .. }
        | Command::Record { site, .. } => Some(site),
        Command::Raise(raise) => Some(&raise.site),
        Command::Traced(traced) => Some(traced.raise.site()),
        Command::RaiseKeyed(raise) => Some(&raise.site),
        Command::RaiseAfter(after) => Some(&after.raise.site),
        Command::Subscribe(subscribe) => Some(&subscribe.site),
        Command::SubscribeAs(list) => Some(&list.subscribe.site),
        Command::Advance(advance) | Command::Acknowledge(advance) => Some(&advance.site),
        Command::Restore(restore) => Some(&restore.site),
        Command::Administer(asked) => Some(&asked.site),
        Command::IssueTicket(ticket) => Some(&ticket.site),
        Command::DrawTicket(draw) => Some(&draw.ticket.site),
        Command::RedeemTicket(ticket) => Some(&ticket.site),
        Command::AttachPolling(attach) => Some(&attach.site),
        Command::AttachPush(attach) => Some(&attach.site),
        Command::SettlePush(settle) => Some(&settle.site),
        Command::GiveUp(asked) => Some(&asked.site),
        Command::Tick { .. }
        | Command::SetLimits(_)
        | Command::Renew { .. }
        | Command::Directory(_)
        | Command::Compare => None,
    }
}
