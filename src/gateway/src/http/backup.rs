//! Backups: the rows of a partition's sites as they are now, and sites put back from such rows.
//!
//! `[length][row] … [end][count][SHA-256 of everything before]`, lengths and counts little-endian. A
//! body without a right end is not a backup.

use ackord_machine::site::{self, AttemptId, Row, decode_row, encode_row};
use ackord_wire::resource::Health;
use ackord_wire::{Code, Problem};
use actix_web::web::{BufMut as _, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::answer::Answer;
use super::exchange::{Exchange, confirm, incarnation, refused};
use super::query::invalid;

/// Rows are gathered into pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// Stands where the length of another row would.
const END: u32 = u32::MAX;

/// `GET /v1/cluster/backup/{partition}`: a consistent cut of its sites.
pub async fn backup(exchange: Exchange<'_>, partition: &str) -> Result<Answer, Problem> {
    let allowed = exchange.authorize_node(&[])?;
    let missing = || Problem::new(Code::NotFound, format!("there is no partition {partition:?}"));
    let number: u32 = partition.parse().map_err(|_| missing())?;
    // A leader that has just gone is no reason to give a whole backup up.
    let reading = confirm(allowed.context, || allowed.context.broker.rows(number)).await;
    let rows = reading.map_err(|problem| {
        refused((problem.code, "the partition has no leader that can be reached".to_owned()))
    })?;
    let rows = rows.ok_or_else(missing)?;
    // Whoever has the rows has every event of every site in them.
    allowed.record("cluster.backup", String::new());
    Ok(Answer::pieces(pieces(rows)))
}

fn pieces(rows: Vec<Row>) -> impl Iterator<Item = Bytes> {
    let mut rows = rows.into_iter();
    let (mut hash, mut count, mut ended) = (Sha256::new(), 0u64, false);
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES + (64 << 10));
        while piece.len() < PIECE_BYTES {
            let Some(row) = rows.next() else {
                ended = true;
                break;
            };
            let row = encode_row(&row);
            // A row holds one event at most, whose arguments are bounded.
            piece.put_u32_le(row.len() as u32);
            piece.put_slice(&row);
            count += 1;
        }
        hash.update(&piece);
        if ended {
            piece.put_u32_le(END);
            piece.put_u64_le(count);
            piece.put_slice(&hash.finalize_reset());
        }
        Some(piece.freeze())
    })
}

/// `POST /v1/cluster/restore/{site}?attempt={hex}&part={n}`: a part of a site that does not exist.
/// The last one has the site's own row.
pub async fn restore(exchange: Exchange<'_>, site: &str) -> Result<Answer, Problem> {
    let mut allowed = exchange.authorize_node(&["attempt", "part"])?;
    let attempt = allowed.query.get("attempt").and_then(attempt);
    let attempt = attempt.ok_or_else(|| invalid("attempt", "32 hexadecimal digits, random"))?;
    let part = allowed.query.number("part")?;
    let part = part.ok_or_else(|| invalid("part", "the number of the part, from 0 on"))?;
    let body = allowed.bytes().await?;
    let mut rows = rows(&body).map_err(|why| Problem::new(Code::Invalid, why).field("body"))?;
    for row in &mut rows {
        // Ids that were given out after the backup will be given out again.
        if let Row::Site(row) = row {
            row.incarnation = incarnation();
        }
    }
    let whole = rows.iter().any(|row| matches!(row, Row::Site(_)));
    let restore = site::Restore { site: site.into(), attempt, part, rows };
    allowed.context.broker.restore(restore).await.map_err(refused)?;
    if whole {
        allowed.record("site.restore", format!("sites/{site}"));
    }
    Ok(Answer::ok(&Health { status: "ok".to_owned() }))
}

fn attempt(text: &str) -> Option<AttemptId> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(text, 16).ok().filter(|_| digits)?;
    Some(AttemptId(number.to_be_bytes()))
}

/// The rows of a body: each with its length, and no end.
fn rows(body: &[u8]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk().ok_or("a length is cut off")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (row, after) = after.split_at_checked(length).ok_or("a row is cut off")?;
        rows.push(decode_row(row).map_err(|error| error.to_string())?);
        rest = after;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_32_digits() {
        let text = "000102030405060708090a0b0c0d0eFf";
        let expected = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255];
        assert_eq!(attempt(text), Some(AttemptId(expected)));
        for text in
            ["", "12", "+00102030405060708090a0b0c0d0eff", "g00102030405060708090a0b0c0d0eff"]
        {
            assert_eq!(attempt(text), None, "{text}");
        }
    }
}
