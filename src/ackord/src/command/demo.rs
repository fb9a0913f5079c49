//! `ackord demo`: the main promise, shown with this program's own commands on real input.
//!
//! `stdin ─▶ raise ─▶ broker (killed, started again) ─▶ subscribe ─▶ stdout`
//!
//! A subscriber subscribes and leaves; every line of standard input is raised while it is away;
//! the broker is killed with SIGKILL and started again; the subscriber comes back and gets every
//! event, in order, each once. That is verified, and the broker stays up to be played with.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use super::{boiler, dev};
use crate::args::{Demo, DemoCommand};
use crate::child::{self, Process};
use crate::exit::{Exit, Failure, Outcome, say, say_lines};
use crate::input::{self, Item};
use crate::interrupt::Interrupt;
use crate::output::{self, Format};
use crate::token::random;

/// Lines that are taken: as many as the demo site's queue keeps.
const LINES_MAX: usize = 1000;
/// Lines that are made up when standard input is a terminal.
const LINES_MADE: usize = 100;
/// Events that are shown at the beginning and at the end of a long list.
const SHOWN: usize = 3;

/// Runs the command.
pub async fn run(arguments: Demo, format: Format) -> Outcome {
    match arguments.which {
        Some(DemoCommand::Boiler(boiler)) => return boiler::run(boiler, format).await,
        None => {}
    }
    let mut interrupt = Interrupt::catch()?;
    let lines = collect().await?;
    let shown = tokio::task::spawn_blocking(move || show(&lines, format));
    let mut scene = tokio::select! {
        () = interrupt.wait() => return Ok(Exit::Interrupted),
        shown = shown => shown.map_err(|error| wrong(&error.to_string()))??,
    };
    if !arguments.first.exit {
        say_lines(scene.invitation());
        interrupt.wait().await;
    }
    scene.broker.stop();
    Ok(Exit::Done)
}

/// What the demonstration leaves: a running broker.
struct Scene {
    broker: Process,
    ready: dev::Ready,
    // Removed after the broker is gone: fields are dropped in order.
    _dir: Dir,
}

async fn collect() -> Result<Vec<String>, Failure> {
    if std::io::stdin().is_terminal() {
        say(format_args!("standard input is a terminal: {LINES_MADE} readings are made up"));
        let made = |n| format!("{{\"n\":{n},\"celsius\":{}.{}}}", 20 + n % 7, n % 10);
        return Ok((1..=LINES_MADE).map(made).collect());
    }
    let mut source = input::lines(std::io::stdin())?;
    let mut lines = Vec::new();
    while let Some(item) = source.recv().await {
        if lines.len() == LINES_MAX {
            say(format_args!("the first {LINES_MAX} lines are taken: so many does the queue keep"));
            break;
        }
        match item {
            Item::Payload(Some(payload)) => {
                lines.push(output::compact(&String::from_utf8_lossy(&payload.data)));
            }
            Item::Payload(None) => {}
            Item::Unreadable(why) => return Err(Failure::usage(why)),
            Item::Failed(why) => return Err(Failure::new(Exit::Disk, why)),
        }
    }
    if lines.is_empty() {
        return Err(Failure::usage("standard input is empty")
            .hint("pipe one JSON value per line into it, for instance `seq 1 1000`"));
    }
    Ok(lines)
}

fn show(lines: &[String], format: Format) -> Result<Scene, Failure> {
    let me = dev::program();
    let count = lines.len();
    let dir = Dir::new()?;
    let data = dir.0.join("broker");
    let (store, state) = (dir.0.join("raise.spl"), dir.0.join("subscribe.cpl"));
    let step = |command: String, comment: &str| say(format_args!("$ {command:44}  # {comment}"));
    step(format!("{me} dev"), "a broker; its data is in a temporary directory");
    let (broker, ready) = Process::broker(&data, &[])?;

    step(format!("{me} subscribe reading --count 0"), "subscribes, and goes offline");
    let left = subscribe(&ready, &state, 0, format)?;
    expect(left.is_empty(), "a subscriber that only subscribes got events")?;

    step(format!("{me} raise reading < stdin"), "nobody is there to receive");
    let begun = Instant::now();
    let raised = raise(&ready, &store, lines)?;
    let seconds = begun.elapsed().as_secs_f64();
    expect(raised.len() == count, "not every line was acknowledged")?;
    expect(raised.is_sorted_by(|a, b| a < b), "ids do not increase")?;
    say(format_args!("  {count} events acknowledged in {seconds:.2} s, each synced to disk"));

    step(format!("kill -9 {}", broker.id()), "the broker dies");
    broker.kill();
    step(format!("{me} dev"), "and is started again on its data");
    let (broker, ready) = Process::broker(&data, &[])?;

    step(format!("{me} subscribe reading --count {count}"), "the subscriber comes back");
    let begun = Instant::now();
    let received = subscribe(&ready, &state, count, format)?;
    let seconds = begun.elapsed().as_secs_f64();
    let ids: Vec<u64> = received.iter().map(|(id, _)| *id).collect();
    expect(ids == raised, "the ids that were received are not those that were acknowledged")?;
    let same = received.iter().zip(lines).all(|((_, args), line)| args == line);
    expect(same, "what was received is not what was raised")?;
    say(format_args!("  {count} received in {seconds:.2} s: all of them, in order, each once"));
    Ok(Scene { broker, ready, _dir: dir })
}

fn wrong(what: &str) -> Failure {
    Failure::new(Exit::EventRefused, format!("the demonstration failed: {what}"))
}

fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(wrong(what)) }
}

fn raise(ready: &dev::Ready, store: &Path, lines: &[String]) -> Result<Vec<u64>, Failure> {
    let mut command = child::command(&["raise", "reading", "--json"])?;
    command.args(["--site", &ready.site, "--token", &ready.service_token]);
    command.arg("--store").arg(store);
    command.args(ready.urls.iter().flat_map(|url| ["--url", url]));
    let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let (input, out) = (process.child().stdin.take(), process.child().stdout.take());
    let mut ids = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Some(mut input) = input else { return };
            // A child that stopped reading tells why itself.
            let _ = lines.iter().try_for_each(|line| writeln!(input, "{line}"));
        });
        for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let line = line.map_err(|error| wrong(&error.to_string()))?;
            let answer: Value = serde_json::from_str(&line).map_err(|e| wrong(&e.to_string()))?;
            match answer["instance_id"].as_u64() {
                Some(id) => ids.push(id),
                None => return Err(wrong(&line)),
            }
        }
        Ok(())
    })?;
    Ok(ids)
}

/// Runs a subscriber until it has so many events; their ids and arguments.
fn subscribe(
    ready: &dev::Ready,
    state: &Path,
    count: usize,
    format: Format,
) -> Result<Vec<(u64, String)>, Failure> {
    let count_text = count.to_string();
    let mut command = child::command(&["subscribe", "reading", "--json", "--count", &count_text])?;
    command.args(["--timeout", "30s", "--site", &ready.site, "--token", &ready.client_token]);
    command.arg("--state").arg(state);
    command.args(ready.urls.iter().flat_map(|url| ["--url", url]));
    let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut events = Vec::new();
    let out = process.child().stdout.take();
    for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|error| wrong(&error.to_string()))?;
        #[derive(serde::Deserialize)]
        struct Event {
            instance_id: u64,
            args: Box<serde_json::value::RawValue>,
        }
        let event: Event = serde_json::from_str(&line).map_err(|e| wrong(&e.to_string()))?;
        let at = events.len();
        let text = match format {
            Format::Json => Some(line),
            Format::Text if at < SHOWN || at + SHOWN >= count => {
                let line = format!("  reading  {:>6}  {}", event.instance_id, event.args.get());
                Some(output::plain(&line).into_owned())
            }
            Format::Text if at == SHOWN => Some("       …".to_owned()),
            Format::Text => None,
        };
        if let Some(text) = text {
            output::raw(&text).map_err(|error| output::closed(&error))?;
        }
        events.push((event.instance_id, event.args.get().to_owned()));
    }
    let status = process.child().wait().map_err(|error| wrong(&error.to_string()))?;
    expect(status.success(), &format!("the subscriber ended with {status}"))?;
    Ok(events)
}

impl Scene {
    fn invitation(&self) -> String {
        let me = dev::program();
        let dev::Ready { urls, site, service_token, client_token, .. } = &self.ready;
        format!(
            "\nThe broker is still running. In other terminals:\n\n  \
               export ACKORD_URL={} ACKORD_SITE={site}\n  \
               {me} subscribe reading --token {client_token}\n  \
               {me} raise reading --args '{{\"celsius\":21.5}}' --token {service_token}\n\n\
             Ctrl-C stops it.",
            urls.join(",")
        )
    }
}

/// A directory that is removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Result<Self, Failure> {
        let name: String = random::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("ackord-demo-{name}"));
        std::fs::create_dir(&path)
            .map_err(|error| Failure::new(Exit::Disk, format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
