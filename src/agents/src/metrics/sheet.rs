//! Values that are read at one moment, to be written as metrics of the table.

use std::collections::BTreeMap;

use ackord_replica::{DURATION_BOUNDS_US, DurationCounts};
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric as Sample, MetricFamily, MetricType,
};

use super::table::{Kind, Metric, find};

/// See the module.
#[derive(Debug, Default)]
pub struct Sheet {
    families: BTreeMap<&'static str, (&'static Metric, Vec<Sample>)>,
}

impl Sheet {
    /// For metrics of these names; a value of another one is not taken.
    pub fn of(names: impl IntoIterator<Item = &'static str>) -> Self {
        let rows = names.into_iter().filter_map(find);
        Self { families: rows.map(|row| (row.name, (row, Vec::new()))).collect() }
    }

    /// A value of a counter or a gauge, with a value for each of its labels.
    pub fn put(&mut self, name: &str, labels: &[&str], value: f64) {
        let Some((row, samples)) = self.families.get_mut(name) else {
            debug_assert!(false, "{name}: not on this sheet");
            return;
        };
        debug_assert_eq!(row.labels.len(), labels.len(), "{name}: a value for each label");
        let mut sample = Sample::from_label(pairs(row, labels));
        match row.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
            Kind::Histogram(_) => debug_assert!(false, "{name}: is a histogram"),
        }
        samples.push(sample);
    }

    /// As [`Sheet::put`] without labels, of a count.
    pub fn count(&mut self, name: &str, value: u64) {
        // Counts beyond 2^53 lose their last digits, as everything does in this format.
        self.put(name, &[], value as f64);
    }

    /// The durations of a histogram that has the bounds of [`DURATION_BOUNDS_US`].
    pub fn durations(&mut self, name: &str, counts: &DurationCounts) {
        let Some((_, samples)) = self.families.get_mut(name) else {
            debug_assert!(false, "{name}: not on this sheet");
            return;
        };
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(DURATION_BOUNDS_US.len());
        for (bound_us, count) in DURATION_BOUNDS_US.iter().zip(counts.buckets) {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound_us as f64 / 1e6);
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(counts.buckets.iter().sum());
        histogram.set_sample_sum(counts.sum_us as f64 / 1e6);
        let mut sample = Sample::from_label(Vec::new());
        sample.set_histogram(histogram);
        samples.push(sample);
    }

    /// As Prometheus text.
    pub fn text(self) -> String {
        // It fails only for families without samples, which are left out.
        TextEncoder::new().encode_to_string(&self.into_families()).unwrap_or_default()
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        let families = self.families.into_values().filter(|(_, samples)| !samples.is_empty());
        families.map(|(row, samples)| family(row, samples)).collect()
    }
}

fn pairs(row: &Metric, values: &[&str]) -> Vec<LabelPair> {
    let pair = |(label, value): (&super::table::Label, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.name.to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut pairs: Vec<LabelPair> = row.labels.iter().zip(values).map(pair).collect();
    // As those of other metrics are.
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    pairs
}

fn family(row: &Metric, samples: Vec<Sample>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(row.name.to_owned());
    family.set_help(row.help.to_owned());
    family.set_field_type(match row.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram(_) => MetricType::HISTOGRAM,
    });
    family.set_metric(samples);
    family
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_are_written_as_the_table_says() {
        let mut sheet = Sheet::of(["ackord_ready", "ackord_apply_seconds", "ackord_groups"]);
        sheet.count("ackord_ready", 1);
        let mut counts = DurationCounts::default();
        counts.buckets[0] = 2;
        counts.buckets[12] = 1;
        counts.sum_us = Duration::from_secs(9).as_micros() as u64;
        sheet.durations("ackord_apply_seconds", &counts);
        let text = sheet.text();
        for line in [
            "# TYPE ackord_ready gauge\nackord_ready 1\n",
            "ackord_apply_seconds_bucket{le=\"0.00005\"} 2\n",
            "ackord_apply_seconds_bucket{le=\"5\"} 2\n",
            "ackord_apply_seconds_bucket{le=\"+Inf\"} 3\nackord_apply_seconds_sum 9\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("ackord_groups"), "what has no value is left out");
    }
}
