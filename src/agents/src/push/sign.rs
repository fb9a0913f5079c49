//! The signature of a body: `t=<unix seconds>,v1=<hex of HMAC-SHA-256(secret, t + "." + body)>`.

use std::fmt::Write as _;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// The header that carries it.
pub(crate) const SIGNATURE: &str = "Ackord-Signature";

/// The value of the header, of a body that is sent at this second.
pub(crate) fn signature(secret: &str, unix_s: u64, body: &[u8]) -> String {
    let mut text = format!("t={unix_s},v1=");
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return text };
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    for byte in mac.finalize().into_bytes() {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_of_time_and_body() {
        // echo -n '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of enough bytes'
        let signed = signature("a secret of enough bytes", 1_700_000_000, b"{\"a\":1}");
        let expected =
            "t=1700000000,v1=8d2d377de07a9ad78ddc6fb9d8e41c860479759a043508bcc5b56bb3f174fcf5";
        assert_eq!(signed, expected);
    }
}
