//! One key of the configuration: its path, its type, its bounds, and the setting that it is for.
//!
//! Invariant: a value that was taken is of the key's type and within its bounds; what several keys
//! must be together is judged elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ackord_gateway::IssuerOptions;
use serde_json::json;

use super::issuers;
use super::settings::Settings;

/// Digits of a number that is out of its bounds and is repeated in the problem.
const DIGITS_SHOWN_MAX: usize = 40;
/// The most elements that a list may have.
pub const LIST_MAX: usize = 64;

/// A value before it is known to fit its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing is set.
    None,
    /// A whole number.
    Number(u64),
    /// Yes or no.
    Truth(bool),
    /// A text, a path or an address.
    Text(String),
    /// Several of them.
    Texts(Vec<String>),
    /// Tables of issuers.
    Issuers(Vec<IssuerOptions>),
}

/// The type of a value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    Number,
    /// `true` or `false`.
    Truth,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// A list of tables of issuers.
    Issuers,
}

/// The setting that a key is for.
#[derive(Clone, Copy)]
pub enum Slot {
    /// A number.
    U8Maybe(fn(&mut Settings) -> &mut Option<u8>),
    /// A number.
    U32(fn(&mut Settings) -> &mut u32),
    /// A number.
    U64(fn(&mut Settings) -> &mut u64),
    /// A number; `u64::MAX` is none.
    U64Bound(fn(&mut Settings) -> &mut u64),
    /// A number.
    U64Maybe(fn(&mut Settings) -> &mut Option<u64>),
    /// A number.
    Usize(fn(&mut Settings) -> &mut usize),
    /// A time, written in milliseconds.
    Millis(fn(&mut Settings) -> &mut Duration),
    /// Yes or no.
    Truth(fn(&mut Settings) -> &mut bool),
    /// A text.
    Text(fn(&mut Settings) -> &mut String),
    /// A text.
    TextMaybe(fn(&mut Settings) -> &mut Option<String>),
    /// Texts.
    Texts(fn(&mut Settings) -> &mut Vec<String>),
    /// A file or directory.
    Path(fn(&mut Settings) -> &mut Option<PathBuf>),
    /// An address and port.
    Address(fn(&mut Settings) -> &mut Option<SocketAddr>),
    /// Addresses and ports; one may be written as a text.
    Addresses(fn(&mut Settings) -> &mut Vec<SocketAddr>),
    /// Whose JWTs are believed.
    Issuers(fn(&mut Settings) -> &mut Vec<IssuerOptions>),
}

/// When a change of a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At a reload.
    Reload,
    /// At the next start.
    Restart,
}

/// One key.
pub struct Key {
    /// Where it is in the file, tables and dots.
    pub path: &'static str,
    /// What it sets.
    pub slot: Slot,
    /// The least number; unused for other types.
    pub min: u64,
    /// The largest number.
    pub max: u64,
    /// When a change counts.
    pub change: Change,
    /// The only texts that it takes; none for any text.
    pub choices: &'static [&'static str],
    /// Whether its value must not be shown.
    pub secret: bool,
    /// What stands for the default where the setting has none of its own.
    pub default: Option<&'static str>,
    /// What may be written there, where the default does not show it.
    pub example: Option<&'static str>,
    /// What it is, in one line.
    pub doc: &'static str,
}

impl Key {
    /// A key that counts at the next start.
    pub const fn new(path: &'static str, slot: Slot, doc: &'static str) -> Self {
        let (change, secret) = (Change::Restart, false);
        Self {
            path,
            slot,
            min: 0,
            max: u64::MAX,
            change,
            choices: &[],
            secret,
            default: None,
            example: None,
            doc,
        }
    }

    /// With these bounds.
    pub const fn within(mut self, min: u64, max: u64) -> Self {
        (self.min, self.max) = (min, max);
        self
    }

    /// Whose change counts at a reload.
    pub const fn live(mut self) -> Self {
        self.change = Change::Reload;
        self
    }

    /// That takes one of these texts and no other.
    pub const fn one_of(mut self, choices: &'static [&'static str]) -> Self {
        self.choices = choices;
        self
    }

    /// The texts that it takes, in words.
    pub fn choice_words(&self) -> Option<String> {
        let quoted: Vec<String> = self.choices.iter().map(|text| format!("`{text}`")).collect();
        (!quoted.is_empty()).then(|| quoted.join(", "))
    }

    /// Whose value is shown to nobody.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Whose default is said in words.
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Whose example this is, as TOML.
    pub const fn like(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// The variable of the environment: each dot is two underscores.
    pub fn variable(&self) -> String {
        format!("ACKORD_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// The unit of its numbers, as its name says it.
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.path.rsplit('.').next().unwrap_or(self.path);
        let has = |unit: &str| name.split('_').any(|part| part == unit);
        if name.contains("_per_s") {
            return Some("per second");
        }
        [("ms", "milliseconds"), ("s", "seconds"), ("bytes", "bytes")]
            .into_iter()
            .find_map(|(part, unit)| has(part).then_some(unit))
    }

    /// How its value is written.
    pub fn value_type(&self) -> Type {
        match self.slot {
            Slot::U8Maybe(_)
            | Slot::U32(_)
            | Slot::U64(_)
            | Slot::U64Bound(_)
            | Slot::U64Maybe(_)
            | Slot::Usize(_)
            | Slot::Millis(_) => Type::Number,
            Slot::Truth(_) => Type::Truth,
            Slot::Text(_) | Slot::TextMaybe(_) | Slot::Path(_) | Slot::Address(_) => Type::Text,
            Slot::Texts(_) | Slot::Addresses(_) => Type::Texts,
            Slot::Issuers(_) => Type::Issuers,
        }
    }

    /// A value as it stands in a variable or a flag.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        match self.value_type() {
            Type::Number => {
                let digits = text.trim().replace('_', "");
                let number = digits.parse().map_err(|_| self.no_number(&digits))?;
                Ok(Value::Number(number))
            }
            Type::Truth => match text.trim() {
                "true" => Ok(Value::Truth(true)),
                "false" => Ok(Value::Truth(false)),
                _ => Err(self.not("`true` or `false`")),
            },
            Type::Text => Ok(Value::Text(text.to_owned())),
            Type::Texts => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Value::Texts(parts.map(str::to_owned).collect()))
            }
            Type::Issuers => issuers::read_text(text).map(Value::Issuers),
        }
    }

    /// Puts a value where it belongs, if it fits.
    pub fn set(&self, settings: &mut Settings, value: Value) -> Result<(), String> {
        match (self.slot, value) {
            (Slot::U8Maybe(at), Value::Number(number)) => {
                *at(settings) = Some(self.bounded(number)?);
            }
            (Slot::U32(at), Value::Number(number)) => *at(settings) = self.bounded(number)?,
            (Slot::U64(at) | Slot::U64Bound(at), Value::Number(number)) => {
                *at(settings) = self.bounded(number)?;
            }
            (Slot::U64Maybe(at), Value::Number(number)) => {
                *at(settings) = Some(self.bounded(number)?);
            }
            (Slot::Usize(at), Value::Number(number)) => *at(settings) = self.bounded(number)?,
            (Slot::Millis(at), Value::Number(number)) => {
                *at(settings) = Duration::from_millis(self.bounded(number)?);
            }
            (Slot::Truth(at), Value::Truth(truth)) => *at(settings) = truth,
            (Slot::Text(at), Value::Text(text)) => {
                if let Some(words) = self.choice_words()
                    && !self.choices.contains(&text.as_str())
                {
                    return Err(self.not(&format!("one of {words}")));
                }
                *at(settings) = text;
            }
            (Slot::TextMaybe(at), Value::Text(text)) => *at(settings) = Some(text),
            (Slot::Path(at), Value::Text(text)) => {
                if text.is_empty() {
                    return Err(self.not("a path: it is empty"));
                }
                *at(settings) = Some(text.into());
            }
            (Slot::Address(at), Value::Text(text)) => *at(settings) = Some(self.address(&text)?),
            (Slot::Texts(at), Value::Texts(texts)) => *at(settings) = self.listed(texts)?,
            (Slot::Addresses(at), Value::Texts(texts)) => {
                let texts = self.listed(texts)?;
                let addresses: Result<_, _> = texts.iter().map(|text| self.address(text)).collect();
                *at(settings) = addresses?;
            }
            (Slot::Issuers(at), Value::Issuers(issuers)) => *at(settings) = issuers,
            (Slot::Texts(_) | Slot::Addresses(_), Value::Text(text)) => {
                return self.set(settings, Value::Texts(vec![text]));
            }
            (_, _) => return Err(self.not(self.value_type().name())),
        }
        Ok(())
    }

    /// The value that stands there.
    pub fn get(&self, settings: &Settings) -> Value {
        // The slots are for writing; what they show is the same.
        let settings = &mut settings.clone();
        let texts = |list: &[String]| Value::Texts(list.to_vec());
        let number = |number: Option<u64>| number.map_or(Value::None, Value::Number);
        match self.slot {
            Slot::U8Maybe(at) => number(at(settings).map(u64::from)),
            Slot::U32(at) => Value::Number((*at(settings)).into()),
            Slot::U64(at) => Value::Number(*at(settings)),
            Slot::U64Bound(at) => number(Some(*at(settings)).filter(|bound| *bound < u64::MAX)),
            Slot::U64Maybe(at) => number(*at(settings)),
            Slot::Usize(at) => Value::Number(*at(settings) as u64),
            Slot::Millis(at) => {
                Value::Number(u64::try_from(at(settings).as_millis()).unwrap_or(u64::MAX))
            }
            Slot::Truth(at) => Value::Truth(*at(settings)),
            Slot::Text(at) => Value::Text(at(settings).clone()),
            Slot::TextMaybe(at) => at(settings).clone().map_or(Value::None, Value::Text),
            Slot::Texts(at) => texts(at(settings)),
            Slot::Path(at) => at(settings)
                .as_ref()
                .map_or(Value::None, |path| Value::Text(path.display().to_string())),
            Slot::Address(at) => {
                at(settings).map_or(Value::None, |address| Value::Text(address.to_string()))
            }
            Slot::Addresses(at) => {
                Value::Texts(at(settings).iter().map(ToString::to_string).collect())
            }
            Slot::Issuers(at) => Value::Issuers(at(settings).clone()),
        }
    }

    /// Takes the value over from other settings, whose it is already.
    pub fn copy(&self, from: &Settings, to: &mut Settings) {
        let from = &mut from.clone();
        match self.slot {
            Slot::U8Maybe(at) => *at(to) = *at(from),
            Slot::U32(at) => *at(to) = *at(from),
            Slot::U64(at) | Slot::U64Bound(at) => *at(to) = *at(from),
            Slot::U64Maybe(at) => *at(to) = *at(from),
            Slot::Usize(at) => *at(to) = *at(from),
            Slot::Millis(at) => *at(to) = *at(from),
            Slot::Truth(at) => *at(to) = *at(from),
            Slot::Text(at) => at(to).clone_from(at(from)),
            Slot::TextMaybe(at) => at(to).clone_from(at(from)),
            Slot::Texts(at) => at(to).clone_from(at(from)),
            Slot::Path(at) => at(to).clone_from(at(from)),
            Slot::Address(at) => *at(to) = *at(from),
            Slot::Addresses(at) => at(to).clone_from(at(from)),
            Slot::Issuers(at) => at(to).clone_from(at(from)),
        }
    }

    fn bounded<N: TryFrom<u64>>(&self, number: u64) -> Result<N, String> {
        let fits = (self.min..=self.max).contains(&number);
        N::try_from(number).ok().filter(|_| fits).ok_or_else(|| self.outside(&number.to_string()))
    }

    fn outside(&self, number: &str) -> String {
        format!("{} = {number}: must be {}..={}", self.path, self.min, self.max)
    }

    /// What is wrong with a number that is none of ours: below zero and too large are outside too.
    pub fn no_number(&self, text: &str) -> String {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if self.value_type() == Type::Number && whole && digits.len() <= DIGITS_SHOWN_MAX {
            self.outside(text)
        } else {
            self.not(self.value_type().name())
        }
    }

    fn address(&self, text: &str) -> Result<SocketAddr, String> {
        text.trim().parse().map_err(|_| {
            format!("{} = {text:?}: must be an address and port such as 127.0.0.1:4655", self.path)
        })
    }

    fn listed(&self, texts: Vec<String>) -> Result<Vec<String>, String> {
        if texts.len() > LIST_MAX {
            return Err(self.not(&format!("a list of at most {LIST_MAX}")));
        }
        Ok(texts)
    }

    /// The value itself is not repeated: it may be a secret that was put in the wrong place.
    pub fn not(&self, wanted: &str) -> String {
        format!("{}: not {wanted}", self.path)
    }
}

impl Type {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Number => "a whole number",
            Self::Truth => "`true` or `false`",
            Self::Text => "a text",
            Self::Texts => "a list of texts",
            Self::Issuers => "a list of tables",
        }
    }
}

impl Value {
    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Number(number) => json!(number),
            Self::Truth(truth) => json!(truth),
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::Issuers(issuers) => issuers::json(issuers),
        }
    }
}

/// As TOML; nothing where nothing is set.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Number(number) => write!(f, "{number}"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Text(text) => write!(f, "{}", toml::Value::from(text.as_str())),
            Self::Texts(texts) => write!(f, "{}", toml::Value::from(texts.clone())),
            Self::Issuers(issuers) => {
                let tables = toml::Value::try_from(issuers::json(issuers));
                write!(f, "{}", tables.map_err(|_| fmt::Error)?)
            }
        }
    }
}
