//! The `crossmodal` command: parses, resolves, runs one command, and ends with its exit code.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod failure;
mod interrupt;
mod output;
mod page;
mod pictures;
mod progress;
mod quantities;
mod settings;
mod table;
mod vector_file;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, ColorChoice, CommandFactory, FromArgMatches};

use arguments::{Cli, ColourChoice};
use failure::Outcome;
use output::Output;
use settings::Settings;

fn main() -> ExitCode {
    let command = Cli::command().color(help_colour(std::env::args_os()));
    let matches = command.get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let output = Output::new(cli.global.json, cli.global.quiet, cli.global.color);
    let code = match run(&cli, &matches, &output) {
        Ok(outcome) => outcome.code(),
        Err(error) => failure::report(&error, &output),
    };
    ExitCode::from(code)
}

fn run(cli: &Cli, matches: &ArgMatches, output: &Output) -> anyhow::Result<Outcome> {
    let Some(command) = &cli.command else {
        output.write(arguments::WELCOME)?;
        return Ok(Outcome::Fine);
    };
    let settings = Settings::resolve(&cli.global)?;
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    let outcome = commands::run(command, matches, &settings)?;
    output.flush()?;
    Ok(outcome)
}

/// Help is printed while arguments are parsed, so `--color` is looked for beforehand.
fn help_colour(arguments: impl Iterator<Item = OsString>) -> ColorChoice {
    let words: Vec<String> =
        arguments.map(|word| word.to_string_lossy().into_owned()).take_while(|word| word != "--").collect();
    let separate = words.windows(2).find(|pair| pair[0] == "--color").map(|pair| pair[1].as_str());
    let joined = words.iter().find_map(|word| word.strip_prefix("--color="));
    let chosen = joined.or(separate).map(|value| <ColourChoice as clap::ValueEnum>::from_str(value, true));
    match chosen {
        Some(Ok(ColourChoice::Always)) => ColorChoice::Always,
        Some(Ok(ColourChoice::Never)) => ColorChoice::Never,
        Some(Ok(ColourChoice::Auto) | Err(_)) | None => ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn colour_of_help_follows_the_option() {
        let choice = |line: &str| help_colour(line.split(' ').map(OsString::from));
        assert_eq!(choice("crossmodal --color never --help"), ColorChoice::Never);
        assert_eq!(choice("crossmodal search --color=always -h"), ColorChoice::Always);
        assert_eq!(choice("crossmodal -- --color never"), ColorChoice::Auto);
    }
}
