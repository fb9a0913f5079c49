//! Where bytes enter and leave: the HTTP administration API, the WebSocket endpoints of services
//! and clients, authentication, limits, health and metrics.
//!
//! `socket ─▶ head ─▶ route ─▶ authority ─▶ body ─▶ Broker ─▶ answer | problem`
//! `socket ─▶ head ─▶ route ─▶ authority ─▶ session ─▶ outbox ─▶ Events (a body) ─▶ socket`
//! `socket ─▶ head ─▶ route ─▶ authority ─▶ upgrade ─▶ Frames ─▶ session ─▶ outbox ─▶ Writer ─▶ socket`
//!
//! Invariants: nothing of a body or frame is parsed before its sender is known to be allowed to
//! send it, but for acknowledgements, whose body is small and itself the proof; every refusal is a problem document or a `closing` frame with a stable code; every
//! wait for a peer has a deadline and every buffer a bound.
//!
//! Deliberately absent: decisions about sites (`ackord_machine`), sessions (`ackord_agents`), and
//! any sight of the log or the store.

mod context;
mod control;
mod convert;
#[doc(hidden)]
pub mod fuzz;
mod http;
mod identity;
mod meter;
mod metrics;
pub mod openapi;
mod options;
mod rates;
mod route;
mod server;
mod stream;
mod tls;
mod waiting;
mod ws;

pub use context::{Live, Reload};
pub use control::{Control, FileReport};
pub use http::batch::BATCH_ITEMS_CEILING;
pub use http::suggest::nearest as nearest_name;
pub use identity::issuer::{
    Issuer, IssuerOptions, KeyFile, LEEWAY_S_DEFAULT, LEEWAY_S_MAX, ROLE_CLAIM_DEFAULT,
    SITE_CLAIM_DEFAULT,
};
pub use options::{Error, Face, GatewayLimits, GatewayOptions, Listener};
pub use server::Gateway;
pub use tls::{Tls, TlsFiles, TlsLimits};
pub use waiting::WaitingRoom;
