//! `ackord dev --nodes N`: a cluster on one machine, each node a process of its own.
//!
//! `DIR/dev.json` keeps the tokens and where each node is, `DIR/node-K` belongs to node K. The
//! parent only starts the nodes and stops them: one that is killed stays down until somebody starts
//! it again with `--only K`.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use ackord_gateway::Listener;
use ackord_replica::PeerOptions;
use serde::{Deserialize, Serialize};

use super::dev::{FILE, Kept, KeptNode, first_screen, make_site, program};
use crate::args::Dev;
use crate::broker::{Parts, Running};
use crate::child::{self, Process};
use crate::config::Settings;
use crate::data::{self, DataDir};
use crate::exit::{Exit, Failure, Outcome, say_lines};
use crate::interrupt::Interrupt;
use crate::listen::{self, Wanted};
use crate::output::{self, Format};
use crate::token::hash;

/// What a node says when it serves.
#[derive(Debug, Serialize, Deserialize)]
pub struct NodeReady {
    /// Its number.
    pub node: u32,
    /// Where it listens for endpoints.
    pub urls: Vec<String>,
    /// Its process.
    pub pids: Vec<u32>,
}

/// Starts all nodes, and stops them when asked to.
pub(super) async fn run_all(
    arguments: &Dev,
    data: DataDir,
    mut kept: Kept,
    temporary: bool,
    mut interrupt: Interrupt,
    format: Format,
) -> Outcome {
    if kept.nodes.is_empty() {
        let ip = arguments.listen.map_or(listen::DEFAULT.ip(), |listen| listen.ip());
        let count = arguments.nodes.unwrap_or(1);
        kept.nodes = places(arguments.listen, ip, count)?;
        data.write(FILE, &kept)?;
    }
    let mut nodes = Nodes::default();
    for number in 1..=kept.nodes.len() as u32 {
        nodes.start(data.path(), number, arguments, kept.ready)?;
    }
    let (nodes, lines) = tokio::select! {
        started = tokio::task::spawn_blocking(move || nodes.ready()) => {
            started.map_err(|error| Failure::new(Exit::Disk, error.to_string()))??
        }
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    if !kept.ready {
        kept.ready = true;
        data.write(FILE, &kept)?;
    }
    let urls = lines.iter().flat_map(|line| line.urls.clone()).collect();
    let pids = lines.iter().flat_map(|line| line.pids.clone()).collect();
    let ready = kept.ready_line(urls, pids);
    let printed = match format {
        Format::Json => output::json(&ready),
        Format::Text => {
            output::page(&cluster_screen(&first_screen(&ready, &data, temporary), &lines, &data))
        }
    };
    if printed.is_ok() {
        tokio::select! {
            () = interrupt.wait() => {}
            () = child::stdin_closed(arguments.while_stdin) => {}
        }
        if format == Format::Text {
            say_lines("\nstopping");
        }
    }
    // One after the other, so that those that are left can take over.
    let stopped = tokio::task::spawn_blocking(move || nodes.stop()).await;
    drop(data);
    stopped.map_err(|error| Failure::new(Exit::Disk, error.to_string()))?;
    printed.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
}

fn cluster_screen(first: &str, lines: &[NodeReady], data: &DataDir) -> String {
    let me = program();
    let nodes: String = lines
        .iter()
        .map(|line| {
            let pid = line.pids.first().copied().unwrap_or_default();
            format!("  node {}  {}  process {pid}\n", line.node, line.urls.join(","))
        })
        .collect();
    let place = data.path().display();
    format!(
        "{first}\n\n{nodes}\nKill one (kill -9 PROCESS) and watch nothing happen. Start it again:\n\n  \
         {me} dev --data {place} --only N"
    )
}

/// Free addresses for new nodes; the first gets the wanted one.
fn places(wanted: Option<SocketAddr>, ip: IpAddr, count: u32) -> Result<Vec<KeptNode>, Failure> {
    // All are held until all are known, so that none is given out twice.
    let mut held = Vec::new();
    let mut take = |wanted: Wanted| {
        let listener = listen::bind(wanted)?;
        let address = listener.local_addr().map_err(|error| {
            Failure::new(Exit::Configuration, format!("the socket has no address: {error}"))
        })?;
        held.push(listener);
        Ok::<_, Failure>(address)
    };
    (0..count)
        .map(|index| {
            let front = if index == 0 { Wanted::of(wanted, None) } else { Wanted::Free(ip) };
            let peers = Wanted::Free(listen::DEFAULT.ip());
            Ok(KeptNode { front: take(front)?, peers: take(peers)? })
        })
        .collect()
}

/// The nodes' processes.
#[derive(Default)]
struct Nodes(Vec<Process>);

impl Nodes {
    fn start(
        &mut self,
        dir: &Path,
        number: u32,
        arguments: &Dev,
        has_site: bool,
    ) -> Result<(), Failure> {
        let mut command = child::command(&["dev", "--json", "--while-stdin", "--only"])?;
        command.arg(number.to_string()).arg("--data").arg(dir);
        if number == 1 && !has_site {
            command.arg("--make-site");
        }
        for limit in &arguments.limits.limits {
            command.args(["--limit", limit]);
        }
        for set in &arguments.limits.sets {
            command.args(["--set", set]);
        }
        // A node ends when this pipe is closed, so also when this process is killed.
        let process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        self.0.push(process);
        Ok(())
    }

    /// Waits until every node serves. Blocks.
    fn ready(mut self) -> Result<(Self, Vec<NodeReady>), Failure> {
        let mut lines = Vec::new();
        for (index, process) in self.0.iter_mut().enumerate() {
            let mut line = String::new();
            if let Some(out) = process.child().stdout.take() {
                // A broken pipe reads as an empty line, which is no readiness either.
                let _ = BufReader::new(out).read_line(&mut line);
            }
            lines.push(serde_json::from_str(&line).map_err(|_| {
                Failure::new(Exit::Disk, format!("node {} did not start", index + 1))
            })?);
        }
        Ok((self, lines))
    }

    /// Stops one after the other. Blocks.
    fn stop(mut self) {
        for process in &mut self.0 {
            process.stop();
        }
    }
}

/// Settings of a node that shares this machine with others: threads that outnumber the processors by
/// far only wake each other up. What was asked for stays.
fn sharing(mut settings: Settings, nodes: usize) -> Settings {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let share = (processors / nodes.max(1)).max(1);
    if settings.node.threads == Settings::default().node.threads {
        settings.node.threads = share.min(settings.node.threads);
    }
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    settings.workers = settings.workers.or(Some(share));
    settings
}

/// Runs one node of a cluster that DIR knows.
pub(super) async fn run_one(
    arguments: &Dev,
    number: u32,
    dir: &Path,
    settings: &Settings,
    mut interrupt: Interrupt,
    format: Format,
) -> Outcome {
    let kept: Kept = data::read(&dir.join(FILE))?.ok_or_else(|| {
        Failure::configuration(format!("{} holds no cluster", dir.display()))
            .hint("`ackord dev --nodes 3 --data DIR` makes one")
    })?;
    let index = number.checked_sub(1).and_then(|index| usize::try_from(index).ok());
    let Some(place) = index.and_then(|index| kept.nodes.get(index)).copied() else {
        let why = format!("{} holds nodes 1..={}, was {number}", dir.display(), kept.nodes.len());
        return Err(Failure::usage(why));
    };
    let data = DataDir::open(&dir.join(format!("node-{number}")))?;
    let initial = kept.nodes.iter().map(|node| node.peers.to_string()).collect();
    let listener = listen::bind(Wanted::Exactly(place.front))?;
    let node = data.node();
    let settings = sharing(settings.clone(), kept.nodes.len());
    let parts = Parts {
        dir: &node,
        settings: &settings,
        listeners: vec![Listener::plain(listener)],
        issuers: Vec::new(),
        cluster: Some(PeerOptions { initial, ..PeerOptions::new(place.peers) }),
        admin_hash: hash(&kept.admin_token),
    };
    let running = tokio::select! {
        running = Running::start(parts) => running?,
        () = interrupt.wait() => return Ok(Exit::Done),
    };
    tokio::select! {
        () = running.ready() => {}
        () = interrupt.wait() => {
            running.stop().await;
            return Ok(Exit::Done);
        }
    }
    if arguments.make_site {
        make_site(running.broker(), &kept).await?;
    }
    let ready =
        NodeReady { node: number, urls: running.urls().to_vec(), pids: vec![std::process::id()] };
    let printed = match format {
        Format::Json => output::json(&ready),
        Format::Text => output::line(&format!("node {number} serves at {}", ready.urls.join(" "))),
    };
    if printed.is_ok() {
        tokio::select! {
            () = interrupt.wait() => {}
            () = child::stdin_closed(arguments.while_stdin) => {}
        }
    }
    running.stop().await;
    printed.map_err(|error| output::closed(&error))?;
    Ok(Exit::Done)
}
