//! The traits that model families give out and that everything above stands on.

use std::any::Any;
use std::time::Duration;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::info::ModelInfo;
use crate::input::{Input, Modality};
use crate::progress::CancelToken;
use crate::space::SpaceId;
use crate::tokenizer::Tokenized;

/// One embedded input.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The model's output before normalisation, of length [`Embedder::dimension`] unless the input asked for fewer.
    pub native: Vec<f32>,
    /// `native` divided by its Euclidean length. This is what collections store.
    pub unit: Vec<f32>,
    /// Whether the input was longer than the model reads and was cut, as the reference cuts it.
    pub truncated: bool,
}

impl Embedding {
    /// An embedding from the model's raw output.
    ///
    /// # Errors
    /// A vector that holds NaN or infinity, or has no direction.
    pub fn from_native(native: Vec<f32>) -> Result<Self> {
        let length = native.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if !length.is_finite() || length == 0.0 {
            return Err(Error::Input(format!("the model's output has length {length}, so it has no direction")));
        }
        let unit = native.iter().map(|value| (f64::from(*value) / length) as f32).collect();
        Ok(Self { native, unit, truncated: false })
    }
}

/// An input after the work that needs no model weights: decoded, resized, tokenised. Made by [`Embedder::prepare`] on any
/// thread, consumed by [`Embedder::encode`] of the same model.
pub struct Prepared {
    /// The modality of the input this was made from.
    pub modality: Modality,
    /// How much work the item is, in the model's own unit (tokens, patches); a batcher may group by it.
    pub cost: usize,
    /// Floating-point operations of a straightforward evaluation: every layer for every token, multiplications and additions counted
    /// apart. What an implementation needn't compute counts all the same.
    pub nominal_flops: f64,
    /// Whether the input was longer than the model reads and was cut.
    pub truncated: bool,
    /// How much of the time went into decoding a file; the rest is resizing and the like. Zero where there is none.
    pub decoding: Duration,
    /// The family's own data.
    pub(crate) data: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("modality", &self.modality).field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// How a model turns a cosine between a picture and a text into a logit and a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitRule {
    /// The factor on the cosine: `exp(logit_scale)`.
    pub scale: f32,
    /// Added after scaling; 0 for CLIP.
    pub bias: f32,
    /// What makes probabilities of the logits.
    pub probability: ProbabilityRule,
}

/// What makes probabilities of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbabilityRule {
    /// Softmax over the candidates (CLIP).
    Softmax,
    /// Logistic function of each logit on its own (SigLIP).
    Sigmoid,
}

/// A model that puts inputs into one vector space.
///
/// Embedding has two halves, so that decoding can run on many threads ahead of the model: [`prepare`](Self::prepare) is
/// per input and needs no weights, [`encode`](Self::encode) takes a batch. Implementations load a tower when it is first
/// used.
pub trait Embedder: Send + Sync {
    /// What the model is: family, towers, licence, preprocessing.
    fn info(&self) -> &ModelInfo;

    /// The vector space that every output lies in. The first call may have to read all weights; later ones are cached.
    ///
    /// # Errors
    /// Weights that can't be read.
    fn space(&self) -> Result<SpaceId>;

    /// The modalities that can be embedded.
    fn modalities(&self) -> &[Modality];

    /// Length of an embedding.
    fn dimension(&self) -> usize;

    /// A string that names everything besides content and space that changes the vector of `input`: preprocessing
    /// rules, instruction, role where the model heeds it, dimensions, span, precision. Part of the cache key.
    fn fingerprint(&self, input: &Input) -> String;

    /// Decodes, resizes, tokenises one input. Cheap to call from many threads.
    ///
    /// # Errors
    /// A modality or option that the model doesn't have, or content that can't be decoded.
    fn prepare(&self, input: &Input) -> Result<Prepared>;

    /// Runs the model over a batch of prepared inputs of any mix of modalities and lengths; outputs are in input order.
    ///
    /// # Errors
    /// Weights that can't be loaded, prepared inputs of another model, a raised `cancel` token
    /// ([`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled)), or an output that isn't finite.
    fn encode(&self, batch: Vec<Prepared>, cancel: &CancelToken) -> Result<Vec<Embedding>>;

    /// Cosine to probability between pictures and texts, if the model defines it.
    ///
    /// # Errors
    /// Weights that can't be read.
    fn logit_rule(&self) -> Result<Option<LogitRule>>;

    /// The tokens of a text as the model reads it; `None` where the model has no tokenizer.
    ///
    /// # Errors
    /// A text that the tokenizer can't handle.
    fn tokenize(&self, text: &str) -> Result<Option<Tokenized>> {
        let _ = text;
        Ok(None)
    }

    /// Prepares and encodes in one go.
    ///
    /// # Errors
    /// The first error of [`prepare`](Self::prepare) or of [`encode`](Self::encode).
    fn embed(&self, inputs: &[Input]) -> Result<Vec<Embedding>> {
        let prepared: Vec<Result<Prepared>> = inputs.par_iter().map(|input| self.prepare(input)).collect();
        let prepared = prepared.into_iter().collect::<Result<Vec<_>>>()?;
        self.encode(prepared, &CancelToken::new())
    }
}

/// A model that scores how well documents answer a query, reading both together.
pub trait Reranker: Send + Sync {
    /// One score per document, higher is better, in document order.
    ///
    /// # Errors
    /// Inputs that the model can't read, or a raised `cancel` token.
    fn rerank(&self, query: &Input, documents: &[Input], cancel: &CancelToken) -> Result<Vec<f32>>;
}

/// A model that continues a text.
pub trait Generator: Send + Sync {
    /// Generates at most `max_tokens` tokens after `prompt`, handing out each piece of text as it is made; `piece` returns
    /// `false` to stop.
    ///
    /// # Errors
    /// A prompt that the model can't read, or a raised `cancel` token.
    fn generate(
        &self,
        prompt: &str,
        max_tokens: usize,
        piece: &mut dyn FnMut(&str) -> bool,
        cancel: &CancelToken,
    ) -> Result<()>;
}
