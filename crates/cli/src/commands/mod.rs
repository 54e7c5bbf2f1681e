//! The commands, each in a file of its own: plain arguments in, results on standard output, an outcome back.

mod bench;
mod bulk_search;
mod classify;
mod collection;
mod completions;
mod demo;
mod embed;
mod evaluate;
mod index;
mod key;
mod migrate;
mod model;
mod optimize;
mod quantize;
mod search;
mod serve;
mod similarity;
mod train;

use clap::ArgMatches;

use crate::arguments::Command;
use crate::failure::Outcome;
use crate::settings::{ModelChoice, Settings};

/// Runs a command. `matches` are those of the command itself.
pub fn run(command: &Command, matches: &ArgMatches, settings: &Settings) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(arguments) => demo::run(arguments, settings),
        Command::Index(arguments) => index::run(arguments, &ModelChoice::resolve(&arguments.model, matches), settings),
        Command::Search(arguments) => {
            search::run(arguments, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Embed(arguments) => {
            let inputs = embed::in_order(arguments, matches);
            embed::run(arguments, inputs, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Similarity(arguments) => {
            similarity::run(arguments, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Classify(arguments) => {
            classify::run(arguments, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Evaluate(arguments) => {
            evaluate::run(arguments, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Serve(arguments) => serve::run(arguments, settings),
        Command::Collection(command) => collection::run(command, settings),
        Command::Model(command) => model::run(command, settings),
        Command::FineTune(arguments) => {
            train::fine_tune(arguments, &ModelChoice::resolve(&arguments.model, matches), settings)
        }
        Command::Train(arguments) => train::train(arguments, settings),
        Command::Quantize(arguments) => quantize::run(arguments, settings),
        Command::Bench(arguments) => bench::run(arguments, settings),
        Command::Key(command) => key::run(command, settings),
        Command::Completions(arguments) => completions::run(arguments, settings),
    }
}
