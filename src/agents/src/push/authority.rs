//! The certificate authorities of a deployment's own, whose callbacks are believed besides those of the
//! usual ones.

use std::path::Path;

use reqwest::Certificate;

/// Bytes of a file at most.
const BYTES_MAX: u64 = 1 << 20;

/// The certificates of a file in PEM; why there are none.
pub(crate) fn read(file: &Path) -> Result<Vec<Certificate>, String> {
    let text = |why: std::io::Error| format!("{}: {why}", file.display());
    let length = std::fs::metadata(file).map_err(text)?.len();
    if length > BYTES_MAX {
        return Err(format!("{}: at most {BYTES_MAX} bytes, was {length}", file.display()));
    }
    let pem = std::fs::read(file).map_err(text)?;
    let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|them| !them.is_empty());
    certificates.ok_or_else(|| format!("{}: no certificates in PEM", file.display()))
}
