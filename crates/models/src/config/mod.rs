//! Configuration files of the layouts, read completely: every field is honoured, known to be inert, or refused.

mod fields;
pub mod hf_clip;
mod hf_preprocessor;
pub mod open_clip;
mod state_dict;

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeMode, Filter, ImagePrep, OrientationRule, PassOrder, Resize,
};
use crossmodal_nn::GridResize;

use crate::towers::text::TextConfig;
use crate::towers::vit::VisionConfig;
use crate::weights::Recipes;

pub use state_dict::{describe as describe_state_dict, infer as infer_from_state_dict};

/// Which reference implementation a checkpoint's files belong to. Rules that differ between the references follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `config.json` and friends, as transformers writes them.
    HuggingFace,
    /// `open_clip_config.json` and friends, as open_clip writes them.
    OpenClip,
}

impl Layout {
    /// The name shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HuggingFace => "Hugging Face",
            Self::OpenClip => "OpenCLIP",
        }
    }

    /// How this layout's reference resizes a grid of position embeddings.
    pub fn grid_resize(self) -> GridResize {
        match self {
            Self::HuggingFace => GridResize::Bicubic,
            Self::OpenClip => GridResize::BicubicAntialiased,
        }
    }
}

/// Everything a CLIP model needs to know besides its weights and tokenizer files.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Which reference it follows.
    pub layout: Layout,
    /// The picture tower.
    pub vision: VisionConfig,
    /// The text tower.
    pub text: TextConfig,
    /// Length of an embedding.
    pub embed_dim: usize,
    /// Whether the checkpoint has a `logit_bias`.
    pub logit_bias: bool,
    /// How pictures are prepared.
    pub prep: ImagePrep,
    /// How text is cleaned and where the tokenizer comes from, for OpenCLIP models.
    pub tokenizer: OpenClipTokenizer,
}

/// The tokenizer fields of an OpenCLIP configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenClipTokenizer {
    /// `hf_tokenizer_name`, if set: tokenizer files lie beside the configuration.
    pub hf_tokenizer_name: Option<String>,
    /// `tokenizer_kwargs.clean`, if set.
    pub clean: Option<String>,
}

fn rounding(crop: CenterCrop) -> &'static str {
    match crop.rounding {
        CropRounding::Floor => "odd margins floored",
        CropRounding::HalfEven => "odd margins to even",
    }
}

/// Image preparation in words.
pub fn describe_prep(prep: &ImagePrep) -> String {
    let resize = match prep.resize {
        Resize::None => "no resize".to_string(),
        Resize::ShortestEdge { edge } => format!("shortest edge to {edge}"),
        Resize::Cover { width, height } => format!("cover {width}x{height}"),
        Resize::Squash { width, height } => format!("squash to {width}x{height}"),
        Resize::Longest { width, height, fill } => format!("fit into {width}x{height}, fill {fill}"),
    };
    let crop = prep.crop.map(|crop| format!(", centre crop {}x{} ({})", crop.width, crop.height, rounding(crop)));
    let order = match prep.colour_order {
        ColourOrder::BeforeResize => "RGB first",
        ColourOrder::AfterResize => "RGB last",
    };
    let alpha = match prep.alpha {
        AlphaRule::Drop => "alpha dropped",
        AlphaRule::OverWhite => "alpha over white",
        AlphaRule::KeyOverWhite => "transparent colour over white",
    };
    let orientation = match prep.orientation {
        OrientationRule::Ignore => "EXIF orientation ignored",
        OrientationRule::Exif => "EXIF orientation applied",
    };
    let pillow = match prep.pass_order {
        PassOrder::Pillow13 => "as Pillow 13",
        PassOrder::Pillow12 => "as Pillow 12",
    };
    let filter = match prep.filter {
        Filter::Nearest => "nearest",
        Filter::Bilinear => "bilinear",
        Filter::Bicubic => "bicubic",
        Filter::Lanczos => "lanczos",
    };
    let mut text = format!("{resize} ({filter}, {pillow}){}", crop.unwrap_or_default());
    text.push_str(&format!(", {order}, {alpha}, {orientation}"));
    match prep.decode {
        DecodeMode::Exact => {}
        DecodeMode::Fast => text.push_str(", large JPEGs decoded at reduced size"),
    }
    if let Some((mean, std)) = prep.normalise {
        text.push_str(&format!(", mean {mean:?}, std {std:?}"));
    }
    text
}

/// Names of a layout's tensors within its prefix, for [`block_recipes`].
struct BlockNames {
    norm1: &'static str,
    norm2: &'static str,
    out: &'static str,
    fc1: &'static str,
    fc2: &'static str,
    qkv: Qkv,
}

/// How a layout stores the projections of queries, keys and values.
enum Qkv {
    /// Three matrices.
    Apart([&'static str; 3]),
    /// One matrix, one bias.
    Packed { weight: &'static str, bias: &'static str },
}

/// Sizes of a transformer block.
#[derive(Clone, Copy)]
struct BlockShape {
    width: usize,
    mlp_width: usize,
    layer_scale: bool,
}

/// Adds the tensors of one transformer block, `canonical` and `source` being the two prefixes without a final dot.
fn block_recipes(recipes: &mut Recipes, canonical: &str, source: &str, names: &BlockNames, shape: BlockShape) {
    use crate::weights::Recipe::{Copy, Stack};
    let BlockShape { width: d, mlp_width: m, layer_scale } = shape;
    let mut pair = |to: &str, from: &str, out: usize, inner: Option<usize>| {
        let weight: Vec<usize> = std::iter::once(out).chain(inner).collect();
        recipes.add(format!("{canonical}.{to}.weight"), Copy(format!("{source}.{from}.weight")), &weight);
        recipes.add(format!("{canonical}.{to}.bias"), Copy(format!("{source}.{from}.bias")), &[out]);
    };
    pair("norm1", names.norm1, d, None);
    pair("norm2", names.norm2, d, None);
    pair("attention.out", names.out, d, Some(d));
    pair("mlp.fc1", names.fc1, m, Some(d));
    pair("mlp.fc2", names.fc2, d, Some(m));
    let (weight, bias) = match &names.qkv {
        Qkv::Apart(parts) => {
            let stack = |end: &str| Stack(parts.iter().map(|part| format!("{source}.{part}.{end}")).collect());
            (stack("weight"), stack("bias"))
        }
        Qkv::Packed { weight, bias } => (Copy(format!("{source}.{weight}")), Copy(format!("{source}.{bias}"))),
    };
    recipes.add(format!("{canonical}.attention.qkv.weight"), weight, &[3 * d, d]);
    recipes.add(format!("{canonical}.attention.qkv.bias"), bias, &[3 * d]);
    if layer_scale {
        for (to, from) in [("scale1", "ls_1"), ("scale2", "ls_2")] {
            recipes.add(format!("{canonical}.{to}"), Copy(format!("{source}.{from}.gamma")), &[d]);
        }
    }
}
