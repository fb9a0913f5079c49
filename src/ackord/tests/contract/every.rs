//! Every command with `--json`, against a real broker: each line of standard output is one JSON object,
//! and the exit code is the one that is documented. A command that is not in the table fails it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Broker, Ended, ackord, end, run};

/// Who a command is run as.
#[derive(Clone, Copy)]
enum As {
    /// Nobody: it talks to no broker, or to one of its own.
    Nobody,
    /// The node's administrator, on the demo site.
    Admin,
    /// The node's administrator, of no site.
    Node,
    Service,
    Client,
}

/// Whether a command that did what it should has something to say.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Something,
    Nothing,
}

use As::{Admin, Client, Nobody, Node, Service};
use Says::{Nothing, Something};

/// The command, what follows it (`{dir}` and `{token}` are replaced), its standard input, and what is
/// expected of it. In this order, on one broker.
type Row = (&'static str, &'static str, As, &'static str, i32, Says);

const TABLE: &[Row] = &[
    ("raise", "reading", Service, "1\n2\n3\n", 0, Something),
    ("raise", "no-such-event", Service, "1\n", 1, Something),
    ("subscribe", "reading --count 2 --max-time 60s", Client, "", 0, Something),
    ("why", "reading 1 --client demo-client", Admin, "", 0, Something),
    ("why", "reading 3", Admin, "", 0, Something),
    ("check lag", "--client demo-client --event reading", Admin, "", 0, Something),
    ("check lag", "--warn 1 --warn-age 1h --crit-age 1d", Admin, "", 1, Something),
    ("check lag", "--warn 1 --crit 1", Admin, "", 2, Something),
    ("peek", "reading --limit 2", Admin, "", 0, Something),
    ("peek", "no-such-event", Admin, "", 4, Nothing),
    ("can-i", "receive reading --client demo-client", Admin, "", 0, Something),
    ("can-i", "administer", Client, "", 4, Something),
    ("site create", "other", Admin, "", 0, Something),
    ("site list", "--prefix o --limit 1", Admin, "", 0, Something),
    ("site show", "", Admin, "", 0, Something),
    ("site apply", "-f {dir}/site.toml", Admin, "", 0, Something),
    ("site apply", "-f {dir}/site.toml", Admin, "", 0, Nothing),
    ("site structure", "", Admin, "", 0, Something),
    ("site delete", "other", Admin, "", 0, Something),
    ("service list", "--online false --prefix d", Admin, "", 0, Something),
    ("service show", "demo-service", Admin, "", 0, Something),
    ("service token", "demo-service --expires 30d --note kitchen", Admin, "", 0, Something),
    ("service kick", "demo-service", Admin, "", 0, Something),
    ("service apply-declared", "demo-service", Admin, "", 4, Nothing),
    ("service delete", "demo-service", Admin, "", 0, Something),
    ("service create", "boiler", Admin, "", 0, Something),
    ("user create", "anna", Admin, "", 0, Something),
    ("user list", "--limit 5", Admin, "", 0, Something),
    ("user show", "anna", Admin, "", 0, Something),
    ("client create", "phone --user anna", Admin, "", 0, Something),
    ("client list", "--prefix ph", Admin, "", 0, Something),
    ("client show", "phone", Admin, "", 0, Something),
    ("client token", "phone", Admin, "", 0, Something),
    ("client kick", "phone", Admin, "", 0, Something),
    ("client subscriptions", "demo-client", Admin, "", 0, Something),
    ("client seek", "demo-client reading --after 0", Admin, "", 0, Something),
    ("client delete", "phone", Admin, "", 0, Something),
    ("user delete", "anna", Admin, "", 0, Something),
    ("token create", "--operator --expires 30d --note night", Admin, "", 0, Something),
    ("token create", "", Admin, "", 2, Nothing),
    ("token list", "--principal operator", Admin, "", 0, Something),
    ("token revoke", "{token}", Admin, "", 0, Something),
    ("ticket create", "", Client, "", 0, Something),
    ("subscription list", "--client demo-client --event reading", Admin, "", 0, Something),
    ("subscription show", "demo-client reading", Admin, "", 0, Something),
    ("subscription pause", "demo-client reading", Admin, "", 0, Something),
    ("subscription resume", "demo-client reading", Admin, "", 0, Something),
    ("subscription seek", "demo-client reading --after 1", Admin, "", 0, Something),
    ("push create", "hook reading --udp 127.0.0.1:9 --client demo-client", Admin, "", 0, Something),
    (
        "push create",
        "hook reading --to http://10.0.0.1/ --client demo-client",
        Admin,
        "",
        4,
        Nothing,
    ),
    ("push list", "--client demo-client --prefix h", Admin, "", 0, Something),
    ("push show", "hook", Admin, "", 0, Something),
    ("push resume", "hook", Admin, "", 0, Something),
    ("push delete", "hook", Admin, "", 0, Something),
    ("dead-letter list", "--event reading --state waiting --limit 1", Admin, "", 0, Nothing),
    ("dead-letter show", "1", Admin, "", 4, Nothing),
    ("dead-letter edit", "1 --note seen", Admin, "", 4, Nothing),
    ("dead-letter replay", "1", Admin, "", 4, Nothing),
    ("dead-letter replay", "--all --client demo-client", Admin, "", 0, Nothing),
    ("dead-letter delete", "1", Admin, "", 4, Nothing),
    ("subscription kick", "demo-client", Admin, "", 0, Something),
    ("session list", "--kind stateless", Admin, "", 0, Nothing),
    ("quota set", "clients=50 events_per_s=1000", Admin, "", 0, Something),
    ("quota show", "", Admin, "", 0, Something),
    ("quota clear", "", Admin, "", 0, Something),
    ("quota set", "client=50", Admin, "", 2, Nothing),
    ("audit list", "--since 1h --limit 3", Admin, "", 0, Something),
    ("audit list", "--cluster", Admin, "", 0, Something),
    ("reload", "", Admin, "", 4, Nothing),
    ("cluster status", "", Admin, "", 0, Something),
    ("cluster nodes", "", Admin, "", 0, Something),
    ("cluster partitions", "", Admin, "", 0, Something),
    ("cluster join", "", Admin, "", 4, Nothing),
    ("cluster drain", "1 --no-wait", Admin, "", 4, Nothing),
    ("cluster undrain", "1 --max-time 60s", Admin, "", 0, Something),
    ("cluster remove", "1", Admin, "", 4, Nothing),
    ("cluster replace", "9", Admin, "", 4, Nothing),
    ("cluster rebalance", "--max-time 60s", Admin, "", 0, Something),
    ("cluster backup", "--out {dir}/backup", Admin, "", 0, Something),
    ("cluster restore", "--file {dir}/backup", Admin, "", 4, Something),
    ("cluster verify", "", Admin, "", 0, Something),
    ("check node", "", Admin, "", 0, Something),
    (
        "kubernetes pre-stop",
        "--pod a-0 --namespace n --statefulset a --api http://127.0.0.1:9 --credentials {dir} --data {dir}",
        Admin,
        "",
        0,
        Something,
    ),
    ("cluster leave", "1", Admin, "", 4, Nothing),
    ("check cluster", "", Admin, "", 0, Something),
    ("check certificate", "", Admin, "", 3, Something),
    ("check disk", "--warn 1 --crit 1", Admin, "", 0, Something),
    ("explain", "busy", Nobody, "", 0, Something),
    ("explain", "", Nobody, "", 0, Something),
    ("explain", "bussy", Nobody, "", 2, Nothing),
    (
        "context set",
        "here --url http://127.0.0.1:9 --site demo --token t",
        Nobody,
        "",
        0,
        Something,
    ),
    ("context use", "here", Nobody, "", 0, Something),
    ("context list", "", Nobody, "", 0, Something),
    ("context show", "", Nobody, "", 0, Something),
    ("context delete", "here", Nobody, "", 0, Something),
    ("bench publish", "--publishers 1 --seconds 1", Node, "", 0, Something),
    ("bench deliver", "--subscriptions 2 --backlog 5", Node, "", 0, Something),
    ("bench quota", "--publishers 1 --rate 40 --seconds 1", Node, "", 0, Something),
    ("bench revocation", "--rounds 1", Node, "", 0, Something),
    ("bench growth", "--seconds 1 --subscribers 10 --rounds 1", Nobody, "", 0, Something),
    ("bench modes", "--seconds 1", Nobody, "", 0, Something),
    ("bench mixed", "--publishers 1 --seconds 1 --rounds 1", Nobody, "", 0, Something),
    ("bench fanout", "--subscribers 3 --rate 5 --seconds 1", Node, "", 0, Something),
    ("bench idle", "--subscribers 5 --seconds 1", Node, "", 0, Something),
    ("bench failover", "--nodes 3 --rounds 1 --publishers 1 --rate 20", Nobody, "", 0, Something),
    ("demo", "--exit", Nobody, "1\n2\n", 0, Something),
    ("demo boiler", "--readings 1 --every 10ms --data {dir}/boiler", Nobody, "", 0, Something),
    ("dev", "--while-stdin --listen 127.0.0.1:0 --data {dir}/dev", Nobody, "", 0, Something),
    ("recover", "--data {dir}/dev", Nobody, "", 0, Something),
    ("serve", "--example", Nobody, "", 0, Something),
    ("serve", "--config {dir}/nothing.toml --check", Nobody, "", 78, Nothing),
    ("config check", "{dir}/broker.toml", Nobody, "", 0, Something),
    ("config show", "--config {dir}/broker.toml --origin", Nobody, "", 0, Something),
    ("config schema", "", Nobody, "", 0, Something),
    ("config doc", "", Nobody, "", 0, Something),
    ("completion", "bash", Nobody, "", 0, Something),
];

const SITE: &str = "site = 'third'\n[services.boiler]\n[clients.phone]\n";

/// Whatever can be run: commands without others below, and `demo`, which has one and runs itself.
fn commands() -> BTreeSet<String> {
    fn walk(description: &Value, found: &mut BTreeSet<String>) {
        let below = description["commands"].as_array().unwrap();
        let name = description["command"].as_str().unwrap().trim_start_matches("ackord");
        if below.is_empty() || name == " demo" {
            found.insert(name.trim().to_owned());
        }
        below.iter().for_each(|command| walk(command, found));
    }
    let mut found = BTreeSet::new();
    walk(&run(&["--help", "--json"]).expect(0).lines()[0], &mut found);
    found
}

/// The command of a row, free of the contexts and files of whoever runs the tests.
fn command(row: &Row, broker: &Broker, dir: &Path, token: &str) -> Command {
    let (name, rest, who, ..) = *row;
    let rest = rest.replace("{dir}", dir.to_str().unwrap()).replace("{token}", token);
    let words: Vec<&str> = name.split(' ').chain(rest.split_whitespace()).collect();
    let mut command = ackord(&words);
    command.arg("--json").env("ACKORD_CONTEXTS", dir.join("contexts.toml"));
    let site = ["--site", broker.site.as_str()];
    let (token, site) = match who {
        Nobody => return command,
        Admin => (&broker.admin_token, Some(site)),
        Node => (&broker.admin_token, None),
        Service => (&broker.service_token, Some(site)),
        Client => (&broker.client_token, Some(site)),
    };
    command.args(["--url", &broker.urls[0], "--token", token]).args(site.into_iter().flatten());
    command
}

/// What is wrong with how a command ended, if anything is.
fn wrong(row: &Row, ended: &Ended) -> Option<String> {
    let (name, rest, _, _, code, says) = row;
    let object = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object());
    let refused = *code == 4 && *says == Nothing;
    let why = if ended.code != Some(*code) {
        format!("ended with {:?} instead of {code}", ended.code)
    } else if !ended.out.lines().all(object) {
        "a line of standard output is no JSON object".to_owned()
    } else if ended.out.is_empty() != (*says == Nothing) {
        "it should have said something, or nothing".to_owned()
    } else if refused && !ended.err.lines().any(|line| line.starts_with("error: ")) {
        "it does not say why it was refused".to_owned()
    } else {
        return None;
    };
    Some(format!("ackord {name} {rest}: {why}\n  out: {}\n  err: {}", ended.out, ended.err))
}

#[test]
fn every_command_speaks_json_and_nothing_else_and_ends_as_documented() {
    let known: BTreeSet<String> = TABLE.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(known, commands(), "the table of this test has every command, and no other");

    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &["--set", "push.hosts=127.0.0.1"]);
    std::fs::write(dir.path().join("site.toml"), SITE).unwrap();
    let data = dir.path().join("served");
    std::fs::write(dir.path().join("broker.toml"), format!("data = {data:?}\n")).unwrap();
    let made = broker.admin(&["token", "create", "--observer"]).expect(0).lines().remove(0);
    let token = made["id"].as_str().unwrap();
    let ended = |row: &Row| end(command(row, &broker, dir.path(), token), row.3);
    let found: Vec<String> = TABLE.iter().filter_map(|row| wrong(row, &ended(row))).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_command_can_be_completed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]).expect(0).out;
        for command in commands() {
            let last = command.rsplit(' ').next().unwrap();
            assert!(script.contains(last), "{shell}: {command}");
        }
    }
}
