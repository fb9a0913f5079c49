//! The state of a partition: its clock, its limits and its sites, as rows with derived indexes.
//!
//! Invariants: the state is a function of its rows alone, whatever the order in which they were
//! absorbed; a site is visible once its own row is there; `due` holds the earliest expiry of each
//! site. Deciding is not done here, and absorbing never fails.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::audit::Told;
use super::codec::encode_row;
use super::directory::Directory;
use super::history::Departures;
use super::ids::{Digest, RequestId, SiteName, Stamp};
use super::limits::Limits;
use super::row::{AttemptRow, RequestRow, Row, RowKey, Write};
use super::site::{Due, Site};

/// Everything that one partition agrees on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    clock: Stamp,
    limits: Limits,
    /// Whether the limits are a row; the defaults are not.
    limits_set: bool,
    directory: Directory,
    sites: BTreeMap<SiteName, Site>,
    due: BTreeSet<(Stamp, SiteName)>,
    bytes: u64,
    departures: Departures,
}

impl State {
    /// The state before the first log entry: no rows, default limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The largest stamp applied so far.
    pub fn clock(&self) -> Stamp {
        self.clock
    }

    /// What all replicas judge by.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The nodes of the cluster; only in the state of the directory's group.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The site of this name.
    pub fn site(&self, name: &str) -> Option<&Site> {
        self.sites.get(name).filter(|site| site.exists())
    }

    /// All sites, by name.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        self.sites.values().filter(|site| site.exists())
    }

    /// Estimated bytes of memory that the rows take: compared with `partition_bytes_max`.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether raises are refused because the state is as large as it may be.
    pub fn over_capacity(&self) -> bool {
        self.bytes >= self.limits.partition_bytes_max
    }

    /// The record of acts kept under this name, whether or not there is such a site; the newest
    /// first, below this number.
    pub fn audit_before(
        &self,
        site: &str,
        number: u64,
    ) -> impl Iterator<Item = &super::audit::AuditRow> {
        self.sites.get(site).into_iter().flat_map(move |site| site.audit_before(number))
    }

    /// The number of the newest entry kept under a name; 0 when there is none.
    pub(super) fn audit_newest(&self, site: &str) -> u64 {
        let audit = self.sites.get(site).map(|site| &site.audit);
        audit.and_then(|audit| audit.last_key_value()).map_or(0, |(last, _)| *last)
    }

    /// The numbers of the entries of one kind that are kept under a name, ascending.
    pub(super) fn audit_numbers(&self, site: &str, told: Told) -> Option<&BTreeSet<u64>> {
        self.sites.get(site)?.told.get(&told)
    }

    /// What departed since this was last asked, as far as this replica saw it.
    pub fn take_departures(&mut self) -> Departures {
        std::mem::take(&mut self.departures)
    }

    /// The earliest expiry of anything: when the next tick has something to do.
    pub fn next_due(&self) -> Option<Stamp> {
        self.due.first().map(|(stamp, _)| *stamp)
    }

    /// What expires at or before `now`, at most `limit` rows, site by site.
    pub(super) fn due(&self, now: Stamp, limit: usize) -> impl Iterator<Item = (&Site, &Due)> {
        self.due
            .iter()
            .take_while(move |(stamp, _)| *stamp <= now)
            .filter_map(|(_, name)| self.sites.get(name))
            .flat_map(move |site| site.due(now).map(move |due| (site, due)))
            .take(limit)
    }

    /// The remembered answer to a request; it outlives the site's deletion.
    pub(super) fn request(&self, site: &SiteName, id: RequestId) -> Option<&RequestRow> {
        self.remembering(site)?.request(id)
    }

    /// How many answers are remembered for a site of this name.
    pub(super) fn requests(&self, site: &SiteName) -> usize {
        self.remembering(site).map_or(0, Site::requests)
    }

    /// What a site that is being restored remembers counts only once it is there.
    fn remembering(&self, site: &SiteName) -> Option<&Site> {
        self.sites.get(site).filter(|site| site.exists() || site.attempt.is_none())
    }

    /// Carries out one write. Total: any row is taken, an absent one is deleted without effect.
    pub fn absorb(&mut self, write: &Write) {
        match write {
            Write::Put(Row::Clock(stamp)) => self.clock = *stamp,
            Write::Delete(RowKey::Clock) => self.clock = Stamp::default(),
            Write::Put(Row::Limits(limits)) => {
                self.limits = limits.clone();
                self.limits_set = true;
            }
            Write::Delete(RowKey::Limits) => {
                self.limits = Limits::default();
                self.limits_set = false;
            }
            Write::Put(Row::Cluster(row)) => self.directory.cluster = Some(row.clone()),
            Write::Delete(RowKey::Cluster) => self.directory.cluster = None,
            Write::Put(Row::Node(row)) => {
                self.directory.nodes.insert(row.id, row.clone());
            }
            Write::Delete(RowKey::Node(id)) => {
                self.directory.nodes.remove(id);
            }
            Write::Put(row) => {
                if let Some(name) = row.site() {
                    self.change(name, |site| site.put(row));
                }
            }
            Write::Delete(key) => {
                if let Some(name) = key.site()
                    && self.sites.contains_key(name)
                {
                    let now = self.clock;
                    self.change(name, |site| site.delete(key, now));
                }
            }
        }
    }

    fn change(&mut self, name: &SiteName, change: impl FnOnce(&mut Site)) {
        let site = self.sites.entry(name.clone()).or_insert_with(|| Site::empty(name.clone()));
        let (bytes, due) = (site.bytes(), site.next_due());
        change(site);
        let departed = site.history.take_departures();
        let (bytes_now, due_now, gone) = (site.bytes(), site.next_due(), site.is_empty());
        self.bytes = self.bytes.saturating_sub(bytes).saturating_add(bytes_now);
        self.departures.add(departed);
        if due != due_now {
            if let Some(stamp) = due {
                self.due.remove(&(stamp, name.clone()));
            }
            if let Some(stamp) = due_now {
                self.due.insert((stamp, name.clone()));
            }
        }
        if gone {
            self.sites.remove(name);
        }
    }

    /// The row of this identity.
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Clock => self.clock_row(),
            RowKey::Limits => self.limits_row(),
            RowKey::Cluster => self.directory.cluster.clone().map(Row::Cluster),
            RowKey::Node(id) => self.directory.nodes.get(id).cloned().map(Row::Node),
            RowKey::Site(name)
            | RowKey::Head(name)
            | RowKey::Event(name, _)
            | RowKey::Instance(name, _)
            | RowKey::Service(name, _)
            | RowKey::Declared(name, _)
            | RowKey::Store(name, _, _)
            | RowKey::Outcome(name, _, _, _)
            | RowKey::Key(name, _, _)
            | RowKey::User(name, _)
            | RowKey::Client(name, _)
            | RowKey::Subscription(name, _, _)
            | RowKey::Token(name, _)
            | RowKey::Request(name, _)
            | RowKey::Attempt(name)
            | RowKey::Ticket(name, _)
            | RowKey::Quota(name)
            | RowKey::Rate(name, _)
            | RowKey::Audit(name, _)
            | RowKey::Polling(name, _)
            | RowKey::Quality(name, _, _)
            | RowKey::Push(name, _)
            | RowKey::DeadLetter(name, _) => self.sites.get(name)?.row(key),
        }
    }

    /// Every row once, in an order that depends on the rows alone. Clones as it goes.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let own = self.clock_row().into_iter().chain(self.limits_row());
        let cluster = self.directory.cluster.clone().map(Row::Cluster);
        let nodes = self.directory.nodes.values().cloned().map(Row::Node);
        let own = own.chain(cluster).chain(nodes);
        own.chain(self.sites.values().flat_map(Site::rows))
    }

    /// The rows of the sites that exist, for a backup: without what is left of others, without
    /// the attempts by which they were restored, and without what is gone before anybody restores it. Clones as it goes.
    pub fn rows_of_sites(&self) -> impl Iterator<Item = Row> {
        let rows = self.sites().flat_map(Site::rows);
        rows.filter(|row| !matches!(row, Row::Attempt(_) | Row::Ticket(_) | Row::Rate(_)))
    }

    /// The newest attempt to restore a site, also of one that is there by now.
    pub(super) fn attempt(&self, site: &SiteName) -> Option<&AttemptRow> {
        self.sites.get(site)?.attempt.as_ref()
    }

    /// The rows of a site that does not exist: what an attempt to restore it has put so far, or the
    /// answers that a deleted one remembers.
    pub(super) fn hidden_rows(&self, name: &SiteName) -> Vec<RowKey> {
        let hidden = self.sites.get(name).filter(|site| !site.exists());
        hidden.map(|site| site.rows().map(|row| row.key()).collect()).unwrap_or_default()
    }

    fn clock_row(&self) -> Option<Row> {
        (self.clock != Stamp::default()).then_some(Row::Clock(self.clock))
    }

    fn limits_row(&self) -> Option<Row> {
        self.limits_set.then(|| Row::Limits(self.limits.clone()))
    }

    /// SHA-256 over all rows: equal on replicas that have applied the same log.
    pub fn hash(&self) -> Digest {
        let mut hasher = Sha256::new();
        for row in self.rows() {
            let row = encode_row(&row);
            hasher.update((row.len() as u64).to_le_bytes());
            hasher.update(&row);
        }
        Digest(hasher.finalize().into())
    }
}
