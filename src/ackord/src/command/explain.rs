//! `ackord explain [CODE]`: what a code means and what to do about it.

use serde_json::{Value, json};

use crate::args::Explain;
use crate::exit::{Exit, Failure, Outcome};
use crate::explain::{self, Kind, Topic};
use crate::output::{self, Format};

/// Runs the command.
pub fn run(arguments: &Explain, format: Format) -> Outcome {
    let Some(name) = &arguments.code else {
        let rows: Vec<Value> = explain::all().iter().map(row).collect();
        output::list(format, &rows, &["code", "kind", "retry", "means"])?;
        return Ok(Exit::Done);
    };
    let found = explain::find(name);
    if found.is_empty() {
        let failure = Failure::usage(format!("`{name}` is no code that is known here"));
        return Err(match explain::nearest(name) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`ackord explain` lists all codes"),
        });
    }
    for topic in &found {
        match format {
            Format::Json => output::object(format, &row(topic))?,
            Format::Text => tell(topic)?,
        }
    }
    Ok(Exit::Done)
}

fn row(topic: &Topic) -> Value {
    let mut row = json!({"code": topic.name, "means": topic.means, "do": topic.act});
    match topic.kind {
        Kind::Code { status, retry, close } => {
            row["kind"] = json!("code");
            row["status"] = json!(status);
            row["retry"] = json!(retry);
            row["close"] = json!(close.map(|close| close.number));
        }
        Kind::Line => row["kind"] = json!("line"),
        Kind::Close(close) => {
            row["kind"] = json!("close");
            row["retry"] = json!(close.reconnect);
            row["closes_for"] = json!(close.code.as_str());
        }
        Kind::Exit => row["kind"] = json!("exit"),
    }
    row
}

fn tell(topic: &Topic) -> Result<(), Failure> {
    let what = match topic.kind {
        Kind::Code { status, retry, close } => {
            let again = if retry { "may succeed later" } else { "not without a change" };
            let close = close.map(|close| format!(", closes sessions as {}", close.number));
            format!("HTTP {status}, {again}{}", close.unwrap_or_default())
        }
        Kind::Line => "a line of `ackord raise`".to_owned(),
        Kind::Close(close) => {
            let again = if close.reconnect { "connect again" } else { "do not connect again" };
            format!("close number of a session, {}: {again}", close.code)
        }
        Kind::Exit => "exit status".to_owned(),
    };
    let lines = [
        format!("{} ({what})", topic.name),
        format!("  {}", topic.means),
        format!("  What to do: {}", topic.act),
    ];
    lines.iter().try_for_each(|line| output::line(line)).map_err(|error| output::closed(&error))
}
