//! The command-line tool as service and as client of a cluster.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::{self, Tool};
use crate::history::{Call, Entry, Handled, History, Subscriber};
use crate::process::Signal;
use crate::site::{Account, Site};
use crate::wait;
use serde_json::Value;

use super::progress::Progress;
use super::{EVENT, OUTCOME};

/// `ackord raise --store`: fed line by line.
pub struct Writer {
    tool: Tool,
    lines: mpsc::SyncSender<String>,
    waiting: Arc<Mutex<VecDeque<(Call, Instant)>>>,
    history: History,
    service: String,
    progress: Arc<Progress>,
}

impl Writer {
    /// Starts the tool.
    pub fn start(
        site: &Site,
        urls: &[String],
        service: &Account,
        store: &Path,
        progress: &Arc<Progress>,
    ) -> Self {
        let command = cli::raise(site, &urls.join(","), service, EVENT, Some(store));
        // Room for all that may be in flight: feeding never blocks.
        let (lines, fed) = mpsc::sync_channel(1024);
        let waiting: Arc<Mutex<VecDeque<(Call, Instant)>>> = Arc::default();
        let (history, told) = (site.history.clone(), waiting.clone());
        let (recorder, counter) = (history.clone(), progress.clone());
        let on_line = move |line: &Value| {
            let next = told.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let (call, since) = next.expect("a line for each event and no more");
            let instance_id = line["instance_id"].as_u64();
            assert!(instance_id.is_some(), "an event was not accepted: {line}");
            let duplicate = line["duplicate"] == true;
            recorder.record(Entry::Acknowledged { call, instance_id, ignored: false, duplicate });
            counter.acknowledge(since.elapsed());
        };
        let tool = Tool::start(command, Some(Box::new(fed.into_iter())), Box::new(on_line));
        let tool = tool.expect("the service starts");
        let (service, progress) = (service.id.clone(), progress.clone());
        Self { tool, lines, waiting, history, service, progress }
    }

    /// Feeds it until it is to stop; then all must be acknowledged.
    pub async fn publish(self, pace: Duration) {
        let Self { mut tool, lines, waiting, history, service, progress } = self;
        let mut pace = tokio::time::interval(pace);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !progress.is_stopping() {
            pace.tick().await;
            assert!(!tool.has_ended(), "the service gave up: {}", tool.errors());
            if progress.has_room() {
                let line = progress.next().to_string();
                let call = history.raised(&service, EVENT, Some(&line));
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push_back((call, Instant::now()));
                drop(waiting);
                lines.send(line).expect("the tool reads on");
            }
        }
        drop(lines);
        let what = "the tool to write its last outcome";
        wait::until_for(OUTCOME, what, async || tool.has_ended().then_some(())).await;
        assert_eq!(tool.ended().await, Some(0), "{}", tool.errors());
    }
}

/// `ackord subscribe --state`.
pub struct Reader(Tool);

impl Reader {
    /// Starts the tool, the first of its site's clients.
    pub fn start(
        site: &Site,
        urls: &[String],
        client: &Account,
        by: Subscriber,
        state: &Path,
        progress: &Arc<Progress>,
    ) -> Self {
        let command = cli::subscribe(site, &urls.join(","), client, &[EVENT], Some(state));
        let (history, progress) = (site.history.clone(), progress.clone());
        let on_line = move |line: &Value| {
            let handled = handled(line);
            let (event, instance_id) = (handled.event.clone(), handled.instance_id);
            history.record(Entry::HandlerStarted { by: by.clone(), handled });
            let by = by.clone();
            history.record(Entry::HandlerEnded { by, event, instance_id, success: true });
            progress.handle(0);
        };
        Self(Tool::start(command, None, Box::new(on_line)).expect("the client starts"))
    }

    /// Interrupts the tool and waits for its end.
    pub async fn end(mut self) {
        assert!(!self.0.has_ended(), "the client gave up: {}", self.0.errors());
        self.0.signal(Signal::Interrupt).expect("the client runs");
        self.0.ended().await;
    }
}

fn handled(line: &Value) -> Handled {
    let number = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("{field} in {line}"));
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    Handled {
        event: text("event"),
        instance_id: number("instance_id"),
        incarnation: 0,
        generation: 0,
        service: text("service"),
        age: number("age"),
        attempt: u32::try_from(number("attempt")).expect("a count"),
        args: Some(line["args"].to_string()),
    }
}
