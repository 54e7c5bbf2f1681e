//! The OpenCLIP layout: `open_clip_config.json` and its tensor names, OpenAI's original ones.

use std::path::Path;

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, Resize,
};
use crossmodal_nn::Activation;
use serde_json::{Value, json};

use super::fields::Fields;
use super::hf_preprocessor::{OPENAI_MEAN, OPENAI_STD};
use super::{BlockNames, BlockShape, ClipConfig, Layout, OpenClipTokenizer, Qkv, block_recipes};
use crate::error::{Error, Result};
use crate::towers::text::{TextConfig, TextPool, TextProjection};
use crate::towers::vit::{VisionConfig, VisionPool};
use crate::weights::{Recipe, Recipes};

/// Reads `open_clip_config.json`.
///
/// # Errors
/// A field whose value, or whose presence, can't be honoured; towers that this version doesn't have.
pub fn read(path: &Path, bytes: &[u8]) -> Result<ClipConfig> {
    let mut root = Fields::parse(path, bytes)?;
    // Either the file of a hub repository or a bare model configuration of the open_clip package.
    let (mut model, preprocess) = match root.nested("model_cfg")? {
        Some(model) => {
            let preprocess = root.nested("preprocess_cfg")?.unwrap_or_else(|| root.absent("preprocess_cfg"));
            root.finish(&["license", "hf_hub", "description", "tags"])?;
            (model, preprocess)
        }
        None => {
            let preprocess = root.absent("preprocess_cfg");
            (root, preprocess)
        }
    };
    let embed_dim = model.required_size("embed_dim")?;
    let quick_gelu = model.or("quick_gelu", false, "true or false")?;
    if model.has("multimodal_cfg") {
        return Err(Error::Unsupported(format!("{}: CoCa models (multimodal_cfg) are not supported", path.display())));
    }
    let logit_bias = model.optional::<f64>("init_logit_bias", "a number")?.is_some();
    let vision = model.nested("vision_cfg")?.ok_or_else(|| model.error("vision_cfg", "missing", "an object"))?;
    let text = model.nested("text_cfg")?.ok_or_else(|| model.error("text_cfg", "missing", "an object"))?;
    let inert = ["custom_text", "init_logit_scale", "nonscalar_logit_scale", "multimodal_cfg", "output_dict"];
    model.finish(&inert)?;
    let vision = read_vision(path, vision, quick_gelu)?;
    let (text, tokenizer) = read_text(path, text, quick_gelu, embed_dim)?;
    let prep = read_prep(preprocess, vision.image_size)?;
    Ok(ClipConfig { layout: Layout::OpenClip, vision, text, embed_dim, logit_bias, prep, tokenizer })
}

/// Reads what both towers share: activation and norm epsilon; refuses the variants of attention this version lacks.
fn shared(fields: &mut Fields, quick_gelu: bool) -> Result<(Activation, f64)> {
    for (field, default) in [
        ("qk_norm", json!(false)),
        ("scaled_cosine_attn", json!(false)),
        ("scale_heads", json!(false)),
        ("scale_attn_inner", json!(false)),
        ("scale_attn", json!(false)),
        ("scale_fc", json!(false)),
        ("block_type", json!("default")),
    ] {
        fields.only(field, &default)?;
    }
    let eps = match fields.nested("norm_kwargs")? {
        None => 1e-5,
        Some(mut norm) => {
            let eps = norm.positive("eps", 1e-5)?;
            norm.finish(&[])?;
            eps
        }
    };
    let activation = match fields.nested("act_kwargs")? {
        None if quick_gelu => Activation::QuickGelu,
        None => Activation::Gelu,
        Some(mut options) => {
            let expected = "\"none\" or \"tanh\"";
            let approximate: String = options.or("approximate", "none".to_string(), expected)?;
            if quick_gelu {
                return Err(options.error(
                    "approximate",
                    format!("{approximate:?}"),
                    "nothing: quick_gelu takes no options",
                ));
            }
            let activation = match approximate.as_str() {
                "none" => Activation::Gelu,
                "tanh" => Activation::GeluTanh,
                other => return Err(options.error("approximate", format!("{other:?}"), expected)),
            };
            options.finish(&[])?;
            activation
        }
    };
    Ok((activation, eps))
}

fn read_vision(path: &Path, mut fields: Fields, quick_gelu: bool) -> Result<VisionConfig> {
    let unsupported = |what: &str| Error::Unsupported(format!("{}: {what} are not supported", path.display()));
    if let Some(name) = fields.optional::<String>("timm_model_name", "a name")? {
        return Err(unsupported(&format!("timm vision towers (vision_cfg.timm_model_name {name:?})")));
    }
    let layers: Value = fields.or("layers", json!(12), "a whole number")?;
    if layers.is_array() {
        return Err(unsupported("ResNet vision towers (vision_cfg.layers is a list)"));
    }
    let count = layers.as_u64().filter(|count| (1..=1000).contains(count));
    let layers = count.ok_or_else(|| fields.error("layers", &layers, "a whole number from 1 to 1000"))? as usize;
    fields.only("attentional_pool", &json!(false))?;
    fields.only("pos_embed_type", &json!("learnable"))?;
    let width = fields.size("width", 768)?;
    let head_width = fields.size("head_width", 64)?;
    if width < head_width || width % (width / head_width) != 0 {
        return Err(fields.error("head_width", head_width, format!("a divisor of width, {width}")));
    }
    let expected = "a number or [height, width]";
    let size: Value = fields.or("image_size", json!(224), expected)?;
    let image_size = sides(&size).ok_or_else(|| fields.error("image_size", &size, expected))?;
    let patch_size = fields.size("patch_size", 16)?;
    if patch_size > image_size.0.min(image_size.1) {
        return Err(fields.error("patch_size", patch_size, "at most image_size"));
    }
    let mlp_width = (width as f64 * fields.positive("mlp_ratio", 4.0)?) as usize;
    let (activation, eps) = shared(&mut fields, quick_gelu)?;
    let pool: String = fields.or("pool_type", "tok".to_string(), "\"tok\" or \"avg\"")?;
    let config = VisionConfig {
        image_size,
        patch_size,
        width,
        layers,
        heads: width / head_width,
        mlp_width,
        activation,
        eps,
        pre_norm: !fields.or("no_ln_pre", false, "true or false")?,
        layer_scale: fields.optional::<f64>("ls_init_value", "a number")?.is_some(),
        pool: match pool.as_str() {
            "tok" => VisionPool::ClassToken,
            "avg" => VisionPool::AverageOfPatches,
            other => return Err(fields.error("pool_type", format!("{other:?}"), "\"tok\" or \"avg\"")),
        },
        norm_after_pool: fields.or("final_ln_after_pool", false, "true or false")?,
    };
    fields.finish(&[
        "attn_pooler_heads",
        "attn_pooler_queries",
        "output_tokens",
        "patch_dropout",
        "timm_drop",
        "timm_drop_path",
        "timm_model_pretrained",
        "timm_pool",
        "timm_proj",
        "timm_proj_bias",
    ])?;
    Ok(config)
}

fn read_text(
    path: &Path,
    mut fields: Fields,
    quick_gelu: bool,
    embed_dim: usize,
) -> Result<(TextConfig, OpenClipTokenizer)> {
    if let Some(name) = fields.optional::<String>("hf_model_name", "a name")? {
        let what = format!("Hugging Face text towers (text_cfg.hf_model_name {name:?})");
        return Err(Error::Unsupported(format!("{}: {what} are not supported", path.display())));
    }
    let tokenizer = read_tokenizer(&mut fields)?;
    fields.only("embed_cls", &json!(false))?;
    let width = fields.size("width", 512)?;
    let heads = fields.size("heads", 8)?;
    if width % heads != 0 {
        return Err(fields.error("heads", heads, format!("a divisor of width, {width}")));
    }
    let mlp_width = (width as f64 * fields.positive("mlp_ratio", 4.0)?) as usize;
    let (activation, eps) = shared(&mut fields, quick_gelu)?;
    let config = TextConfig {
        context_length: fields.size("context_length", 77)?,
        vocab_size: fields.size("vocab_size", 49408)?,
        width,
        layers: fields.size("layers", 12)?,
        heads,
        mlp_width,
        activation,
        eps,
        causal: !fields.or("no_causal_mask", false, "true or false")?,
        layer_scale: fields.optional::<f64>("ls_init_value", "a number")?.is_some(),
        pool: text_pool(&mut fields)?,
        projection: text_projection(&mut fields, width, embed_dim)?,
    };
    fields.only("final_ln_after_pool", &json!(false))?;
    fields.finish(&[
        "pad_id",
        "output_tokens",
        "hf_model_pretrained",
        "hf_proj_type",
        "hf_pooler_type",
        "hf_model_config",
    ])?;
    Ok((config, tokenizer))
}

fn read_tokenizer(fields: &mut Fields) -> Result<OpenClipTokenizer> {
    let hf_tokenizer_name = fields.optional("hf_tokenizer_name", "a name")?;
    fields.only("tokenizer_mode", &json!("clips"))?;
    let clean = match fields.nested("tokenizer_kwargs")? {
        None => None,
        Some(mut options) => {
            let clean = options.optional("clean", "\"lower\", \"whitespace\" or \"canonicalize\"")?;
            options.finish(&[])?;
            clean
        }
    };
    Ok(OpenClipTokenizer { hf_tokenizer_name, clean })
}

fn text_pool(fields: &mut Fields) -> Result<TextPool> {
    let expected = "\"argmax\", \"first\", \"last\" or \"eos\"";
    let eos: u32 = fields.or("eos_id", 2, "a token id")?;
    let pool: String = fields.or("pool_type", "argmax".to_string(), expected)?;
    match pool.as_str() {
        "argmax" => Ok(TextPool::LargestId),
        "first" => Ok(TextPool::First),
        "last" => Ok(TextPool::Last),
        "eos" => Ok(TextPool::FirstId(eos)),
        other => Err(fields.error("pool_type", format!("{other:?}"), expected)),
    }
}

fn text_projection(fields: &mut Fields, width: usize, embed_dim: usize) -> Result<TextProjection> {
    let bias = fields.or("proj_bias", false, "true or false")?;
    let kind: String = fields.or("proj_type", "linear".to_string(), "\"linear\" or \"none\"")?;
    match kind.as_str() {
        "linear" if bias => Ok(TextProjection::Affine),
        "linear" => Ok(TextProjection::Matrix),
        "none" if width == embed_dim => Ok(TextProjection::None),
        "none" => Err(fields.error("proj_type", "\"none\"", format!("a width equal to embed_dim, {embed_dim}"))),
        other => Err(fields.error("proj_type", format!("{other:?}"), "\"linear\" or \"none\"")),
    }
}

/// Height and width of `n` or `[height, width]`.
fn sides(value: &Value) -> Option<(usize, usize)> {
    let side = |value: &Value| value.as_u64().filter(|side| (1..=16384).contains(side)).map(|side| side as usize);
    match value.as_array().map(Vec::as_slice) {
        None => side(value).map(|side| (side, side)),
        Some([height, width]) => side(height).zip(side(width)),
        Some(_) => None,
    }
}

fn read_prep(mut fields: Fields, image_size: (usize, usize)) -> Result<ImagePrep> {
    // The model's own image size overrides `size`.
    fields.optional::<Value>("size", "a number")?;
    fields.only("mode", &json!("RGB"))?;
    let channels = |fields: &mut Fields, field: &str, default: [f32; 3]| -> Result<[f32; 3]> {
        let expected = "one number or three";
        match fields.optional::<Value>(field, expected)? {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) => Ok([number as f32; 3]),
                None => serde_json::from_value(value.clone()).map_err(|_| fields.error(field, &value, expected)),
            },
        }
    };
    let mean = channels(&mut fields, "mean", OPENAI_MEAN)?;
    let std = channels(&mut fields, "std", OPENAI_STD)?;
    if std.contains(&0.0) {
        return Err(fields.error("std", format!("{std:?}"), "numbers other than 0"));
    }
    let interpolation: String = fields.or("interpolation", "bicubic".to_string(), "\"bicubic\" or \"bilinear\"")?;
    let filter = match interpolation.as_str() {
        // "random" concerns training; at inference the reference falls back to bicubic.
        "bicubic" | "random" => Filter::Bicubic,
        "bilinear" => Filter::Bilinear,
        other => return Err(fields.error("interpolation", format!("{other:?}"), "\"bicubic\" or \"bilinear\"")),
    };
    let fill: u8 = fields.or("fill_color", 0, "a number from 0 to 255")?;
    let mode: String = fields.or("resize_mode", "shortest".to_string(), "\"shortest\", \"squash\" or \"longest\"")?;
    let (height, width) = (image_size.0 as u32, image_size.1 as u32);
    let crop = CenterCrop { width, height, rounding: CropRounding::HalfEven };
    let (resize, filter, crop) = match mode.as_str() {
        "shortest" if height == width => (Resize::ShortestEdge { edge: height }, filter, Some(crop)),
        // Here the reference forgets to pass the filter on, so its default holds.
        "shortest" => (Resize::Cover { width, height }, Filter::Bicubic, Some(crop)),
        "squash" => (Resize::Squash { width, height }, filter, None),
        "longest" => (Resize::Longest { width, height, fill }, filter, None),
        other => {
            let expected = "\"shortest\", \"squash\" or \"longest\"";
            return Err(fields.error("resize_mode", format!("{other:?}"), expected));
        }
    };
    fields.finish(&[])?;
    Ok(ImagePrep {
        resize,
        filter,
        crop,
        colour_order: ColourOrder::AfterResize,
        alpha: AlphaRule::Drop,
        orientation: OrientationRule::Ignore,
        pass_order: PassOrder::default(),
        decode: DecodeMode::default(),
        rescale: Some(1.0 / 255.0),
        normalise: Some((mean, std)),
        limits: DecodeLimits::default(),
    })
}

const BLOCK: BlockNames = BlockNames {
    norm1: "ln_1",
    norm2: "ln_2",
    out: "attn.out_proj",
    fc1: "mlp.c_fc",
    fc2: "mlp.c_proj",
    qkv: Qkv::Packed { weight: "attn.in_proj_weight", bias: "attn.in_proj_bias" },
};

/// The canonical tensors of this layout. `prefix` is what all names of the file begin with, `text` what the names of the
/// text tower begin with besides (`text.` or nothing).
pub fn recipes(config: &ClipConfig, prefix: &str, text: &str) -> Recipes {
    let mut recipes = Recipes::default();
    let (v, t) = (&config.vision, &config.text);
    let named = |name: &str| Recipe::Copy(format!("{prefix}{name}"));
    let in_text = |name: &str| Recipe::Copy(format!("{prefix}{text}{name}"));
    for end in ["weight", "bias"] {
        if v.pre_norm {
            recipes.add(format!("vision.norm_pre.{end}"), named(&format!("visual.ln_pre.{end}")), &[v.width]);
        }
        recipes.add(format!("vision.norm_post.{end}"), named(&format!("visual.ln_post.{end}")), &[v.width]);
        recipes.add(format!("text.norm_final.{end}"), in_text(&format!("ln_final.{end}")), &[t.width]);
    }
    let p = v.patch_size;
    recipes.add("vision.patch.weight", named("visual.conv1.weight"), &[v.width, 3, p, p]);
    recipes.add("vision.class", named("visual.class_embedding"), &[v.width]);
    recipes.add("vision.positions", named("visual.positional_embedding"), &[v.positions(), v.width]);
    let projection = Recipe::Transpose(format!("{prefix}visual.proj"));
    recipes.add("vision.projection.weight", projection, &[config.embed_dim, v.width]);
    recipes.add("text.tokens", in_text("token_embedding.weight"), &[t.vocab_size, t.width]);
    recipes.add("text.positions", in_text("positional_embedding"), &[t.context_length, t.width]);
    let shape = [config.embed_dim, t.width];
    match t.projection {
        TextProjection::None => {}
        TextProjection::Matrix => {
            let projection = Recipe::Transpose(format!("{prefix}{text}text_projection"));
            recipes.add("text.projection.weight", projection, &shape);
        }
        TextProjection::Affine => {
            recipes.add("text.projection.weight", in_text("text_projection.weight"), &shape);
            recipes.add("text.projection.bias", in_text("text_projection.bias"), &shape[..1]);
        }
    }
    recipes.add("logit_scale", named("logit_scale"), &[]);
    if config.logit_bias {
        recipes.add("logit_bias", named("logit_bias"), &[]);
    }
    for i in 0..v.layers {
        let shape = BlockShape { width: v.width, mlp_width: v.mlp_width, layer_scale: v.layer_scale };
        let source = format!("{prefix}visual.transformer.resblocks.{i}");
        block_recipes(&mut recipes, &format!("vision.blocks.{i}"), &source, &BLOCK, shape);
    }
    for i in 0..t.layers {
        let shape = BlockShape { width: t.width, mlp_width: t.mlp_width, layer_scale: t.layer_scale };
        let source = format!("{prefix}{text}transformer.resblocks.{i}");
        block_recipes(&mut recipes, &format!("text.blocks.{i}"), &source, &BLOCK, shape);
    }
    recipes
}

/// A tensor that every checkpoint of this layout has, by which its prefix is found.
pub const ANCHOR: &str = "visual.conv1.weight";

/// A tensor of the text tower, by which the text tower's prefix is found.
pub const TEXT_ANCHOR: &str = "token_embedding.weight";

/// Whether a leftover tensor is a harmless buffer.
pub fn ignorable(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    ["position_ids", "attn_mask", "num_batches_tracked", "input_resolution", "context_length", "vocab_size"]
        .contains(&last)
}
