//! Sites, services, clients, users and tokens from the command line.

use serde_json::{Value, json};

use crate::support::{Broker, run};

const FILE: &str = r#"
site = "heating"
[settings]
guests_allowed = true
stateless_guests_allowed = false
[structure]
service_type = "boiler"
contract_author = "Example"
guests = "guest"
roles = ["Owner", "Installer"]
[[structure.events]]
name = "reading"
category = "queueing"
lifetime_s = 86400
size = 100
[[structure.events]]
name = "state"
category = "replacing"
access = { roles = ["Owner"] }
[users.anna]
roles = ["Owner"]
[services.boiler]
[clients.phone]
user = "anna"
"#;

fn sign(line: &Value) -> String {
    let text = |name: &str| line[name].as_str().unwrap().to_owned();
    format!("{} {} {}", text("action"), text("kind"), text("id"))
}

#[test]
fn a_site_becomes_what_its_file_says_and_a_second_time_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let file = dir.path().join("site.toml");
    let file_name = file.to_str().unwrap().to_owned();
    std::fs::write(&file, FILE).unwrap();
    let apply = |more: &[&str]| {
        let words: Vec<&str> =
            ["site", "apply", "-f", &file_name].iter().chain(more).copied().collect();
        broker.admin(&words).expect(0).lines()
    };

    let planned = apply(&["--dry-run"]);
    assert!(planned.iter().all(|line| line["applied"] == false));
    assert_eq!(broker.admin(&["site", "list"]).expect(0).lines().len(), 1);
    let done = apply(&[]);
    let all: Vec<String> = done.iter().map(sign).collect();
    assert_eq!(
        all,
        [
            "create settings heating",
            "create structure heating",
            "create user anna",
            "create client phone",
            "create service boiler"
        ]
    );
    assert!(done.iter().all(|line| line["applied"] == true));
    assert_eq!(apply(&[]), Vec::<Value>::new());

    std::fs::write(
        &file,
        FILE.replace("size = 100", "size = 50").replace("[clients.phone]\nuser = \"anna\"", ""),
    )
    .unwrap();
    let diff = apply(&["--diff", "--prune"]);
    assert_eq!(
        diff[0]["changes"][0],
        json!({"path": "events.reading.size", "before": 100, "after": 50})
    );
    let all: Vec<String> = apply(&["--prune"]).iter().map(sign).collect();
    assert_eq!(all, ["update structure heating", "delete client phone"]);
}

#[test]
fn accounts_are_made_shown_listed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let admin = |words: &[&str]| broker.admin(words).expect(0).lines();

    admin(&["user", "create", "anna"]);
    admin(&["client", "create", "phone", "--user", "anna"]);
    assert_eq!(admin(&["client", "show", "phone"])[0]["user"], "anna");
    assert_eq!(admin(&["client", "list"]).len(), 2);
    assert_eq!(admin(&["user", "list"])[0]["id"], "anna");
    assert_eq!(admin(&["service", "show", "demo-service"])[0]["online"], false);
    assert_eq!(admin(&["site", "show"])[0]["name"], "demo");
    assert!(admin(&["site", "structure"])[0]["structure"]["events"].is_array());

    let token = admin(&["client", "token", "phone"])[0].clone();
    let text = token["token"].as_str().unwrap();
    let url = broker.ready.urls[0].as_str();
    let as_phone = ["--url", url, "--site", "demo", "--token", text, "--json"];
    let subscribe: Vec<&str> =
        ["subscribe", "reading", "--count", "0"].iter().chain(&as_phone).copied().collect();
    run(&subscribe).expect(0);
    let list: Vec<&str> = ["client", "list"].iter().chain(&as_phone).copied().collect();
    run(&list).expect(4);

    let observer = admin(&["token", "create", "--observer"])[0]["id"].clone();
    assert_eq!(admin(&["token", "list"]).len(), 4);
    admin(&["token", "delete", observer.as_str().unwrap()]);
    assert_eq!(admin(&["token", "list"]).len(), 3);
    assert_eq!(admin(&["client", "delete", "phone"])[0]["deleted"], "phone");
    broker.admin(&["client", "show", "phone"]).expect(4);
    run(&subscribe).expect(4);
    broker.admin(&["site", "create", "demo"]).expect(4);
    admin(&["site", "delete", "demo"]);
    broker.raise(&["reading", "--args", "1"], "").expect(4);
}

#[test]
fn a_sought_subscription_starts_again_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    broker.raise(&["reading"], "1\n2\n3\n").expect(0);
    broker.subscribe(&["reading", "--count", "3"]).expect(0);

    broker.admin(&["client", "seek", "demo-client", "reading", "--after", "1"]).expect(0);

    let lines = broker.subscribe(&["reading", "--count", "2"]).expect(0).lines();
    let args: Vec<&Value> = lines.iter().map(|line| &line["args"]).collect();
    assert_eq!(args, [&json!(2), &json!(3)]);
    let cursor = broker.admin(&["client", "subscriptions", "demo-client"]).expect(0).lines();
    assert_eq!(cursor[0]["position"]["instance_id"], 3);
}

#[test]
fn text_for_people_is_a_table_and_errors_go_to_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path(), &[]);
    let account = ["--url", &broker.ready.urls[0], "--site", "demo"];
    let with = |words: &[&str], token: &str| {
        let all: Vec<&str> =
            words.iter().chain(&account).copied().chain(["--token", token]).collect();
        run(&all)
    };

    let table = with(&["service", "list"], &broker.ready.admin_token).expect(0).out;
    assert!(table.starts_with("ID            ONLINE  PARKED"), "{table}");
    let refused = with(&["service", "list"], "ak_x_wrong").expect(4);
    assert_eq!(refused.out, "");
    assert!(refused.err.starts_with("error: "), "{}", refused.err);
    run(&["site", "list", "--url", "http://127.0.0.1:1", "--token", "x"]).expect(5);
}

#[test]
fn a_plan_is_refused_like_its_execution_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(&dir.path().join("data"), &[]);
    let file = dir.path().join("site.toml");
    let structure = "[structure]\nservice_type = 'T'\ncontract_author = 'A'\n";
    let event = "[[structure.events]]\nname = 'q'\ncategory = 'queueing'\nsize = 5\n";
    let check = |text: &str, says: &str| {
        std::fs::write(&file, text).unwrap();
        for mode in [&["--dry-run"][..], &["--diff"], &[]] {
            let words = [&["site", "apply", "-f", file.to_str().unwrap()], mode].concat();
            let refused = broker.admin(&words).expect(4);
            assert!(refused.err.contains(says), "{mode:?}: {}", refused.err);
        }
    };
    let sites = broker.admin(&["site", "list"]).expect(0).lines();
    check(&format!("site = 'new'\n{structure}{event}lifetime_s = 1\n"), "lifetime_s");
    check("site = 'new'\n[clients.c]\nuser = 'nobody'\n", "clients.c.user");
    assert_eq!(broker.admin(&["site", "list"]).expect(0).lines(), sites);
    check(&format!("site = 'demo'\n{structure}{event}lifetime_s = 60\n"), "conflict");
}
