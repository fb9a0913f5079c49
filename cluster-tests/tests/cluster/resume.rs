//! A node that lags, and a node that is cut off: what they may hand to clients.
//!
//! Bare protocol clients see every transmission; the endpoints of the SDK beside them must not have
//! to hide anything from their handlers.

use std::ops::Range;
use std::time::{Duration, Instant};

use ackord_endpoint::{ClientNotice, Event};
use ackord_wire::frame::{EventMessage, Position, Subscribed, Subscription};
use ackord_wire::{ClientMessage, Code};
use cluster_tests::cluster::Cluster;
use cluster_tests::mesh::OUTSIDE;
use cluster_tests::oracle::{self, Expectations};
use cluster_tests::raiser::{Raiser, json};
use cluster_tests::raw::{self, RawClient};
use cluster_tests::seed::Seed;
use cluster_tests::site::{Account, Site, queueing, structure};
use cluster_tests::wait;

use cluster_tests::load::{EVENT, OUTCOME};

/// A node that no leader confirms for so long sends nothing any more,
const STALE: Duration = Duration::from_secs(1);
/// and after so long closes its sessions. The test allows ten times both.
const CUT_OFF: Duration = Duration::from_secs(5);
/// Between two acknowledgements of a client that always has something to be handed next.
const PACE: Duration = Duration::from_millis(20);

async fn site(cluster: &Cluster) -> Site {
    let structure = structure(&[queueing(EVENT, 50_000)]);
    Site::new_at(cluster.admin(1), cluster.urls_from(1), "one", &structure).await
}

/// Raises events that say a number of this range; gives their ids.
async fn raise(raiser: &Raiser, numbers: Range<u64>) -> Vec<u64> {
    let raises = numbers.map(|n| raiser.raise(EVENT, n));
    futures_util::future::join_all(raises).await
}

/// The newest instance that a node itself has.
async fn head(cluster: &Cluster, node: usize) -> usize {
    let queue = format!("/v1/sites/one/queues/{EVENT}");
    cluster.admin(node).local(&queue).await.expect("the queue").len()
}

/// Opens a stateless session at this node, for as long as that takes.
async fn open(url: &str, at: Position) -> (RawClient, Subscribed) {
    wait::until_for(OUTCOME, "the node to take the position", async || {
        let items = vec![Subscription { resume: Some(at), ..raw::to(EVENT) }];
        RawClient::subscribed(url, "one", None, items).await.ok()
    })
    .await
}

/// Acknowledges an event at once; its id.
async fn handle(client: &mut RawClient, event: &EventMessage) -> u64 {
    assert_eq!(event.attempt, 1, "a first transmission");
    client.handle(event).await.expect("the session is open");
    event.instance_id
}

/// A client that goes on after this instance.
struct Resumed {
    after: u64,
    url: String,
    incarnation: u64,
    client: RawClient,
}

impl Resumed {
    /// Opens a session at this node, for as long as that takes.
    async fn at(cluster: &Cluster, node: usize, incarnation: u64, after: u64) -> Self {
        let url = cluster.url(node).to_owned();
        let client = Self::open(&url, incarnation, after).await;
        Self { after, url, incarnation, client }
    }

    async fn open(url: &str, incarnation: u64, after: u64) -> RawClient {
        let at = Position { incarnation, generation: 0, instance_id: after };
        let (client, subscribed) = open(url, at).await;
        assert_eq!(subscribed.accepted[0].resumed, Some(true), "after {after}");
        client
    }

    /// It is handed what is behind its position, in order, each once.
    async fn check(mut self, retained: &[u64]) {
        let due: Vec<u64> = retained.iter().copied().filter(|id| *id > self.after).collect();
        let mut ids = Vec::new();
        while ids.len() < due.len() {
            match self.client.event().await {
                Ok(event) => ids.push(handle(&mut self.client, &event).await),
                // A node that was cut off for long ends its sessions; this one goes on behind what it
                // has handled.
                Err(error) if error.to_string().contains("cut off") => {
                    let last = ids.last().copied().unwrap_or(self.after);
                    self.client = Self::open(&self.url, self.incarnation, last).await;
                }
                Err(error) => panic!("after {}: {error:#}", self.after),
            }
        }
        assert_eq!(ids, due, "after {}", self.after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateless_client_that_resumes_at_a_node_that_lags_repeats_and_skips_nothing() {
    let mut seed = Seed::of_test("cluster", "resumes_at_a_node_that_lags");
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let mut site = site(&cluster).await;
    let service = site.service("service").await;
    let mut guests = Vec::new();
    for round in 0..super::rounds(3) {
        let (lagging, before, other) = (1 + round % 3, 1 + (round + 1) % 3, 1 + (round + 2) % 3);
        site.admin = cluster.admin(other);
        let raiser = site.raiser(&service).via(cluster.url(other)).start().await;
        raise(&raiser, 0..10).await;
        let name = format!("guest-{round}");
        // It goes to the lagging node when the first one is gone.
        let urls = vec![cluster.url(before).to_owned(), cluster.url(lagging).to_owned()];
        let guest = site.stateless(&name).via_all(urls).to(EVENT).subscribed(1).await;
        let known = site.retained(EVENT).await;
        guest.until_handled(known.len()).await;
        wait::until_true("the node to have all", async || {
            head(&cluster, lagging).await == known.len()
        })
        .await;

        cluster.mesh().cut_from_peers(lagging);
        let late = raise(&raiser, 10..10 + seed.between(50, 80)).await;
        let handled = guest.until_handled(known.len() + late.len()).await;
        let lag = site.retained(EVENT).await.len() - head(&cluster, lagging).await;
        assert!(lag >= 50, "node {lagging} is only {lag} events behind");
        raiser.close().await;
        for node in [before, other] {
            cluster.mesh().cut_from_endpoints(node);
            cluster.mesh().reset(OUTSIDE, node);
        }
        let incarnation = handled[0].incarnation;
        let middle = late[seed.between(0, late.len() as u64) as usize];
        let last = *late.last().expect("there are some");
        let (one, two, ()) = tokio::join!(
            Resumed::at(&cluster, lagging, incarnation, middle),
            Resumed::at(&cluster, lagging, incarnation, last),
            async {
                cluster.lasts(seed.millis(0, 3000)).await;
                assert!(site.retained(EVENT).await.len() >= head(&cluster, lagging).await + 50);
                cluster.mesh().rejoin_peers(lagging);
            }
        );
        let raiser = site.raiser(&service).via(cluster.url(lagging)).start().await;
        raise(&raiser, 100..120).await;
        let retained = site.retained(EVENT).await;
        one.check(&retained).await;
        two.check(&retained).await;
        let handled = guest.until_handled(retained.len()).await;
        let ids: Vec<u64> = handled.iter().map(|handled| handled.instance_id).collect();
        assert_eq!(ids, retained, "handled by {name}");
        let here = |notice: &ClientNotice| matches!(notice, ClientNotice::Connected { url, .. } if same(url, cluster.url(lagging)));
        assert!(guest.notices.count(here) > 0, "it went on elsewhere: {:?}", guest.notices.all());
        println!("node {lagging}: {lag} events behind, three clients went on there");
        raiser.close().await;
        guest.close().await;
        cluster.mesh().heal();
        cluster.ready().await;
        guests.push(name);
    }
    oracle::require(&site.history, &Expectations::default());
    cluster.until_equal("one").await;
}

/// What a client saw that was handed one instance after the other until its session ended.
struct Witness {
    handed: Vec<u64>,
    /// When the last one came, and when the session ended, after the node was cut off.
    last: Duration,
    ended: Duration,
}

/// Acknowledges at a pace until the node closes the session.
async fn until_closed(client: &mut RawClient, first: EventMessage, since: Instant) -> Witness {
    let mut pace = tokio::time::interval(PACE);
    let mut handed = vec![first.instance_id];
    let (mut next, mut last) = (first, Duration::ZERO);
    loop {
        pace.tick().await;
        client.ack(&next).await.expect("the session is open");
        let mut frame = client.next().await.expect("a frame");
        if let Ok(ClientMessage::Committed(_)) = frame {
            frame = client.next().await.expect("a frame");
        }
        match frame {
            Ok(ClientMessage::Event(event)) => {
                last = since.elapsed();
                handed.push(event.instance_id);
                next = *event;
            }
            Ok(ClientMessage::Closing(closing)) => {
                assert_eq!((closing.code, closing.reconnect), (Code::Unavailable, true));
                return Witness { handed, last, ended: since.elapsed() };
            }
            other => panic!("no event but {other:?}"),
        }
    }
}

/// The group whose log grew most by these raises: the site's.
async fn leader_of(cluster: &Cluster, raiser: &Raiser) -> usize {
    let applied = async || -> Vec<u64> {
        let view = cluster.view(1).await.expect("the node answers");
        let groups = view["groups"].as_array().expect("groups").clone();
        groups.iter().filter_map(|group| group["applied"].as_u64()).collect()
    };
    let before = applied().await;
    for n in 0..20 {
        raiser.raise(EVENT, n).await;
    }
    let after = applied().await;
    let grown = after.iter().zip(before).map(|(after, before)| after - before).enumerate();
    let (group, _) = grown.max_by_key(|(_, grown)| *grown).expect("there are groups");
    wait::until("a leader", async || cluster.leader(group, 1).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_stops_delivering_and_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start(3).await.expect("the cluster starts");
    let site = site(&cluster).await;
    let service = site.service("service").await;
    let account = site.guest("reader").await;
    let raiser = site.raiser(&service).start().await;
    let leader = leader_of(&cluster, &raiser).await;
    raise(&raiser, 20..1020).await;
    raiser.close().await;
    let reader = site.listener(&account).via(cluster.url(leader)).to(EVENT).subscribed(1).await;
    let guest = site.stateless("guest").via(cluster.url(leader)).to(EVENT).subscribed(1).await;
    let retained = site.retained(EVENT).await.len();
    reader.until_handled(retained).await;
    guest.until_handled(retained).await;
    // The one that led the site, and whoever comes round.
    let nodes = cluster.nodes().cycle().skip(leader - 1).take(super::rounds(2));
    for node in nodes.collect::<Vec<_>>() {
        check_cut_off(&mut cluster, &site, &service, node).await;
        let retained = site.retained(EVENT).await;
        for client in [&reader, &guest] {
            let handled = client.until_handled(retained.len()).await;
            let ids: Vec<u64> = handled.iter().map(|handled| handled.instance_id).collect();
            assert_eq!(ids, retained, "handled by {}", client.name());
        }
    }
    let complete = ["reader", "guest"].map(|client| (EVENT.to_owned(), client.to_owned()));
    let complete = complete.into_iter().collect();
    oracle::require(&site.history, &Expectations { complete, ..Expectations::default() });
    cluster.until_equal("one").await;
    cluster.until_replicas_agree().await;
}

/// Endpoints reach only this node, which reaches no other: all stops, and goes on afterwards.
async fn check_cut_off(cluster: &mut Cluster, site: &Site, service: &Account, node: usize) {
    let raiser = site.raiser(service).via(cluster.url(node)).start().await;
    raise(&raiser, 0..5).await;
    let (mut witness, _) =
        RawClient::subscribed(cluster.url(node), &site.name, None, vec![raw::to(EVENT)])
            .await
            .expect("the node serves");
    let first = witness.event().await.expect("an event");
    let incarnation = first.incarnation;
    for other in cluster.nodes().filter(|other| *other != node) {
        cluster.mesh().cut_from_endpoints(other);
    }
    cluster.mesh().cut_from_peers(node);
    let since = Instant::now();
    let raising = async {
        // Whatever was on its way: the majority is out of reach from now on.
        let event = Event::new(EVENT, Some(json("while cut off")));
        raiser.outcome(event).await.expect("an event is never refused");
        since.elapsed()
    };
    let unready = async {
        let admin = cluster.admin(node);
        let not_ready = async || (!admin.is_ready().await).then_some(());
        wait::until_for(CUT_OFF * 10, "the node not to be ready", not_ready).await;
        since.elapsed()
    };
    let fault = async {
        let (witness, unready) = tokio::join!(until_closed(&mut witness, first, since), unready);
        assert!(!cluster.admin(node).is_ready().await, "it is cut off");
        let healed = since.elapsed();
        cluster.mesh().heal();
        (witness, unready, healed)
    };
    let (acknowledged, (seen, unready, healed)) = tokio::join!(raising, fault);
    println!(
        "node {node}: the last of {} deliveries {:?} after it was cut off, closed after {:?}, not \
         ready after {unready:?}; back at {healed:?}, the raise acknowledged at {acknowledged:?}",
        seen.handed.len(),
        seen.last,
        seen.ended,
    );
    assert!(seen.last <= STALE * 10 && seen.ended <= CUT_OFF * 10);
    // It was silent for most of the time: by the clock of the machine, however busy it is.
    assert!(seen.last * 2 < seen.ended, "it went on delivering until it closed the session");
    assert!(acknowledged >= healed, "acknowledged without a majority");
    cluster.ready().await;
    let after = *seen.handed.last().expect("at least one");
    let resumed = Resumed::at(cluster, node, incarnation, after).await;
    let retained = site.retained(EVENT).await;
    assert_eq!(seen.handed, retained[..seen.handed.len()], "in order, each once");
    resumed.check(&retained).await;
    raiser.close().await;
}

/// Whether two URLs are of one node, whatever the scheme.
fn same(one: &str, other: &str) -> bool {
    let address =
        |url: &str| url.split_once("://").map(|(_, at)| at.trim_end_matches('/').to_owned());
    address(one) == address(other)
}
