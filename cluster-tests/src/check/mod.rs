//! One property of a history per file. Each takes all entries and names what contradicts it.
//!
//! A property is strict: what may happen is said by [`crate::oracle::Expectations`], never by a
//! tolerance of its own. Each file shows a history that has the property and one that has not.

pub mod acknowledged_never_lost;
pub mod administration_linearizable;
pub mod authority_respected;
pub mod bounds_kept;
pub mod committed_never_again;
pub mod cursor_monotonic;
pub mod epochs_fence;
pub mod handled_once;
pub mod handler_never_concurrent;
pub mod ids_follow_raise_order;
pub mod nothing_invented;
pub mod one_id_per_call;
pub mod one_instance_per_content;
pub mod order_strictly_increasing;
pub mod private_stays_private;
pub mod replay_equals_live;

#[cfg(test)]
mod forge;
