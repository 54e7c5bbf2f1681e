//! Arguments of `crossmodal bench`.

use clap::{Args, ValueEnum};

use super::media::ModelRules;

/// `crossmodal bench`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal bench mini
  crossmodal bench openai/clip-vit-base-patch32 --precision int8
  crossmodal bench ./my-checkpoint --modality image --batch 1,32 --threads 1 --json

The model alone is timed: decoding pictures and tokenising texts aren't. `peak` counts the operations of a straightforward evaluation
against what the processor can do in fp32, both measured in the same run: int8, and work that needn't be done, can take it beyond 100 %.
JSON: {model, precision, threads, peak_gflops, memory_gb_per_second,
       results: [{modality, batch, tokens?, items_per_second, p50_ms, p95_ms, share_of_peak}]}")]
pub struct BenchArguments {
    /// mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(value_name = "MODEL", env = "CROSSMODAL_MODEL", default_value = crate::settings::MINI)]
    pub name: String,
    /// Only this modality; may be given several times
    #[arg(long, value_name = "MODALITY", value_enum)]
    pub modality: Vec<BenchModality>,
    /// Items in a batch
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,8,32", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub batch: Vec<u32>,
    /// Lengths of texts in tokens
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "12,77", value_parser = clap::value_parser!(u32).range(2..=4096))]
    pub tokens: Vec<u32>,
    /// Seconds for each line of the result
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub seconds: u32,
    /// Model rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BenchModality {
    /// Pictures.
    Image,
    /// Texts.
    Text,
}
