//! `crossmodal completions`: scripts that let a shell complete commands and options.

use clap::CommandFactory;
use serde_json::json;

use crate::arguments::{Cli, CompletionsArguments};
use crate::failure::Outcome;
use crate::settings::Settings;

/// Runs the command.
pub fn run(arguments: &CompletionsArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "crossmodal", &mut script);
    let script = String::from_utf8(script)?;
    if settings.output.json {
        settings.output.document(&json!({ "shell": arguments.shell.to_string(), "script": script }))?;
    } else {
        settings.output.write(&script)?;
    }
    Ok(Outcome::Fine)
}
