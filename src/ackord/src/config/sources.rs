//! Where values come from, each winning over the one before: the defaults, the file, the
//! environment, the flags. An unknown name is an error wherever it stands: a misspelt limit must
//! not become a default in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ackord_gateway::nearest_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::issuers;
use super::key::{Key, Type, Value};
use super::settings::Settings;
use super::table;

/// The largest configuration file, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What every variable of ours begins with.
const PREFIX: &str = "ACKORD_";
/// The variable by which every program of OpenTelemetry is told of its collector.
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Variables of commands, which configure no broker.
const OF_COMMANDS: &[&str] = &[
    "ACKORD_URL",
    "ACKORD_SITE",
    "ACKORD_TOKEN",
    "ACKORD_TOKEN_FILE",
    "ACKORD_CONTEXT",
    "ACKORD_CONTEXTS",
    "ACKORD_CA",
    "ACKORD_CONFIG",
    "ACKORD_POD_NAME",
    "ACKORD_POD_NAMESPACE",
    "ACKORD_STATEFULSET",
];
/// Variables of the test suite begin with this.
const OF_TESTS: &str = "ACKORD_TEST_";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// A variable.
    Environment(String),
    /// A flag of the command line.
    Flag,
}

impl Origin {
    /// What wins over what.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Environment(_) => 2,
            Self::Flag => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// What a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file.
    pub file: Option<PathBuf>,
    /// The variables that begin with `ACKORD_`.
    pub environment: Vec<(String, String)>,
    /// `--set`, `key=value`.
    pub sets: Vec<String>,
    /// `--limit`, `name=value`.
    pub limits: Vec<String>,
    /// Flags that stand for one key: its path and their value.
    pub flags: Vec<(&'static str, String)>,
}

/// The values of all sources together, and what is wrong with them.
pub struct Gathered {
    /// The settings.
    pub settings: Settings,
    /// Where those come from that are not defaults.
    pub origins: BTreeMap<&'static str, Origin>,
    /// One line for everything that is wrong.
    pub problems: Vec<String>,
}

impl Gathered {
    /// The defaults.
    pub fn new() -> Self {
        let (settings, origins, problems) = (Settings::default(), BTreeMap::new(), Vec::new());
        Self { settings, origins, problems }
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    fn take(&mut self, key: &'static Key, value: Result<Value, String>, origin: Origin) {
        match value.and_then(|value| key.set(&mut self.settings, value)) {
            Ok(()) => {
                self.origins.insert(key.path, origin);
            }
            Err(problem) => self.problems.push(format!("{origin}: {problem}")),
        }
    }

    fn unknown(&mut self, origin: &Origin, given: &str) {
        let given: String = given.chars().take(100).collect();
        let hint = nearest_name(&given, table::keys().map(|key| key.path))
            .or_else(|| {
                // The right name in the wrong table.
                let last = given.rsplit('.').next()?;
                let mut keys = table::keys();
                keys.find(|key| key.path.rsplit('.').next() == Some(last)).map(|key| key.path)
            })
            .map(|key| format!("; did you mean `{key}`?"))
            .unwrap_or_default();
        self.problems.push(format!("{origin}: unknown key `{given}`{hint}"));
    }
}

impl Sources {
    /// The variables of this process.
    pub fn variables() -> Vec<(String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| {
                let ours = |name: &String| name.starts_with(PREFIX) || name == COLLECTOR;
                let name = name.into_string().ok().filter(ours)?;
                Some((name, value.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// Reads everything; what is wrong is in the answer.
    pub fn gather(&self) -> Gathered {
        let mut gathered = Gathered::new();
        if let Some(file) = &self.file {
            match read(file) {
                Ok(text) => gather_file(file, &text, &mut gathered),
                Err(problem) => gathered.problems.push(format!("{}: {problem}", file.display())),
            }
        }
        let (common, own): (Vec<_>, Vec<_>) =
            self.environment.iter().partition(|(variable, _)| variable == COLLECTOR);
        // Our own variable wins over the one of all programs.
        for (variable, text) in common.into_iter().chain(own) {
            gather_variable(variable, text, &mut gathered);
        }
        for limit in &self.limits {
            gather_flag("--limit", limit, "limits.", &mut gathered);
        }
        for set in &self.sets {
            gather_flag("--set", set, "", &mut gathered);
        }
        for (path, text) in &self.flags {
            if let Some(key) = table::key(path) {
                gathered.take(key, key.read(text), Origin::Flag);
            }
        }
        gathered
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("a configuration has at most {FILE_BYTES_MAX} bytes, was {length}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The values of a file's text.
pub fn gather_file(path: &Path, text: &str, gathered: &mut Gathered) {
    match DeTable::parse(text) {
        Ok(table) => {
            let mut file = File { path, text, gathered };
            file.table("", table.get_ref());
        }
        Err(error) => {
            // Only the message: what stands there may be a secret.
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            gathered.problems.push(format!("{}:{line}: {}", path.display(), error.message()));
        }
    }
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
    gathered: &'a mut Gathered,
}

impl File<'_> {
    fn table(&mut self, above: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = if above.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{above}.{}", name.get_ref())
            };
            let line = line_of(self.text, name.span().start);
            let origin = Origin::File(self.path.to_owned(), line);
            let inner = format!("{path}.");
            if let Some(key) = table::key(&path) {
                self.gathered.take(key, written(key, value), origin);
            } else if let (DeValue::Table(below), true) =
                (value.get_ref(), table::keys().any(|key| key.path.starts_with(&inner)))
            {
                self.table(&path, below);
            } else {
                self.gathered.unknown(&origin, &path);
            }
        }
    }
}

/// The value of a key as TOML has it.
fn written(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    Ok(match value.get_ref() {
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = u64::from_str_radix(number.as_str(), number.radix());
            Value::Number(parsed.map_err(|_| key.no_number(number.as_str()))?)
        }
        DeValue::Array(items) if key.value_type() == Type::Issuers => {
            Value::Issuers(issuers::read(items)?)
        }
        DeValue::Array(items) => {
            let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            Value::Texts(texts.ok_or_else(|| key.not(key.value_type().name()))?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
            return Err(key.not(key.value_type().name()));
        }
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn gather_variable(variable: &str, text: &str, gathered: &mut Gathered) {
    let origin = Origin::Environment(variable.to_owned());
    let names = |key: &&Key| {
        key.variable() == variable || variable == COLLECTOR && key.path == "otel.endpoint"
    };
    if let Some(key) = table::keys().find(names) {
        // An empty variable is one that is not set: that is how it is taken back in a container.
        if !text.is_empty() {
            gathered.take(key, key.read(text), origin);
        }
        return;
    }
    if OF_COMMANDS.contains(&variable) || variable.starts_with(OF_TESTS) || is_link(variable) {
        return;
    }
    let names: Vec<String> = table::keys().map(Key::variable).collect();
    let hint = nearest_name(variable, names.iter().map(String::as_str))
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default();
    gathered.problems.push(format!("{origin}: no key has this variable{hint}"));
}

/// Whether Kubernetes sets this variable for a service whose name begins with `ackord`: every pod
/// beside it gets such ones, and they configure nothing.
fn is_link(variable: &str) -> bool {
    let parts: Vec<&str> = variable.split('_').collect();
    let after = |word: &str| {
        let at = parts.iter().position(|part| *part == word)?;
        Some(&parts[at + 1..])
    };
    let is_port = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match (after("SERVICE"), after("PORT")) {
        (Some(["HOST"] | ["PORT", ..]), _) => true,
        (_, Some([])) => true,
        (_, Some([port, "TCP" | "UDP" | "SCTP", rest @ ..])) => {
            is_port(port) && matches!(rest, [] | ["ADDR" | "PORT" | "PROTO"])
        }
        (_, _) => false,
    }
}

fn gather_flag(flag: &str, text: &str, above: &str, gathered: &mut Gathered) {
    let Some((name, value)) = text.split_once('=') else {
        gathered.problems.push(format!("{flag} {text}: must be NAME=VALUE"));
        return;
    };
    let path = format!("{above}{}", name.trim());
    match table::key(&path) {
        Some(key) => gathered.take(key, key.read(value.trim()), Origin::Flag),
        None => gathered.unknown(&Origin::Flag, &path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(text: &str, environment: &[(&str, &str)], sets: &[&str]) -> Gathered {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let sources = Sources {
            file: Some(file),
            environment: environment.iter().map(owned).collect(),
            sets: sets.iter().map(|set| (*set).to_owned()).collect(),
            ..Sources::default()
        };
        sources.gather()
    }

    #[test]
    fn each_source_wins_over_the_one_before() {
        let path = "limits.sites_max";
        let check = |text, environment: &[(&str, &str)], sets: &[&str], wanted, rank| {
            let gathered = gathered(text, environment, sets);
            assert_eq!(gathered.problems, [""; 0]);
            assert_eq!(gathered.settings.node.limits.sites_max, wanted);
            assert_eq!(gathered.origin(path).rank(), rank);
        };
        let (file, variable) = ("[limits]\nsites_max = 5\n", ("ACKORD_LIMITS__SITES_MAX", "6"));
        check("", &[], &[], 10_000, 0);
        check(file, &[], &[], 5, 1);
        check(file, &[variable], &[], 6, 2);
        check(file, &[variable], &["limits.sites_max=7_000"], 7000, 3);
        check(file, &[("ACKORD_LIMITS__SITES_MAX", "")], &[], 5, 1);
    }

    #[test]
    fn what_is_not_known_or_does_not_fit_is_named_with_its_place_and_what_was_meant() {
        let check = |text: &str, environment: &[(&str, &str)], sets: &[&str], wanted: &[&str]| {
            let problems = gathered(text, environment, sets).problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            for part in wanted {
                assert!(problems[0].contains(part), "{problems:?} lacks {part}");
            }
        };
        check("a = 1", &[], &[], &["a.toml:1", "unknown key `a`"]);
        check("\n[limits]\nsites = 5", &[], &[], &["a.toml:3", "did you mean `limits.sites_max`"]);
        check("sites_max = 5", &[], &[], &["did you mean `limits.sites_max`"]);
        check("[limits]\nsites_max = -5", &[], &[], &["a.toml:2", "sites_max = -5: must be 0..="]);
        check("[limits]\nsites_max = -5.5", &[], &[], &["a.toml:2", "not a whole number"]);
        check("", &[], &["limits.sites_max=-5"], &["sites_max = -5: must be 0..="]);
        check("admin_token = -5", &[], &[], &["admin_token: not a text"]);
        check("[limits]\nsites_max = 'x'", &[], &[], &["a.toml:2", "not a whole number"]);
        check("[limits]\npartitions = 0", &[], &[], &["must be 1..=1024"]);
        check("listen = ['nowhere']", &[], &[], &["a.toml:1", "must be an address"]);
        check("listen_plain = 1", &[], &[], &["not `true` or `false`"]);
        check("limits = 1", &[], &[], &["unknown key `limits`"]);
        check("admin_token = \"secret", &[], &[], &["a.toml:1"]);
        let single = ("ACKORD_LIMITS_SITES_MAX", "5");
        check("", &[single], &[], &["did you mean ACKORD_LIMITS__SITES_MAX"]);
        check("", &[("ACKORD_LIMITS__SITES_MAX", "many")], &[], &["not a whole number"]);
        check("", &[], &["limits.sites_max"], &["NAME=VALUE"]);
        check("", &[], &["limit.sites_max=5"], &["did you mean `limits.sites_max`"]);
    }

    #[test]
    fn a_secret_in_a_broken_file_is_not_repeated() {
        let problems = gathered("admin_token = \"secret\nx", &[], &[]).problems;
        assert!(!problems.join(" ").contains("secret"), "{problems:?}");
        let problems = gathered("admin_token = [1, 'secret']", &[], &[]).problems;
        assert!(!problems.join(" ").contains("secret"), "{problems:?}");
    }

    #[test]
    fn variables_that_are_set_for_others_are_left_alone() {
        for variable in [
            "ACKORD_URL",
            "ACKORD_TEST_SEED",
            "ACKORD_SERVICE_HOST",
            "ACKORD_SERVICE_PORT",
            "ACKORD_SERVICE_PORT_HTTP",
            "ACKORD_PORT",
            "ACKORD_PORT_4655_TCP",
            "ACKORD_PORT_4655_TCP_ADDR",
            "ACKORD_PEERS_PORT_4656_TCP_PROTO",
        ] {
            assert_eq!(gathered("", &[(variable, "x")], &[]).problems, [""; 0], "{variable}");
        }
        for variable in ["ACKORD_SERVICE", "ACKORD_PORT_X_TCP", "ACKORD_PORTS", "ACKORD_PORT_1"] {
            assert_eq!(gathered("", &[(variable, "x")], &[]).problems.len(), 1, "{variable}");
        }
    }
}
