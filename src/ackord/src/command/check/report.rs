//! What a check found, and how it is told: one line with performance data, a JSON line, or metrics.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::args::CheckOutput;
use crate::exit::{Failure, Health};
use crate::output::{self, Format};

/// Measures in the performance data of a line; the other formats have all.
const LINE_MEASURES_MAX: usize = 40;
/// Findings in a line; the other formats have all.
const LINE_FINDINGS_MAX: usize = 5;

/// See the module.
pub struct Report {
    /// What was checked.
    check: &'static str,
    /// What is told when nothing is wrong, and behind what is.
    pub summary: String,
    findings: Vec<(Health, String)>,
    measures: Vec<Measure>,
}

/// A number that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// What it is, with its unit last.
    pub name: &'static str,
    /// For people who read metrics.
    pub about: &'static str,
    /// Of what.
    pub labels: Vec<(&'static str, String)>,
    /// How much; whole, so that every reader keeps it.
    pub value: i64,
    /// The unit of performance data: `B`, `s`, `ms` or none.
    pub unit: &'static str,
    /// From when on it is a warning.
    pub warn: Option<i64>,
    /// From when on it is critical.
    pub crit: Option<i64>,
    /// On which side of its thresholds it is bad.
    pub bad: Bad,
}

/// On which side of its thresholds a measure is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The more, the worse.
    Above,
    /// The less, the worse.
    Below,
}

/// A number as far as a measure goes.
pub fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Report {
    pub fn of(check: &'static str) -> Self {
        Self { check, summary: String::new(), findings: Vec::new(), measures: Vec::new() }
    }

    /// Adds what was found; what is well is not told.
    pub fn find(&mut self, health: Health, what: impl Into<String>) {
        if health > Health::Ok {
            self.findings.push((health, what.into()));
        }
    }

    /// Adds a number.
    pub fn measure(&mut self, measure: Measure) {
        self.measures.push(measure);
    }

    /// The worst that was found.
    pub fn health(&self) -> Health {
        self.findings.iter().map(|(health, _)| *health).max().unwrap_or(Health::Ok)
    }

    /// Prints it; JSON goes before any other format.
    pub fn print(&self, format: Format, spoken: CheckOutput) -> Result<(), Failure> {
        let written = match (format, spoken) {
            (Format::Json, _) => output::json(&self.to_json()),
            (Format::Text, CheckOutput::Plugin) => output::line(&self.to_line()),
            (Format::Text, CheckOutput::Prometheus) => {
                self.to_metrics().iter().try_for_each(|line| output::raw(line))
            }
        };
        written.map_err(|error| output::closed(&error))
    }

    /// The worst first, each as it was found.
    fn sorted(&self) -> Vec<&(Health, String)> {
        let mut findings: Vec<&(Health, String)> = self.findings.iter().collect();
        findings.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
        findings
    }

    fn to_json(&self) -> Value {
        let found =
            |(health, text): &&(Health, String)| json!({"health": health.word(), "text": text});
        let measured = |measure: &Measure| {
            let labels: Map<String, Value> = measure
                .labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({
                "name": measure.name, "labels": labels, "value": measure.value,
                "unit": measure.unit, "warn": measure.warn, "crit": measure.crit,
            })
        };
        json!({
            "check": self.check,
            "health": self.health().word(),
            "status": self.health().number(),
            "summary": self.summary,
            "findings": self.sorted().iter().map(found).collect::<Vec<_>>(),
            "measures": self.measures.iter().map(measured).collect::<Vec<_>>(),
        })
    }

    /// `NODE OK - text | label=value;warn;crit …`
    fn to_line(&self) -> String {
        let findings = self.sorted();
        let mut texts: Vec<&str> =
            findings.iter().take(LINE_FINDINGS_MAX).map(|(_, text)| text.as_str()).collect();
        let more = findings.len().saturating_sub(LINE_FINDINGS_MAX);
        let more = format!("{more} more findings");
        if findings.len() > LINE_FINDINGS_MAX {
            texts.push(&more);
        }
        if !self.summary.is_empty() {
            texts.push(&self.summary);
        }
        // What stands behind a bar is performance data.
        let text = texts.join("; ").replace(['|', '\n', '\r'], "/");
        let health = self.health().word();
        let head = format!("{} {health}", self.check).to_uppercase();
        let data: Vec<String> =
            self.measures.iter().take(LINE_MEASURES_MAX).map(Measure::to_data).collect();
        let bar = if data.is_empty() { "" } else { " | " };
        format!("{head} - {text}{bar}{}", data.join(" "))
    }

    fn to_metrics(&self) -> Vec<String> {
        let mut lines = vec![
            "# HELP ackord_check_status What a check found: 0 ok, 1 warning, 2 critical, 3 unknown."
                .to_owned(),
            "# TYPE ackord_check_status gauge".to_owned(),
            format!("ackord_check_status{{check=\"{}\"}} {}", self.check, self.health().number()),
        ];
        let names: BTreeSet<&str> = self.measures.iter().map(|measure| measure.name).collect();
        for name in names {
            let mut of_name =
                self.measures.iter().filter(|measure| measure.name == name).peekable();
            if let Some(first) = of_name.peek() {
                lines.push(format!("# HELP ackord_check_{name} {}", first.about));
                lines.push(format!("# TYPE ackord_check_{name} gauge"));
            }
            lines.extend(of_name.map(Measure::to_metric));
        }
        lines
    }
}

impl Measure {
    fn to_data(&self) -> String {
        let mut label = self.name.to_owned();
        for (_, value) in &self.labels {
            label.push('_');
            label.push_str(value);
        }
        let label = label.replace(['\'', '=', '|', '\n', '\r'], "_");
        // `N:` is a range that begins at N: below it is bad.
        let colon = if self.bad == Bad::Below { ":" } else { "" };
        let bound =
            |bound: Option<i64>| bound.map(|bound| format!("{bound}{colon}")).unwrap_or_default();
        let (warn, crit) = (bound(self.warn), bound(self.crit));
        format!("'{label}'={}{};{warn};{crit}", self.value, self.unit)
    }

    fn to_metric(&self) -> String {
        let escaped =
            |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        format!("ackord_check_{}{labels} {}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::of("lag");
        report.summary = "2 subscriptions".to_owned();
        report.find(Health::Ok, "nothing");
        report.find(Health::Warning, "a | b");
        report.find(Health::Critical, "far behind");
        report.measure(Measure {
            name: "lag_instances",
            about: "Instances.",
            labels: vec![("client", "it's".to_owned()), ("event", "a\"b".to_owned())],
            value: 7,
            unit: "",
            warn: Some(5),
            crit: None,
            bad: Bad::Above,
        });
        report
    }

    #[test]
    fn the_worst_decides_and_comes_first() {
        let report = report();
        assert_eq!(report.health(), Health::Critical);
        assert_eq!(
            report.to_line(),
            "LAG CRITICAL - far behind; a / b; 2 subscriptions | 'lag_instances_it_s_a\"b'=7;5;"
        );
        assert_eq!(report.to_json()["findings"][0]["health"], "critical");
        assert_eq!(Report::of("node").to_json()["status"], 0);
    }

    #[test]
    fn metrics_are_escaped_and_have_their_type_once() {
        assert_eq!(
            report().to_metrics()[2..],
            [
                "ackord_check_status{check=\"lag\"} 2",
                "# HELP ackord_check_lag_instances Instances.",
                "# TYPE ackord_check_lag_instances gauge",
                "ackord_check_lag_instances{client=\"it's\",event=\"a\\\"b\"} 7",
            ]
        );
    }
}
