//! Sessions on a real node, over in-memory frame streams: no sockets, no sleeps.

mod confirmations;
mod delivery;
mod lifecycle;
mod looking;
mod support;
mod translation;
