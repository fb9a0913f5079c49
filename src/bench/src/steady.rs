//! A load that lasts, at a part of what the publishers can, beside all kinds of subscribers: whether
//! memory and latency stay where they are.
//!
//! ```text
//! publishers raise all they can ─▶ the most ─▶ they raise a part of it for the whole time, while five
//! healthy subscribers take everything, five abort every connection and five stall ─▶ the most again
//! ```
//!
//! The first third of the time is compared with the last. The figures fail no run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::error::Error;
use crate::ground::Ground;
use crate::latency::Timeline;
use crate::meter::{self, Moment};
use crate::mixed::{Company, Stage};
use crate::options::{Options, Workload};
use crate::report::{self, Figures, Report, Second, Steady};
use crate::verify::Checks;

/// How long the most is measured.
const MOST: Duration = Duration::from_secs(10);
/// How often memory is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) async fn run<G: Ground>(ground: &G, options: &Options) -> Result<Report, Error> {
    let mut stage = Stage::set(ground, options).await?;
    let others = stage.others(ground, Company::Mixed).await?;
    let most_per_s = most(&mut stage, options).await?;
    let paced_per_s = most_per_s * f64::from(options.load) / 100.0;
    ground.progress(&format!("{most_per_s:.0} events/s at most, {paced_per_s:.0} from now on"));
    let timeline = Arc::new(Timeline::new(Instant::now()));
    let before = Moment::now(ground).await?;
    let look = async {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            timeline.memory(Instant::now(), meter::resident(&ground.pids()));
        }
    };
    let noted = Some(timeline.clone());
    let (events, latency) = tokio::select! {
        measured = stage.measure(options, options.time, Some(paced_per_s), noted) => measured?,
        () = look => unreachable!("it looks for ever"),
    };
    let after = Moment::now(ground).await?;
    let most_after_per_s = most(&mut stage, options).await?;
    others.end(ground, &stage.site).await?;
    let mut checks = Checks::default();
    stage.clear(ground, options, &mut checks).await?;
    let seconds = options.time.as_secs_f64();
    let mut report = Report::new(Workload::Mixed, options, after.nodes(), seconds).events(events);
    report.sizes = json!({
        "publishers": options.publishers, "window": options.window, "size": options.size,
        "load_percent": options.load,
    });
    report.latency = Some(latency.report());
    report.timeline = timeline.report();
    let (first, last) = thirds(&report.timeline);
    report.figures = Some(Figures::Steady {
        steady: Steady {
            most_per_s,
            most_after_per_s,
            paced_per_s,
            rss_bytes_first: mean(first),
            rss_bytes_last: mean(last),
            p99_us_first: median(first),
            p99_us_last: median(last),
        },
    });
    after.used(&before, &mut report);
    checks.found(&mut report);
    Ok(report)
}

/// What the publishers can raise now, per second.
async fn most(stage: &mut Stage, options: &Options) -> Result<f64, Error> {
    let (most, _) = stage.measure(options, MOST, None, None).await?;
    Ok((most as f64 / MOST.as_secs_f64()).max(1.0))
}

fn thirds(seconds: &[Second]) -> (&[Second], &[Second]) {
    let third = seconds.len().div_ceil(3);
    (&seconds[..third], &seconds[seconds.len() - third..])
}

/// Of the memory in these seconds, bytes.
fn mean(seconds: &[Second]) -> Option<f64> {
    let told: Vec<u64> = seconds.iter().filter_map(|second| second.rss_bytes).collect();
    (!told.is_empty()).then(|| told.iter().sum::<u64>() as f64 / told.len() as f64)
}

/// Of the 99th percentiles of these seconds, microseconds.
fn median(seconds: &[Second]) -> Option<f64> {
    let mut told: Vec<f64> = seconds.iter().filter_map(|it| Some(it.p99_us? as f64)).collect();
    told.sort_by(f64::total_cmp);
    report::median(&told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_third_is_compared_with_the_last_and_what_was_not_looked_at_is_none() {
        let second = |n: u64| Second {
            events: n,
            p50_us: None,
            p99_us: Some(n * 10),
            rss_bytes: (n != 2).then_some(n * 100),
        };
        let seconds: Vec<Second> = (1..=9).map(second).collect();
        let (first, last) = thirds(&seconds);
        assert_eq!((mean(first), median(first)), (Some(200.0), Some(20.0)));
        assert_eq!((mean(last), median(last)), (Some(800.0), Some(80.0)));
        assert_eq!((mean(&[]), median(&[])), (None, None));
    }
}
