//! Which partition a site lives in: fixed for good by the first start of a cluster.
//!
//! The function below and the number of partitions are part of the data format: another one would
//! look for a site where it is not.

use ackord_machine::site::SiteName;
use ackord_store::{GroupId, Store};
use tokio::sync::oneshot;

use crate::error::StartError;
use crate::types::{decode_versioned, encode_versioned};

/// The group that keeps what concerns the whole cluster. Its metadata has the number of partitions.
pub(crate) const DIRECTORY: GroupId = GroupId(0);

/// The index of the site's partition among `partitions` of them.
///
/// FNV-1a over the name, then the finalizer of MurmurHash3, so that similar names spread.
pub(crate) fn partition_of(site: &SiteName, partitions: usize) -> usize {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in site.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    // The remainder fits: it is below a usize.
    (hash % partitions as u64) as usize
}

/// Takes down the number of partitions in a new data directory. In any other it must be the one that
/// is wanted, unless the node belongs to a cluster: then the cluster's counts.
pub(crate) async fn settle_partitions(
    store: &Store,
    wanted: u32,
    clustered: bool,
) -> Result<u32, StartError> {
    let failed = |detail: String| StartError::Store(format!("number of partitions: {detail}"));
    if let Some(extra) = store.log_state(DIRECTORY).extra {
        let found =
            decode_versioned(&extra, "directory").map_err(|error| failed(error.to_string()))?;
        return if found == wanted || clustered {
            Ok(found)
        } else {
            Err(StartError::Partitions { found, wanted })
        };
    }
    let extra = encode_versioned(&wanted).map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = oneshot::channel();
    let done = Box::new(move |result| {
        // Whoever waits below may have been given up.
        let _ = sender.send(result);
    });
    store.save_extra(DIRECTORY, extra, done);
    match receiver.await {
        Ok(result) => result.map(|()| wanted).map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed("the store gave no answer".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_known_names_when_placed_then_they_are_where_they_always_were() {
        let places: Vec<_> = ["a", "b", "factory", "site-1", "site-2"]
            .map(|name| partition_of(&SiteName::from(name), 16))
            .to_vec();
        assert_eq!(places, vec![11, 0, 0, 2, 13]);
    }

    #[test]
    fn given_many_names_when_placed_then_all_partitions_have_a_fair_share() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[partition_of(&SiteName::new(format!("site-{number}")), 16)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
