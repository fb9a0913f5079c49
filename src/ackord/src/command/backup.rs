//! `ackord cluster backup` and `restore`: the applied state of all sites in one file.
//!
//! `[magic][partition, as the node gives it: rows, count, hash] … [trailer][partitions][SHA-256 of
//! everything before]`, and nothing behind. Each partition is a cut of one moment; sites live wholly
//! in one, so each site is. The file appears under its name when it is complete and on disk; only a
//! whole one is restored from.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::path::Path;

use ackord_machine::site::{Row, SiteName, decode_row, encode_row};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::admin::{Admin, segment};
use crate::exit::{Exit, Failure, Outcome, say_lines};
use crate::output::{self, Format};
use crate::progress::{Progress, Unit};
use crate::token;

/// How a backup begins: the name and the version of the format.
const MAGIC: &[u8; 8] = b"ACKORDB2";
/// Stands where the length of another row would, at the end of a partition.
const END: u32 = u32::MAX;
/// Stands where the length of the first row of another partition would, at the end of the file.
const TRAILER: u32 = u32::MAX - 1;
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
    let saved = match write(admin, partitions, &part).await {
        Ok(summary) => publish(&part, out).map(|()| summary),
        Err(failure) => Err(failure),
    };
    let summary = saved.inspect_err(|_| {
        // What failed is told; a file that is left over is not worth another failure.
        let _ = std::fs::remove_file(&part);
    })?;
    let report = json!({
        "file": out,
        "partitions": summary.partitions,
        "sites": summary.sites.len(),
        "rows": summary.rows,
    });
    output::object(format, &report)?;
    Ok(Exit::Done)
}

/// Writes all partitions, and reads back what is there: a connection that broke must not be taken
/// for the end of a partition.
async fn write(admin: &Admin, partitions: u32, part: &Path) -> Result<Summary, Failure> {
    let failed = |error: io::Error| disk(part, &error);
    let mut file = File::create(part).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC).map_err(failed)?;
    let saving = Progress::of("backup", Some(partitions.into()), Unit::Of("partitions"));
    for partition in 1..=partitions {
        let path = format!("/v1/cluster/backup/{partition}");
        admin.download(&path, &mut put).await?.map_err(failed)?;
        saving.add(1);
    }
    drop(saving);
    put(&TRAILER.to_le_bytes()).and_then(|()| put(&partitions.to_le_bytes())).map_err(failed)?;
    file.write_all(&hash.finalize()).and_then(|()| file.sync_all()).map_err(failed)?;
    drop(file);
    let _verifying = Progress::of("verifying the backup", None, Unit::Time);
    read(part, |_| Ok(()))
}

/// Gives a whole backup its name.
fn publish(part: &Path, out: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| disk(out, &error);
    std::fs::rename(part, out).map_err(failed)?;
    let folder = out.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Puts sites back.
pub(super) async fn restore(
    admin: &Admin,
    file: &Path,
    only: Option<&str>,
    format: Format,
) -> Outcome {
    let mut sites: Vec<(SiteName, Vec<Vec<u8>>)> = Vec::new();
    let reading = Progress::of("reading the backup", None, Unit::Time);
    let whole = read(file, |row| {
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
    });
    drop(reading);
    whole?;
    if let (Some(only), true) = (only, sites.is_empty()) {
        let why = format!("{} has no site {only}", file.display());
        return Err(Failure::new(Exit::Refused, why));
    }
    let (mut restored, mut refused): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let rows = sites.iter().map(|(_, rows)| rows.len() as u64).sum();
    let restoring = Progress::of("restore", Some(rows), Unit::Of("rows"));
    for (site, mut rows) in sites {
        rows.reverse();
        restoring.note(format!("site {site}"));
        let before = restoring.done();
        let done = put(admin, &site, &rows, &restoring).await;
        restoring.set(before + rows.len() as u64);
        match done {
            Ok(()) => restored.push(site.as_str().to_owned()),
            Err(failure) if failure.exit == Exit::Refused => {
                say_lines(format_args!("site {site}: {failure}"));
                refused.push(site.as_str().to_owned());
            }
            Err(failure) => {
                drop(restoring);
                let report =
                    json!({"restored": restored, "refused": refused, "failed": site.as_str()});
                output::object(format, &report)?;
                let before = match &restored[..] {
                    [] => "no site was restored before it".to_owned(),
                    some => format!("restored before it: {}", some.join(", ")),
                };
                let message = format!("site {site}: {}; {before}", failure.message);
                return Err(Failure { message, ..failure });
            }
        }
    }
    drop(restoring);
    output::object(format, &json!({"restored": restored, "refused": refused}))?;
    Ok(if refused.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Puts one site back, its own row in the last part.
async fn put(
    admin: &Admin,
    site: &SiteName,
    rows: &[Vec<u8>],
    restoring: &Progress,
) -> Result<(), Failure> {
    let attempt = format!("{:032x}", u128::from_be_bytes(token::random()?));
    let path = format!("/v1/cluster/restore/{}?attempt={attempt}", segment(site.as_str()));
    let mut part = Vec::new();
    let (mut number, mut held) = (0u32, 0);
    for (index, row) in rows.iter().enumerate() {
        part.extend_from_slice(&(row.len() as u32).to_le_bytes());
        part.extend_from_slice(row);
        held += 1;
        if part.len() >= PART_BYTES || index + 1 == rows.len() {
            let path = format!("{path}&part={number}");
            admin.upload(&path, std::mem::take(&mut part)).await?;
            restoring.add(std::mem::take(&mut held));
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

/// A file whose bytes are hashed as they are read.
struct Hashed {
    file: BufReader<File>,
    hash: Sha256,
}

impl Hashed {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }
}

/// Reads a backup and gives each row to `take`; an error when anything of it does not verify.
fn read(path: &Path, take: impl FnMut(&Row) -> io::Result<()>) -> Result<Summary, Failure> {
    let opened = File::open(path).map(BufReader::new);
    let file = opened.map_err(|error| disk(path, &error))?;
    verified(Hashed { file, hash: Sha256::new() }, take).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let why = format!("{}: the backup is cut short", path.display());
            Failure::new(Exit::Disk, why).hint("only a whole backup is restored from")
        }
        _ => disk(path, &error),
    })
}

fn verified(mut file: Hashed, mut take: impl FnMut(&Row) -> io::Result<()>) -> io::Result<Summary> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if file.take()? != *MAGIC {
        return Err(bad("this is no backup, or one of another version"));
    }
    let mut summary = Summary::default();
    let (mut hash, mut count) = (Sha256::new(), 0u64);
    loop {
        let length = file.take()?;
        match u32::from_le_bytes(length) {
            END => {
                let (rows, expected) = (file.take()?, file.take::<32>()?);
                if u64::from_le_bytes(rows) != count || hash.finalize_reset()[..] != expected {
                    return Err(bad("a partition is damaged"));
                }
                summary.partitions += 1;
                summary.rows += count;
                count = 0;
            }
            TRAILER => {
                let partitions = u32::from_le_bytes(file.take()?);
                let found = file.hash.clone().finalize();
                let expected = file.take::<32>()?;
                if count > 0 || partitions != summary.partitions || found[..] != expected {
                    return Err(bad("the backup is damaged"));
                }
                if file.file.read(&mut [0])? > 0 {
                    return Err(bad("the backup is damaged: something follows its end"));
                }
                return Ok(summary);
            }
            bytes if bytes > ROW_BYTES_MAX => return Err(bad("a row is longer than any may be")),
            bytes => {
                let mut encoded = vec![0; bytes as usize];
                file.fill(&mut encoded)?;
                hash.update(length);
                hash.update(&encoded);
                count += 1;
                let row = decode_row(&encoded).map_err(io::Error::other)?;
                if let Row::Site(site) = &row {
                    summary.sites.insert(site.site.as_str().to_owned());
                }
                take(&row)?;
            }
        }
    }
}
