//! `ackord kubernetes …`: what the pods of a StatefulSet call.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Connect;

/// `ackord kubernetes …`
#[derive(Clone, Debug, Subcommand)]
pub enum KubernetesCommand {
    /// Before a pod stops: leave the cluster if its StatefulSet has become smaller, else do nothing
    PreStop(PreStop),
}

/// See [`KubernetesCommand::PreStop`].
#[derive(Args, Clone, Debug)]
pub struct PreStop {
    /// The pod's name, which ends with its ordinal
    #[arg(long, env = "ACKORD_POD_NAME", value_name = "NAME")]
    pub pod: String,
    /// The pod's namespace
    #[arg(long, env = "ACKORD_POD_NAMESPACE", value_name = "NAME")]
    pub namespace: String,
    /// The StatefulSet that it is of
    #[arg(long, env = "ACKORD_STATEFULSET", value_name = "NAME")]
    pub statefulset: String,
    /// Address of the API server [default: the one of the pod's cluster]
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Directory with `token` and `ca.crt` of the pod's service account
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub credentials: PathBuf,
    /// The broker's data directory: a node that has left begins anew there when it comes back
    #[arg(long, env = "ACKORD_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// How long to wait until the node has left; the others finish what is left of it
    #[arg(long, value_name = "TIME", default_value = "4m", value_parser = crate::duration::parse)]
    pub max_time: Duration,
    #[command(flatten)]
    pub connect: Connect,
}
