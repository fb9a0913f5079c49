//! Metrics: one table says which there are, and nothing else can be registered.
//!
//! `table ─▶ Registry (counters, gauges, histograms; what is read when asked) ─▶ text, docs/metrics.md`
//!
//! Invariants: a metric is made from its row of the table and from nothing else, so that name, help,
//! type, labels and buckets are said once; counters count events and never fall; labels take the
//! values of closed sets, but for the names of sites, which only whoever administers the node is
//! shown, and for what is told of single objects page by page (`Shown::Detailed`).

mod broker;
mod node;
mod page;
mod registry;
mod sheet;
mod survey;
pub mod table;

pub use page::page;
pub use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
pub use registry::Registry;
pub use sheet::Sheet;
pub use table::{Kind, Label, Metric, Shown, all, find};

pub(crate) use broker::{Metrics, Violation};
