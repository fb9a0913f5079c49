//! The page of the documentation that lists the metrics: made from the table.

use std::fmt::Write as _;

use super::table::{Kind, Metric, SECTIONS, Shown};

const HEAD: &str = "# Metrics

What `GET /metrics` of each node shows, in the text format of Prometheus. This page is made from the table that the nodes make their
metrics from (`src/agents/src/metrics/table/mod.rs`); renew it with `ACKORD_WRITE_DOCS=1 cargo test -p ackord-agents --lib metrics`.

Counters start at 0 with the process and only grow. A metric is there from the start, with its help and type, also while it has no value.
Labels take values of closed sets. A name is never used again for something else.
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, about, metrics) in SECTIONS {
        let _ = write!(page, "\n## {title}\n\n");
        if !about.is_empty() {
            let _ = write!(page, "{about}\n\n");
        }
        page += "| metric | type | unit | labels | what it is |\n|---|---|---|---|---|\n";
        for metric in *metrics {
            let labels = metric.labels.iter().map(|label| format!("`{}`", label.name));
            let labels = labels.collect::<Vec<_>>().join(", ");
            let Metric { name, kind, unit, help, .. } = metric;
            let kind = kind.as_str();
            let _ = writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {help} |");
        }
    }
    page + &labels() + &buckets()
}

/// Every label of every metric, with its bound.
fn labels() -> String {
    let mut text = "\n## Labels\n\n| label | of | values at most | which, and what bounds them |\n\
                    |---|---|---|---|\n"
        .to_owned();
    let mut known: Vec<(&super::Label, Vec<&str>)> = Vec::new();
    for metric in super::all().filter(|metric| metric.shown != Shown::Detailed) {
        for label in metric.labels {
            match known.iter_mut().find(|(other, _)| *other == label) {
                Some((_, of)) => of.push(metric.name),
                None => known.push((label, vec![metric.name])),
            }
        }
    }
    for (label, of) in known {
        let of = of.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (name, most, from) = (label.name, label.values_max, label.from);
        let _ = writeln!(text, "| `{name}` | {of} | {most} | {from} |");
    }
    text
}

/// The buckets of every histogram.
fn buckets() -> String {
    let mut text =
        "\n## Buckets\n\n| histogram | upper bounds, before `+Inf` |\n|---|---|\n".to_owned();
    for metric in super::all() {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<String> = bounds.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "| `{}` | {} |", metric.name, bounds.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let text = page();
        if std::env::var_os("ACKORD_WRITE_DOCS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let same = kept == text;
        assert!(same, "renew it: ACKORD_WRITE_DOCS=1 cargo test -p ackord-agents --lib metrics");
    }
}
