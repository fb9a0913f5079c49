//! Sessions on a real node, over in-memory frame streams: no sockets, no sleeps.

mod delivery;
mod lifecycle;
mod looking;
mod support;
mod translation;
