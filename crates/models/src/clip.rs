//! The CLIP family: one vision transformer and one text transformer into one space, from either layout.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use crossmodal_media::{ImagePrep, PixelTensor, Resize};

use crate::config::ClipConfig;
use crate::embedder::{Embedder, Embedding, LogitRule, Prepared, ProbabilityRule};
use crate::error::{Error, Result};
use crate::info::{ModelInfo, TowerInfo};
use crate::input::{Content, Input, Modality};
use crate::options::{LoadOptions, Precision};
use crate::progress::CancelToken;
use crate::space::{self, SpaceId};
use crate::tokenizer::{Tokenized, Tokenizer};
use crate::towers::text::{TextPool, TextTransformer};
use crate::towers::vit::{Pictures, VisionTransformer};
use crate::towers::{Parameters, Trace};
use crate::training::Variables;
use crate::weights::CanonicalWeights;

/// A plain English text on which all tokenizers of one vocabulary agree. Its ids stand for the vocabulary in space ids.
const VOCABULARY_PROBE: &str = "a photo of the quick brown fox jumps over lazy dogs, 0123456789 and some more words: \
    mountain river bicycle orange yellow computer music window, people walking near an old bridge at night!";

/// A CLIP model: mapped weights, and towers that are built when first used.
#[derive(Debug)]
pub struct ClipModel {
    config: ClipConfig,
    prep: ImagePrep,
    tokenizer: Tokenizer,
    weights: Arc<CanonicalWeights>,
    info: ModelInfo,
    cache_dir: Option<std::path::PathBuf>,
    device: Device,
    trainable: bool,
    variables: Option<Arc<Variables>>,
    precision: Precision,
    vision: Mutex<Option<Arc<VisionTransformer>>>,
    text: Mutex<Option<Arc<TextTransformer>>>,
    space: Mutex<Option<SpaceId>>,
}

/// What a [`Prepared`] of this family holds.
enum ClipData {
    Pixels(PixelTensor),
    Tokens(Vec<u32>),
}

/// What identifies a loaded model to people.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) reference: String,
    pub(crate) location: String,
    pub(crate) licence: Option<String>,
}

impl ClipModel {
    /// Puts a model together. No tensor is decoded yet.
    ///
    /// # Errors
    /// A device that isn't there, and a precision that it has no arithmetic for.
    pub(crate) fn new(
        config: ClipConfig,
        tokenizer: Tokenizer,
        weights: CanonicalWeights,
        origin: Origin,
        options: &LoadOptions,
    ) -> Result<Self> {
        let device = options.device.open()?;
        let prep = config.prep.clone().with(&options.prep);
        let stored = if weights.is_quantised() { Precision::Int8 } else { Precision::Fp32 };
        // Gradients are in floating point, whatever the weights come from, and so is what runs elsewhere than on the processor.
        let floating = options.trainable || !device.is_cpu();
        if options.precision == Some(Precision::Int8) && !device.is_cpu() {
            let device = options.device;
            return Err(Error::Unsupported(format!(
                "the precision int8 on {device}; expected fp32, or the device cpu"
            )));
        }
        let precision = if floating { Precision::Fp32 } else { options.precision.unwrap_or(stored) };
        let info = describe(&config, &prep, &tokenizer, &weights, origin, (precision, options.device));
        Ok(Self {
            config,
            prep,
            tokenizer,
            weights: Arc::new(weights),
            info,
            cache_dir: options.cache_dir.clone().or_else(crate::options::default_cache_dir),
            device,
            trainable: options.trainable,
            variables: None,
            precision,
            vision: Mutex::new(None),
            text: Mutex::new(None),
            space: Mutex::new(None),
        })
    }

    /// The same model with its selected parameters as variables, on this device.
    pub(crate) fn for_training(self, variables: Arc<Variables>, device: Device) -> Self {
        Self { trainable: true, variables: Some(variables), device, precision: Precision::Fp32, ..self }
    }

    /// The configuration the model was built from.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// How pictures are prepared, with the user's departures applied.
    pub fn prep(&self) -> &ImagePrep {
        &self.prep
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vision tower, built on first use.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn vision(&self) -> Result<Arc<VisionTransformer>> {
        let grid = self.config.layout.grid_resize();
        once(&self.vision, || VisionTransformer::load(&self.config.vision, &self.parameters(), grid))
    }

    /// The text tower, built on first use.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn text(&self) -> Result<Arc<TextTransformer>> {
        once(&self.text, || TextTransformer::load(&self.config.text, &self.parameters()))
    }

    /// The stages of preparing and embedding pictures of one size, `pixels` of shape `[batch, 3, height, width]`.
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn trace_pixels(&self, pixels: &Tensor) -> Result<Trace> {
        self.vision()?.trace(pixels)
    }

    /// The stages of embedding token ids; see [`TextTransformer::trace`].
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn trace_tokens(&self, ids: &[Vec<u32>], present: Option<&[Vec<bool>]>) -> Result<Trace> {
        self.text()?.trace(ids, present)
    }

    fn parameters(&self) -> Parameters<'_> {
        let Self { weights, device, trainable, precision, variables, .. } = self;
        Parameters { weights, device, trainable: *trainable, variables: variables.as_deref(), precision: *precision }
    }

    /// The identity of the weights, whatever layout and precision they are in; what a derived copy carries under
    /// [`ORIGIN_KEY`](crate::ORIGIN_KEY).
    ///
    /// # Errors
    /// Tensors that can't be decoded.
    pub fn weights_id(&self) -> Result<SpaceId> {
        space::weights_id(&self.weights)
    }

    /// The weights under canonical names.
    pub(crate) fn weights(&self) -> &CanonicalWeights {
        &self.weights
    }

    /// A scalar of the checkpoint, for example `logit_scale`.
    fn scalar(&self, name: &str) -> Result<f32> {
        Ok(self.weights.values(name)?.1[0])
    }

    /// Everything besides weights that makes vectors what they are, as far as the layouts of one checkpoint share it.
    fn space_rules(&self) -> Result<String> {
        let ClipConfig { layout: _, vision: v, text: t, embed_dim, logit_bias: _, prep, tokenizer: _ } = &self.config;
        let end_of_text = self.tokenizer.encode("")?.ids.last().copied();
        let pool = match t.pool {
            TextPool::LargestId => "end of text".to_string(),
            TextPool::FirstId(id) if Some(id) == end_of_text => "end of text".to_string(),
            other => format!("{other:?}"),
        };
        // Squash and shortest edge differ; how odd margins, transparency or orientation are treated does not make
        // another space, only another vector, which the cache key tells apart.
        let geometry = match prep.resize {
            Resize::None => "none",
            Resize::ShortestEdge { .. } | Resize::Cover { .. } => "cover",
            Resize::Squash { .. } => "squash",
            Resize::Longest { .. } => "fit",
        };
        let probe = self.tokenizer.encode(VOCABULARY_PROBE)?.ids;
        Ok(format!(
            "clip {embed_dim} vision {:?} {} {:?} {} {} {:?} {} {:?} {:?} {:?} text {} {} {:?} {} {} {pool} {probe:?}",
            v.image_size,
            v.heads,
            v.activation,
            v.eps,
            v.pre_norm,
            v.pool,
            geometry,
            prep.filter,
            prep.rescale,
            prep.normalise,
            t.context_length,
            t.heads,
            t.activation,
            t.eps,
            t.causal,
        ))
    }

    fn check_options(&self, input: &Input) -> Result<()> {
        let name = &self.info.name;
        if let Some(instruction) = &input.instruction {
            return Err(Error::Input(format!("{name} takes no instructions, but one was given: {instruction:?}")));
        }
        if let Some(dimensions) = input.dimensions.filter(|dimensions| *dimensions != self.config.embed_dim) {
            let only = self.config.embed_dim;
            return Err(Error::Input(format!("{name} gives {only} dimensions and can't be cut to {dimensions}")));
        }
        if let Some(span) = &input.span {
            return Err(Error::Input(format!(
                "{name} embeds pictures and texts whole, but a span was given: {span:?}"
            )));
        }
        Ok(())
    }

    fn prepared_text(&self, ids: Vec<u32>, truncated: bool) -> Prepared {
        let cost = ids.len();
        Prepared {
            modality: Modality::Text,
            cost,
            nominal_flops: self.config.text.nominal_flops(cost, self.config.embed_dim),
            truncated,
            decoding: Duration::ZERO,
            data: Box::new(ClipData::Tokens(ids)),
        }
    }

    /// Ids that somebody else tokenised, checked and with begin and end tokens.
    fn complete(&self, ids: &[u32]) -> Result<Vec<u32>> {
        let size = self.config.text.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            let name = &self.info.name;
            return Err(Error::Input(format!(
                "the token id {id} is beyond the vocabulary of {name}, which has {size} ids"
            )));
        }
        self.tokenizer.complete(ids)
    }

    /// Embeds pictures that were prepared by [`ImagePrep::tensor`](crossmodal_media::ImagePrep::tensor): un-normalised vectors of length
    /// [`dimension`](Embedder::dimension), in order. Any number at a time.
    ///
    /// # Errors
    /// Weights that can't be loaded, pictures smaller than a patch, or a raised `cancel` token.
    pub fn encode_pixels(&self, pictures: &[PixelTensor], cancel: &CancelToken) -> Result<Vec<Vec<f32>>> {
        let tower = self.vision()?;
        let size = |picture: &PixelTensor| (picture.height as usize, picture.width as usize);
        let mut results = vec![Vec::new(); pictures.len()];
        let mut rest: Vec<usize> = (0..pictures.len()).collect();
        // Nearly always all are of one size.
        while let Some(first) = rest.first() {
            let (height, width) = size(&pictures[*first]);
            let (these, others): (Vec<usize>, Vec<usize>) =
                rest.iter().partition(|place| size(&pictures[**place]) == (height, width));
            let pixels: Vec<&[f32]> = these.iter().map(|place| pictures[*place].data.as_slice()).collect();
            let vectors = tower.encode(Pictures { pixels: &pixels, height, width }, cancel)?;
            these.into_iter().zip(vectors).for_each(|(place, vector)| results[place] = vector);
            rest = others;
        }
        Ok(results)
    }

    /// Embeds token ids as [`Tokenizer::encode`] gives them: un-normalised vectors of length [`dimension`](Embedder::dimension), in
    /// order. Any number of texts of any lengths at a time; beginnings that several of them share are computed once.
    ///
    /// # Errors
    /// Weights that can't be loaded, a text that is empty or too long, ids beyond the vocabulary, or a raised `cancel` token.
    pub fn encode_tokens(&self, texts: &[Vec<u32>], cancel: &CancelToken) -> Result<Vec<Vec<f32>>> {
        let tower = self.text()?;
        if !self.config.text.needs_padding() {
            return tower.encode(texts, cancel);
        }
        let length = self.tokenizer.context_length();
        let padded: Vec<Vec<u32>> = texts.iter().map(|ids| self.tokenizer.padded(ids, length)).collect();
        tower.encode(&padded, cancel)
    }
}

/// Builds a tower unless it is there already; two threads never build it twice.
fn once<T>(slot: &Mutex<Option<Arc<T>>>, build: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    match &*slot {
        Some(tower) => Ok(tower.clone()),
        None => Ok(slot.insert(Arc::new(build()?)).clone()),
    }
}

fn describe(
    config: &ClipConfig,
    prep: &ImagePrep,
    tokenizer: &Tokenizer,
    weights: &CanonicalWeights,
    origin: Origin,
    (precision, device): (Precision, crate::options::Device),
) -> ModelInfo {
    let tower =
        |modality, architecture, prefix| TowerInfo { modality, architecture, parameters: weights.parameters(prefix) };
    ModelInfo {
        name: origin.name,
        reference: origin.reference,
        family: "clip".into(),
        layout: config.layout.as_str().into(),
        towers: vec![
            tower(Modality::Image, config.vision.describe(), "vision."),
            tower(Modality::Text, config.text.describe(), "text."),
        ],
        parameters: weights.parameters(""),
        dimension: config.embed_dim,
        modalities: vec![Modality::Text, Modality::Image],
        preprocessing: Some(crate::config::describe_prep(prep)),
        tokenizer: Some(tokenizer.describe()),
        licence: origin.licence,
        precision,
        device,
        location: origin.location,
    }
}

impl Embedder for ClipModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn space(&self) -> Result<SpaceId> {
        let mut slot = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        match *slot {
            Some(id) => Ok(id),
            None => {
                let id = space::cached(&self.weights, &self.space_rules()?, self.cache_dir.as_deref())?;
                Ok(*slot.insert(id))
            }
        }
    }

    fn modalities(&self) -> &[Modality] {
        &self.info.modalities
    }

    fn dimension(&self) -> usize {
        self.config.embed_dim
    }

    fn fingerprint(&self, input: &Input) -> String {
        // Role, instruction, dimensions and span have no effect here or are refused.
        let precision = self.info.precision.as_str();
        // A quantised copy shares its origin's space but not its numbers, in whatever arithmetic.
        let stored = if self.weights.is_quantised() { " quantised" } else { "" };
        // Sums are taken in another order there.
        let device = if self.device.is_cpu() { "" } else { " cuda" };
        match input.modality {
            Modality::Image => format!("clip {precision}{stored}{device} image {}", self.prep.fingerprint()),
            Modality::Text => format!("clip {precision}{stored}{device} text {}", self.tokenizer.describe()),
            Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => String::new(),
        }
    }

    fn prepare(&self, input: &Input) -> Result<Prepared> {
        self.check_options(input)?;
        match (input.modality, &input.content) {
            (Modality::Image, Content::Bytes(bytes)) => {
                let start = Instant::now();
                let opened = self.prep.open(bytes)?;
                let decoding = start.elapsed();
                let pixels = self.prep.finish(opened)?;
                let cost = self.config.vision.positions();
                Ok(Prepared {
                    modality: Modality::Image,
                    cost,
                    nominal_flops: self.config.vision.nominal_flops(self.config.embed_dim),
                    truncated: false,
                    decoding,
                    data: Box::new(ClipData::Pixels(pixels)),
                })
            }
            (Modality::Text, Content::Text(text)) => {
                let encoded = self.tokenizer.encode(text)?;
                Ok(self.prepared_text(encoded.ids, encoded.truncated))
            }
            (Modality::Text, Content::Tokens(ids)) => Ok(self.prepared_text(self.complete(ids)?, false)),
            (Modality::Text, Content::Bytes(_)) => {
                Err(Error::Input("a text was given as bytes, expected a string".into()))
            }
            (Modality::Image, Content::Text(_) | Content::Tokens(_)) => {
                Err(Error::Input("a picture was given as a string, expected the bytes of an image file".into()))
            }
            (Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu, _) => {
                let has: Vec<_> = self.modalities().iter().map(|modality| modality.as_str()).collect();
                let (name, asked) = (&self.info.name, input.modality);
                Err(Error::Input(format!("{name} has no tower for {asked}, it embeds {}", has.join(" and "))))
            }
        }
    }

    fn encode(&self, batch: Vec<Prepared>, cancel: &CancelToken) -> Result<Vec<Embedding>> {
        let mut results: Vec<Option<Embedding>> = batch.iter().map(|_| None).collect();
        let truncated: Vec<bool> = batch.iter().map(|prepared| prepared.truncated).collect();
        let (mut pictures, mut texts) = (Vec::new(), Vec::new());
        for (place, prepared) in batch.into_iter().enumerate() {
            match prepared.data.downcast::<ClipData>().map(|data| *data) {
                Ok(ClipData::Pixels(pixels)) => pictures.push((place, pixels)),
                Ok(ClipData::Tokens(ids)) => texts.push((place, ids)),
                Err(_) => return Err(Error::Input("an input prepared by another model reached this one".into())),
            }
        }
        let (picture_places, pictures): (Vec<usize>, Vec<PixelTensor>) = pictures.into_iter().unzip();
        let (text_places, texts): (Vec<usize>, Vec<Vec<u32>>) = texts.into_iter().unzip();
        // A tower that has nothing to do isn't loaded.
        let mut put = |places: Vec<usize>, vectors: Vec<Vec<f32>>| {
            for (place, native) in places.into_iter().zip(vectors) {
                results[place] = Some(Embedding::from_native(native)?);
            }
            Ok::<_, Error>(())
        };
        if !pictures.is_empty() {
            put(picture_places, self.encode_pixels(&pictures, cancel)?)?;
        }
        if !texts.is_empty() {
            put(text_places, self.encode_tokens(&texts, cancel)?)?;
        }
        let results = results.into_iter().flatten().zip(truncated);
        Ok(results.map(|(embedding, truncated)| Embedding { truncated, ..embedding }).collect())
    }

    fn tokenize(&self, text: &str) -> Result<Option<Tokenized>> {
        self.tokenizer.tokenize(text).map(Some)
    }

    fn logit_rule(&self) -> Result<Option<LogitRule>> {
        let scale = self.scalar("logit_scale")?.exp();
        let bias = if self.config.logit_bias { self.scalar("logit_bias")? } else { 0.0 };
        // A bias comes with the sigmoid loss.
        let probability = if self.config.logit_bias { ProbabilityRule::Sigmoid } else { ProbabilityRule::Softmax };
        Ok(Some(LogitRule { scale, bias, probability }))
    }
}

/// What all names of a checkpoint begin with, found by a name that every checkpoint of the layout has.
pub(crate) fn prefix_of<'a>(names: impl Iterator<Item = &'a str>, anchor: &str) -> Option<String> {
    names.filter_map(|name| name.strip_suffix(anchor)).min_by_key(|prefix| prefix.len()).map(str::to_string)
}
