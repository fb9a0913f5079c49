//! A cluster of broker processes: `ackord serve`, each node on a loopback address and a directory
//! of its own, with every link between them, and to them, under the test's control.
//!
//! Nodes are numbered from 1, as the cluster itself numbers them: the first ones, and those that are
//! added later one after the other. Invariants: a node keeps its addresses and its directory over
//! restarts; endpoints and peers know only the addresses
//! of the [`Mesh`], so that no connection escapes a cut; the test's own questions
//! ([`Cluster::admin`]) go to the nodes directly and are never cut.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::cli::Tool;
use crate::disk::{self, Cut, Disk, Undone};
use crate::load::OUTCOME;
use crate::mesh::{self, Mesh};
use crate::node;
use crate::process::{self, Signal};
use crate::seed::Seed;
use crate::wait;

/// How long a cluster may take until all nodes that run serve: elections and catching up, in a
/// debug build, on a machine that is busy.
pub const READY: Duration = Duration::from_secs(60);

/// The administrator's token of every cluster.
pub const ADMIN_TOKEN: &str = "the-administrator-of-a-cluster-under-test";
/// Ports of nodes: below those that the system gives to outgoing connections, so that no
/// connection takes the port of a node that is down.
const PORTS: std::ops::Range<u64> = 10_000..32_768;
/// Nodes that a cluster may have over its life.
const NODES_MAX: usize = 64;
/// Groups beside the one of the cluster itself, as the limits of every node say.
pub const PARTITIONS: usize = 4;
/// Limits of every node: the log is short, so that who was away for long needs a snapshot. How
/// often it is asked whether one is due has to go with that: at the default of two seconds these
/// logs would grow by several snapshots in between, and hardly be purged while a node is away.
const LIMITS: &str = "partitions = 4\nqueue_size_max = 50000\nlifetime_ms_min = 1000\nlog_file_bytes = 262144\n\
                      log_purge_bytes = 524288\nsnapshot_log_bytes_min = 65536\n\
                      [node]\ncheckpoint_interval_ms = 300\n";

/// A node: where it is, and its process while it runs.
struct Member {
    /// Where endpoints are served, without the mesh between.
    front: SocketAddr,
    dir: PathBuf,
    config: PathBuf,
    /// What it is configured with, whatever a test adds.
    text: String,
    disk: Option<Disk>,
    environment: Vec<(OsString, OsString)>,
    process: Option<Child>,
}

impl Member {
    fn log(&self) -> PathBuf {
        self.dir.with_extension("stderr")
    }

    /// Says how far the node's wall clock is ahead.
    fn clock(&self) -> PathBuf {
        self.dir.with_extension("clock")
    }
}

/// Where a node is.
struct Place {
    node: usize,
    /// Where it listens for other nodes.
    peer: SocketAddr,
    front: SocketAddr,
    /// Where other nodes reach it, through the mesh.
    advertised: String,
}

/// See the module.
pub struct Cluster {
    members: Vec<Member>,
    /// Where endpoints connect, by node.
    urls: Vec<String>,
    mesh: Mesh,
    /// Where the addresses of nodes lie.
    subnet: (u8, u8),
    random: Seed,
    // Removed after the processes are gone: see `drop`.
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Founds a cluster of `size` nodes and waits until all of them serve.
    pub async fn start(size: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(size)?;
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// As [`Cluster::start`], with a disk for each node that can lose its power.
    pub async fn start_on_disks(size: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(size)?;
        for node in cluster.nodes() {
            cluster.give_disk(node).await?;
        }
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Gives a node that was never started a disk that can lose its power.
    pub async fn give_disk(&mut self, node: usize) -> anyhow::Result<()> {
        let member = &mut self.members[node - 1];
        let disk = Disk::new(&member.dir, &member.dir.with_extension("scratch"))?;
        // What makes a disk forget is built where it is not there yet.
        let making = move || disk.environment().map(|environment| (disk, environment));
        let (disk, environment) = tokio::task::spawn_blocking(making).await??;
        (member.disk, member.environment) = (Some(disk), environment);
        Ok(())
    }

    /// A copy of the disk of a node that does not run.
    pub fn keep_disk(&self, node: usize) -> anyhow::Result<PathBuf> {
        assert!(!self.runs(node), "node {node} runs");
        let dir = &self.members[node - 1].dir;
        let copy = dir.with_extension("kept");
        if copy.exists() {
            std::fs::remove_dir_all(&copy)?;
        }
        copy_dir(dir, &copy)?;
        Ok(copy)
    }

    /// Gives a node that does not run the disk of which there is a copy.
    pub fn put_disk_back(&self, node: usize, copy: &Path) -> anyhow::Result<()> {
        self.wipe(node)?;
        Ok(copy_dir(copy, &self.members[node - 1].dir)?)
    }

    /// As [`Cluster::start`], with a wall clock for each node that can be set.
    pub async fn start_with_clocks(size: usize) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(size)?;
        let library = tokio::task::spawn_blocking(disk::library).await??;
        for member in &mut cluster.members {
            let variable = ("CLOCK_SHIM_FILE".into(), member.clock().into());
            member.environment = vec![("LD_PRELOAD".into(), library.clone().into()), variable];
        }
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Sets the wall clock of a node of [`Cluster::start_with_clocks`], milliseconds ahead.
    pub fn set_clock(&self, node: usize, ahead_ms: i64) -> anyhow::Result<()> {
        let clock = self.members[node - 1].clock();
        let fresh = clock.with_extension("clock.new");
        std::fs::write(&fresh, ahead_ms.to_string())?;
        Ok(std::fs::rename(fresh, clock)?)
    }

    /// The directories, configurations and links of a cluster, of which no node runs yet.
    pub fn prepare(size: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("ackord-cluster").tempdir()?;
        // Addresses that other clusters on this machine hardly use: a port that is free now is
        // free when the node comes back.
        let mut random = Seed::new(u64::from(std::process::id()) ^ hash(dir.path()));
        let subnet = (random.between(1, 255) as u8, random.between(0, 256) as u8);
        let mesh = Mesh::new((1..=NODES_MAX).map(|node| address(subnet, node)).collect());
        let (members, urls) = (Vec::new(), Vec::new());
        let mut cluster = Self { members, urls, mesh, subnet, random, dir };
        let places = (0..size).map(|_| cluster.place()).collect::<anyhow::Result<Vec<_>>>()?;
        let initial: Vec<&str> = places.iter().map(|place| &*place.advertised).collect();
        for place in &places {
            cluster.settle(place, &format!("initial = {}\n", json!(initial)))?;
        }
        Ok(cluster)
    }

    /// Lets pages of this origin use the nodes; counts for nodes that start later.
    pub fn allow_pages_of(&mut self, origin: &str) {
        for member in &mut self.members {
            member.environment.push(("ACKORD_ORIGINS".into(), origin.into()));
        }
    }

    /// Starts all nodes and waits until they serve.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        for node in self.nodes() {
            self.start_node(node).await?;
        }
        self.ready().await;
        Ok(())
    }

    /// The directory, configuration and links of another node, which does not run yet and joins
    /// members of a cluster at these addresses; gives its number.
    pub fn add(&mut self, join: &[String]) -> anyhow::Result<usize> {
        let place = self.place()?;
        self.settle(&place, &format!("join = {}\n", json!(join)))?;
        Ok(place.node)
    }

    /// Adds this to the `[cluster]` table of a node that does not run, instead of what was added
    /// before.
    pub fn configure(&self, node: usize, more: &str) -> anyhow::Result<()> {
        assert!(!self.runs(node), "node {node} runs");
        let member = &self.members[node - 1];
        Ok(std::fs::write(&member.config, format!("{}{more}", member.text))?)
    }

    /// Gives a node that does not run another address for other nodes.
    pub fn move_node(&mut self, node: usize) -> anyhow::Result<()> {
        assert!(!self.runs(node), "node {node} runs");
        let peer = free(address(self.subnet, node), &mut self.random)?;
        let advertised = self.mesh.relay(node, peer)?.to_string();
        let member = &mut self.members[node - 1];
        let (before, cluster) = member.text.split_once("[cluster]\n").context("a table")?;
        let rest = cluster.lines().skip(2).collect::<Vec<_>>().join("\n");
        member.text = format!(
            "{before}[cluster]\nlisten = \"{peer}\"\nadvertise = {}\n{rest}\n",
            json!(advertised)
        );
        self.configure(node, "")
    }

    /// A node at addresses of its own with a copy of the disk of a node that does not run.
    pub fn copy(&mut self, node: usize) -> anyhow::Result<usize> {
        assert!(!self.runs(node), "node {node} runs");
        let copy = self.add(&[])?;
        let (from, to) = (&self.members[node - 1].dir, &self.members[copy - 1].dir);
        copy_dir(from, to)?;
        Ok(copy)
    }

    /// Addresses for the next node.
    fn place(&mut self) -> anyhow::Result<Place> {
        let node = self.urls.len() + 1;
        anyhow::ensure!(node <= NODES_MAX, "a cluster has at most {NODES_MAX} nodes here");
        let ip = address(self.subnet, node);
        let peer = free(ip, &mut self.random)?;
        let mut front = free(ip, &mut self.random)?;
        while front == peer {
            front = free(ip, &mut self.random)?;
        }
        let advertised = self.mesh.relay(node, peer)?.to_string();
        self.urls.push(format!("http://{}", self.mesh.relay(node, front)?));
        Ok(Place { node, peer, front, advertised })
    }

    /// Makes a member of the next node; `how` says how it gets into the cluster.
    fn settle(&mut self, place: &Place, how: &str) -> anyhow::Result<()> {
        let dir = self.dir.path().join(format!("node-{}", place.node));
        let config = dir.with_extension("toml");
        let text = format!(
            "data = {}\nlisten = \"{}\"\nadmin_token = \"{ADMIN_TOKEN}\"\nlog = \"{LOG}\"\n\
             [limits]\n{LIMITS}[sessions]\nkeepalive_s_default = 10\n[push]\nhosts = [\"127.0.0.1\"]\n[cluster]\nlisten = \"{}\"\nadvertise = {}\nurls = {}\n{how}",
            json!(dir),
            place.front,
            place.peer,
            json!(place.advertised),
            json!([self.urls[place.node - 1]]),
        );
        let (front, environment, disk, process) = (place.front, Vec::new(), None, None);
        self.members.push(Member { front, dir, config, text, disk, environment, process });
        self.configure(place.node, "")
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Their numbers.
    pub fn nodes(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.members.len()
    }

    /// So many different nodes, in random order.
    pub fn some(&self, seed: &mut Seed, count: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.nodes().collect();
        while nodes.len() > count {
            nodes.remove(seed.between(0, nodes.len() as u64) as usize);
        }
        let turn = seed.between(0, nodes.len() as u64) as usize;
        nodes.rotate_left(turn);
        nodes
    }

    /// The links.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Where endpoints reach a node.
    pub fn url(&self, node: usize) -> &str {
        &self.urls[node - 1]
    }

    /// Where endpoints reach the nodes, this one first.
    pub fn urls_from(&self, node: usize) -> Vec<String> {
        let mut urls = self.urls.clone();
        urls.rotate_left(node - 1);
        urls
    }

    /// The administration of a node, past all cuts.
    pub fn admin(&self, node: usize) -> Admin {
        Admin::new(&format!("http://{}", self.members[node - 1].front), ADMIN_TOKEN)
    }

    /// The data directory of a node.
    pub fn data(&self, node: usize) -> &Path {
        &self.members[node - 1].dir
    }

    /// A command of the tool to a node as its administrator, over the node's link.
    pub fn command(&self, node: usize, words: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(node::binary()?);
        command.args(words).args(["--url", self.url(node), "--token", ADMIN_TOKEN, "--json"]);
        Ok(command)
    }

    /// What a node wrote to its standard error, over all its lives.
    pub fn log(&self, node: usize) -> String {
        std::fs::read_to_string(self.members[node - 1].log()).unwrap_or_default()
    }

    /// Whether a node's process runs, or is suspended.
    pub fn runs(&self, node: usize) -> bool {
        self.members[node - 1].process.is_some()
    }

    /// Starts a node's process; does not wait until it serves.
    pub async fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        let member = &mut self.members[node - 1];
        assert!(member.process.is_none(), "node {node} runs already");
        let mesh = &mut self.mesh;
        wait::until("the node's addresses to be free", async || mesh.up(node).ok()).await;
        let (config, log) = (member.config.clone(), member.log());
        let environment = member.environment.clone();
        // Building and forking block: not on the test's runtime.
        let starting = tokio::task::spawn_blocking(move || -> anyhow::Result<Child> {
            let mut command = Command::new(node::binary()?);
            command.args(["serve", "--json", "--config"]).arg(config).envs(environment);
            Ok(node::spawn(command, &log)?.0)
        });
        member.process = Some(starting.await?.context("the node's process starts")?);
        Ok(())
    }

    /// Waits until every node that runs serves.
    ///
    /// # Panics
    /// After [`READY`], or when one of them has ended.
    pub async fn ready(&mut self) {
        for node in self.running() {
            self.until_ready(node).await;
        }
    }

    /// Waits until a node serves.
    ///
    /// # Panics
    /// After [`READY`], or when it has ended.
    pub async fn until_ready(&mut self, node: usize) {
        let admin = self.admin(node);
        let member = &mut self.members[node - 1];
        let log = member.log();
        let process = member.process.as_mut().expect("the node runs");
        wait::until_for(READY, &format!("node {node} to serve"), async || {
            let ended = process.try_wait().ok().flatten();
            assert!(ended.is_none(), "node {node} ended: {ended:?}; {}", node::tail(&log));
            admin.is_ready().await.then_some(())
        })
        .await;
    }

    /// Ends a node at once, as a crash does, and waits until it is gone.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.members[node - 1].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        self.mesh.down(node);
    }

    /// Ends a node and lets its disk forget what no sync covers.
    pub fn cut_power(&mut self, node: usize, cut: Cut) -> anyhow::Result<Undone> {
        self.kill(node);
        self.disk(node)?.power_cut(cut)
    }

    /// Asks a node to end and waits for it; the exit code is the answer.
    pub async fn stop(&mut self, node: usize) -> anyhow::Result<Option<i32>> {
        self.signal(node, Signal::Terminate)?;
        self.ended(node).await
    }

    /// The exit code of a node that ends by itself; `None` is a signal.
    pub async fn ended(&mut self, node: usize) -> anyhow::Result<Option<i32>> {
        let process = self.members[node - 1].process.take();
        let mut process = process.context("the node does not run")?;
        let what = format!("node {node} to end");
        let status = wait::until(&what, async || process.try_wait().ok().flatten()).await;
        self.mesh.down(node);
        Ok(status.code())
    }

    /// Whether a node's process was started and has ended by itself.
    pub fn has_ended(&mut self, node: usize) -> bool {
        let process = self.members[node - 1].process.as_mut();
        process.is_some_and(|process| process.try_wait().is_ok_and(|ended| ended.is_some()))
    }

    /// Starts a command of an operator, see [`Cluster::command`].
    ///
    /// # Panics
    /// When it does not start.
    pub fn tool(&self, node: usize, words: &[&str]) -> Tool {
        let command = self.command(node, words).expect("the binary is built");
        Tool::start(command, None, Box::new(|_| {})).expect("the tool starts")
    }

    /// Runs a command of an operator to its end; gives what it wrote last.
    ///
    /// # Panics
    /// When it fails.
    pub async fn operate(&self, node: usize, words: &[&str]) -> Value {
        let mut tool = self.tool(node, words);
        let what = format!("{words:?} to end");
        wait::until_for(OUTCOME, &what, async || tool.has_ended().then_some(())).await;
        assert_eq!(tool.ended().await, Some(0), "{words:?}: {}", tool.errors());
        tool.lines().pop().expect("the tool writes what it did")
    }

    /// Suspends a node's process; when this returns, it stands still.
    pub fn pause(&self, node: usize) -> anyhow::Result<()> {
        Ok(process::suspend(self.process(node)?.id())?)
    }

    /// Lets a suspended process go on.
    pub fn resume(&self, node: usize) -> anyhow::Result<()> {
        self.signal(node, Signal::Continue)
    }

    fn signal(&self, node: usize, signal: Signal) -> anyhow::Result<()> {
        Ok(process::signal(self.process(node)?.id(), signal)?)
    }

    fn process(&self, node: usize) -> anyhow::Result<&Child> {
        self.members[node - 1].process.as_ref().context("the node does not run")
    }

    /// Gives a node that does not run an empty disk.
    pub fn wipe(&self, node: usize) -> anyhow::Result<()> {
        assert!(!self.runs(node), "node {node} runs");
        Ok(std::fs::remove_dir_all(&self.members[node - 1].dir)?)
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<usize> {
        self.nodes().filter(|node| self.runs(*node)).collect()
    }

    /// The cluster as a node sees it.
    pub async fn view(&self, node: usize) -> anyhow::Result<Value> {
        self.admin(node).call(Method::GET, "/v1/cluster", None).await
    }

    /// The disk of a node that can lose its power.
    pub fn disk(&self, node: usize) -> anyhow::Result<&Disk> {
        self.members[node - 1].disk.as_ref().context("the node has no disk that forgets")
    }

    /// Who leads a group, as a node sees it; group 0 is the directory.
    pub async fn leader(&self, group: usize, node: usize) -> Option<usize> {
        let view = self.view(node).await.ok()?;
        view["groups"][group]["leader"].as_u64().map(|leader| leader as usize)
    }

    /// Waits until all nodes that run show the same of a site, each what it has itself.
    pub async fn until_equal(&self, site: &str) {
        let queues = format!("/v1/sites/{site}/queues");
        let names = self.admin(self.running()[0]).local(&queues).await.expect("the queues");
        let names = names.iter().filter_map(|queue| queue["event"].as_str());
        let queues = names.map(|event| format!("queues/{event}"));
        let lists = ["subscriptions", "clients", "services", "users"].map(str::to_owned);
        for list in queues.chain(lists) {
            let path = &format!("/v1/sites/{site}/{list}");
            wait::until_true(&format!("all nodes to show the same {path}"), async || {
                let shown = self.running().into_iter().map(|node| async move {
                    let shown = self.admin(node).local(path).await;
                    shown.unwrap_or_else(|error| panic!("node {node}: {error:#}"))
                });
                let shown = futures_util::future::join_all(shown).await;
                shown.windows(2).all(|pair| pair[0] == pair[1])
            })
            .await;
        }
    }

    /// Lets every replica take the hash of its state at the same entry, and waits until the nodes
    /// that run have equal ones.
    ///
    /// # Panics
    /// When two replicas are different.
    pub async fn until_replicas_agree(&self) {
        let running = self.running();
        let compare = async || {
            let admin = self.admin(running[0]);
            admin.call(Method::POST, "/v1/cluster/compare", Some(json!({}))).await.ok()
        };
        wait::until("a comparison of the replicas", compare).await;
        wait::until_true("all replicas to be compared", async || {
            let views = running.iter().map(|node| self.view(*node));
            let Ok(views) = futures_util::future::try_join_all(views).await else { return false };
            let groups = views[0]["groups"].as_array().map_or(0, Vec::len);
            (0..groups).all(|group| {
                let of = |view: &Value| view["groups"][group]["compared"].clone();
                let compared: Vec<Value> = views.iter().map(of).collect();
                let at = |compared: &Value| compared["index"].as_u64();
                let at_one_entry = compared
                    .windows(2)
                    .all(|pair| at(&pair[0]).is_some() && at(&pair[0]) == at(&pair[1]));
                let equal = compared.windows(2).all(|pair| pair[0] == pair[1]);
                assert!(equal || !at_one_entry, "replicas of group {group} differ: {compared:?}");
                at_one_entry
            })
        })
        .await;
    }

    /// The hashes that a node took last, by group: after which entry, and what.
    pub async fn hashes(&self, node: usize) -> anyhow::Result<Vec<(usize, u64, String)>> {
        let view = self.view(node).await?;
        let groups = view["groups"].as_array().context("no groups")?.iter().enumerate();
        let taken = groups.filter_map(|(group, shown)| {
            let compared = &shown["compared"];
            Some((group, compared["index"].as_u64()?, compared["hash"].as_str()?.to_owned()))
        });
        Ok(taken.collect())
    }

    /// Takes the checkpoint of a node that does not run, so that it reads its log again.
    pub fn forget_checkpoint(&self, node: usize) -> anyhow::Result<()> {
        assert!(!self.runs(node), "node {node} runs");
        Ok(std::fs::remove_dir_all(self.data(node).join("node/checkpoint"))?)
    }

    /// The most memory that a node's process has had so far, bytes.
    pub fn peak_memory(&self, node: usize) -> anyhow::Result<u64> {
        self.status(node, "VmHWM:")
    }

    /// Lets a node's process allocate so many bytes more than it has, and no more.
    pub fn squeeze_memory(&self, node: usize, spare: u64) -> anyhow::Result<()> {
        let has = self.status(node, "VmData:")?;
        Ok(process::limit_memory(self.process(node)?.id(), Some(has + spare))?)
    }

    /// Lets a node's process have what there is again.
    pub fn relax_memory(&self, node: usize) -> anyhow::Result<()> {
        Ok(process::limit_memory(self.process(node)?.id(), None)?)
    }

    /// What the system says of a node's process, bytes.
    fn status(&self, node: usize, field: &str) -> anyhow::Result<u64> {
        let status = format!("/proc/{}/status", self.process(node)?.id());
        let status = std::fs::read_to_string(status)?;
        let said = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = said.and_then(|said| said.split_whitespace().next());
        Ok(kilobytes.with_context(|| format!("no {field}"))?.parse::<u64>()? * 1024)
    }

    /// Lets the fault that is in force last for so long.
    pub async fn lasts(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            self.kill(node);
            if std::thread::panicking() {
                eprintln!("node {node}: {}", node::tail(&self.members[node - 1].log()));
            }
        }
        if std::thread::panicking() && std::env::var_os(KEEP_VARIABLE).is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("disks and logs are kept in {}", self.dir.path().display());
        }
    }
}

/// The environment variable that keeps the disks and logs of a cluster in which a test failed.
const KEEP_VARIABLE: &str = "ACKORD_TEST_KEEP";

/// What the nodes log.
const LOG: &str = "info,openraft=error,actix_http=off";

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn hash(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0, |hash: u64, byte| hash.wrapping_mul(31) ^ u64::from(*byte))
}

fn address((a, b): (u8, u8), node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, a, b, node as u8))
}

fn free(ip: IpAddr, random: &mut Seed) -> anyhow::Result<SocketAddr> {
    for _ in 0..100 {
        let port = u16::try_from(random.between(PORTS.start, PORTS.end))?;
        // Not one that listens: a process that another test is just starting would hold it open,
        // and the node would find its own port taken.
        if mesh::socket((ip, port).into()).is_ok() {
            return Ok(SocketAddr::new(ip, port));
        }
    }
    anyhow::bail!("no free port on {ip}")
}
