//! `crossmodal serve`: the HTTP server and its web page.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use crossmodal_engine::Embedder;
use crossmodal_engine::batching::BatchLimits;
use crossmodal_server::logging::{self, LogFormat, LogLevel};
use crossmodal_server::safety::fetch::FetchRules;
use crossmodal_server::safety::keys::{Keys, Scopes};
use crossmodal_server::transport::TransportOptions;
use crossmodal_server::{Server, ServerOptions, models_of};
use serde_json::json;

use crate::arguments::{AccessOptions, LogDetail, LogForm, ServeArguments};
use crate::failure::{Outcome, Usage};
use crate::output::Style;
use crate::settings::{MINI, Settings};

/// Runs the command.
pub fn run(arguments: &ServeArguments, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    let format = match arguments.log_format {
        LogForm::Text => LogFormat::Text,
        LogForm::Json => LogFormat::Json,
    };
    let level = match arguments.log {
        LogDetail::Error => LogLevel::Error,
        LogDetail::Warn => LogLevel::Warn,
        LogDetail::Info => LogLevel::Info,
        LogDetail::Debug => LogLevel::Debug,
    };
    let colours = output.note_paint.style(Style::Cyan, "x") != "x";
    let _logging = logging::start(format, level, colours).map_err(anyhow::Error::msg)?;
    let models = models(arguments, settings)?;
    let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
    let server = Server::bind(options(arguments, models)?).map_err(explain)?;
    let address = server.address()?;
    if output.json {
        output.record(&json!({
            "address": address.to_string(), "models": names, "collections": server.collections(),
        }))?;
    } else {
        let url = format!("http://{address}");
        output.line(&format!("{} {}", output.paint.style(Style::Bold, "listening on"), url))?;
        output.line(&format!("  models       {}", names.join(", ")))?;
        let collections = server.collections();
        let collections = if collections.is_empty() { "none yet".to_string() } else { collections.join(", ") };
        output.line(&format!("  collections  {collections}"))?;
        output.line(&format!("  page         {url}/     routes {url}/docs"))?;
    }
    output.flush()?;
    let cut = server.run(interrupted()).map_err(explain)?;
    if cut > 0 {
        output.note(&format!("{cut} connections were cut"));
    }
    Ok(Outcome::Fine)
}

/// Is over at the first Ctrl-C or request to terminate; a second one ends the program.
async fn interrupted() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let handler = move || match sender.take() {
        Some(sender) => drop(sender.send(())),
        None => std::process::exit(i32::from(Outcome::Interrupted.code())),
    };
    if ctrlc::set_handler(handler).is_err() {
        return std::future::pending().await;
    }
    // The handler holds the sender, and lives as long as the program.
    let _ = receiver.await;
}

fn explain(error: crossmodal_server::ServerError) -> anyhow::Error {
    match error {
        crossmodal_server::ServerError::Engine(error) => error.into(),
        crossmodal_server::ServerError::Option(reason) => Usage(reason).into(),
        other => other.into(),
    }
}

/// The models that were asked for, then those of the collections, then `mini` where there are none.
fn models(arguments: &ServeArguments, settings: &Settings) -> anyhow::Result<Vec<(String, Arc<dyn Embedder>)>> {
    let mut models: Vec<(String, Arc<dyn Embedder>)> = Vec::new();
    for asked in arguments.model.iter().filter(|asked| !asked.is_empty()) {
        let (alias, name) = match asked.split_once('=') {
            Some((alias, name)) if !alias.is_empty() && !Path::new(asked).exists() => (Some(alias), name),
            _ => (None, asked.as_str()),
        };
        let model = settings.load(name, &arguments.rules)?;
        let id = alias.map_or_else(|| model.info().name.clone(), str::to_string);
        if models.iter().any(|(known, _)| *known == id) {
            return Err(
                Usage(format!("--model: two models are named {id:?}; give one another name: NAME=MODEL")).into()
            );
        }
        models.push((id, model));
    }
    for reference in models_of(&arguments.collection, arguments.data.as_deref()).map_err(explain)? {
        if models.iter().any(|(_, model)| model.info().reference == reference || model.info().name == reference) {
            continue;
        }
        match settings.load(&reference, &arguments.rules) {
            Ok(model) => {
                if !models.iter().any(|(id, _)| *id == model.info().name) {
                    models.push((model.info().name.clone(), model));
                }
            }
            Err(error) => settings.output.note(&format!(
                "the model {reference:?} of a collection can't be loaded, so that it can only be searched by vectors and items: {}",
                crate::failure::message(&error)
            )),
        }
    }
    if models.is_empty() {
        models.push((MINI.to_string(), settings.load(MINI, &arguments.rules)?));
    }
    Ok(models)
}

fn options(arguments: &ServeArguments, models: Vec<(String, Arc<dyn Embedder>)>) -> anyhow::Result<ServerOptions> {
    let ServeArguments { access, limits, .. } = arguments;
    let rate_limit = access.rate_limit.map(|per_second| (per_second, (per_second * 5.0).clamp(1.0, 1e6) as u32));
    Ok(ServerOptions {
        host: arguments.host.clone(),
        port: arguments.port,
        models,
        collections: arguments.collection.iter().filter(|folder| !folder.as_os_str().is_empty()).cloned().collect(),
        data: arguments.data.clone(),
        keys: keys(access)?,
        insecure: access.insecure,
        rate_limit,
        allow_paths: access.allow_path.clone(),
        fetch: access.allow_fetch.then(|| FetchRules {
            allow_hosts: (!access.fetch_host.is_empty()).then(|| access.fetch_host.clone()),
            ..FetchRules::default()
        }),
        cors_origins: access.cors_origin.clone(),
        allowed_hosts: access.allow_host.clone(),
        max_body: limits.max_body as usize * 1_000_000,
        max_inputs: limits.max_inputs,
        timeout: Duration::from_secs(limits.timeout.into()),
        batch: BatchLimits {
            cost: limits.batch_tokens,
            delay: Duration::from_millis(limits.batch_delay.into()),
            admitted: limits.max_waiting,
            ..BatchLimits::default()
        },
        transport: TransportOptions { max_connections: limits.max_connections, ..TransportOptions::default() },
    })
}

fn keys(access: &AccessOptions) -> anyhow::Result<Option<Keys>> {
    let from_file = access.keys.as_deref().filter(|path| !path.as_os_str().is_empty());
    let from_file = from_file.map(Keys::from_file).transpose().context("--keys")?;
    let plain = access.api_key.as_deref().filter(|key| !key.is_empty());
    let Some(plain) = plain else { return Ok(from_file) };
    let keys = from_file.unwrap_or_default().with_plain("api-key", plain, Scopes::ALL);
    Ok(Some(keys.map_err(|error| Usage(format!("--api-key: {error}")))?))
}
