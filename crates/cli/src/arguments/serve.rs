//! Arguments of `serve` and `key`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::media::ModelRules;
use super::tasks::at_least_one;

/// `crossmodal serve`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal serve --collection pictures.cm                    the web page at http://127.0.0.1:8000, the API at /docs
  crossmodal serve --data collections                          collections are made and filled through the page or the API
  crossmodal serve --model mini --model photos=openai/clip-vit-base-patch32
  crossmodal key new laptop --scopes read,write >> keys        then: serve --host 0.0.0.0 --keys keys

Clients of OpenAI's embeddings, text-embeddings-inference and Cohere work by changing one address: docs/http.md.
Ctrl-C finishes what is under way; a second one ends at once.")]
pub struct ServeArguments {
    /// A collection to serve, with its model; may be repeated
    #[arg(short, long, value_name = "DIR", env = "CROSSMODAL_COLLECTION", value_delimiter = None)]
    pub collection: Vec<PathBuf>,
    /// A model to serve, or NAME=MODEL to serve it under another name; may be repeated, the first is the default
    #[arg(short, long, value_name = "MODEL", env = "CROSSMODAL_MODEL")]
    pub model: Vec<String>,
    /// Folder for collections that are made through the page and the API; what is in it is served
    #[arg(long, value_name = "DIR", env = "CROSSMODAL_DATA")]
    pub data: Option<PathBuf>,
    /// Address to listen on. One that other machines reach needs a key, or --insecure
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", env = "CROSSMODAL_HOST")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000, env = "CROSSMODAL_PORT")]
    pub port: u16,
    /// Who may use it, and how much.
    #[command(flatten)]
    pub access: AccessOptions,
    /// Limits.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Form of log lines
    #[arg(long, value_enum, default_value_t, env = "CROSSMODAL_LOG_FORMAT", help_heading = "Log")]
    pub log_format: LogForm,
    /// Which log lines are written: info has one for every request
    #[arg(long, value_enum, default_value_t = LogDetail::Info, env = "CROSSMODAL_LOG", help_heading = "Log")]
    pub log: LogDetail,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// Who may use the server, and for what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessOptions {
    /// A key with all rights, at least 16 characters. `--keys` knows more
    #[arg(long, value_name = "KEY", env = "CROSSMODAL_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// File of keys as `crossmodal key new` prints them; read again when it changes
    #[arg(long, value_name = "FILE", env = "CROSSMODAL_KEYS")]
    pub keys: Option<PathBuf>,
    /// Let everybody who reaches it in, without a key
    #[arg(long)]
    pub insecure: bool,
    /// Requests a second that one key (without keys, one address) may make on average
    #[arg(long, value_name = "N", env = "CROSSMODAL_RATE_LIMIT")]
    pub rate_limit: Option<f64>,
    /// Folder whose files may be added by path; may be repeated
    #[arg(long, value_name = "DIR")]
    pub allow_path: Vec<PathBuf>,
    /// Fetch http(s) addresses that clients send instead of pictures; never ones of private networks
    #[arg(long)]
    pub allow_fetch: bool,
    /// With --allow-fetch, only from this host; may be repeated
    #[arg(long, value_name = "HOST", requires = "allow_fetch")]
    pub fetch_host: Vec<String>,
    /// Another site whose pages may use the server, as https://example.org, or *; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// A further name that a server without keys answers to on this machine
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
}

/// Limits of the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Megabytes of a body
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_body: u32,
    /// Inputs of one request
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one)]
    pub max_inputs: usize,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
    /// Open connections
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    pub max_connections: usize,
    /// Inputs that may wait for a model; more are turned away with a time to come back
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    pub max_waiting: usize,
    /// Tokens or patches that a model computes together
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    pub batch_tokens: usize,
    /// Milliseconds that an input waits for others which are known to be on their way
    #[arg(long, value_name = "MS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub batch_delay: u32,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogForm {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogDetail {
    /// Faults.
    Error,
    /// And what may become one.
    Warn,
    /// And every request.
    Info,
    /// And more.
    Debug,
}

/// `crossmodal key`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key: its line for the keys file on standard output, the key itself, once, on standard error
    #[command(after_help = "\
Examples:
  crossmodal key new laptop --scopes read,write >> keys
  crossmodal serve --host 0.0.0.0 --keys keys

The file holds a hash, not the key: nobody can read the key out of it. Take a key back by deleting its line.
JSON: {name, scopes, key, line}")]
    New(NewKeyArguments),
}

/// `crossmodal key new`
#[derive(Debug, Args)]
pub struct NewKeyArguments {
    /// A name for it, to tell it from others
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it may do: `read`, `write` or `read,write`
    #[arg(long, value_name = "SCOPES", default_value = "read")]
    pub scopes: String,
}
