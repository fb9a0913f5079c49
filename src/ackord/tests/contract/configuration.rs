//! `ackord config`: what is judged, what is shown, and what is never shown.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::{Ended, ackord, end, run};

/// A token that appears nowhere else.
const SECRET: &str = "correct-horse-battery-staple-0123456789";

fn file(dir: &Path, text: &str) -> String {
    let path = dir.join("ackord.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = ackord(arguments);
    command.envs(environment.iter().copied());
    end(command, "")
}

fn shown(ended: Ended, key: &str) -> (Value, String) {
    let lines = ended.expect(0).lines();
    let line = lines.iter().find(|line| line["key"] == key).unwrap();
    (line["value"].clone(), line["origin"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn each_source_wins_over_the_one_before_and_says_where_a_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "data = 'd'\n[limits]\nsites_max = 5\nusers_max = 5\n");
    let show = ["config", "show", "--config", &path, "--origin", "--json"];
    let variable = [("ACKORD_LIMITS__SITES_MAX", "6")];

    assert_eq!(shown(with(&show, &[]), "limits.clients_max"), (100_000.into(), "default".into()));
    assert_eq!(shown(with(&show, &[]), "limits.sites_max"), (5.into(), format!("{path}:3")));
    let wanted = (6.into(), "environment ACKORD_LIMITS__SITES_MAX".to_owned());
    assert_eq!(shown(with(&show, &variable), "limits.sites_max"), wanted);
    let flags = [&show[..], &["--set", "limits.sites_max=7", "--limit", "users_max=8"]].concat();
    assert_eq!(shown(with(&flags, &variable), "limits.sites_max"), (7.into(), "flag".into()));
    assert_eq!(shown(with(&flags, &variable), "limits.users_max"), (8.into(), "flag".into()));

    // The collector's address has a variable of all programs beside our own, which wins.
    let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://common:4318");
    let own = ("ACKORD_OTEL__ENDPOINT", "http://own:4318");
    let of = |variables: &[(&str, &str)]| shown(with(&show, variables), "otel.endpoint");
    let from = |(name, value): (&str, &str)| (value.into(), format!("environment {name}"));
    assert_eq!(of(&[common]), from(common));
    assert_eq!(of(&[common, own]), from(own));
    assert_eq!(of(&[own, common]), from(own));

    // A node without a file: everything from the environment.
    let environment = [("ACKORD_DATA", "d"), ("ACKORD_LISTEN", "127.0.0.1:1,127.0.0.1:2")];
    let listen = shown(with(&["config", "show", "--json"], &environment), "listen").0;
    assert_eq!(listen, serde_json::json!(["127.0.0.1:1", "127.0.0.1:2"]));
    with(&["serve", "--check"], &environment).expect(0);
    run(&["serve", "--check"]).expect(78);
}

#[test]
fn what_is_wrong_is_told_at_once_with_its_place_and_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "data = 'd'\n[limits]\nqueue_size = 5\npartitions = 0\n");

    let ended =
        with(&["config", "check", &path, "--json"], &[("ACKORD_LIMITS_SITES_MAX", "5")]).expect(78);

    assert_eq!(ended.out, "");
    for part in [
        &format!("{path}:3: unknown key `limits.queue_size`; did you mean `limits.queue_size_max`"),
        &format!("{path}:4: limits.partitions = 0: must be 1..=1024"),
        "ACKORD_LIMITS_SITES_MAX: no key has this variable; did you mean ACKORD_LIMITS__SITES_MAX",
    ] {
        assert!(ended.err.contains(part), "{part:?} is not in {}", ended.err);
    }
    run(&["dev", "--set", "limits.partition=1"]).expect(2);
}

#[test]
fn a_number_out_of_its_range_is_told_with_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "data = 'd'\n[limits]\nsites_max = -4\n");
    let ended = run(&["config", "check", &path]).expect(78);
    let told = format!("{path}:3: limits.sites_max = -4: must be 0..=");
    assert!(ended.err.contains(&told), "{}", ended.err);
}

#[test]
fn the_file_is_given_in_either_way_and_only_in_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "data = 'd'\n[limits]\nsites_max = 5\n");
    for way in [&[path.as_str()][..], &["--config", &path]] {
        let words = |command| [&["config", command, "--json"], way].concat();
        // The environment's is another one, that counts where none is given.
        let other = [("ACKORD_CONFIG", "/nonexistent")];
        let checked = with(&words("check"), &other).expect(0).lines();
        assert_eq!(checked[0]["config"], path.as_str());
        assert_eq!(shown(with(&words("show"), &other), "limits.sites_max").0, 5);
    }
    for command in ["check", "show"] {
        run(&["config", command, &path, "--config", &path]).expect(2);
        with(&["config", command], &[("ACKORD_CONFIG", path.as_str())]).expect(0);
        with(&["config", command], &[("ACKORD_CONFIG", "/nonexistent")]).expect(78);
    }
}

#[test]
fn secrets_come_from_files_are_shown_nowhere_and_warned_about_when_everybody_may_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("token");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mode = |mode| {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let environment = [("ACKORD_DATA", "d"), ("ACKORD_ADMIN_TOKEN_FILE", secret.to_str().unwrap())];
    mode(0o644);
    let ended = with(&["config", "show"], &environment).expect(0);
    assert!(ended.err.contains("everybody may read it"), "{}", ended.err);
    mode(0o600);
    let ended = with(&["config", "show"], &environment).expect(0);
    assert_eq!(ended.err, "");
    let given = [("ACKORD_DATA", "d"), ("ACKORD_ADMIN_TOKEN", SECRET)];
    let ended = with(&["config", "show", "--origin"], &given).expect(0);
    assert!(ended.out.contains("(hidden)") && !ended.out.contains(SECRET), "{}", ended.out);
    let broken = file(dir.path(), &format!("data = 'd'\nadmin_token = \"{SECRET}\nx = 1\n"));
    let ended = run(&["config", "check", &broken]).expect(78);
    assert!(!ended.err.contains(SECRET), "{}", ended.err);
}

#[test]
fn the_schema_and_the_page_are_printed() {
    let schema = run(&["config", "schema", "--json"]).expect(0).lines();
    assert_eq!(schema[0]["properties"]["limits"]["properties"]["sites_max"]["default"], 10_000);
    let frames = &schema[0]["properties"]["front"]["properties"]["control_frames_per_s_max"];
    let told = frames["description"].as_str().unwrap();
    assert!(told.contains("Per second, 1..=") && !told.contains("Seconds"), "{told}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    assert_eq!(run(&["config", "doc"]).expect(0).out, page);
}
