//! Arguments of `crossmodal model`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::media::ModelRules;

/// `crossmodal model ...`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  crossmodal model list
  crossmodal model pull openai/clip-vit-base-patch32")]
pub enum ModelCommand {
    /// The known variants: size, licence, published accuracy, where they come from
    #[command(after_help = "\
Examples:
  crossmodal model list
  crossmodal model list --json

Any other checkpoint of a supported family works too, by its folder or hub id.
JSON: {models: [{name, aliases, family, dimension, image_size, parameters, download_bytes, licence, imagenet_top1, hub_id, supported}]}")]
    List,
    /// What a model is: family, towers, parameters, preprocessing, space id, licence
    #[command(after_help = "\
Examples:
  crossmodal model info mini
  crossmodal model info openai/clip-vit-base-patch32
  crossmodal model info ./my-checkpoint --json

JSON: {name, family, layout, towers: [{modality, architecture, parameters}], parameters, dimension, modalities,
       preprocessing, tokenizer, licence, precision, device, location, space, logits: {scale, bias, probability}}")]
    Info(ModelNameArguments),
    /// Download a model into the hub cache, resuming what is there
    #[command(after_help = "\
Examples:
  crossmodal model pull openai/clip-vit-base-patch32
  crossmodal model pull laion/CLIP-ViT-B-32-laion2B-s34B-b79K@main

Heeds HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE. JSON: {name, location, downloaded_bytes}")]
    Pull(ModelNameArguments),
    /// Compare a model, stage by stage, with golden data from its reference implementation
    #[command(after_help = "\
Examples:
  crossmodal model verify ./my-checkpoint --golden ./my-checkpoint-golden
  crossmodal model verify mini --golden golden/mini --json

Exits 1 when a stage is out of its tolerance. scripts/make_golden.py makes a golden folder for a checkpoint.
JSON: {model, golden, reference, passed, stages: [{stage, items, rows, max_abs_difference, cosine, tolerance, passed, note}]},
`rows` being how many vectors were compared where the model computes only those that its result depends on")]
    Verify(GoldenArguments),
}

/// A model by name.
#[derive(Debug, Args)]
pub struct ModelNameArguments {
    /// mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(value_name = "MODEL", env = "CROSSMODAL_MODEL")]
    pub name: String,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}

/// A model and its golden data.
#[derive(Debug, Args)]
pub struct GoldenArguments {
    /// mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(value_name = "MODEL", env = "CROSSMODAL_MODEL")]
    pub name: String,
    /// Folder with golden.json and golden.safetensors
    #[arg(long, value_name = "DIR")]
    pub golden: PathBuf,
    /// Image rules.
    #[command(flatten)]
    pub rules: ModelRules,
}
