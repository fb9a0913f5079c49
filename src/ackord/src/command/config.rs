//! `ackord config`: what a broker would be told, without starting one.

use serde_json::json;

use crate::args::{ConfigCommand, Limits};
use crate::config::{Config, Sources, document};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// Runs the command.
pub fn run(command: &ConfigCommand, format: Format) -> Outcome {
    match command {
        ConfigCommand::Check { file, limits } => {
            let file = file.path();
            load(file.as_deref(), limits)?;
            output::object(format, &json!({"valid": true, "config": file}))?;
        }
        ConfigCommand::Show { file, origin, limits } => {
            let config = load(file.path().as_deref(), limits)?;
            show(&config, *origin, format)?;
        }
        ConfigCommand::Schema => {
            let schema = document::schema();
            let written = match format {
                Format::Json => output::json(&schema),
                Format::Text => output::page(&format!("{schema:#}")),
            };
            written.map_err(|error| output::closed(&error))?;
        }
        ConfigCommand::Doc => {
            let page = document::page();
            let written = match format {
                Format::Json => output::json(&json!({"page": page})),
                Format::Text => output::page(page.trim_end()),
            };
            written.map_err(|error| output::closed(&error))?;
        }
    }
    Ok(Exit::Done)
}

fn load(file: Option<&std::path::Path>, limits: &Limits) -> Result<Config, Failure> {
    Config::load(&Sources {
        file: file.map(Into::into),
        environment: Sources::variables(),
        sets: limits.sets.clone(),
        limits: limits.limits.clone(),
        flags: Vec::new(),
    })
}

fn show(config: &Config, origin: bool, format: Format) -> Result<(), Failure> {
    let mut shown = document::shown(config);
    let columns: &[&str] = if origin { &["key", "value", "origin"] } else { &["key", "value"] };
    for object in &mut shown {
        if let (Some(object), false) = (object.as_object_mut(), origin) {
            object.remove("origin");
        }
    }
    output::list(format, &shown, columns)
}
