//! `ackord site create|list|show|delete|structure`.

use std::path::Path;

use ackord_wire::resource::SiteBody;
use ackord_wire::structure::Structure;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::account::{filters, most};
use super::apply;
use crate::admin::{Admin, segment};
use crate::args::{Connect, Settings, SiteCommand, StructureArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};

/// Runs the command.
pub async fn run(command: SiteCommand, format: Format) -> Outcome {
    match command {
        SiteCommand::Create { name, settings, connect } => {
            let (admin, site) = (admin(&connect)?, connect.site_or(name.as_ref())?);
            let path = site_path(&site);
            if admin.find(&path).await?.is_some() {
                return Err(Failure::new(Exit::Refused, format!("site {site} exists already"))
                    .hint("`ackord site apply` changes the settings of a site"));
            }
            let body = value(&SiteBody::from(&settings))?;
            output::object(format, &admin.put(&path, &body).await?)?;
        }
        SiteCommand::List { listing, connect } => {
            let narrowed = filters(&[("prefix", listing.prefix.as_deref())]);
            let most = most(listing.limit);
            let sites = admin(&connect)?.list_where("/v1/sites", &narrowed, most).await?;
            output::list(format, &sites, &["name", "service_type", "last_instance_id"])?;
        }
        SiteCommand::Show { name, connect } => {
            let (admin, site) = (admin(&connect)?, connect.site_or(name.as_ref())?);
            output::object(format, &admin.get(&site_path(&site)).await?)?;
        }
        SiteCommand::Delete { name, connect } => {
            let (admin, site) = (admin(&connect)?, connect.site_or(name.as_ref())?);
            admin.delete(&site_path(&site)).await?;
            output::object(format, &json!({"deleted": site}))?;
        }
        SiteCommand::Apply(arguments) => apply::run(arguments, format).await?,
        SiteCommand::Structure(arguments) => structure(arguments, format).await?,
    }
    Ok(Exit::Done)
}

async fn structure(arguments: StructureArgs, format: Format) -> Result<(), Failure> {
    let StructureArgs { name, set, rebuild, connect } = arguments;
    let (admin, site) = (admin(&connect)?, connect.site_or(name.as_ref())?);
    let path = format!("{}/structure", site_path(&site));
    let answer = match set {
        None => admin.get(&path).await?,
        Some(file) => {
            let structure: Structure = read(&file)?;
            admin.put(&with_rebuild(path, rebuild), &value(&structure)?).await?
        }
    };
    output::object(format, &answer)
}

impl From<&Settings> for SiteBody {
    fn from(settings: &Settings) -> Self {
        Self {
            multi_service: settings.multi_service,
            constructible: settings.constructible,
            guests_allowed: settings.guests,
            stateless_guests_allowed: settings.stateless_guests,
        }
    }
}

/// The administration client that the flags and the environment describe.
pub fn admin(connect: &Connect) -> Result<Admin, Failure> {
    Admin::new(connect.urls()?, Some(connect.token()?))
}

/// The path of a site.
pub fn site_path(site: &str) -> String {
    format!("/v1/sites/{}", segment(site))
}

/// The path with the permission to rebuild the site.
pub fn with_rebuild(path: String, rebuild: bool) -> String {
    if rebuild { format!("{path}?rebuild=true") } else { path }
}

/// A value as JSON.
pub fn value<T: serde::Serialize>(value: &T) -> Result<Value, Failure> {
    serde_json::to_value(value)
        .map_err(|error| Failure::new(Exit::Usage, format!("not writable as JSON: {error}")))
}

/// Reads a TOML or JSON file; JSON by its extension, `-` is TOML from standard input.
pub fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let wrong = |why: String| Failure::configuration(format!("{}: {why}", file.display()));
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| {
        Failure::new(Exit::Disk, format!("{} cannot be read: {error}", file.display()))
    })?;
    if file.extension().is_some_and(|extension| extension == "json") {
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    } else {
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}
