//! `ackord bench publish|deliver|fanout|idle|failover|quota|revocation|mixed|modes|growth`: the workloads of `ackord_bench` on
//! an own or given broker.
//!
//! The own broker is a child process with data in a temporary directory: its memory and processor
//! time can be told from those of the load.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ackord_bench::{Fault, Ground, Options, Report, Retained, Workload};
use ackord_endpoint::Structure;
use ackord_gateway::Listener;
use serde_json::{Value, json};

use super::site::site_path;
use crate::admin::{Admin, AdminError, segment};
use crate::args::{BenchCommand, BenchFault, BenchOptions};
use crate::broker::{Parts, Running};
use crate::child::{self, Process, Signal};
use crate::config::Settings;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::interrupt::Interrupt;
use crate::listen::{self, Wanted};
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use crate::token::{hash, random};

/// How long a cluster may take to settle after a fault.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Clients of the idle and the fan-out workload, and idle ones of growth, when nothing is said.
const SUBSCRIBERS: u32 = 1000;
/// Events per second of the fan-out's publisher when nothing is said.
const FANOUT_RATE: u32 = 20;
/// Events per second of a publisher whose leader fails, or of a site with a quota, when nothing is said.
const RATE: u32 = 100;
/// The size of queues that a broker allows by default.
const QUEUE_SIZE_DEFAULT: u32 = 1000;
/// The size of arguments that a broker allows by default.
const ARGS_BYTES_DEFAULT: u32 = 2048;
/// Sessions of a node beside its agents: the publisher's, and some to spare.
const SESSIONS_BESIDE: usize = 16;

/// Runs the command.
pub async fn run(command: BenchCommand, format: Format) -> Outcome {
    let (workload, arguments) = match command {
        BenchCommand::Publish(arguments) => (Workload::Publish, arguments),
        BenchCommand::Deliver(arguments) => (Workload::Deliver, arguments),
        BenchCommand::Fanout(arguments) => (Workload::Fanout, arguments),
        BenchCommand::Idle(arguments) => (Workload::Idle, arguments),
        BenchCommand::Failover(arguments) => (Workload::Failover, arguments),
        BenchCommand::Quota(arguments) => (Workload::Quota, arguments),
        BenchCommand::Revocation(arguments) => (Workload::Revocation, arguments),
        BenchCommand::Mixed(arguments) => (Workload::Mixed, arguments),
        BenchCommand::Modes(arguments) => (Workload::Modes, arguments),
        BenchCommand::Growth(arguments) => (Workload::Growth, arguments),
    };
    let options = options(workload, &arguments);
    let mut interrupt = Interrupt::catch()?;
    if workload == Workload::Idle && options.agents > 0 {
        let report = tokio::select! {
            report = without_sockets(options, arguments.sets.clone()) => report?,
            () = interrupt.wait() => return Ok(Exit::Interrupted),
        };
        return tell(&report, &arguments, format);
    }
    // Dropped in reverse: the directory goes after the broker that uses it.
    let (_directory, broker, ground) = ground(&arguments, &options).await?;
    let measuring = Progress::of("measuring", None, Unit::Time);
    let report = tokio::select! {
        report = ackord_bench::run(&ground, workload, &options) => report.map_err(failure)?,
        () = interrupt.wait() => return Ok(Exit::Interrupted),
    };
    drop(measuring);
    if let Some(mut broker) = broker {
        // What it says when it ends has no place in a report.
        let _ = tokio::task::spawn_blocking(move || broker.stop()).await;
    }
    tell(&report, &arguments, format)
}

fn tell(report: &Report, arguments: &BenchOptions, format: Format) -> Outcome {
    if let Some(file) = &arguments.html {
        std::fs::write(file, report.html())
            .map_err(|error| Failure::new(Exit::Disk, format!("{}: {error}", file.display())))?;
        say(format_args!("the charts are in {}", file.display()));
    }
    match format {
        Format::Json => output::json(report),
        Format::Text => report.lines().iter().try_for_each(|line| output::line(line)),
    }
    .map_err(|error| output::closed(&error))?;
    Ok(if report.failures.is_empty() { Exit::Done } else { Exit::EventRefused })
}

/// A broker in this process, whose agents have no sockets.
async fn without_sockets(options: Options, sets: Vec<String>) -> Result<Report, Failure> {
    let (told, report) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("ackord-agents".to_owned());
    let run = move || {
        let measured = actix_rt::System::new().block_on(measure_agents(options, &sets));
        // Whoever waited was interrupted.
        let _ = told.send(measured);
    };
    thread.spawn(run).map_err(|error| Failure::new(Exit::Disk, error.to_string()))?;
    report.await.map_err(|_| Failure::new(Exit::Refused, "the agents' thread ended"))?
}

async fn measure_agents(options: Options, sets: &[String]) -> Result<Report, Failure> {
    let directory = Directory::new()?;
    let mut settings = Settings::from_flags(&[], sets)?;
    let agents = usize::try_from(options.agents).unwrap_or(usize::MAX);
    // One site gets nine tenths of a node's sessions at most.
    let room = agents.saturating_add(agents / 8).saturating_add(SESSIONS_BESIDE);
    settings.sessions.sessions_max = settings.sessions.sessions_max.max(room);
    let listener = listen::bind(Wanted::Free(Ipv4Addr::LOCALHOST.into()))?;
    let admin_token = format!("ak_{}", hex(&random::<24>()?));
    let parts = Parts {
        dir: &directory.0,
        settings: &settings,
        listeners: vec![Listener::plain(listener)],
        issuers: Vec::new(),
        cluster: None,
        admin_hash: hash(&admin_token),
    };
    let running = Running::start(parts).await?;
    running.ready().await;
    let urls = running.urls().to_vec();
    let (admin, nodes) = administration(&urls, &admin_token)?;
    let ground = Broker { admin, nodes, urls, own: None };
    let report = ackord_bench::agents(running.broker(), &ground, &options).await;
    running.stop().await;
    report.map_err(failure)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn options(workload: Workload, arguments: &BenchOptions) -> Options {
    let subscribers = arguments.subscribers.unwrap_or(match workload {
        Workload::Idle | Workload::Fanout | Workload::Growth => SUBSCRIBERS,
        Workload::Publish
        | Workload::Deliver
        | Workload::Failover
        | Workload::Quota
        | Workload::Revocation
        | Workload::Mixed
        | Workload::Modes => arguments.subscriptions,
    });
    let rate = arguments.rate.unwrap_or(match workload {
        Workload::Fanout => FANOUT_RATE,
        Workload::Failover | Workload::Quota => RATE,
        Workload::Publish
        | Workload::Deliver
        | Workload::Idle
        | Workload::Revocation
        | Workload::Mixed
        | Workload::Modes
        | Workload::Growth => 0,
    });
    Options {
        publishers: arguments.publishers,
        window: arguments.window,
        size: arguments.size,
        time: Duration::from_secs(arguments.seconds),
        subscriptions: arguments.subscriptions,
        backlog: arguments.backlog,
        mode: arguments.mode.mode(),
        subscribers,
        agents: arguments.agents.unwrap_or(0),
        sites: arguments.sites,
        rate,
        load: arguments.load.unwrap_or(0),
        warm_up: Duration::from_secs(arguments.warm_up),
        verify: !arguments.no_verify,
        rounds: arguments.rounds,
        fault: match arguments.fault {
            BenchFault::Kill => Fault::Kill,
            BenchFault::Stop => Fault::Stop,
            BenchFault::Pause => Fault::Pause,
        },
    }
}

fn failure(error: ackord_bench::Error) -> Failure {
    let exit = match &error {
        ackord_bench::Error::Options(_) => Exit::Usage,
        ackord_bench::Error::Ground(_) => Exit::Refused,
        ackord_bench::Error::Endpoint(_) => Exit::Refused,
        ackord_bench::Error::Stuck(_) => Exit::Timeout,
    };
    Failure::new(exit, error.to_string())
}

/// A broker to measure, the process where it is an own one, and its directory.
async fn ground(
    arguments: &BenchOptions,
    options: &Options,
) -> Result<(Option<Directory>, Option<Process>, Broker), Failure> {
    let given = connect::given(&arguments.urls);
    if !given.is_empty() {
        let urls = connect::urls(&given)?;
        let token = connect::token(arguments.token.as_deref(), None)?;
        let token = token.ok_or_else(|| {
            Failure::usage("--url needs --token").hint("the token of the node's administrator")
        })?;
        let (admin, nodes) = administration(&urls, &token)?;
        return Ok((None, None, Broker { admin, nodes, urls, own: None }));
    }
    // What it says about the nodes that are killed has no place beside the report.
    child::log_as("error,openraft=off");
    let directory = Directory::new()?;
    let data = directory.0.clone();
    let limits = [
        ("queue_size_max", options.backlog.max(QUEUE_SIZE_DEFAULT)),
        ("args_bytes_max", options.size.max(ARGS_BYTES_DEFAULT)),
        ("clients_max", options.subscribers.max(100_000)),
        ("tokens_max", options.subscribers.saturating_add(options.publishers).max(200_000)),
    ];
    let mut flags: Vec<String> = limits
        .iter()
        .flat_map(|(name, value)| ["--limit".to_owned(), format!("{name}={value}")])
        .collect();
    flags.extend(["--nodes".to_owned(), arguments.nodes.to_string()]);
    flags.extend(arguments.sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    // Receivers of the run are on this machine.
    flags.extend(["--set".to_owned(), "push.hosts=127.0.0.1".to_owned()]);
    let started = tokio::task::spawn_blocking(move || {
        Process::broker(&data, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let (process, ready) =
        started.await.map_err(|error| Failure::new(Exit::Disk, error.to_string()))??;
    say(format_args!("an own broker runs at {} (pid {})", ready.urls.join(" "), process.id()));
    let (admin, nodes) = administration(&ready.urls, &ready.admin_token)?;
    let own =
        Own { data: directory.0.clone(), pids: Mutex::new(ready.pids), again: Mutex::default() };
    let broker = Broker { admin, nodes, urls: ready.urls, own: Some(own) };
    Ok((Some(directory), Some(process), broker))
}

/// The administration of a broker through any of its nodes, and of each node alone.
fn administration(urls: &[String], token: &str) -> Result<(Admin, Vec<Admin>), Failure> {
    let token = Some(token.to_owned());
    let nodes = urls.iter().map(|url| Admin::new(vec![url.clone()], token.clone()));
    Ok((Admin::new(urls.to_vec(), token.clone())?, nodes.collect::<Result<_, _>>()?))
}

/// A broker that is administered over HTTP.
struct Broker {
    admin: Admin,
    /// Each node alone.
    nodes: Vec<Admin>,
    urls: Vec<String>,
    own: Option<Own>,
}

/// The processes of an own broker.
struct Own {
    data: PathBuf,
    pids: Mutex<Vec<u32>>,
    /// Nodes that were started again.
    again: Mutex<BTreeMap<u64, Process>>,
}

impl Own {
    fn pid(&self, node: u64) -> Result<u32, String> {
        let at = usize::try_from(node - 1).ok();
        let pids = locked(&self.pids);
        at.and_then(|at| pids.get(at).copied()).ok_or_else(|| format!("there is no node {node}"))
    }

    /// Starts a node again, once its process is gone.
    async fn start(&self, node: u64) -> Result<(), String> {
        let pid = self.pid(node)?;
        let old = locked(&self.again).remove(&node);
        if let Some(mut old) = old {
            let ended = tokio::task::spawn_blocking(move || old.child().wait());
            ended.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
        let begun = Instant::now();
        while !is_gone(pid) {
            if begun.elapsed() > SETTLE_MAX {
                return Err(format!("node {node} does not end"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let data = self.data.clone();
        let started = tokio::task::spawn_blocking(move || Process::one_of(&data, node)).await;
        let (process, ready) =
            started.map_err(|error| error.to_string())?.map_err(|failure| failure.message)?;
        if let (Ok(at), Some(pid)) = (usize::try_from(node - 1), ready.pids.first())
            && let Some(place) = locked(&self.pids).get_mut(at)
        {
            *place = *pid;
        }
        locked(&self.again).insert(node, process);
        Ok(())
    }
}

/// Whether a process has ended, reaped by its parent or not.
fn is_gone(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sentence(error: AdminError) -> String {
    Failure::from(error).message
}

impl Broker {
    async fn token(&self, site: &str, principal: Value) -> Result<String, String> {
        let path = format!("{}/tokens", site_path(site));
        let made = self.admin.post(&path, &json!({"principal": principal})).await;
        let made = made.map_err(sentence)?;
        made["token"].as_str().map(str::to_owned).ok_or_else(|| format!("no token in {made}"))
    }

    async fn account(&self, site: &str, kind: &str, id: &str) -> Result<(), String> {
        let path = format!("{}/{kind}/{}", site_path(site), segment(id));
        self.admin.put(&path, &json!({})).await.map(drop).map_err(sentence)
    }
}

impl Ground for Broker {
    fn urls(&self) -> &[String] {
        &self.urls
    }

    fn roots_pem(&self) -> Option<&[u8]> {
        // An own broker speaks no TLS.
        connect::roots()
    }

    fn pids(&self) -> Vec<u32> {
        self.own.as_ref().map(|own| locked(&own.pids).clone()).unwrap_or_default()
    }

    async fn make_site(&self, site: &str, structure: &Structure) -> Result<(), String> {
        let path = site_path(site);
        if self.admin.find(&path).await.map_err(sentence)?.is_some() {
            self.remove_site(site).await?;
        }
        let settings = json!({"multi_service": true, "guests_allowed": true, "stateless_guests_allowed": true});
        self.admin.put(&path, &settings).await.map_err(sentence)?;
        let structure = serde_json::to_value(structure).map_err(|error| error.to_string())?;
        let path = format!("{path}/structure");
        self.admin.put(&path, &structure).await.map(drop).map_err(sentence)
    }

    async fn remove_site(&self, site: &str) -> Result<(), String> {
        self.admin.delete(&site_path(site)).await.map(drop).map_err(sentence)
    }

    async fn set_quotas(&self, site: &str, quotas: &Value) -> Result<(), String> {
        let path = format!("{}/quotas", site_path(site));
        self.admin.put(&path, quotas).await.map(drop).map_err(sentence)
    }

    async fn revoke(&self, site: &str, token: &str) -> Result<(), String> {
        // `ak_<id>_<secret>`; the secret may hold the separator, so it is found by its length.
        let id = token.strip_prefix("ak_").and_then(|rest| rest.get(..rest.len() - 44));
        let id = id.ok_or("what was given as a token is none")?;
        let path = format!("{}/tokens/{}", site_path(site), segment(id));
        self.admin.delete(&path).await.map(drop).map_err(sentence)
    }

    async fn service(&self, site: &str, id: &str) -> Result<String, String> {
        self.account(site, "services", id).await?;
        self.token(site, json!({"service": id})).await
    }

    async fn client(&self, site: &str, id: &str) -> Result<String, String> {
        self.account(site, "clients", id).await?;
        self.token(site, json!({"client": id})).await
    }

    async fn push(&self, site: &str, id: &str, settings: Option<&Value>) -> Result<(), String> {
        let path = format!("{}/pushes/{}", site_path(site), segment(id));
        match settings {
            Some(settings) => self.admin.put(&path, settings).await.map(drop),
            None => self.admin.delete(&path).await.map(drop),
        }
        .map_err(sentence)
    }

    async fn head(&self, site: &str) -> Result<u64, String> {
        let site = self.admin.get(&site_path(site)).await.map_err(sentence)?;
        site["last_instance_id"].as_u64().ok_or_else(|| format!("no last_instance_id in {site}"))
    }

    async fn retained(&self, site: &str, event: &str) -> Result<Retained, String> {
        let path = format!("{}/queues/{}", site_path(site), segment(event));
        let mut retained = Retained::new();
        for instance in self.admin.list(&path).await.map_err(sentence)? {
            let service = instance["service"].as_str().unwrap_or_default().to_owned();
            let id = instance["instance_id"].as_u64().unwrap_or_default();
            retained.entry(service).or_default().push(id);
        }
        Ok(retained)
    }

    async fn metrics(&self) -> Result<Vec<String>, String> {
        let asked = self.nodes.iter().map(|node| node.text(reqwest::Method::GET, "/metrics", None));
        futures_util::future::try_join_all(asked).await.map_err(sentence)
    }

    async fn leader(&self, site: &str) -> Result<Option<u64>, String> {
        let site = self.admin.get(&site_path(site)).await.map_err(sentence)?;
        let group = site["partition"].as_u64().ok_or_else(|| format!("no partition in {site}"))?;
        let cluster = self.admin.get("/v1/cluster").await.map_err(sentence)?;
        Ok(cluster["groups"][group as usize]["leader"].as_u64())
    }

    async fn strike(&self, node: u64, fault: Fault) -> Result<(), String> {
        let own = self.own.as_ref().ok_or("only the nodes of an own broker can fail")?;
        let signal = match fault {
            Fault::Kill => Signal::KILL,
            Fault::Stop => Signal::TERM,
            Fault::Pause => Signal::STOP,
        };
        child::signal(own.pid(node)?, signal);
        Ok(())
    }

    async fn mend(&self, node: u64, fault: Fault) -> Result<(), String> {
        let own = self.own.as_ref().ok_or("only the nodes of an own broker can fail")?;
        match fault {
            Fault::Kill | Fault::Stop => own.start(node).await?,
            Fault::Pause => child::signal(own.pid(node)?, Signal::CONT),
        }
        Ok(())
    }

    async fn settle(&self) -> Result<(), String> {
        // Who measures a running cluster knows when it is at rest.
        if self.own.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let asked = self.nodes.iter().map(|node| node.get("/healthz/ready"));
            let asked = futures_util::future::join_all(asked).await;
            let cluster = self.admin.get("/v1/cluster").await;
            let settled = cluster.is_ok_and(|cluster| cluster["settled"] == true);
            if settled && asked.iter().all(Result::is_ok) {
                return Ok(());
            }
            if begun.elapsed() > SETTLE_MAX {
                return Err("the cluster does not settle".to_owned());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn progress(&self, line: &str) {
        say(line);
    }
}

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self, Failure> {
        let name = hex(&random::<8>()?);
        Ok(Self(std::env::temp_dir().join(format!("ackord-bench-{name}"))))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
