//! Scenarios on the pure sessions, over a real state.
