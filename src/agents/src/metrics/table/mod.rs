//! Every metric of a node, once: name, type, unit, labels with their bounds, and what it means.
//!
//! A new metric is a row of one of the sections, and a place that registers it. A row that nobody
//! registers fails a test, as does a page `docs/metrics.md` that is not made from this. A name that
//! was given out once is never given to something else.

mod detailed;
mod events;
mod front;
mod node;
mod sessions;

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts by size, with these upper bounds of the buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its name in the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Who sees a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Everyone who may ask for `/metrics`.
    Everyone,
    /// Of those, who shows the node's administration token: it names sites.
    Administrator,
    /// Who may read a site, at `/metrics/detailed`: it names what is in the site.
    Detailed,
}

/// What a metric is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// How many values it has at most; of a metric of single objects, on one page.
    pub values_max: usize,
    /// Which values these are, and what bounds them.
    pub from: &'static str,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: Kind,
    /// What it counts or measures.
    pub unit: &'static str,
    /// What it is counted by.
    pub labels: &'static [Label],
    /// What it means.
    pub help: &'static str,
    /// Who sees it.
    pub shown: Shown,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Self {
        Self { name, kind, unit, labels: &[], help, shown: Shown::Everyone }
    }

    const fn by(mut self, labels: &'static [Label]) -> Self {
        self.labels = labels;
        self
    }

    const fn shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    /// The lines that come before its values.
    pub fn head(&self) -> String {
        let Self { name, help, kind, .. } = self;
        format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.as_str())
    }
}

const fn counter(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric::new(name, Kind::Counter, unit, help)
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric::new(name, Kind::Gauge, unit, help)
}

const fn histogram(
    name: &'static str,
    bounds: &'static [f64],
    unit: &'static str,
    help: &'static str,
) -> Metric {
    Metric::new(name, Kind::Histogram(bounds), unit, help)
}

/// A title, what is to be said of all of its metrics, and the metrics.
pub type Section = (&'static str, &'static str, &'static [Metric]);

/// The table.
pub const SECTIONS: &[Section] = &[
    ("Events", events::ABOUT, events::METRICS),
    ("Sessions", "", sessions::METRICS),
    ("Push subscriptions and dead letters", "", sessions::PUSHES),
    ("The log and the groups", "", node::GROUPS),
    ("The node", "", node::METRICS),
    ("The front", "", front::METRICS),
    ("Single objects of a site", detailed::ABOUT, detailed::METRICS),
];

/// Every row.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|(_, _, metrics)| metrics.iter())
}

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Metric> {
    all().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_say_the_type_and_the_unit_and_are_there_once() {
        let mut names = BTreeSet::new();
        for Metric { name, kind, unit, labels, help, .. } in all() {
            assert!(names.insert(name), "{name}: twice");
            assert!(name.starts_with("ackord_"), "{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(plain), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let base = name.strip_suffix("_total").unwrap_or(name);
            for base_unit in ["seconds", "bytes"] {
                let named = base.ends_with(&format!("_{base_unit}"));
                assert_eq!(named, unit.split(' ').next() == Some(base_unit), "{name}: {unit}");
            }
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            for label in *labels {
                assert!(label.values_max > 0 && !label.from.is_empty(), "{name}: {}", label.name);
            }
        }
    }

    #[test]
    fn buckets_are_few_and_ascend() {
        for metric in all() {
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.len() <= 12 && bounds.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }
}
