//! Encoded events, so that one raised for many subscribers is encoded once per codec and arbiter.
//!
//! A direct-mapped table: an instance has one place, a newer one in that place displaces it. An
//! entry holds its instance, so that the address, which is the key, cannot be given to another.

use std::sync::Arc;

use ackord_machine::session::Delivery;
use ackord_machine::site::Instance;
use ackord_wire::{Codec, SharedEvent, SharedEvents};
use bytes::Bytes;

use crate::translate;

/// Places in the table; a power of two.
const PLACES: usize = 256;
/// Larger encodings are not kept, so that the table stays below 4 MiB.
const ENCODED_BYTES_MAX: usize = 16 << 10;

struct Entry {
    instance: Arc<Instance>,
    codec: Codec,
    encoded: SharedEvent,
}

/// The encoded events of one arbiter.
pub(crate) struct EncodeCache {
    places: Vec<Option<Entry>>,
}

impl EncodeCache {
    pub fn new() -> Self {
        Self { places: std::iter::repeat_with(|| None).take(PLACES).collect() }
    }

    /// The frame of a delivery.
    pub fn frame(&mut self, delivery: &Delivery, codec: Codec) -> Bytes {
        self.encoded(delivery, codec, |encoded| {
            let (event, generation) = (delivery.event.0, delivery.generation.0);
            encoded.frame(event, delivery.attempt, delivery.age_ms / 1000, generation)
        })
    }

    /// The frame of several.
    pub fn frame_of(&mut self, deliveries: &[Delivery], codec: Codec) -> Bytes {
        let mut events = SharedEvents::new(codec);
        for delivery in deliveries {
            self.encoded(delivery, codec, |encoded| {
                let (event, generation) = (delivery.event.0, delivery.generation.0);
                events.push(encoded, event, delivery.attempt, delivery.age_ms / 1000, generation);
            });
        }
        events.frame()
    }

    fn encoded<R>(
        &mut self,
        delivery: &Delivery,
        codec: Codec,
        own: impl FnOnce(&SharedEvent) -> R,
    ) -> R {
        let place = &mut self.places[place(&delivery.instance, codec)];
        if let Some(entry) = place
            && entry.codec == codec
            && Arc::ptr_eq(&entry.instance, &delivery.instance)
        {
            return own(&entry.encoded);
        }
        let encoded = translate::shared_event(delivery, codec);
        let own = own(&encoded);
        if encoded.len() <= ENCODED_BYTES_MAX {
            *place = Some(Entry { instance: delivery.instance.clone(), codec, encoded });
        }
        own
    }
}

/// Ids of one site follow each other, so the id spreads better than the address.
fn place(instance: &Arc<Instance>, codec: Codec) -> usize {
    let codec = match codec {
        Codec::Json => 0,
        Codec::Cbor => 1,
    };
    (2 * instance.id.0 as usize + codec) % PLACES
}
