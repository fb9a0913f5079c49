//! Where the metrics of a node, or of its front, are registered.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder,
};

use super::sheet::Sheet;
use super::table::{Kind, Metric, Shown, find};

/// Metrics by name. One that has no row in the table cannot be made: every name is a constant, so
/// asking for another one is a mistake of the code, and panics.
#[derive(Default)]
pub struct Registry {
    registry: prometheus::Registry,
    names: Mutex<BTreeSet<&'static str>>,
}

/// The row of a metric, if it is of this type and has labels or not.
fn row(name: &str, is_it: impl Fn(&Kind) -> bool, labelled: bool) -> &'static Metric {
    let row = find(name).filter(|row| row.shown != Shown::Detailed);
    let fits = row.filter(|row| is_it(&row.kind) && row.labels.is_empty() != labelled);
    fits.unwrap_or_else(|| panic!("{name}: the table of metrics has no such one of this type"))
}

fn labels(row: &Metric) -> Vec<&'static str> {
    row.labels.iter().map(|label| label.name).collect()
}

const CONSTANT: &str = "a metric of the table is well-formed and registered once";

impl Registry {
    /// A counter.
    pub fn counter(&self, name: &str) -> IntCounter {
        let row = row(name, |kind| *kind == Kind::Counter, false);
        self.add(row, IntCounter::new(row.name, row.help))
    }

    /// Counters by labels.
    pub fn counters(&self, name: &str) -> IntCounterVec {
        let row = row(name, |kind| *kind == Kind::Counter, true);
        self.add(row, IntCounterVec::new(Opts::new(row.name, row.help), &labels(row)))
    }

    /// A gauge.
    pub fn gauge(&self, name: &str) -> IntGauge {
        let row = row(name, |kind| *kind == Kind::Gauge, false);
        self.add(row, IntGauge::new(row.name, row.help))
    }

    /// Gauges by labels.
    pub fn gauges(&self, name: &str) -> IntGaugeVec {
        let row = row(name, |kind| *kind == Kind::Gauge, true);
        self.add(row, IntGaugeVec::new(Opts::new(row.name, row.help), &labels(row)))
    }

    /// A histogram.
    pub fn histogram(&self, name: &str) -> Histogram {
        let row = row(name, |kind| matches!(kind, Kind::Histogram(_)), false);
        let Kind::Histogram(bounds) = row.kind else { unreachable!("it was just looked at") };
        let options = HistogramOpts::new(row.name, row.help).buckets(bounds.to_vec());
        self.add(row, Histogram::with_opts(options))
    }

    /// Metrics that are read when they are asked for.
    pub fn read(
        &self,
        names: impl IntoIterator<Item = &'static str>,
        read: impl Fn(&mut Sheet) + Send + Sync + 'static,
    ) {
        let mut descriptions = Vec::new();
        let names: BTreeSet<&'static str> = names.into_iter().collect();
        for name in &names {
            let row = find(name).filter(|row| row.shown != Shown::Detailed);
            let row = row.unwrap_or_else(|| panic!("{name}: not in the table of metrics"));
            let labels = row.labels.iter().map(|label| label.name.to_owned()).collect();
            let help = row.help.to_owned();
            descriptions.push(
                Desc::new(row.name.to_owned(), help, labels, Default::default()).expect(CONSTANT),
            );
            self.note(row);
        }
        let reading = Reading { names, descriptions, read: Box::new(read) };
        self.registry.register(Box::new(reading)).expect(CONSTANT);
    }

    /// Prometheus text. Names of sites are shown only to who may see them. A metric that has no
    /// value yet is there with its help and type.
    pub fn text(&self, with_names: bool) -> String {
        let hidden = |name: &str| {
            find(name).is_some_and(|row| row.shown == Shown::Administrator && !with_names)
        };
        let mut families = self.registry.gather();
        families.retain(|family| !hidden(family.name()));
        // Encoding into a string fails only for families without metrics, which are not gathered.
        let mut text = TextEncoder::new().encode_to_string(&families).unwrap_or_default();
        let told: BTreeSet<&str> = families.iter().map(|family| family.name()).collect();
        for name in self.names.lock().iter().filter(|name| !told.contains(**name)) {
            if let Some(row) = find(name).filter(|_| !hidden(name)) {
                text += &row.head();
            }
        }
        text
    }

    /// What is registered.
    pub fn names(&self) -> BTreeSet<&'static str> {
        self.names.lock().clone()
    }

    fn add<M: Collector + Clone + 'static>(
        &self,
        row: &'static Metric,
        metric: prometheus::Result<M>,
    ) -> M {
        let metric = metric.expect(CONSTANT);
        self.registry.register(Box::new(metric.clone())).expect(CONSTANT);
        self.note(row);
        metric
    }

    fn note(&self, row: &'static Metric) {
        self.names.lock().insert(row.name);
    }
}

/// See [`Registry::read`].
struct Reading {
    names: BTreeSet<&'static str>,
    descriptions: Vec<Desc>,
    read: Box<dyn Fn(&mut Sheet) + Send + Sync>,
}

impl Collector for Reading {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut sheet = Sheet::of(self.names.iter().copied());
        (self.read)(&mut sheet);
        sheet.into_families()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_without_value_shows_what_it_is() {
        let registry = Registry::default();
        registry.counters("ackord_session_closes_total");
        let text = registry.text(false);
        assert!(text.contains("# TYPE ackord_session_closes_total counter\n"), "{text}");
    }

    #[test]
    fn names_of_sites_are_for_the_administrator() {
        let registry = Registry::default();
        registry.read(["ackord_site_lag_instances"], |sheet| {
            sheet.put("ackord_site_lag_instances", &["plant"], 7.0);
        });
        assert!(!registry.text(false).contains("ackord_site_lag_instances"));
        assert!(registry.text(true).contains("ackord_site_lag_instances{site=\"plant\"} 7\n"));
    }

    #[test]
    #[should_panic(expected = "ackord_unheard_of: the table of metrics has no such one")]
    fn a_metric_that_is_not_in_the_table_cannot_be_made() {
        Registry::default().gauge("ackord_unheard_of");
    }

    #[test]
    #[should_panic(expected = "of this type")]
    fn nor_can_one_of_another_type() {
        Registry::default().gauge("ackord_acks_total");
    }
}
