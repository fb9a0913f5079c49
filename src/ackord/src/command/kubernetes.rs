//! `ackord kubernetes pre-stop`: whether a pod that stops is to come back.
//!
//! ```text
//! ordinal below spec.replicas, or nobody can tell ─▶ a restart: nothing to do, the stop hands its leads over
//! ordinal above it ─▶ leave ─▶ the others take its votes ─▶ it is no member ─▶ its disk is marked
//! ```
//!
//! Invariants: a node only leaves when the API server has said that its pod is not wanted; a set that
//! is scaled to nothing keeps its members, since it is only put to sleep; a disk is marked only once
//! another node says that this one is out.

use std::path::Path;
use std::time::{Duration, Instant};

use ackord_wire::resource::Cluster;
use reqwest::{Certificate, Method};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cluster::{has_left, members, parse};
use crate::admin::{Admin, AdminError};
use crate::args::{KubernetesCommand, PreStop};
use crate::data;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::{self, Format};

/// How long the API server may take.
const API_MAX: Duration = Duration::from_secs(5);
/// The largest answer of it that is read, bytes.
const API_BYTES_MAX: usize = 4 << 20;
/// How often it is looked whether the node has left.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The file in the data directory of a node that has left its cluster.
pub const LEFT_FILE: &str = "left.json";

/// Which node of which cluster a data directory has been.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The cluster's identity.
    pub cluster: String,
    /// The node's number in it.
    pub node: u64,
}

/// What of a StatefulSet counts here.
#[derive(Debug, Deserialize)]
struct StatefulSet {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    /// The API server leaves out what it takes for granted.
    #[serde(default = "one")]
    replicas: u64,
    #[serde(default)]
    ordinals: Ordinals,
}

#[derive(Debug, Default, Deserialize)]
struct Ordinals {
    #[serde(default)]
    start: u64,
}

fn one() -> u64 {
    1
}

/// Why a pod stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It comes back.
    Restart,
    /// It is not wanted any more.
    ScaleIn,
}

impl Spec {
    fn stop_of(&self, ordinal: u64) -> Stop {
        let wanted = self.ordinals.start..self.ordinals.start.saturating_add(self.replicas);
        if self.replicas == 0 || wanted.contains(&ordinal) { Stop::Restart } else { Stop::ScaleIn }
    }
}

/// Runs the command.
pub async fn run(command: KubernetesCommand, format: Format) -> Outcome {
    let KubernetesCommand::PreStop(arguments) = command;
    pre_stop(&arguments, format).await
}

async fn pre_stop(arguments: &PreStop, format: Format) -> Outcome {
    let PreStop { pod, connect, .. } = arguments;
    let ordinal = ordinal(pod)?;
    let admin = Admin::new(connect.urls()?, Some(connect.token()?))?;
    match spec(arguments).await {
        Ok(spec) if spec.stop_of(ordinal) == Stop::ScaleIn => {}
        Ok(spec) => {
            output::object(format, &json!({"stop": "restart", "replicas": spec.replicas}))?;
            return Ok(Exit::Done);
        }
        Err(why) => {
            say(format_args!("warning: taken for a restart, since nobody says otherwise: {why}"));
            output::object(format, &json!({"stop": "restart", "because": why}))?;
            return Ok(Exit::Done);
        }
    }
    let begun = Instant::now();
    let view = parse(admin.get("/v1/cluster").await?)?;
    let node = view.node;
    let others: Vec<String> = members(&view)
        .filter(|other| other.id != node)
        .flat_map(|other| other.urls.iter().cloned())
        .collect();
    leave(&admin, node, begun + arguments.max_time).await?;
    // The others know; where they show it to no administrator, the node learns it from their refusal.
    let others = admin.at(&others);
    while begun.elapsed() < arguments.max_time {
        let views = [look(&others).await, look(&admin).await];
        if views.iter().flatten().any(|view| has_left(view, node)) {
            let left = Left { cluster: view.cluster.clone(), node };
            data::write(&arguments.data.join(LEFT_FILE), &left)?;
            output::object(format, &json!({"stop": "scale-in", "left": true, "node": node}))?;
            return Ok(Exit::Done);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    output::object(format, &json!({"stop": "scale-in", "left": false, "node": node}))?;
    Err(Failure::new(
        Exit::Timeout,
        format!("node {node} has not left in {:?}: the others go on", arguments.max_time),
    ))
}

/// Makes it known that the node shall leave; a cluster that has no leader now may have one soon.
async fn leave(admin: &Admin, node: u64, until: Instant) -> Result<(), Failure> {
    let path = format!("/v1/cluster/nodes/{node}/leave");
    loop {
        match admin.send(Method::POST, &path, None).await {
            Ok(_) => return Ok(()),
            Err(AdminError::Problem(problem)) if !problem.retryable => {
                let why = format!("node {node} stays a member: {}", problem.detail);
                return Err(Failure::coded(Exit::Refused, why, problem.code).hint(
                    "give the StatefulSet its replicas back: at least as many as each partition \
                     has voters",
                ));
            }
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => tokio::time::sleep(LOOK_INTERVAL).await,
        }
    }
}

async fn look(admin: &Admin) -> Result<Cluster, Failure> {
    parse(admin.get("/v1/cluster").await?)
}

fn ordinal(pod: &str) -> Result<u64, Failure> {
    let ordinal = pod.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok());
    ordinal.ok_or_else(|| Failure::usage(format!("the pod's name ends with no ordinal: {pod:?}")))
}

/// What the StatefulSet shall be now.
async fn spec(arguments: &PreStop) -> Result<Spec, String> {
    let PreStop { namespace, statefulset, credentials, .. } = arguments;
    let api = match &arguments.api {
        Some(api) => api.trim_end_matches('/').to_owned(),
        None => {
            let of = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
            let host = of("KUBERNETES_SERVICE_HOST")?;
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("https://{host}:{}", of("KUBERNETES_SERVICE_PORT")?)
        }
    };
    for name in [namespace, statefulset] {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err(format!("{name:?} is no name of Kubernetes"));
        }
    }
    let token = read(&credentials.join("token"))?;
    let http = client(&api, credentials)?;
    let path = format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{statefulset}");
    let asked = http.get(format!("{api}{path}")).bearer_auth(token.trim()).send();
    let mut response = asked.await.map_err(|error| error.without_url().to_string())?;
    if !response.status().is_success() {
        return Err(format!("the API server answers {} to {path}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&piece);
        if body.len() > API_BYTES_MAX {
            return Err(format!("the answer is longer than {API_BYTES_MAX} bytes"));
        }
    }
    let set: StatefulSet = serde_json::from_slice(&body)
        .map_err(|error| format!("the answer is no StatefulSet: {error}"))?;
    Ok(set.spec)
}

fn client(api: &str, credentials: &Path) -> Result<reqwest::Client, String> {
    let mut http = reqwest::Client::builder().timeout(API_MAX).no_proxy();
    if api.starts_with("https:") {
        let authorities = read(&credentials.join("ca.crt"))?;
        let authorities = Certificate::from_pem_bundle(authorities.as_bytes());
        http = http.tls_built_in_root_certs(false);
        for authority in authorities.map_err(|error| format!("ca.crt: {error}"))? {
            http = http.add_root_certificate(authority);
        }
    }
    http.build().map_err(|error| error.to_string())
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        serde_json::from_str::<StatefulSet>(json).unwrap().spec
    }

    #[test]
    fn a_pod_is_not_wanted_when_its_ordinal_is_beyond_the_replicas() {
        let three = spec(r#"{"spec": {"replicas": 3, "serviceName": "x"}}"#);
        assert_eq!([0, 2, 3].map(|ordinal| three.stop_of(ordinal)), {
            [Stop::Restart, Stop::Restart, Stop::ScaleIn]
        });
        let from_five = spec(r#"{"spec": {"replicas": 2, "ordinals": {"start": 5}}}"#);
        assert_eq!([4, 5, 6, 7].map(|ordinal| from_five.stop_of(ordinal)), {
            [Stop::ScaleIn, Stop::Restart, Stop::Restart, Stop::ScaleIn]
        });
        // Put to sleep, and what is taken for granted.
        assert_eq!(spec(r#"{"spec": {"replicas": 0}}"#).stop_of(4), Stop::Restart);
        assert_eq!(spec(r#"{"spec": {}}"#).stop_of(1), Stop::ScaleIn);
        assert!(serde_json::from_str::<StatefulSet>(r#"{"kind": "Status"}"#).is_err());
    }

    #[test]
    fn the_ordinal_is_the_end_of_the_pods_name() {
        assert_eq!(ordinal("my-ackord-12").ok(), Some(12));
        assert!(ordinal("ackord").is_err() && ordinal("ackord-x").is_err());
    }
}
