//! `crossmodal collection`: looking after collections, a file for each command.

mod backup;
mod compact;
mod condition;
mod duplicates;
mod export;
mod import;
mod info;
mod list;
mod remove;
mod verify;

use std::path::Path;

use crossmodal_engine::{Collection, Mode};

use crate::arguments::CollectionCommand;
use crate::failure::Outcome;
use crate::settings::Settings;

/// Runs the command.
pub fn run(command: &CollectionCommand, settings: &Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    match command {
        CollectionCommand::Info(arguments) => info::run(arguments, output),
        CollectionCommand::List(arguments) => list::run(arguments, output),
        CollectionCommand::Optimize(arguments) => super::optimize::run(arguments, settings),
        CollectionCommand::Migrate(arguments) => super::migrate::run(arguments, settings),
        CollectionCommand::Remove(arguments) => remove::run(arguments, output),
        CollectionCommand::Verify(arguments) => verify::run(arguments, output),
        CollectionCommand::Compact(arguments) => compact::run(arguments, output),
        CollectionCommand::Import(arguments) => import::run(arguments, output),
        CollectionCommand::Export(arguments) => export::run(arguments, output),
        CollectionCommand::Backup(arguments) => backup::run(arguments, output),
        CollectionCommand::Duplicates(arguments) => duplicates::run(arguments, output),
    }
}

fn read(folder: &Path) -> anyhow::Result<Collection> {
    Ok(Collection::open(folder, &Mode::read())?)
}
