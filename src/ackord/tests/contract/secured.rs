//! `ackord serve` with TLS and a configuration that changes while it runs: a private authority,
//! commands and endpoints over https and wss, reloads by signal and by command.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::support::{Ended, ackord, run, run_with, send};

/// How long something may take that happens by itself.
const LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A site with one event, a service and a client of a user.
const SITE: &str = r#"
site = "plant"
[structure]
service_type = "t"
contract_author = "a"
guests = "none"
[[structure.events]]
name = "e"
category = "queueing"
lifetime_s = 3600
size = 100
access = "everyone"
[services.s]
[users.u]
[clients.c]
user = "u"
"#;

/// An issuer of JWTs with one key.
struct Issuer {
    private: EncodingKey,
}

impl Issuer {
    /// Publishes its key in this file.
    fn new(file: &Path) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x});
        std::fs::write(file, json!({"keys": [key]}).to_string()).unwrap();
        Self { private: EncodingKey::from_ed_der(pkcs8.as_ref()) }
    }

    /// A token of this role on the site that ends in so many seconds.
    fn token(&self, role: &str, seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = Header { kid: Some("1".to_owned()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({
            "iss": "i", "aud": "ackord", "sub": "someone", "exp": now + seconds,
            "ackord_site": "plant", "ackord_role": role,
        });
        encode(&header, &claims, &self.private).unwrap()
    }
}

/// The body of a plain answer.
fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.get(url).send().await.unwrap().text().await.unwrap()
    })
}

/// A private authority and the files of a node.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.token(&"a".repeat(40));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn token(&self, token: &str) {
        std::fs::write(self.path("token"), token).unwrap();
    }

    /// A certificate for loopback by an authority that nobody knew before; its file is named `ca`.
    fn certify(&self, ca: &str) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(self.path(ca), issuer.pem()).unwrap();
        // Both appear whole.
        for (name, text) in [("key", key.serialize_pem()), ("certificate", certificate.pem())] {
            std::fs::write(self.path("new"), text).unwrap();
            std::fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }

    /// Writes the configuration.
    fn configure(&self, more: &str) -> String {
        let text = format!(
            "data = {}\nlisten = '127.0.0.1:0'\nadmin_token_file = {}\n{more}",
            json!(self.path("data")),
            json!(self.path("token")),
        );
        std::fs::write(self.path("ackord.toml"), text).unwrap();
        self.text("ackord.toml")
    }

    /// The table of the certificate.
    fn tls(&self) -> String {
        format!(
            "[tls]\ncertificate = {}\nkey = {}\nwatch_interval_ms = 100\n",
            json!(self.path("certificate")),
            json!(self.path("key")),
        )
    }
}

/// A child that does not outlive its scenario, and its lines.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = ackord(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(config: &str) -> (Running, String) {
    let mut node = Running::start(&["serve", "--config", config, "--json"]);
    let url = node.line()["urls"][0].as_str().unwrap().to_owned();
    (node, url)
}

/// Waits until a look says so.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        // Nothing says when it happens: a process is asked from time to time.
        let (_never, silence) = std::sync::mpsc::channel::<()>();
        let _ = silence.recv_timeout(LOOK);
    }
}

#[test]
fn commands_and_endpoints_trust_a_private_authority_and_a_renewed_certificate() {
    let files = Files::new();
    files.certify("ca-1");
    let (node, url) = serve(&files.configure(&files.tls()));
    assert!(url.starts_with("https://"), "{url}");
    let token = files.text("token");
    let (first, second) = (files.text("ca-1"), files.text("ca-2"));
    let admin = |ca: &str, words: &[&str]| -> Ended {
        let more = ["--url", &url, "--token-file", &token, "--ca", ca, "--json"];
        run(&[words, &more].concat())
    };
    std::fs::write(files.path("site.toml"), SITE).unwrap();
    admin(&first, &["site", "apply", "-f", &files.text("site.toml")]).expect(0);
    // Nobody else's authorities, and not the web's.
    files.certify("ca-2");
    until("the new certificate is not shown", || {
        admin(&second, &["site", "show", "plant"]).code == Some(0)
    });
    admin(&first, &["site", "show", "plant"]).expect(5);
    run(&["site", "show", "plant", "--url", &url, "--token-file", &token]).expect(5);
    run(&["site", "list", "--url", &url, "--token-file", &token, "--ca", &token]).expect(2);

    let made = |kind: &str, id: &str| {
        let made = admin(&second, &[kind, "token", id, "--site", "plant"]).expect(0).lines();
        made[0]["token"].as_str().unwrap().to_owned()
    };
    let (service, client) = (made("service", "s"), made("client", "c"));
    let wss = url.replacen("https", "wss", 1);
    let with = |token: &str, ca: &str| {
        ["--url", &wss, "--site", "plant", "--token", token, "--ca", ca, "--json"]
            .map(str::to_owned)
    };
    let raise = |ca: &str, number: &str| {
        let more = with(&service, ca);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        run_with(&[&["raise", "e", "--args", number], &more[..]].concat(), "")
    };
    let more = with(&client, &second);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let follow = ["subscribe", "e", "--count", "3", "--max-time", "60s"];
    let mut follower = Running::start(&[&follow, &more[..]].concat());
    raise(&second, "1").expect(0);
    assert_eq!(follower.line()["args"], 1);

    // The third authority: who stands goes on, though it does not trust it.
    files.certify("ca-3");
    let third = files.text("ca-3");
    until("the third certificate is not shown", || raise(&third, "2").code == Some(0));
    raise(&third, "3").expect(0);
    assert_eq!(
        (follower.line()["args"].clone(), follower.line()["args"].clone()),
        (2.into(), 3.into())
    );
    assert_eq!(follower.child.wait().unwrap().code(), Some(0));
    drop(node);
}

#[test]
fn a_reload_applies_what_it_can_names_what_it_cannot_and_takes_nothing_that_is_wrong() {
    let files = Files::new();
    let config = files.configure("[limits]\nqueue_size_max = 10\n");
    let (node, url) = serve(&config);
    let token = files.text("token");
    let admin = |words: &[&str]| -> Ended {
        run(&[words, &["--url", &url, "--token-file", &token, "--json"]].concat())
    };
    admin(&["site", "create", "s"]).expect(0);
    let structure = json!({
        "service_type": "t", "contract_author": "a", "guests": "none", "events": [{"name": "e",
        "category": "queueing", "lifetime_s": 3600, "size": 20, "access": "everyone"}],
    });
    std::fs::write(files.path("structure.json"), structure.to_string()).unwrap();
    let structure = files.text("structure.json");
    let apply = || admin(&["site", "structure", "s", "--set", &structure]);
    apply().expect(4);

    // By the signal.
    files.configure("[limits]\nqueue_size_max = 20\n");
    send(node.child.id(), "HUP");
    until("the signal changes nothing", || apply().code == Some(0));

    // By the command, which says what came of it.
    let nothing = admin(&["reload"]).expect(0).lines();
    assert_eq!((&nothing[0]["applied"], &nothing[0]["restart"]), (&json!([]), &json!([])));
    files.configure(
        "[limits]\nqueue_size_max = 30\n[front]\nbody_bytes_max = 1024\n[node]\nthreads = 3\n",
    );
    let reloaded = admin(&["reload"]).expect(0).lines();
    assert_eq!(reloaded[0]["applied"], json!(["limits.queue_size_max", "front.body_bytes_max"]));
    assert_eq!(reloaded[0]["restart"], json!(["node.threads"]));
    // The new bound counts for the next body.
    let events: Vec<Value> = (0..30)
        .map(|at| json!({"name": format!("e{at}"), "category": "replacing", "access": "everyone"}))
        .collect();
    let large = json!({
        "service_type": "t", "contract_author": "a", "guests": "none", "events": events,
    });
    std::fs::write(files.path("large.json"), large.to_string()).unwrap();
    let ended = admin(&["site", "structure", "s", "--set", &files.text("large.json")]).expect(4);
    assert!(ended.err.contains("too-large"), "{}", ended.err);
    let again = admin(&["reload"]).expect(0).lines();
    assert_eq!(
        (&again[0]["applied"], &again[0]["restart"]),
        (&json!([]), &json!(["node.threads"]))
    );

    // What is wrong changes nothing, also what would have been right.
    files.configure("[limits]\nqueue_size_max = 40\nsites = 5\n");
    let ended = admin(&["reload"]).expect(4);
    assert!(ended.err.contains("did you mean `limits.sites_max`"), "{}", ended.err);
    files.configure("[limits]\nqueue_size_max = 30\n[node]\nthreads = 3\n[tls]\ncertificate = '/nowhere'\nkey = '/nowhere'\n");
    let ended = admin(&["reload"]).expect(4);
    assert!(ended.err.contains("/nowhere"), "{}", ended.err);

    // The administrator's token is exchanged.
    files.configure("[limits]\nqueue_size_max = 30\n");
    let new = "b".repeat(40);
    std::fs::write(files.path("old"), "a".repeat(40)).unwrap();
    files.token(&new);
    let old = files.text("old");
    let reloaded = run(&["reload", "--url", &url, "--token-file", &old, "--json"]).expect(0);
    assert!(reloaded.lines()[0]["applied"].as_array().unwrap().contains(&json!("admin_token")));
    run(&["site", "list", "--url", &url, "--token-file", &old]).expect(4);
    admin(&["site", "list"]).expect(0);
}

#[test]
fn an_endpoint_whose_token_ends_goes_on_with_the_one_that_took_its_place() {
    let files = Files::new();
    let issuer = Issuer::new(&files.path("jwks.json"));
    let config = files.configure(&format!(
        "[[jwt]]\nissuer = 'i'\naudience = 'ackord'\nalgorithms = ['EdDSA']\nleeway_s = 0\njwks_file = {}\n",
        json!(files.path("jwks.json")),
    ));
    let (_node, url) = serve(&config);
    let token = files.text("token");
    std::fs::write(files.path("site.toml"), SITE).unwrap();
    let apply = ["site", "apply", "-f", &files.text("site.toml")];
    run(&[&apply[..], &["--url", &url, "--token-file", &token]].concat()).expect(0);
    let raise = |number: &str| {
        let token = issuer.token("service:s", 600);
        let words = ["raise", "e", "--args", number, "--site", "plant", "--url", &url];
        run_with(&[&words[..], &["--token", &token, "--json"]].concat(), "")
    };
    let renewed = files.text("renewed");
    std::fs::write(&renewed, issuer.token("client:c", 3)).unwrap();
    let words = ["subscribe", "e", "--count", "2", "--max-time", "60s", "--site", "plant"];
    let more = ["--url", &url, "--token-file", &renewed, "--log", "off", "--json"];
    let mut follower = Running::start(&[&words[..], &more].concat());
    raise("1").expect(0);
    assert_eq!(follower.line()["args"], 1);
    let metrics = format!("{url}/metrics");
    let over = "ackord_websockets_closed_total{code=\"credentials-expired\",endpoint=\"client\"} 1";
    std::fs::write(&renewed, issuer.token("client:c", 600)).unwrap();
    until("the session outlived its token", || get(&metrics).contains(over));
    raise("2").expect(0);
    assert_eq!(follower.line()["args"], 2);
    assert_eq!(follower.child.wait().unwrap().code(), Some(0));

    // Who has but one token is told that it is over, and does not come again.
    let short = issuer.token("client:c", 2);
    let words = ["subscribe", "e", "--count", "1", "--max-time", "60s", "--site", "plant"];
    let more = ["--url", &url, "--token", &short, "--json"];
    let ended = run(&[&words[..], &more].concat()).expect(4);
    assert!(ended.err.contains("expired"), "{}", ended.err);
}

#[test]
fn nothing_crosses_machines_in_the_clear_unless_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |more: &[&str]| {
        let data = format!("data={}", data.display());
        run(&[&["serve", "--check", "--set", &data], more].concat())
    };
    let ended = serve(&["--set", "listen=0.0.0.0:0"]).expect(78);
    assert!(ended.err.contains("crosses machines without TLS"), "{}", ended.err);
    serve(&["--set", "listen=0.0.0.0:0", "--set", "listen_plain=true"]).expect(0);
    serve(&["--set", "admin.listen=0.0.0.0:0"]).expect(78);
    assert!(!Path::new(&data).exists());
}

#[test]
fn administration_has_a_socket_of_its_own() {
    let files = Files::new();
    let config = files.configure("[admin]\nlisten = '127.0.0.1:0'\n");
    let mut node = Running::start(&["serve", "--config", &config, "--json"]);
    let ready = node.line();
    let token = files.text("token");
    let list = |url: &Value| {
        run(&["site", "list", "--url", url.as_str().unwrap(), "--token-file", &token, "--json"])
    };
    list(&ready["admin_urls"][0]).expect(0);
    let ended = list(&ready["urls"][0]).expect(4);
    assert!(ended.err.contains("not-found"), "{}", ended.err);
}

#[test]
fn a_token_whose_file_is_no_longer_named_is_good_until_the_restart_and_a_reload_says_so() {
    let files = Files::new();
    let config = files.configure("");
    let (_node, url) = serve(&config);
    let token = files.text("token");
    let reload = || {
        let words = ["reload", "--url", &url, "--token-file", &token, "--json"];
        run(&words).expect(0).lines().remove(0)
    };
    let text = format!("data = {}\nlisten = '127.0.0.1:0'\n", json!(files.path("data")));
    std::fs::write(&config, text).unwrap();
    for _ in 0..2 {
        let reloaded = reload();
        assert_eq!(reloaded["applied"], json!([]), "{reloaded}");
        assert_eq!(reloaded["restart"], json!(["admin_token_file"]), "{reloaded}");
    }
    files.configure("");
    assert_eq!(reload()["restart"], json!([]));
}

#[test]
fn a_certificate_that_says_that_it_is_an_authority_is_explained() {
    let files = Files::new();
    let certify = |is_ca: IsCa| {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        std::fs::write(files.path("certificate"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(files.path("key"), key.serialize_pem()).unwrap();
    };
    let (token, ca) = (files.text("token"), files.text("certificate"));
    let list =
        |url: &str| run(&["site", "list", "--url", url, "--token-file", &token, "--ca", &ca]);
    certify(IsCa::Ca(BasicConstraints::Unconstrained));
    let (node, url) = serve(&files.configure(&files.tls()));
    let ended = list(&url).expect(5);
    assert!(ended.err.contains("basicConstraints=critical,CA:FALSE"), "{}", ended.err);
    let words = ["raise", "e", "--args", "1", "--timeout", "2s", "--url", &url, "--site", "s"];
    let ended = run(&[&words[..], &["--token", "t", "--ca", &ca]].concat()).expect(5);
    assert!(ended.err.contains("basicConstraints=critical,CA:FALSE"), "{}", ended.err);
    drop(node);
    certify(IsCa::ExplicitNoCa);
    let (_node, url) = serve(&files.configure(&files.tls()));
    list(&url).expect(0);
}
