//! The dashboards and rules of `grafana/`: a real Prometheus scrapes a live cluster, every panel shows something, every
//! rule is tested, and each dashboard is drawn.
//!
//! It needs Prometheus with its promtool (`ACKORD_TEST_PROMETHEUS`, `ACKORD_TEST_PROMTOOL`), Chromium, and Python with the
//! packages of `helm/tests/requirements.txt` (`ACKORD_TEST_PYTHON`). `ACKORD_TEST_PICTURES=docs/pictures` makes
//! the pictures of the documents anew.

mod load;
mod prometheus;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use cluster_tests::cluster::Cluster;
use cluster_tests::{node, wait};
use load::{Load, SITES};
use prometheus::Prometheus;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

/// Until every panel shows something: a hundred scrapes.
const SHOWN: Duration = Duration::from_secs(300);
/// Seconds of a dashboard in the gate, and in the pictures of the documents.
const SECONDS: [u64; 2] = [60, 300];
/// How long the certificates of the nodes are good.
const CERTIFIED: Duration = Duration::from_secs(90 * 86_400);
/// Alerts that the load gives a reason for.
const PROVOKED: [&str; 2] = ["AckordDeadLettersGrowing", "AckordPushSubscriptionsCancelled"];
/// Alerts that may be pending here: a receiver breaks now and then, one handler never gets done, and the machine may be busy.
const POSSIBLE: [&str; 4] = [
    "AckordPushReceiversOffline",
    "AckordSubscriptionsLagging",
    "AckordPublishSlow",
    "AckordLogSyncSlow",
];

#[test]
fn rules_dashboards_and_pages_fit_together() {
    let promtool = prometheus::program("ACKORD_TEST_PROMTOOL", "promtool");
    let binary = node::binary().expect("the binary is built");
    let arguments =
        ["--promtool", &promtool.to_string_lossy(), "--ackord", &binary.to_string_lossy()];
    let checked = prometheus::script("check.py", &arguments.map(str::to_owned));
    let (said, told) =
        (String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{said}{told}");
    println!("{said}");
}

/// Three nodes that show each other certificates and push to this machine.
async fn cluster(dir: &Path) -> Cluster {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
    let file = |name: String, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file");
        json!(path)
    };
    let authority = file("authority".to_owned(), &issuer.pem());
    let mut cluster = Cluster::prepare(3).expect("a place for the nodes");
    for node in cluster.nodes() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        params.not_after = (SystemTime::now() + CERTIFIED).into();
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let certificate = file(format!("{node}.pem"), &certificate.pem());
        let key = file(format!("{node}.key"), &key.serialize_pem());
        let tables = format!(
            "[cluster.tls]\nauthority = {authority}\ncertificate = {certificate}\nkey = {key}\n"
        );
        cluster.configure(node, &tables).expect("a configuration");
    }
    cluster.start_all().await.expect("the cluster starts");
    cluster
}

/// What `grafana/look.py` says of the dashboards as a Prometheus answers now.
async fn look(prometheus: &Prometheus, seconds: u64, pictures: Option<&Path>) -> Value {
    let mut arguments = vec!["--prometheus".to_owned(), prometheus.url().to_owned()];
    arguments.extend(["--lenient", "--scrape", "3", "--seconds"].map(str::to_owned));
    arguments.push(seconds.to_string());
    if let Some(folder) = pictures {
        arguments.extend(["--pictures".to_owned(), folder.display().to_string()]);
    }
    let looking = tokio::task::spawn_blocking(move || prometheus::script("look.py", &arguments));
    let looked = looking.await.expect("no panic");
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    serde_json::from_slice(&looked.stdout).expect("JSON")
}

/// What is asked and not answered. Without labels there is no namespace to choose.
fn unanswered(report: &Value, labelled: bool) -> Vec<String> {
    let dashboards = report["dashboards"].as_object().expect("dashboards");
    assert_eq!(dashboards.len(), 6);
    let rows = dashboards.iter().flat_map(|(name, rows)| {
        rows.as_array().into_iter().flatten().map(move |row| format!("{name}: {row}"))
    });
    let empty = rows.filter(|row| row.contains("\"empty\":true"));
    empty.filter(|row| labelled || !row.contains("ackord_build_info, namespace")).collect()
}

/// The state of every alert. Every rule evaluates, and what records has a record.
async fn states(prometheus: &Prometheus) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    let rules = prometheus.get("rules", &[]).await;
    let groups = rules["groups"].as_array().expect("groups").iter();
    for rule in groups.flat_map(|group| group["rules"].as_array().expect("rules")) {
        let name = rule["name"].as_str().expect("a name").to_owned();
        assert_eq!(rule["health"], "ok", "{rule}");
        match rule["state"].as_str() {
            Some(state) => drop(states.insert(name, state.to_owned())),
            None => assert!(!prometheus.ask(&name).await.is_empty(), "{name} records nothing"),
        }
    }
    assert!(states.len() > 30, "{states:?}");
    states
}

/// Alerts rest but for those that there is a reason for; a moment of an election may pass.
async fn judge(prometheus: &Prometheus) {
    let mut before = Vec::new();
    wait::until_for(SHOWN, "the alerts to be as they should", async || {
        let states = states(prometheus).await;
        let wrong = states.into_iter().filter(|(name, state)| {
            let provoked = PROVOKED.contains(&name.as_str());
            let possible = POSSIBLE.contains(&name.as_str()) && state == "pending";
            !possible && (state != "inactive") != provoked
        });
        let wrong: Vec<_> = wrong.collect();
        if wrong != before {
            println!("not as they should be: {wrong:?}");
        }
        before = wrong;
        before.is_empty().then_some(())
    })
    .await;
    let fired = prometheus.ask("last_over_time(ALERTS{alertstate=\"firing\"}[1h])").await;
    for (alert, _) in fired {
        let name = alert["alertname"].as_str().expect("a name");
        assert!(PROVOKED.contains(&name), "{alert} fired");
    }
}

/// What a node tells of itself is what promtool takes for well-formed.
async fn well_formed(url: &str) {
    let text = reqwest::get(format!("{url}/metrics")).await.expect("an answer");
    let text = text.text().await.expect("a text");
    let mut promtool = Command::new(prometheus::program("ACKORD_TEST_PROMTOOL", "promtool"));
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut checking = promtool.spawn().expect("promtool, or ACKORD_TEST_PROMTOOL, is there");
    let mut input = checking.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("it reads");
    drop(input);
    let checked = checking.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}");
}

/// Every dashboard became a picture of its size, with all of its panels, none of them empty.
fn complete(report: &Value, folder: &Path) {
    let pictures = report["pictures"].as_array().expect("pictures");
    assert_eq!(pictures.len(), 6);
    for picture in pictures {
        assert_eq!(picture["size"], picture["wanted"], "{picture}");
        assert_eq!(picture["panels"], picture["drawn"], "{picture}");
        assert_eq!(picture["empty"], 0, "a panel says that there is no data: {picture}");
        let file = folder.join(picture["file"].as_str().expect("a name"));
        let bytes = std::fs::metadata(&file).expect("the picture").len();
        assert!((30_000..600_000).contains(&bytes), "{picture}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_shows_a_live_cluster_and_no_rule_cries_wolf() {
    let dir = tempfile::tempdir().expect("a folder");
    let documents = std::env::var_os("ACKORD_TEST_PICTURES");
    let seconds = SECONDS[usize::from(documents.is_some())];
    let mut cluster = cluster(dir.path()).await;
    let kubernetes = Prometheus::start(&cluster, &SITES, true).await;
    let laptop = Prometheus::start(&cluster, &SITES, false).await;
    let mut load = Load::start(&cluster).await;

    for (prometheus, labelled) in [(&kubernetes, true), (&laptop, false)] {
        let mut missing = Vec::new();
        wait::until_for(SHOWN, "every panel to show something", async || {
            let now = unanswered(&look(prometheus, seconds, None).await, labelled);
            if now != missing {
                println!("labelled {labelled}, not answered yet: {now:#?}");
            }
            missing = now;
            missing.is_empty().then_some(())
        })
        .await;
    }
    well_formed(cluster.url(2)).await;
    wait::until_for(SHOWN + Duration::from_secs(seconds), "a picture's time", async || {
        let scrapes = kubernetes.ask("min(count_over_time(ackord_ready[30m]))").await;
        scrapes.first().is_some_and(|(_, count)| *count >= 0.9 * seconds as f64).then_some(())
    })
    .await;
    for prometheus in [&kubernetes, &laptop] {
        judge(prometheus).await;
        let violations = prometheus.ask("sum(ackord_exactly_once_violations_total)").await;
        assert_eq!(violations[0].1, 0.0);
    }
    let folder: PathBuf = match documents {
        Some(folder) => prometheus::grafana().with_file_name("").join(folder),
        None => dir.path().join("pictures"),
    };
    let report = look(&kubernetes, seconds, Some(&folder)).await;
    assert_eq!(unanswered(&report, true), Vec::<String>::new());
    complete(&report, &folder);
    load.goes_on();
    drop(load);
    cluster.ready().await;
}
