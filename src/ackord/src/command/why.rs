//! `ackord why EVENT INSTANCE_ID`: what became of an instance, as a timeline of one client, or in short
//! for each that is subscribed.

use ackord_wire::Code;
use ackord_wire::govern::{Transmission, Why as Answer};
use serde_json::{Value, json};

use super::site::{admin, site_path};
use crate::admin::{Admin, segment};
use crate::args::Why;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::moment::rfc3339;
use crate::output::{self, Format};

/// Subscribers that are told in short at most.
const SUBSCRIBERS_MAX: usize = 1000;

/// Runs the command.
pub async fn run(arguments: Why, format: Format) -> Outcome {
    let (admin, site) = (admin(&arguments.connect)?, arguments.connect.site()?);
    match &arguments.client {
        Some(client) => {
            let answer = ask(&admin, &site, client, &arguments).await?;
            let unknown = answer["verdict"] == Code::UnknownEvent.as_str();
            match format {
                Format::Json => output::object(format, &answer)?,
                Format::Text => tell(&parse(answer)?)?,
            }
            if unknown {
                let why = format!("there is no event {}", arguments.event);
                return Err(Failure::coded(Exit::Refused, why, Code::UnknownEvent));
            }
        }
        None => everyone(&admin, &site, &arguments, format).await?,
    }
    Ok(Exit::Done)
}

async fn ask(admin: &Admin, site: &str, client: &str, arguments: &Why) -> Result<Value, Failure> {
    let (event, id) = (segment(&arguments.event), arguments.instance_id);
    let local = if arguments.local { "&consistency=local" } else { "" };
    let query = format!("client={}&event={event}&instance_id={id}{local}", segment(client));
    Ok(admin.get(&format!("{}/why?{query}", site_path(site))).await?)
}

fn parse(answer: Value) -> Result<Answer, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::new(Exit::Unreachable, format!("no answer to why: {error}")))
}

async fn everyone(
    admin: &Admin,
    site: &str,
    arguments: &Why,
    format: Format,
) -> Result<(), Failure> {
    let path = format!("{}/subscriptions", site_path(site));
    let filter = [("event", arguments.event.as_str())];
    let rows = admin.list_where(&path, &filter, SUBSCRIBERS_MAX + 1).await?;
    if rows.is_empty() {
        // An event that is not there is refused: about it there is nothing to tell.
        let queue = format!("{}/queues/{}?limit=1", site_path(site), segment(&arguments.event));
        admin.get(&queue).await?;
        say(format_args!("nobody is subscribed to {}", arguments.event));
    }
    if rows.len() > SUBSCRIBERS_MAX {
        say(format_args!(
            "only the first {SUBSCRIBERS_MAX} subscribers are told; --client tells one"
        ));
    }
    let mut told = Vec::new();
    for row in rows.iter().take(SUBSCRIBERS_MAX) {
        let Some(client) = row["client"].as_str() else { continue };
        let answer = ask(admin, site, client, arguments).await?;
        match format {
            Format::Json => output::object(format, &answer)?,
            Format::Text => told.push(in_short(&parse(answer)?)),
        }
    }
    if format == Format::Text && !told.is_empty() {
        output::list(format, &told, &["client", "verdict", "sent", "because"])?;
    }
    Ok(())
}

fn in_short(answer: &Answer) -> Value {
    json!({
        "client": answer.client,
        "verdict": answer.verdict,
        "sent": answer.sent.as_ref().map(|sent| sent.times),
        "because": answer.because,
    })
}

fn tell(answer: &Answer) -> Result<(), Failure> {
    let line = |text: &str| output::line(text).map_err(|error| output::closed(&error));
    let Answer { event, instance_id, client, verdict, because, .. } = answer;
    line(&format!("{event} {instance_id} for {client}: {verdict}"))?;
    line(&format!("  {because}"))?;
    for (at, what) in timeline(answer) {
        line(format!("  {:24}  {what}", at.map_or_else(String::new, rfc3339)).trim_end())?;
    }
    for missing in &answer.not_reached {
        let why = serde_json::to_value(missing.why).unwrap_or_default();
        let why = why.as_str().unwrap_or("not reached");
        line(&format!("  node {} did not say what it knows: {why}", missing.node))?;
    }
    Ok(())
}

/// What happened, in the order of time; what has no moment comes last.
fn timeline(answer: &Answer) -> Vec<(Option<u64>, String)> {
    let mut lines: Vec<(Option<u64>, String)> = Vec::new();
    let fate = &answer.instance;
    if let Some(at) = fate.accepted_ms {
        let by = fate.service.as_deref().unwrap_or("a service");
        let nodes = named(&fate.replicas);
        let replicated = match fate.replicas.len() {
            0 => "synced by a majority of the voters of its partition".to_owned(),
            1 => format!("synced by node {nodes}"),
            _ => format!("synced by most of nodes {nodes}"),
        };
        lines.push((Some(at), format!("accepted from {by}, {replicated}")));
    }
    let sent = answer.sent.iter().flat_map(|sent| &sent.transmissions);
    for one in sent {
        told(one, &mut lines);
    }
    if let Some(at) = fate.gone_ms {
        let by = fate.by.map(|by| format!(" by {by}")).unwrap_or_default();
        lines.push((Some(at), format!("{}{by}", fate.fate)));
    } else if let Some(at) = fate.expires_ms {
        lines.push((Some(at), "expires".to_owned()));
    }
    if let Some(subscription) = &answer.subscription {
        if let Some(at) = subscription.paused_ms {
            lines.push((Some(at), "the subscription was paused".to_owned()));
        }
        if let Some(session) = &subscription.session {
            let text = format!("the client connected to node {}", session.node);
            lines.push((Some(session.since_ms), text));
        }
    }
    lines.sort_by_key(|(at, _)| at.unwrap_or(u64::MAX));
    if let Some(subscription) = &answer.subscription {
        let cursor = subscription.position.instance_id;
        lines.push((None, format!("the cursor stands at {cursor}")));
        if !subscription.granted {
            lines.push((None, "the client may not receive the event now".to_owned()));
        }
        if let Some(other) =
            subscription.in_flight.as_ref().filter(|it| it.instance_id != answer.instance_id)
        {
            lines.push((None, format!("instance {} is in flight", other.instance_id)));
        }
    }
    if let Some(sent) = &answer.sent {
        let shown = sent.transmissions.len() as u64;
        let since = rfc3339(sent.known_since_ms);
        let text = match sent.times {
            0 => format!("not sent since {since}, from when on the nodes remember"),
            times if times > shown => format!("sent {times} times; the last {shown} are told"),
            1 => "sent once".to_owned(),
            times => format!("sent {times} times"),
        };
        lines.push((None, text));
    }
    lines
}

fn told(one: &Transmission, lines: &mut Vec<(Option<u64>, String)>) {
    let Transmission { node, session, attempt, sent_ms, acknowledged_ms, committed_ms } = one;
    let text = format!("sent by node {node} in its session {session}, attempt {attempt}");
    lines.push((Some(*sent_ms), text));
    if acknowledged_ms.is_some() {
        lines.push((*acknowledged_ms, format!("acknowledged to node {node}")));
    }
    if committed_ms.is_some() {
        lines.push((*committed_ms, "its cursor was committed".to_owned()));
    }
}

fn named(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_in_the_order_of_time() {
        let answer: Answer = serde_json::from_value(json!({
            "instance_id": 7, "event": "reading", "client": "phone", "verdict": "evicted",
            "because": "its queue was full",
            "instance": {"fate": "evicted", "service": "boiler", "accepted_ms": 1000,
                         "gone_ms": 5000, "by": 17, "replicas": [1, 2, 3]},
            "subscription": {"position": {"incarnation": 5, "generation": 0, "instance_id": 6},
                             "granted": true},
            "sent": {"times": 2, "known_since_ms": 0, "transmissions": [
                {"node": 2, "session": 1, "attempt": 1, "sent_ms": 2000},
                {"node": 3, "session": 4, "attempt": 1, "sent_ms": 3000, "acknowledged_ms": 3500}]},
        }))
        .unwrap();
        let told: Vec<String> = timeline(&answer).into_iter().map(|(_, what)| what).collect();
        assert_eq!(
            told,
            [
                "accepted from boiler, synced by most of nodes 1, 2, 3",
                "sent by node 2 in its session 1, attempt 1",
                "sent by node 3 in its session 4, attempt 1",
                "acknowledged to node 3",
                "evicted by 17",
                "the cursor stands at 6",
                "sent 2 times",
            ]
        );
    }
}
