//! `ackord check certificate`: how long certificates last.
//!
//! The certificate of an address is read whoever has signed it, so that the end of one that is over is
//! told too; no token is sent on that connection. Whether it is trusted is seen by a second one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::tls::TlsInfo;

use super::report::{Bad, Measure, Report, whole};
use crate::admin::Admin;
use crate::args::Connect;
use crate::exit::{Exit, Failure, Health};
use crate::moment::{now_ms, rfc3339, span};

/// How long reading a certificate from an address may take.
const READ_MAX: Duration = Duration::from_secs(10);
/// The longest certificate file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Looks at files, or else at what each address shows.
pub async fn look(
    connect: &Connect,
    files: &[PathBuf],
    warn: Duration,
    crit: Duration,
) -> Result<Report, Failure> {
    let mut report = Report::of("certificate");
    let mut ends = Vec::new();
    for file in files {
        let of = file.display().to_string();
        match in_file(file) {
            Ok(end) => ends.push((of, end)),
            Err(why) => report.find(Health::Unknown, format!("{of}: {why}")),
        }
    }
    let urls = if files.is_empty() { connect.urls()? } else { Vec::new() };
    for url in urls {
        match shown(&url).await? {
            Ok(end) => ends.push((url.clone(), end)),
            Err((health, why)) => {
                report.find(health, format!("{url}: {why}"));
                continue;
            }
        }
        let plain = Admin::new(vec![url.clone()], None)?;
        if let Err(error) = plain.get("/healthz/live").await {
            let why = super::unanswered(&error).1;
            let hint = crate::admin::certificate_hint(&why);
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            report.find(Health::Critical, format!("{url}: not trusted, or {why}{hint}"));
        }
    }
    judge(&ends, (warn, crit), &mut report);
    Ok(report)
}

fn judge(ends: &[(String, i64)], (warn, crit): (Duration, Duration), report: &mut Report) {
    let now = whole(now_ms() / 1000);
    let (warn_s, crit_s) = (whole(warn.as_secs()), whole(crit.as_secs()));
    for (of, end) in ends {
        let left = end - now;
        let health = match left {
            left if left < crit_s => Health::Critical,
            left if left < warn_s => Health::Warning,
            _ => Health::Ok,
        };
        let what = match u64::try_from(left) {
            Ok(left) => format!("{of}: ends in {}", span(Duration::from_secs(left))),
            Err(_) => {
                let over = span(Duration::from_secs(left.unsigned_abs()));
                format!("{of}: ended {over} ago")
            }
        };
        report.find(health, what);
        report.measure(Measure {
            name: "certificate_left_seconds",
            about: "Time until the certificate ends.",
            labels: vec![("of", of.clone())],
            value: left,
            unit: "s",
            warn: Some(warn_s),
            crit: Some(crit_s),
            bad: Bad::Below,
        });
    }
    if let Some((of, end)) = ends.iter().min_by_key(|(_, end)| *end) {
        let at = rfc3339(u64::try_from(*end).unwrap_or(0) * 1000);
        report.summary = format!("the first to end is {of}, at {at}");
    }
}

/// The end of the certificate that ends first of those in a file.
fn in_file(file: &Path) -> Result<i64, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("longer than {FILE_BYTES_MAX} bytes"));
    }
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    let chain = ackord_tls::chain(&pem).map_err(|error| error.to_string())?;
    let ends = chain.iter().map(|one| ackord_tls::not_after(one)).collect::<Result<Vec<_>, _>>();
    let ends = ends.map_err(|error| error.to_string())?;
    ends.into_iter().min().ok_or_else(|| "no certificate in it".to_owned())
}

type Shown = Result<i64, (Health, String)>;

/// The end of the certificate that an address shows.
async fn shown(url: &str) -> Result<Shown, Failure> {
    let url = url.replacen("wss://", "https://", 1);
    if !url.starts_with("https://") {
        return Ok(Err((Health::Unknown, "shows no certificate: not https".to_owned())));
    }
    let http = reqwest::Client::builder()
        .tls_info(true)
        .danger_accept_invalid_certs(true)
        .no_proxy()
        .timeout(READ_MAX)
        .build()
        .map_err(|error| Failure::new(Exit::Configuration, format!("no HTTP: {error}")))?;
    let answer = match http.get(format!("{url}/healthz/live")).send().await {
        Ok(answer) => answer,
        Err(error) => {
            let why = format!("not reached: {}", crate::admin::causes(&error));
            return Ok(Err((Health::Critical, why)));
        }
    };
    let shown = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
    let unknown = |why: String| (Health::Unknown, why);
    Ok(match shown {
        Some(der) => ackord_tls::not_after(der).map_err(|error| unknown(error.to_string())),
        None => Err(unknown("it shows no certificate".to_owned())),
    })
}
