//! A real Prometheus that scrapes the nodes of a test, configured as `grafana/prometheus.yml` says, and the scripts of
//! `grafana/` that ask it.

use std::ffi::OsString;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::Context as _;
use cluster_tests::cluster::{self, Cluster};
use cluster_tests::{mesh, process, wait};
use serde_json::{Value, json};

/// How often it scrapes, and judges rules.
const INTERVAL: &str = "1s";

/// The folder of dashboards and rules.
pub fn grafana() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    root.join("grafana")
}

/// A program that a variable names, or the one of this machine.
pub fn program(variable: &str, name: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| name.into())
}

/// Runs a script of `grafana/` to its end.
pub fn script(name: &str, arguments: &[String]) -> Output {
    let mut command = Command::new(program("ACKORD_TEST_PYTHON", "python3"));
    command.arg(grafana().join(name)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    command.output().expect("ACKORD_TEST_PYTHON, or python3, is there")
}

/// A running Prometheus. Killed when dropped, and when the test process ends.
pub struct Prometheus {
    url: String,
    http: reqwest::Client,
    process: Child,
    // Removed after the process is gone: see `drop`.
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these nodes, and these sites in detail; with labels as Kubernetes gives them, or without.
    ///
    /// # Panics
    /// When there is none, or it does not start.
    pub async fn start(cluster: &Cluster, sites: &[&str], labelled: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("ackord-prometheus").tempdir().expect("a folder");
        let (nodes, details) = targets(cluster, sites, labelled);
        let put = |name: &str, text: String| std::fs::write(dir.path().join(name), text);
        put("targets.json", nodes.to_string()).expect("the nodes are written");
        put("sites.json", details.to_string()).expect("the sites are written");
        put("token", cluster::ADMIN_TOKEN.to_owned()).expect("the token is written");
        let text = std::fs::read_to_string(grafana().join("prometheus.yml")).expect("it is there");
        let rules = grafana().join("rules/ackord.yaml");
        let text = text.replace(": 5s", &format!(": {INTERVAL}"));
        let text = text.replace("rules/ackord.yaml", &rules.display().to_string());
        put("prometheus.yml", text).expect("the configuration is written");
        // An address that nothing else on this machine uses.
        let ip = IpAddr::V4(Ipv4Addr::new(127, 90, std::process::id() as u8, u8::from(labelled)));
        let free = mesh::socket((ip, 0).into()).and_then(|free| free.local_addr());
        let address = free.expect("a free port");
        let process = run(dir.path(), &address.to_string()).expect("a Prometheus");
        let (url, http) = (format!("http://{address}"), reqwest::Client::new());
        let mut prometheus = Self { url, http, process, dir };
        wait::until("Prometheus to be ready", async || {
            let ended = prometheus.process.try_wait().ok().flatten();
            assert!(ended.is_none(), "Prometheus ended: {ended:?}");
            let asked = prometheus.http.get(format!("{}/-/ready", prometheus.url)).send().await;
            asked.ok().filter(|answer| answer.status().is_success())
        })
        .await;
        prometheus
    }

    /// Where it answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it answers to a question of its API.
    ///
    /// # Panics
    /// When it does not.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.http.get(format!("{}/api/v1/{path}", self.url)).query(query);
        let answer = request.send().await.expect("Prometheus answers");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        answer["data"].clone()
    }

    /// The values of an expression now, with their labels.
    pub async fn ask(&self, expression: &str) -> Vec<(Value, f64)> {
        let answer = self.get("query", &[("query", expression)]).await;
        let rows = answer["result"].as_array().expect("rows").iter();
        rows.map(|row| {
            let value = row["value"][1].as_str().and_then(|value| value.parse().ok());
            (row["metric"].clone(), value.expect("a number"))
        })
        .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        process::kill_group(&mut self.process);
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
            println!("Prometheus said:\n{log}");
        }
    }
}

fn run(dir: &Path, address: &str) -> anyhow::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let name = program("ACKORD_TEST_PROMETHEUS", "prometheus");
    let mut command = Command::new(&name);
    command
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=warn")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(dir.join("stderr"))?)
        .process_group(0);
    process::spawn(command).with_context(|| {
        format!("{name:?}: install the package prometheus, or set ACKORD_TEST_PROMETHEUS to one")
    })
}

/// The nodes, and every site at every node.
fn targets(cluster: &Cluster, sites: &[&str], labelled: bool) -> (Value, Value) {
    let (mut nodes, mut details) = (Vec::new(), Vec::new());
    for node in cluster.nodes() {
        let address = cluster.url(node).trim_start_matches("http://");
        let pod = format!("ackord-{}", node - 1);
        let labels = match labelled {
            true => json!({"namespace": "events", "pod": pod, "instance": pod}),
            false => json!({}),
        };
        nodes.push(json!({"targets": [address], "labels": labels}));
        for site in sites {
            let mut labels = labels.clone();
            labels["__param_site"] = json!(site);
            details.push(json!({"targets": [address], "labels": labels}));
        }
    }
    (Value::Array(nodes), Value::Array(details))
}
