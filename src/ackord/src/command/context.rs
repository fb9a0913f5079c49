//! `ackord context list|show|set|use|delete`: the named places to talk to.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::args::{ContextCommand, ContextSet};
use crate::connect;
use crate::context::{self, Context, Contexts};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// What of the whole command line counts here too.
pub struct Around {
    /// The context that `--context` names.
    pub named: Option<String>,
    /// The authorities that `--ca` names, on the command line.
    pub ca: Option<PathBuf>,
}

/// Runs the command.
pub fn run(command: ContextCommand, around: Around, format: Format) -> Outcome {
    let path = context::path()?;
    let mut contexts = context::load(&path)?;
    match command {
        ContextCommand::List => {
            let rows: Vec<Value> =
                contexts.contexts.keys().map(|name| row(&contexts, name)).collect();
            output::list(format, &rows, &["name", "current", "urls", "site", "token", "ca"])?;
        }
        ContextCommand::Show { name } => {
            let current = || contexts.current.clone();
            let name = name.or(around.named).or_else(current).ok_or_else(|| {
                Failure::usage("which context?").hint("`ackord context list` names them all")
            })?;
            contexts.get(&name)?;
            output::object(format, &row(&contexts, &name))?;
        }
        ContextCommand::Set(given) => {
            let name = given.name.clone();
            set(&mut contexts, given, around.ca)?;
            context::save(&path, &contexts)?;
            output::object(format, &row(&contexts, &name))?;
        }
        ContextCommand::Use { name } => {
            contexts.get(&name)?;
            contexts.current = Some(name.clone());
            context::save(&path, &contexts)?;
            output::object(format, &row(&contexts, &name))?;
        }
        ContextCommand::Delete { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            if contexts.current.as_ref() == Some(&name) {
                contexts.current = None;
            }
            context::save(&path, &contexts)?;
            output::object(format, &json!({"deleted": name}))?;
        }
    }
    Ok(Exit::Done)
}

/// Gives a context what is given, and keeps the rest of it.
fn set(contexts: &mut Contexts, given: ContextSet, ca: Option<PathBuf>) -> Result<(), Failure> {
    let ContextSet { name, urls, site, token, token_file } = given;
    context::check_name(&name)?;
    let known = contexts.contexts.get(&name).cloned();
    if known.is_none() && urls.is_empty() {
        return Err(Failure::usage("a new context needs an address").hint("give --url URL"));
    }
    let mut made: Context = known.unwrap_or_default();
    if !urls.is_empty() {
        made.urls = connect::urls(&urls)?;
    }
    made.site = site.or(made.site);
    if let Some(token) = token {
        (made.token, made.token_file) = (Some(token.trim().to_owned()), None);
    }
    if let Some(file) = token_file {
        (made.token, made.token_file) = (None, Some(absolute(&file)?));
    }
    if let Some(ca) = ca {
        made.ca = Some(absolute(&ca)?);
    }
    contexts.contexts.insert(name, made);
    Ok(())
}

/// A path that means the same wherever a later command is started.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// A context without its token.
fn row(contexts: &Contexts, name: &str) -> Value {
    let context = contexts.contexts.get(name).cloned().unwrap_or_default();
    let token = match (&context.token, &context.token_file) {
        (Some(_), _) => Some("set".to_owned()),
        (None, Some(file)) => Some(format!("in {}", file.display())),
        (None, None) => None,
    };
    json!({
        "name": name,
        "current": contexts.current.as_deref() == Some(name),
        "urls": context.urls,
        "site": context.site,
        "token": token,
        "token_file": context.token_file,
        "ca": context.ca,
    })
}
