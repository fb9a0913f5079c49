//! The site machine from outside: a scenario per rule, and properties over random histories.
#![allow(clippy::unwrap_used)]

mod access;
mod accounts;
mod apply;
mod clients;
mod coalescing;
mod directory;
mod encoding;
mod governed;
mod governing;
mod history;
mod lag;
mod letters;
mod polling;
mod properties;
mod pushes;
mod raising;
mod restoring;
mod stores;
mod structures;
mod time;
mod traces;
mod world;
