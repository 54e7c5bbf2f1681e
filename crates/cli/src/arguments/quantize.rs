//! Arguments of `crossmodal quantize`.

use std::path::PathBuf;

use clap::Args;

/// `crossmodal quantize`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crossmodal quantize openai/clip-vit-base-patch32 vit-b-32-int8
  crossmodal quantize ./my-checkpoint ./my-checkpoint-int8 --check --samples photos --metadata captions.csv
  crossmodal index photos --collection photos.cm --model ./my-checkpoint-int8

The copy is a folder in the model's own layout that every command takes as --model: about a quarter of the size in fp32, computed in
int8. Linear layers of the blocks and the token table become 8-bit integers with a scale per row, the rest stays exact. It has the
original's vector space, so both work with one collection. Pictures get exactly the vectors of `--precision int8` with the original,
texts nearly those, since there the token table isn't rounded.

--check embeds pictures and captions with the original in fp32 and with the copy. Where OUT is a quantised copy of MODEL already, it
is checked as it is. Captions of --samples come from --metadata, else from file names (red_apple.jpg: `red apple`).
JSON: {model, folder,
       copy: null or {weights_id, source_bytes, fp32_bytes, bytes, quantised, kept, seconds},
       accuracy: null or {reference: {model, precision}, candidate: {model, precision},
         images: {inputs, least_cosine, p5_cosine, mean_cosine}, texts: {as images}, close,
         text_to_image: {queries, reference: {at_1, at_5}, candidate: {at_1, at_5}}, image_to_text: {as text_to_image},
         passed_over: [{name, reason}]}}
`copy` is null where nothing was written; `quantised` and `kept` count tensors; recalls are from 0 to 1; `close` means that every cosine
is at least 0.99 and that recall@1 lost at most 0.01 either way.")]
pub struct QuantizeArguments {
    /// mini, a known variant, a local folder or file, or a hub id owner/name[@revision]
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Folder to make
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Tell how much the copy's embeddings and search results differ from the original's
    #[arg(long)]
    pub check: bool,
    /// Replace OUT if it is a quantised model; anything else is never replaced
    #[arg(long)]
    pub force: bool,
    /// Check on the pictures below this folder instead of the built-in gallery
    #[arg(long, value_name = "DIR", requires = "check")]
    pub samples: Option<PathBuf>,
    /// Captions of the samples: a .csv, .tsv, .jsonl or .json file with a column `file`
    #[arg(long, value_name = "FILE", requires = "samples")]
    pub metadata: Option<PathBuf>,
    /// Column of the captions [default: the first there is of caption, text, title, description, en]
    #[arg(long, value_name = "COLUMN", requires = "metadata")]
    pub caption: Option<String>,
}
