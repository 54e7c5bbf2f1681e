//! `crossmodal key`: keys for the HTTP server.

use crossmodal_server::safety::keys::{Keys, Scopes};
use serde_json::json;

use crate::arguments::{KeyCommand, NewKeyArguments};
use crate::failure::{Outcome, Usage};
use crate::output::complain;
use crate::settings::Settings;

/// Runs the command.
pub fn run(command: &KeyCommand, settings: &Settings) -> anyhow::Result<Outcome> {
    match command {
        KeyCommand::New(arguments) => new(arguments, settings),
    }
}

fn new(arguments: &NewKeyArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let scopes: Scopes = arguments.scopes.parse().map_err(|error| Usage(format!("--scopes: {error}")))?;
    let key = Keys::new_key(&arguments.name, scopes).map_err(|error| Usage(error.to_string()))?;
    let output = &settings.output;
    if output.json {
        output.document(&json!({
            "name": arguments.name, "scopes": arguments.scopes, "key": key.secret, "line": key.line,
        }))?;
        return Ok(Outcome::Fine);
    }
    output.line(&key.line)?;
    // The line goes into a file, the key to whoever is to use it: never both into the same place.
    complain(&format!("key: {}\nIt is shown this once; clients send it as `Authorization: Bearer KEY`.", key.secret));
    Ok(Outcome::Fine)
}
