//! What the scenarios share: small nodes, sites to act on, and short ways to propose.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ackord_machine::site::{
    Access, AdminAction, Advance, Arguments, AttachService, Claim, Command, Digest, Epoch,
    EventDefinition, EventName, GuestSupport, Incarnation, InstanceId, Kind, NewEvent, Outcome,
    Place, Raise, RequestId, Sequence, ServiceId, SessionId, SiteName, SiteSettings, StorageUid,
    Structure,
};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{Node, NodeOptions, OnFatal, PartitionHandle, Pending, ProposeError};

pub(super) const INCARNATION: Incarnation = Incarnation(77);
pub(super) const UID: StorageUid = StorageUid([7; 16]);

/// Tells the sessions of a test process apart.
static LAST_SESSION: AtomicU64 = AtomicU64::new(0);

/// Small files and short intervals; a failure of the node fails the test by its absence of answers
/// instead of aborting the test process.
pub(super) fn options(dir: &Path) -> NodeOptions {
    NodeOptions {
        partitions: 2,
        threads: 2,
        checkpoint_interval: Duration::from_millis(20),
        log_file_bytes: 256 << 10,
        log_purge_bytes: 1 << 20,
        disk_reserve_bytes: 1 << 20,
        on_fatal: OnFatal::Call(Arc::new(|reason| eprintln!("the node failed: {reason}"))),
        ..NodeOptions::new(dir)
    }
}

/// Keeps why a node failed.
pub(super) fn record_fatal() -> (OnFatal, Arc<Mutex<Vec<String>>>) {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let seen = reasons.clone();
    (OnFatal::Call(Arc::new(move |reason| seen.lock().push(reason.to_owned()))), reasons)
}

pub(super) async fn propose(
    at: &PartitionHandle,
    command: Command,
) -> Result<Outcome, ProposeError> {
    at.try_propose(command)?.await
}

pub(super) fn admin(site: &SiteName, number: u8, action: AdminAction) -> Command {
    Command::Admin { request: RequestId([number; 16]), site: site.clone(), action }
}

pub(super) fn create_site(site: &SiteName) -> Command {
    let settings = SiteSettings {
        multi_service: false,
        constructible: true,
        guests_allowed: true,
        stateless_guests_allowed: true,
    };
    admin(site, 1, AdminAction::CreateSite { settings, incarnation: INCARNATION })
}

pub(super) fn structure(queue_size: u32) -> Structure {
    let kind = Kind::Queueing { lifetime_s: 3600, size: queue_size, access: Access::Everyone };
    Structure {
        service_type: "Boiler".into(),
        contract_author: "Ackord".into(),
        guests: GuestSupport::GuestAndStateless,
        roles: Vec::new(),
        owner_role: None,
        events: vec![EventDefinition { name: EventName::from("Alarm"), kind }],
    }
}

/// A site with an attached service that may raise `Alarm`.
#[derive(Clone)]
pub(super) struct Publisher {
    pub(super) at: PartitionHandle,
    pub(super) site: SiteName,
    pub(super) epoch: Epoch,
    pub(super) next: Sequence,
}

impl Publisher {
    /// Creates the site with all it needs.
    pub(super) async fn create(node: &Node, name: &str, queue_size: u32) -> Self {
        let site = SiteName::from(name);
        let at = node.partition_of(&site);
        assert_eq!(propose(&at, create_site(&site)).await, Ok(Outcome::Done));
        let service = AdminAction::CreateService { id: ServiceId::from("boiler") };
        assert_eq!(propose(&at, admin(&site, 2, service)).await, Ok(Outcome::Done));
        Self::attach(node, name, queue_size).await
    }

    /// Attaches to a site that exists.
    pub(super) async fn attach(node: &Node, name: &str, queue_size: u32) -> Self {
        let site = SiteName::from(name);
        let at = node.partition_of(&site);
        let attach = Command::AttachService(AttachService {
            site: site.clone(),
            service: ServiceId::from("boiler"),
            structure: Some(structure(queue_size)),
            version: "1".into(),
            hostname: "host".into(),
            uid: UID,
            continues: None,
            incarnation: INCARNATION,
            place: Place { node: 1, run: 1 },
            claim: Claim {
                session: SessionId(LAST_SESSION.fetch_add(1, Ordering::Relaxed)),
                above: Epoch(u64::MAX),
            },
        });
        let Ok(Outcome::ServiceAttached { epoch, last, parked: None, .. }) =
            propose(&at, attach).await
        else {
            panic!("the service attaches to a site that it may construct");
        };
        Self { at, site, epoch, next: last.next() }
    }

    /// The next raise of this store.
    pub(super) fn raise(&mut self, bytes: usize) -> Command {
        let sequence = self.next;
        self.next = self.next.next();
        self.raise_as(sequence, bytes)
    }

    /// Proposes the next raise.
    pub(super) fn send(&mut self, bytes: usize) -> Result<Pending, ProposeError> {
        let command = self.raise(bytes);
        self.at.try_propose(command)
    }

    pub(super) fn raise_as(&self, sequence: Sequence, bytes: usize) -> Command {
        let data = format!("{:>width$}", sequence.0, width = bytes);
        Command::Raise(Raise {
            site: self.site.clone(),
            service: ServiceId::from("boiler"),
            epoch: self.epoch,
            uid: UID,
            sequence,
            event: NewEvent {
                name: EventName::from("Alarm"),
                category: None,
                arguments: Some(Arguments {
                    content_type: "text/plain".into(),
                    data: Bytes::from(data),
                }),
                client: None,
                lifetime_s: None,
                trace: None,
            },
        })
    }

    /// How many instances the site retains, and the newest one's id.
    pub(super) fn retained(&self) -> (usize, InstanceId) {
        self.at.read(|state| {
            let site = state.site(self.site.as_str()).expect("the site was created");
            let event = site.event_named("Alarm").expect("the structure has it");
            (site.retained(event.key).count(), site.head())
        })
    }
}

pub(super) fn hashes(node: &Node) -> Vec<Digest> {
    node.partitions().iter().map(|partition| partition.read(|state| state.hash())).collect()
}

/// Waits until `done` holds; a test that waits for what never comes fails by the harness's limit.
pub(super) async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

pub(super) fn advance(publisher: &Publisher, epoch: Epoch, instance: InstanceId) -> Command {
    let event = publisher.at.read(|state| {
        let site = state.site(publisher.site.as_str()).expect("the site was created");
        site.event_named("Alarm").expect("the structure has it").key
    });
    Command::Advance(Advance {
        site: publisher.site.clone(),
        client: "client".into(),
        event,
        epoch,
        incarnation: INCARNATION,
        generation: Default::default(),
        instance,
    })
}
