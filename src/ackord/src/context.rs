//! Named places to talk to: addresses, site, token and authorities under one name, in one file.
//!
//! Options go before the environment, that before the context, that before the defaults, each on its own.
//! Invariants: a token and authorities of a context are for its addresses only: where other addresses are
//! given they do not count, so no token goes to a stranger; a file that holds tokens and that others may
//! read is not used; the file changes as a whole or not at all.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::{Deserialize, Serialize};

use crate::connect;
use crate::exit::{Exit, Failure};

/// Contexts that a file may have.
const CONTEXTS_MAX: usize = 1000;
/// Bytes that a file may have.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Links that may lead to the file.
const LINKS_MAX: usize = 40;
/// Characters that a name may have.
const NAME_MAX: usize = 64;

/// The context that counts for this command.
static CHOSEN: OnceLock<Context> = OnceLock::new();

/// A place to talk to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// Addresses of nodes.
    pub urls: Vec<String>,
    /// The site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The token itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The authorities to trust instead of the web's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Contexts {
    /// The one that counts where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// All, by name.
    pub contexts: BTreeMap<String, Context>,
}

/// The context that counts; `None` where there is none.
pub fn chosen() -> Option<&'static Context> {
    CHOSEN.get()
}

/// Finds out which context counts for the command of this command line, and trusts what it trusts.
pub fn choose(matches: &ArgMatches) -> Result<(), Failure> {
    if matches.subcommand_name() == Some("context") {
        return Ok(());
    }
    let leaf = leaf(matches);
    // Only what talks to a broker takes addresses.
    let Ok(given) = leaf.try_get_many::<String>("urls") else { return Ok(()) };
    let given: Vec<String> = given.into_iter().flatten().cloned().collect();
    let named = matches.get_one::<String>("context");
    // What brings a broker of its own, unless it is told of another, does not measure the one that one
    // happens to administer.
    let own = leaf.try_contains_id("site").is_err();
    let Some(mut context) = find(named.map(String::as_str), own)? else { return Ok(()) };
    if !given.is_empty() && connect::urls(&given)? != connect::urls(&context.urls)? {
        (context.token, context.token_file, context.ca) = (None, None, None);
    }
    let ca_given = matches!(
        matches.value_source("ca"),
        Some(ValueSource::CommandLine | ValueSource::EnvVariable)
    );
    if let (Some(ca), false) = (&context.ca, ca_given) {
        connect::trust(ca)?;
    }
    CHOSEN.get_or_init(|| context);
    Ok(())
}

/// The innermost command that was given.
fn leaf(matches: &ArgMatches) -> &ArgMatches {
    let mut leaf = matches;
    while let Some((_, below)) = leaf.subcommand() {
        leaf = below;
    }
    leaf
}

fn find(named: Option<&str>, named_only: bool) -> Result<Option<Context>, Failure> {
    match named {
        // Said to be none.
        Some("") => Ok(None),
        Some(name) => {
            let contexts = load(&path()?)?;
            contexts.get(name).cloned().map(Some)
        }
        None if named_only => Ok(None),
        None => {
            // Without a place for the file there is no file.
            let Ok(path) = path() else { return Ok(None) };
            let contexts = load(&path)?;
            contexts.current.as_deref().map(|name| contexts.get(name).cloned()).transpose()
        }
    }
}

/// Where the file is: `ACKORD_CONTEXTS`, or in the user's configuration directory.
pub fn path() -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(file) = variable("ACKORD_CONTEXTS") {
        return Ok(file.into());
    }
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let config = config.or_else(home).ok_or_else(|| {
        Failure::configuration("there is no place for contexts")
            .hint("set ACKORD_CONTEXTS to a file, or HOME")
    })?;
    Ok(config.join("ackord/contexts.toml"))
}

impl Contexts {
    /// The context of this name.
    pub fn get(&self, name: &str) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match known[..] {
                [] => "`ackord context set` makes one".to_owned(),
                _ => format!("there are {}", known.join(", ")),
            };
            Failure::usage(format!("there is no context `{name}`")).hint(hint)
        })
    }

    fn holds_tokens(&self) -> bool {
        self.contexts.values().any(|context| context.token.is_some())
    }
}

/// A name that a context may have.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
    let good = (1..=NAME_MAX).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let wrong = || {
        let rule = format!("1..={NAME_MAX} letters, digits and `_-.@:`, first a letter or digit");
        Failure::usage(format!("`{name}` is no name of a context")).hint(rule)
    };
    good.then_some(()).ok_or_else(wrong)
}

/// Reads the file; none is an empty one.
pub fn load(path: &Path) -> Result<Contexts, Failure> {
    let wrong = |why: String| Failure::configuration(format!("{}: {why}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Contexts::default());
        }
        Err(error) => return Err(wrong(error.to_string())),
    };
    let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode();
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("at most {FILE_BYTES_MAX} bytes")));
    }
    // What is wrong is told without the line that has it: it may be one with a token.
    let contexts: Contexts = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |at| text[..at.start].lines().count().max(1));
        wrong(format!("line {line}: {}", error.message()))
    })?;
    if contexts.holds_tokens() && mode & 0o077 != 0 {
        return Err(wrong("holds tokens, and others may read it: it is not used".to_owned())
            .hint(format!("chmod 600 {}", path.display())));
    }
    if contexts.contexts.len() > CONTEXTS_MAX {
        return Err(wrong(format!("at most {CONTEXTS_MAX} contexts")));
    }
    Ok(contexts)
}

/// The file that a path leads to, also where a link names one that is not there yet: a link stays one.
fn target(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let folder = path.parent().unwrap_or(Path::new("")).to_owned();
                path = folder.join(std::fs::read_link(&path)?);
            }
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other(format!("more than {LINKS_MAX} links")))
}

/// Writes the file, readable for nobody else.
pub fn save(path: &Path, contexts: &Contexts) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Exit::Disk, format!("{}: {why}", path.display()));
    if contexts.contexts.len() > CONTEXTS_MAX {
        return Err(Failure::usage(format!("at most {CONTEXTS_MAX} contexts")));
    }
    let text = toml::to_string(contexts).map_err(|error| failed(error.to_string()))?;
    let path = &target(path).map_err(|error| failed(error.to_string()))?;
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let write = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let moved = written.and_then(|()| std::fs::rename(&fresh, path));
        if moved.is_err() {
            // What failed is told; a file that is left over is not worth another failure.
            let _ = std::fs::remove_file(&fresh);
        }
        moved
    };
    write().map_err(|error: std::io::Error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(token: Option<&str>) -> Contexts {
        let context = Context {
            urls: vec!["https://a".to_owned()],
            token: token.map(str::to_owned),
            ..Context::default()
        };
        Contexts {
            current: Some("prod".to_owned()),
            contexts: [("prod".to_owned(), context)].into(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.toml");
        assert_eq!(load(&path).unwrap(), Contexts::default());
        for contexts in [kept(Some("t")), kept(None)] {
            save(&path, &contexts).unwrap();
            assert_eq!(load(&path).unwrap(), contexts);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_tokens_that_others_may_read_is_refused_and_no_token_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("contexts.toml");
        let open = |contexts| {
            save(&path, &contexts).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            load(&path)
        };
        assert_eq!(open(kept(Some("t"))).unwrap_err().exit, Exit::Configuration);
        assert!(open(kept(None)).is_ok());
        std::fs::write(&path, "[contexts.a]\ntoken = \"secret\" x\n").unwrap();
        let failure = load(&path).unwrap_err().to_string();
        assert!(failure.contains("line 2") && !failure.contains("secret"), "{failure}");
    }

    #[test]
    fn names_are_plain() {
        assert!(check_name("prod.eu-1").is_ok());
        for wrong in ["", "-a", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
