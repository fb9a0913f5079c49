//! Client persistence: the last handled position of every subscription, and the levels built in.
//!
//! A position is written after the handler returned and before the acknowledgement. A crash in
//! between, after the handler's effect, repeats that one event. An application that cannot have
//! that stores the position in the transaction of the effect, and answers [`load`] from there:
//!
//! [`load`]: ClientPersistence::load
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Arc, Mutex};
//! use ackord_endpoint::cpl::{ClientPersistence, PositionChange, Positions};
//! use ackord_endpoint::spl::PersistenceError;
//! use ackord_endpoint::{Delivery, HandlerError, Position};
//!
//! /// Stands for a database; the lock stands for a transaction.
//! #[derive(Clone, Default)]
//! struct Database(Arc<Mutex<(Vec<Vec<u8>>, BTreeMap<String, Position>)>>);
//!
//! impl Database {
//!     /// The handler: effect and position become durable together.
//!     async fn handle(self, delivery: Delivery) -> Result<(), HandlerError> {
//!         let position = delivery.position();
//!         let row = delivery.payload.map(|payload| payload.data.to_vec()).unwrap_or_default();
//!         let mut transaction = self.0.lock().map_err(|_| HandlerError::new("poisoned"))?;
//!         transaction.0.push(row);
//!         transaction.1.insert(delivery.event, position);
//!         Ok(())
//!     }
//! }
//!
//! impl ClientPersistence for Database {
//!     fn load(&mut self) -> Result<Positions, PersistenceError> {
//!         let tables = self.0.lock().map_err(|_| PersistenceError::other("poisoned"))?;
//!         let positions = tables.1.iter().map(|(event, position)| (event.clone(), *position));
//!         Ok(Positions { positions: positions.collect(), ..Positions::default() })
//!     }
//!
//!     fn save(&mut self, changes: &[PositionChange]) -> Result<(), PersistenceError> {
//!         let mut tables = self.0.lock().map_err(|_| PersistenceError::other("poisoned"))?;
//!         for change in changes {
//!             match change {
//!                 // The handler has written it already; to write it again does no harm.
//!                 PositionChange::Handled { event, position } => {
//!                     tables.1.insert(event.clone(), *position);
//!                 }
//!                 // Only of subscriptions in the mode twoway.
//!                 PositionChange::HandledAbove { .. } => {}
//!                 PositionChange::Forget { event } => {
//!                     tables.1.remove(event);
//!                 }
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let database = Database::default();
//! let handler = database.clone();
//! let client = ackord_endpoint::ClientEndpoint::builder()
//!     .url("https://broker.example:7400")
//!     .site("boilers")
//!     .token(Some("ak_1_secret".to_owned()))
//!     .persistence(ackord_endpoint::ClientLevel::Custom(Box::new(database)))
//!     .subscribe(ackord_endpoint::Subscription::new("reading"), move |delivery| {
//!         handler.clone().handle(delivery)
//!     });
//! # let _ = client;
//! ```

pub(crate) mod file;
#[cfg(test)]
mod tests;

pub use file::FileStore;

use ackord_wire::frame::Position;

use crate::spl::{Finding, PersistenceError};

/// One change of the stored positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PositionChange {
    /// This instance of the event was handled.
    Handled {
        /// The event's name.
        event: String,
        /// The instance.
        position: Position,
    },
    /// The subscription is gone.
    Forget {
        /// The event's name.
        event: String,
    },
    /// This instance of an event in the mode twoway was handled, and some before it may not be. Gone
    /// with a [`PositionChange::Handled`] at or above it, or in another incarnation or generation.
    HandledAbove {
        /// The event's name.
        event: String,
        /// The instance.
        position: Position,
    },
}

/// What was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// The last handled position per event.
    pub positions: Vec<(String, Position)>,
    /// What was handled above those, see [`PositionChange::HandledAbove`].
    pub above: Vec<(String, Position)>,
    /// What the application should be told.
    pub findings: Vec<Finding>,
}

/// Keeps the last handled position of every subscription. See the [module](self) for an example.
///
/// The endpoint calls it from a blocking thread, one call at a time. After the first error it is
/// not called again: the endpoint goes on in memory and tells the application.
pub trait ClientPersistence: Send {
    /// What is stored. Called once, first.
    fn load(&mut self) -> Result<Positions, PersistenceError>;

    /// Applies the changes, durably on return.
    fn save(&mut self, changes: &[PositionChange]) -> Result<(), PersistenceError>;
}
