//! What was counted before, in a file that people can read, and what has become dearer since.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// So many per cent more instructions than in the baseline are a regression.
pub const REGRESSION_PERCENT: f64 = 3.0;

/// What stands above the figures in the file.
const HEAD: &str = "\
# Instructions of one round of each path. Made by
#   cargo run --release -p ackord-micro -- --write
# The counts compare only where all of [measured_with] is the same.

";

/// Instructions by path, and what they depend on besides the code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What they depend on: tools, C library, processor.
    pub measured_with: BTreeMap<String, String>,
    /// The instructions of one round.
    pub instructions: BTreeMap<String, u64>,
}

/// What became of one path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Less than [`REGRESSION_PERCENT`] away, per cent.
    Same(f64),
    /// Cheaper, per cent.
    Better(f64),
    /// Dearer, per cent.
    Worse(f64),
    /// The baseline does not have it.
    New,
}

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, or is none.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("{}: write it with --write", file.display()))?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = format!("{HEAD}{}", toml::to_string(self)?);
        std::fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// What this was measured with and `now` is not: the name, what it was, what it is.
    pub fn differences<'a>(&'a self, now: &'a BTreeMap<String, String>) -> Vec<[&'a str; 3]> {
        let names: BTreeSet<_> = self.measured_with.keys().chain(now.keys()).collect();
        let of = |map: &'a BTreeMap<String, String>, name| map.get(name).map_or("", String::as_str);
        names
            .into_iter()
            .map(|name| [name.as_str(), of(&self.measured_with, name), of(now, name)])
            .filter(|[_, was, is]| was != is)
            .collect()
    }

    /// How far a path is from what it was.
    pub fn change(&self, name: &str, now: u64) -> Change {
        let Some(before) = self.instructions.get(name) else { return Change::New };
        let percent = 100.0 * (now as f64 / *before as f64 - 1.0);
        if percent >= REGRESSION_PERCENT {
            Change::Worse(percent)
        } else if percent <= -REGRESSION_PERCENT {
            Change::Better(percent)
        } else {
            Change::Same(percent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<V>(entries: impl IntoIterator<Item = (&'static str, V)>) -> BTreeMap<String, V> {
        entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn baseline() -> Baseline {
        Baseline {
            measured_with: map([("rustc", "1".to_owned())]),
            instructions: map([("decode", 1000)]),
        }
    }

    #[test]
    fn given_three_per_cent_more_then_it_is_worse() {
        let baseline = baseline();
        assert_eq!(baseline.change("decode", 1000), Change::Same(0.0));
        assert!(matches!(baseline.change("decode", 1029), Change::Same(_)));
        assert!(matches!(baseline.change("decode", 1031), Change::Worse(_)));
        assert!(matches!(baseline.change("decode", 969), Change::Better(_)));
        assert_eq!(baseline.change("encode", 1), Change::New);
    }

    #[test]
    fn given_other_tools_then_they_are_named() {
        let now = map([("rustc", "2".to_owned()), ("libc", "3".to_owned())]);
        assert_eq!(baseline().differences(&now), [["libc", "", "3"], ["rustc", "1", "2"]]);
        assert!(baseline().differences(&baseline().measured_with).is_empty());
    }

    #[test]
    fn given_what_was_written_then_it_is_read_back() {
        let text = format!("{HEAD}{}", toml::to_string(&baseline()).expect("it is TOML"));
        assert_eq!(toml::from_str::<Baseline>(&text).ok(), Some(baseline()));
    }
}
