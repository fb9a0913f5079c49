//! How many connections each site and each of its accounts has on this node, against its quotas.

use std::collections::HashMap;
use std::sync::Arc;

use ackord_machine::site::{Principal, Quotas, SiteName};
use parking_lot::Mutex;

/// Whose connection it is; `None` is a guest.
pub type Owner = Option<Principal>;

/// The connections of one site.
#[derive(Debug, Default)]
struct OfSite {
    all: u64,
    owners: HashMap<Owner, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Usage {
    sites: Mutex<HashMap<SiteName, OfSite>>,
}

/// A connection that is counted as long as this lives.
#[derive(Debug)]
pub struct Seat {
    usage: Arc<Usage>,
    site: SiteName,
    owner: Owner,
}

/// Which quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The name of the quota.
    pub quota: &'static str,
    /// Its value.
    pub most: u64,
}

impl Usage {
    /// Takes a seat for a connection, if the quotas leave one.
    pub fn take(
        self: &Arc<Self>,
        site: &SiteName,
        owner: Owner,
        quotas: &Quotas,
    ) -> Result<Seat, Full> {
        let mut sites = self.sites.lock();
        judge(sites.get(site), &owner, quotas)?;
        let of_site = sites.entry(site.clone()).or_default();
        of_site.all += 1;
        *of_site.owners.entry(owner.clone()).or_default() += 1;
        Ok(Seat { usage: self.clone(), site: site.clone(), owner })
    }

    /// Whether a connection would get a seat.
    pub fn has_room(&self, site: &SiteName, owner: &Owner, quotas: &Quotas) -> Result<(), Full> {
        judge(self.sites.lock().get(site), owner, quotas)
    }

    /// Connections of a site.
    pub fn connections(&self, site: &str) -> u64 {
        self.sites.lock().get(site).map_or(0, |of_site| of_site.all)
    }
}

fn judge(of_site: Option<&OfSite>, owner: &Owner, quotas: &Quotas) -> Result<(), Full> {
    let all = of_site.map_or(0, |of_site| of_site.all);
    let own = of_site.and_then(|of_site| of_site.owners.get(owner)).copied().unwrap_or(0);
    for (quota, most, count) in [
        ("connections", quotas.connections, all),
        ("principal_connections", quotas.principal_connections, own),
    ] {
        if let Some(most) = most.filter(|most| count >= *most) {
            return Err(Full { quota, most });
        }
    }
    Ok(())
}

impl Seat {
    /// Connections of its site, with this one.
    pub fn of_site(&self) -> u64 {
        self.usage.connections(self.site.as_str())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sites = self.usage.sites.lock();
        let Some(of_site) = sites.get_mut(&self.site) else { return };
        of_site.all -= 1;
        if let Some(own) = of_site.owners.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                of_site.owners.remove(&self.owner);
            }
        }
        if of_site.all == 0 {
            sites.remove(&self.site);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_per_site_and_account_and_given_back() {
        let usage = Arc::new(Usage::default());
        let quotas =
            Quotas { connections: Some(3), principal_connections: Some(2), ..Quotas::default() };
        let client = |id: &str| Some(Principal::Client(id.into()));
        let take = |site: &str, owner| usage.take(&site.into(), owner, &quotas);
        let first = take("s", client("a")).unwrap();
        let _second = take("s", client("a")).unwrap();
        assert_eq!(
            take("s", client("a")).unwrap_err(),
            Full { quota: "principal_connections", most: 2 }
        );
        let _guest = take("s", None).unwrap();
        assert_eq!(take("s", client("b")).unwrap_err(), Full { quota: "connections", most: 3 });
        let _elsewhere = take("t", client("b")).unwrap();
        drop(first);
        take("s", client("b")).unwrap();
        assert_eq!(usage.connections("s"), 2);
        assert_eq!(usage.connections("nowhere"), 0);
    }
}
