//! `ackord cluster backup` and `restore`: the applied state of all sites in one file.
//!
//! `[magic][partition, as the node gives it: rows, count, hash] …`. Each partition is a cut of one
//! moment; sites live wholly in one, so each site is. The file appears under its name when it is
//! complete and on disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use ackord_machine::site::{Row, SiteName, decode_row, encode_row};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::admin::{Admin, segment};
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};
use crate::token;

/// How a backup begins: the name and the version of the format.
const MAGIC: &[u8; 8] = b"ACKORDB1";
/// Stands where the length of another row would.
const END: u32 = u32::MAX;
/// The longest row that is believed.
const ROW_BYTES_MAX: u32 = 16 << 20;
/// Bytes of rows in one request.
const PART_BYTES: usize = 512 << 10;

fn disk(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Disk, format!("{}: {error}", path.display()))
}

/// Writes a backup.
pub(super) async fn save(admin: &Admin, partitions: u32, out: &Path, format: Format) -> Outcome {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = out.with_file_name(name);
    let failed = |error: io::Error| disk(&part, &error);
    let mut file = File::create(&part).map_err(failed)?;
    file.write_all(MAGIC).map_err(failed)?;
    for partition in 1..=partitions {
        let path = format!("/v1/cluster/backup/{partition}");
        admin.download(&path, |piece| file.write_all(piece)).await?.map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    drop(file);
    // What is there is read back: a connection that broke leaves a file without its end.
    let summary = read(&part, |_| Ok(()))?;
    if summary.partitions != partitions {
        let why = format!("{} of {partitions} partitions arrived", summary.partitions);
        return Err(Failure::new(Exit::Unreachable, why));
    }
    std::fs::rename(&part, out).map_err(failed)?;
    let folder = out.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    let report = json!({
        "file": out,
        "partitions": summary.partitions,
        "sites": summary.sites.len(),
        "rows": summary.rows,
    });
    output::object(format, &report)?;
    Ok(Exit::Done)
}

/// Puts sites back.
pub(super) async fn restore(
    admin: &Admin,
    file: &Path,
    only: Option<&str>,
    format: Format,
) -> Outcome {
    let mut sites: Vec<(SiteName, Vec<Vec<u8>>)> = Vec::new();
    read(file, |row| {
        let Some(site) = row.site() else { return Ok(()) };
        if only.is_some_and(|only| only != site.as_str()) {
            return Ok(());
        }
        if sites.last().is_none_or(|(last, _)| last != site) {
            sites.push((site.clone(), Vec::new()));
        }
        let Some((_, rows)) = sites.last_mut() else { return Ok(()) };
        let encoded = encode_row(row).to_vec();
        match row {
            // The site's own row makes it exist: it comes last, which is first in reverse.
            Row::Site(_) => rows.insert(0, encoded),
            _ => rows.push(encoded),
        }
        Ok(())
    })?;
    if let (Some(only), true) = (only, sites.is_empty()) {
        let why = format!("{} has no site {only}", file.display());
        return Err(Failure::new(Exit::Refused, why));
    }
    let (mut restored, mut refused) = (Vec::new(), Vec::new());
    for (site, mut rows) in sites {
        rows.reverse();
        match put(admin, &site, &rows).await {
            Ok(()) => restored.push(site.as_str().to_owned()),
            Err(failure) if failure.exit == Exit::Refused => {
                say(format_args!("site {site}: {failure}"));
                refused.push(site.as_str().to_owned());
            }
            Err(failure) => return Err(failure),
        }
    }
    output::object(format, &json!({"restored": restored, "refused": refused}))?;
    Ok(if refused.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Puts one site back, its own row in the last part.
async fn put(admin: &Admin, site: &SiteName, rows: &[Vec<u8>]) -> Result<(), Failure> {
    let attempt = format!("{:032x}", u128::from_be_bytes(token::random()?));
    let path = format!("/v1/cluster/restore/{}?attempt={attempt}", segment(site.as_str()));
    let mut part = Vec::new();
    let mut number = 0u32;
    for (index, row) in rows.iter().enumerate() {
        part.extend_from_slice(&(row.len() as u32).to_le_bytes());
        part.extend_from_slice(row);
        if part.len() >= PART_BYTES || index + 1 == rows.len() {
            let path = format!("{path}&part={number}");
            admin.upload(&path, std::mem::take(&mut part)).await?;
            number += 1;
        }
    }
    Ok(())
}

/// What a backup holds.
#[derive(Default)]
struct Summary {
    partitions: u32,
    rows: u64,
    sites: BTreeSet<String>,
}

/// Reads a backup and gives each row to `take`; an error when anything of it does not verify.
fn read(path: &Path, mut take: impl FnMut(&Row) -> io::Result<()>) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let mut reading = || -> io::Result<()> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(bad("this is no backup, or one of another version"));
        }
        let (mut hash, mut count) = (Sha256::new(), 0u64);
        loop {
            let mut length = [0; 4];
            match file.read_exact(&mut length) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && count == 0 => {
                    return Ok(());
                }
                read => read?,
            }
            let bytes = u32::from_le_bytes(length);
            if bytes == END {
                let (mut rows, mut expected) = ([0; 8], [0; 32]);
                file.read_exact(&mut rows)?;
                file.read_exact(&mut expected)?;
                if u64::from_le_bytes(rows) != count || hash.finalize_reset()[..] != expected {
                    return Err(bad("a partition is damaged"));
                }
                summary.partitions += 1;
                summary.rows += count;
                count = 0;
                continue;
            }
            if bytes > ROW_BYTES_MAX {
                return Err(bad("a row is longer than any may be"));
            }
            let mut encoded = vec![0; bytes as usize];
            file.read_exact(&mut encoded)?;
            hash.update(length);
            hash.update(&encoded);
            count += 1;
            let row = decode_row(&encoded).map_err(io::Error::other)?;
            if let Row::Site(site) = &row {
                summary.sites.insert(site.site.as_str().to_owned());
            }
            take(&row)?;
        }
    };
    reading().map_err(|error| disk(path, &error))?;
    Ok(summary)
}
