//! The Hugging Face layout of CLIP: `config.json` of `model_type` `clip`, and its tensor names.

use std::path::Path;

use crossmodal_nn::Activation;
use serde_json::{Value, json};

use super::fields::Fields;
use super::{BlockNames, BlockShape, ClipConfig, Layout, OpenClipTokenizer, Qkv, block_recipes, hf_preprocessor};
use crate::error::Result;
use crate::towers::text::{TextConfig, TextPool, TextProjection};
use crate::towers::vit::{VisionConfig, VisionPool};
use crate::weights::{Recipe, Recipes};

/// Settings that transformers writes into every configuration and that concern training, generation or bookkeeping.
const INERT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "add_cross_attention",
    "architectures",
    "attn_implementation",
    "attention_dropout",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "logit_scale_init_value",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
];

/// Reads `config.json` and the preprocessor configuration, if there is one.
///
/// # Errors
/// A field whose value, or whose presence, can't be honoured.
pub fn read(config: (&Path, &[u8]), preprocessor: Option<(&Path, &[u8])>) -> Result<ClipConfig> {
    let mut root = Fields::parse(config.0, config.1)?;
    let model_type: String = root.required("model_type", "\"clip\"")?;
    if model_type != "clip" {
        return Err(root.error("model_type", format!("{model_type:?}"), "\"clip\""));
    }
    let embed_dim = root.size("projection_dim", 512)?;
    let text = tower(&mut root, "text_config", "text_config_dict")?;
    let vision = tower(&mut root, "vision_config", "vision_config_dict")?;
    root.only("pruned_heads", &json!({}))?;
    root.finish(INERT)?;
    let text = read_text(text)?;
    let vision = read_vision(vision)?;
    let prep = hf_preprocessor::read(preprocessor, vision.image_size)?;
    Ok(ClipConfig {
        layout: Layout::HuggingFace,
        vision,
        text,
        embed_dim,
        logit_bias: false,
        prep,
        tokenizer: OpenClipTokenizer::default(),
    })
}

/// Old files carry each tower twice; where the `*_config_dict` isn't null it is the one that counts.
fn tower(root: &mut Fields, name: &str, name_of_override: &str) -> Result<Fields> {
    let plain = root.nested(name)?;
    let chosen = match root.nested(name_of_override)? {
        Some(chosen) => Some(chosen),
        None => plain,
    };
    Ok(chosen.unwrap_or_else(|| root.absent(name)))
}

fn read_text(mut fields: Fields) -> Result<TextConfig> {
    let config = TextConfig {
        context_length: fields.size("max_position_embeddings", 77)?,
        vocab_size: fields.size("vocab_size", 49408)?,
        width: fields.size("hidden_size", 512)?,
        layers: fields.size("num_hidden_layers", 12)?,
        heads: fields.size("num_attention_heads", 8)?,
        mlp_width: fields.size("intermediate_size", 2048)?,
        activation: fields.activation("hidden_act", Activation::QuickGelu)?,
        eps: fields.positive("layer_norm_eps", 1e-5)?,
        causal: true,
        layer_scale: false,
        pool: text_pool(&mut fields)?,
        projection: TextProjection::Matrix,
    };
    // The towers' own projection_dim is not used by the joint model.
    fields.optional::<usize>("projection_dim", "a whole number")?;
    finish_tower(fields, config.width, config.heads)?;
    Ok(config)
}

/// The original conversions carry a wrong `eos_token_id` of 2, which stands for pooling at the largest id.
fn text_pool(fields: &mut Fields) -> Result<TextPool> {
    let expected = "one token id";
    let id = match fields.optional::<Value>("eos_token_id", expected)? {
        None => 49407,
        Some(value) => {
            let single = value.as_array().filter(|ids| ids.len() == 1).map_or(&value, |ids| &ids[0]);
            let id = single.as_u64().and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| fields.error("eos_token_id", &value, expected))?
        }
    };
    Ok(if id == 2 { TextPool::LargestId } else { TextPool::FirstId(id) })
}

fn read_vision(mut fields: Fields) -> Result<VisionConfig> {
    let image_size = fields.size("image_size", 224)?;
    fields.only("num_channels", &json!(3))?;
    let config = VisionConfig {
        image_size: (image_size, image_size),
        patch_size: fields.size("patch_size", 32)?,
        width: fields.size("hidden_size", 768)?,
        layers: fields.size("num_hidden_layers", 12)?,
        heads: fields.size("num_attention_heads", 12)?,
        mlp_width: fields.size("intermediate_size", 3072)?,
        activation: fields.activation("hidden_act", Activation::QuickGelu)?,
        eps: fields.positive("layer_norm_eps", 1e-5)?,
        pre_norm: true,
        layer_scale: false,
        pool: VisionPool::ClassToken,
        norm_after_pool: false,
    };
    if config.patch_size > image_size {
        return Err(fields.error("patch_size", config.patch_size, format!("at most image_size, {image_size}")));
    }
    fields.optional::<usize>("projection_dim", "a whole number")?;
    finish_tower(fields, config.width, config.heads)?;
    Ok(config)
}

fn finish_tower(mut fields: Fields, width: usize, heads: usize) -> Result<()> {
    if !width.is_multiple_of(heads) {
        return Err(fields.error("num_attention_heads", heads, format!("a divisor of hidden_size, {width}")));
    }
    fields.only("pruned_heads", &json!({}))?;
    // Read above in the text tower; meaningless in the vision tower, where old files carry it too.
    fields.optional::<Value>("eos_token_id", "a token id")?;
    fields.finish(INERT)
}

const BLOCK: BlockNames = BlockNames {
    norm1: "layer_norm1",
    norm2: "layer_norm2",
    out: "self_attn.out_proj",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
};

/// The canonical tensors of this layout; `prefix` is what all names of the file begin with.
pub fn recipes(config: &ClipConfig, prefix: &str) -> Recipes {
    let mut recipes = Recipes::default();
    let named = |name: &str| Recipe::Copy(format!("{prefix}{name}"));
    let (v, t) = (&config.vision, &config.text);
    let mut norm = |to: &str, from: &str, width: usize| {
        for end in ["weight", "bias"] {
            recipes.add(format!("{to}.{end}"), named(&format!("{from}.{end}")), &[width]);
        }
    };
    // The misspelling is the layout's own.
    norm("vision.norm_pre", "vision_model.pre_layrnorm", v.width);
    norm("vision.norm_post", "vision_model.post_layernorm", v.width);
    norm("text.norm_final", "text_model.final_layer_norm", t.width);
    let p = v.patch_size;
    recipes.add("vision.patch.weight", named("vision_model.embeddings.patch_embedding.weight"), &[v.width, 3, p, p]);
    recipes.add("vision.class", named("vision_model.embeddings.class_embedding"), &[v.width]);
    let positions = named("vision_model.embeddings.position_embedding.weight");
    recipes.add("vision.positions", positions, &[v.positions(), v.width]);
    recipes.add("vision.projection.weight", named("visual_projection.weight"), &[config.embed_dim, v.width]);
    recipes.add("text.tokens", named("text_model.embeddings.token_embedding.weight"), &[t.vocab_size, t.width]);
    let positions = named("text_model.embeddings.position_embedding.weight");
    recipes.add("text.positions", positions, &[t.context_length, t.width]);
    recipes.add("text.projection.weight", named("text_projection.weight"), &[config.embed_dim, t.width]);
    recipes.add("logit_scale", named("logit_scale"), &[]);
    for i in 0..v.layers {
        let shape = BlockShape { width: v.width, mlp_width: v.mlp_width, layer_scale: false };
        let source = format!("{prefix}vision_model.encoder.layers.{i}");
        block_recipes(&mut recipes, &format!("vision.blocks.{i}"), &source, &BLOCK, shape);
    }
    for i in 0..t.layers {
        let shape = BlockShape { width: t.width, mlp_width: t.mlp_width, layer_scale: false };
        let source = format!("{prefix}text_model.encoder.layers.{i}");
        block_recipes(&mut recipes, &format!("text.blocks.{i}"), &source, &BLOCK, shape);
    }
    recipes
}

/// A tensor that every checkpoint of this layout has, by which its prefix is found.
pub const ANCHOR: &str = "text_model.embeddings.token_embedding.weight";

/// Whether a leftover tensor is a harmless buffer.
pub fn ignorable(name: &str) -> bool {
    name.ends_with("position_ids")
}
