//! A report as one page that needs nothing else: the figures, and charts of the run by seconds.

use std::fmt::Write as _;

use serde_json::Value;

use crate::report::{Report, Second};

/// Width of a chart, pixels of its own scale.
const WIDTH: f64 = 720.0;
/// Height of a chart.
const HEIGHT: f64 = 200.0;
/// Left of the chart, for the numbers.
const LEFT: f64 = 64.0;
/// Below the chart, for the seconds.
const BELOW: f64 = 24.0;
/// Lines across a chart.
const LINES: u32 = 4;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c2733; --faint: #8896a5; --line: #dde3ea; --page: #fff;
  --one: #1466b8; --two: #c2560c; --bad: #b3261e; --good: #1b7f4b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --faint: #93a1b0; --line: #33404d;
  --page: #12181f; --one: #6ab0f3; --two: #f0a05a; --bad: #f2837b; --good: #6fcf97; } }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  max-width: 780px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; }
td { border-bottom: 1px solid var(--line); padding: .25rem .5rem; vertical-align: top; }
td:first-child { color: var(--faint); white-space: nowrap; width: 16rem; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font: 11px system-ui, sans-serif; }
.bad { color: var(--bad); } .good { color: var(--good); } pre { white-space: pre-wrap; }
";

/// Text as it may stand in a page.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// A curve: its name, the variable of its colour, a value for each second that has one.
struct Curve {
    name: &'static str,
    colour: &'static str,
    values: Vec<Option<f64>>,
}

impl Curve {
    fn of(
        name: &'static str,
        colour: &'static str,
        seconds: &[Second],
        value: impl Fn(&Second) -> Option<f64>,
    ) -> Self {
        Self { name, colour, values: seconds.iter().map(value).collect() }
    }
}

/// The next "round" number: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= value).unwrap_or(value)
}

/// A number as a person reads it.
fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0}k", value / 1000.0),
        value if value >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A chart of curves over the seconds; nothing where no curve has two points.
fn chart(out: &mut String, title: &str, curves: &[Curve]) {
    let seconds = curves.iter().map(|curve| curve.values.len()).max().unwrap_or(0);
    let values = || curves.iter().flat_map(|curve| &curve.values).flatten().copied();
    if seconds < 2 || values().count() < 2 {
        return;
    }
    let top = round_up(values().fold(0.0, f64::max));
    let x = |second: usize| LEFT + (WIDTH - LEFT) * second as f64 / (seconds - 1) as f64;
    let y = |value: f64| HEIGHT * (1.0 - value / top) + 8.0;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<h2>{}</h2><svg viewBox=\"0 0 {:.0} {:.0}\" role=\"img\" aria-label=\"{}\">",
        escaped(title),
        WIDTH + 12.0,
        HEIGHT + BELOW + 8.0,
        escaped(title)
    );
    for line in 0..=LINES {
        let value = top * f64::from(line) / f64::from(LINES);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"{1:.0}\" y=\"{2:.1}\" text-anchor=\"end\">{3}</text>",
            y(value),
            LEFT - 8.0,
            y(value) + 4.0,
            short(value)
        );
    }
    for (at, anchor) in [(0, "start"), (seconds - 1, "end")] {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{at} s</text>",
            x(at),
            HEIGHT + BELOW
        );
    }
    for (place, curve) in curves.iter().enumerate() {
        let Curve { name, colour, values } = curve;
        let mut path = String::new();
        let mut is_down = false;
        for (second, value) in values.iter().enumerate() {
            let Some(value) = value else {
                is_down = false;
                continue;
            };
            let step = if is_down { 'L' } else { 'M' };
            let _ = write!(path, "{step}{:.1} {:.1}", x(second), y(*value));
            is_down = true;
        }
        let _ = write!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"var({colour})\" stroke-width=\"2\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"middle\" style=\"fill:var({colour})\">{}</text>",
            WIDTH / 2.0 + (place as f64 - (curves.len() as f64 - 1.0) / 2.0) * 120.0,
            HEIGHT + BELOW,
            escaped(name)
        );
    }
    out.push_str("</svg>");
}

/// A row for each value of an object that is no list and no object itself.
fn rows(out: &mut String, object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => "not measured".to_owned(),
            Value::Array(_) => continue,
            Value::Object(inner) => {
                let parts =
                    inner.iter().filter(|(_, value)| !value.is_array() && !value.is_object());
                let parts: Vec<String> =
                    parts.map(|(name, value)| format!("{name} {value}")).collect();
                parts.join(", ")
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = write!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(name), escaped(&text));
    }
}

impl Report {
    /// The report as a page.
    pub fn html(&self) -> String {
        let mut out =
            String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        let title = format!("ackord bench {}", self.bench);
        let _ = write!(
            out,
            "<meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
             <style>{STYLE}</style></head><body><h1>{title}</h1>"
        );
        let (class, verdict) = match self.verified {
            Some(true) => ("good", "Everything that was checked holds."),
            Some(false) => ("bad", "What was checked does not hold."),
            None => ("", "Nothing was checked."),
        };
        let _ = write!(out, "<p class=\"{class}\">{verdict}</p><ul>");
        for (class, said) in [("good", &self.checks), ("bad", &self.failures)] {
            for line in said {
                let _ = write!(out, "<li class=\"{class}\">{}</li>", escaped(line));
            }
        }
        out.push_str("</ul>");
        let seconds = &self.timeline[..];
        let ms = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
        let events = |second: &Second| Some(second.events as f64);
        chart(&mut out, "Events per second", &[Curve::of("events", "--one", seconds, events)]);
        let latencies = [
            Curve::of("p50", "--one", seconds, |second| ms(second.p50_us)),
            Curve::of("p99", "--two", seconds, |second| ms(second.p99_us)),
        ];
        chart(&mut out, "Latency, milliseconds", &latencies);
        let mib = |second: &Second| second.rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0);
        let memory = [Curve::of("all nodes", "--one", seconds, mib)];
        chart(&mut out, "Resident memory, MiB", &memory);
        out.push_str("<h2>Figures</h2><table>");
        // A report is plain data.
        rows(&mut out, &serde_json::to_value(self).unwrap_or_default());
        let _ = write!(
            out,
            "</table><h2>In words</h2><pre>{}</pre>",
            escaped(&self.lines().join("\n"))
        );
        out.push_str("</body></html>\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_ends_at_a_round_number_not_below_the_largest() {
        for (value, round) in [(0.0, 1.0), (1.0, 1.0), (3.0, 5.0), (11.0, 20.0), (5001.0, 10_000.0)]
        {
            assert_eq!(round_up(value), round, "{value}");
        }
        assert_eq!(escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }

    #[test]
    fn a_chart_is_drawn_where_there_are_two_points_and_breaks_where_there_is_none() {
        let mut out = String::new();
        let curve = |values| [Curve { name: "n", colour: "--one", values }];
        chart(&mut out, "t", &curve(vec![Some(1.0)]));
        assert_eq!(out, "");
        chart(&mut out, "t", &curve(vec![Some(1.0), None, Some(2.0), Some(2.0)]));
        assert_eq!(out.matches('M').count(), 2, "{out}");
        assert_eq!(out.matches('L').count(), 1, "{out}");
    }
}
