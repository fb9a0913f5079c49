//! The binary: reads the command line, runs one command, ends with its exit status.
//!
//! Deliberately absent: logic of any kind, and the threads of a broker: node and front bring their
//! own; what runs here is a small runtime that starts, waits and stops.

mod admin;
mod args;
mod broker;
mod child;
mod command;
mod config;
mod connect;
mod context;
mod data;
mod duration;
mod exit;
mod explain;
mod help;
mod input;
mod interrupt;
mod line;
mod listen;
mod logging;
mod memory;
mod moment;
mod output;
mod progress;
mod reload;
mod token;

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{Cli, Command};
use exit::{Exit, Failure, Outcome, say_failure};
use logging::Logging;
use output::Format;

/// What is allocated on one thread is freed on another here: a frame by the log, an outcome by a session.
/// With this allocator a busy node takes 7 to 15 % less of the processors than with the system's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Threads of the runtime that commands run on.
const THREADS: usize = 2;

fn main() {
    let exit = match run() {
        Ok(exit) => exit,
        Err(failure) => {
            say_failure(&failure);
            failure.exit
        }
    };
    // A thread may still wait for standard input: it must not keep the process.
    std::process::exit(i32::from(exit.number()));
}

fn run() -> Outcome {
    let mut definition = Cli::command();
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect();
    if let Some(description) = help::requested(&definition, &arguments) {
        output::json(&description).map_err(|error| output::closed(&error))?;
        return Ok(Exit::Done);
    }
    // Wrong arguments and requests for help end here: 2 and 0.
    let matches = definition.clone().get_matches();
    let cli = Cli::from_arg_matches(&matches)
        .unwrap_or_else(|error| error.format(&mut definition).exit());
    let format = Format::of(cli.json);
    logging::speak(cli.log_format);
    progress::begin(format);
    let log_given = matches.value_source("log") != Some(ValueSource::DefaultValue);
    if log_given {
        child::log_as(&cli.log);
    }
    if let Some(file) = &cli.ca {
        connect::trust(file)?;
    }
    context::choose(&matches)?;
    match cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut definition, "ackord", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            let (name, text) = (shell.to_string(), script.trim_end());
            let written = match format {
                Format::Json => output::json(&serde_json::json!({"shell": name, "script": text})),
                Format::Text => output::raw(text),
            };
            written.map_err(|error| output::closed(&error))?;
            Ok(Exit::Done)
        }
        Command::Recover(arguments) => {
            Logging::begin(&cli.log)?;
            command::recover::run(&arguments, format)
        }
        Command::Config(command) => command::config::run(&command, format),
        Command::Context(command) => {
            let on_command_line =
                |name| matches.value_source(name) == Some(ValueSource::CommandLine);
            let around = command::context::Around {
                named: cli.context,
                ca: cli.ca.filter(|_| on_command_line("ca")),
            };
            command::context::run(command, around, format)
        }
        Command::Explain(arguments) => command::explain::run(&arguments, format),
        Command::Serve(arguments) => {
            // A variable is read with the other variables.
            let source = matches.value_source("log");
            let flag = (source == Some(ValueSource::CommandLine)).then_some(&cli.log);
            let lines = (matches.value_source("log_format") == Some(ValueSource::CommandLine))
                .then_some(cli.log_format);
            let Some((sources, config)) =
                command::serve::prepare(&arguments, (flag, lines), format)?
            else {
                return Ok(Exit::Done);
            };
            let logging = Logging::begin(&config.settings.log)?;
            runtime(command::serve::run(sources, config, logging, format))
        }
        command => {
            Logging::begin(&cli.log)?;
            runtime(dispatch(command, format))
        }
    }
}

async fn dispatch(command: Command, format: Format) -> Outcome {
    match command {
        Command::Raise(arguments) => command::raise::run(arguments, format).await,
        Command::Subscribe(arguments) => command::subscribe::run(arguments, format).await,
        Command::Site(command) => command::site::run(command, format).await,
        Command::Service(command) => command::account::service(command, format).await,
        Command::Client(command) => command::account::client(command, format).await,
        Command::User(command) => command::account::user(command, format).await,
        Command::Token(command) => command::account::token(command, format).await,
        Command::Ticket(command) => command::ticket::run(command, format).await,
        Command::Subscription(command) => command::subscription::run(command, format).await,
        Command::DeadLetter(command) => command::dead_letter::run(command, format).await,
        Command::Push(command) => command::push::run(command, format).await,
        Command::Session(command) => command::subscription::session(command, format).await,
        Command::Quota(command) => command::quota::run(command, format).await,
        Command::Audit(command) => command::audit::run(command, format).await,
        Command::Why(arguments) => command::why::run(arguments, format).await,
        Command::Peek(arguments) => command::peek::run(arguments, format).await,
        Command::CanI(arguments) => command::can_i::run(arguments, format).await,
        Command::Check(command) => command::check::run(command, format).await,
        Command::Reload(connect) => command::reload::run(&connect, format).await,
        Command::Cluster(command) => command::cluster::run(command, format).await,
        Command::Kubernetes(command) => command::kubernetes::run(command, format).await,
        Command::Demo(arguments) => command::demo::run(arguments, format).await,
        Command::Bench(command) => command::bench::run(command, format).await,
        Command::Dev(arguments) => command::dev::run(arguments, format).await,
        Command::Serve(_)
        | Command::Config(_)
        | Command::Context(_)
        | Command::Explain(_)
        | Command::Recover(_)
        | Command::Completion { .. } => {
            Err(Failure::usage("this command needs no runtime of its own"))
        }
    }
}

fn runtime(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Disk, format!("no threads to run on: {error}")))?;
    let outcome = runtime.block_on(command);
    // A thread may be inside a call that does not return, such as opening a pipe.
    runtime.shutdown_background();
    outcome
}

/// Why an endpoint did not start, as an exit status.
fn endpoint_failure(error: ackord_endpoint::Error) -> Failure {
    let exit = match &error {
        ackord_endpoint::Error::Invalid(_) => Exit::Usage,
        ackord_endpoint::Error::Locked(_) => Exit::Refused,
        ackord_endpoint::Error::Store(_)
        | ackord_endpoint::Error::NoRuntime
        | ackord_endpoint::Error::System(_) => Exit::Disk,
    };
    Failure::new(exit, error.to_string())
}
