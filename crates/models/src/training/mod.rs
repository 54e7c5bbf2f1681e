//! Models to be trained: variables under canonical names, differentiable embeddings of batches, and the way back into files.

mod initialise;
mod save;
mod variables;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use crossmodal_media::{ImagePrep, PixelTensor};

pub use save::replace_file;
pub use variables::{AdapterRule, Variables};

use crate::clip::ClipModel;
use crate::companions::companions;
use crate::config::ClipConfig;
use crate::error::{Error, Result};
use crate::load::{Beginning, locate_clip, untrained_clip};
use crate::options::LoadOptions;
use crate::tokenizer::Tokenizer;

/// A CLIP model whose selected parameters are variables.
#[derive(Debug)]
pub struct TrainableClip {
    clip: Arc<ClipModel>,
    variables: Arc<Variables>,
    /// Names and contents of the files that the model consists of besides weights.
    companions: Vec<(String, Vec<u8>)>,
    logit_scale: Tensor,
    logit_bias: Option<Tensor>,
    device: Device,
}

impl TrainableClip {
    /// Loads the model of this name for training on `device`. `variables` says which parameters become some.
    ///
    /// # Errors
    /// As [`load`](crate::load()).
    pub fn load(name: &str, options: &LoadOptions, device: &Device, variables: Variables) -> Result<Self> {
        let options = LoadOptions { trainable: true, precision: None, ..options.clone() };
        let (located, clip) = locate_clip(name, &options)?;
        let companions = companions(&located, &clip)?;
        Self::new(clip, companions, device, variables)
    }

    /// Begins an untrained model: `architecture` is a folder with everything that a model consists of but weights. Parameters are drawn from the seed, as transformers
    /// or open_clip draw them; the folder's layout says which.
    ///
    /// # Errors
    /// A folder without a configuration or a tokenizer, or an architecture that can't be begun from nothing.
    pub fn begin(
        architecture: &Path,
        seed: u64,
        options: &LoadOptions,
        device: &Device,
        variables: Variables,
    ) -> Result<Self> {
        let options = LoadOptions { trainable: true, precision: None, ..options.clone() };
        let draw = |config: &ClipConfig, name: &str, shape: &[usize]| initialise::values(config, seed, name, shape);
        let (located, clip) =
            untrained_clip(architecture, &options, Beginning { check: initialise::check, draw: &draw })?;
        let companions = companions(&located, &clip)?;
        Self::new(clip, companions, device, variables)
    }

    fn new(clip: ClipModel, companions: Vec<(String, Vec<u8>)>, device: &Device, variables: Variables) -> Result<Self> {
        let variables = Arc::new(variables);
        let clip = Arc::new(clip.for_training(variables.clone(), device.clone()));
        let scalar = |name: &str| {
            let value = clip.weights().values(name)?.1[0];
            variables.parameter(name, Tensor::new(value, device)?)
        };
        let logit_scale = scalar("logit_scale")?;
        let logit_bias = clip.config().logit_bias.then(|| scalar("logit_bias")).transpose()?;
        // Both towers now, so that all variables are known.
        clip.vision()?;
        clip.text()?;
        Ok(Self { clip, variables, companions, logit_scale, logit_bias, device: device.clone() })
    }

    /// The model itself, for what it knows about preparing its inputs.
    pub fn model(&self) -> &Arc<ClipModel> {
        &self.clip
    }

    /// The configuration the model was built from.
    pub fn config(&self) -> &ClipConfig {
        self.clip.config()
    }

    /// How pictures are prepared.
    pub fn prep(&self) -> &ImagePrep {
        self.clip.prep()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.clip.tokenizer()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The variables by their canonical names, in alphabetical order.
    pub fn variables(&self) -> BTreeMap<String, Var> {
        self.variables.all()
    }

    /// Canonical names of all parameters, variables or not, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clip.weights().names()
    }

    /// The logarithm of the factor on cosines, a scalar.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }

    /// What is added to scaled cosines, a scalar; only models for the sigmoid loss have one.
    pub fn logit_bias(&self) -> Option<&Tensor> {
        self.logit_bias.as_ref()
    }

    /// Number of patches of a picture of the model's own size.
    pub fn patches(&self) -> usize {
        self.config().vision.positions() - 1
    }

    /// Maps prepared pictures of one size to un-normalised embeddings `[pictures, embed_dim]`, differentiably. Where `kept` is given, each picture is seen only through
    /// the patches whose numbers are listed for it (row by row from the top, the first being 0), as many for each.
    ///
    /// # Errors
    /// Pictures of different sizes or smaller than a patch, or patches that don't exist.
    pub fn embed_pixels(&self, pictures: &[PixelTensor], kept: Option<&[Vec<u32>]>) -> Result<Tensor> {
        let Some(first) = pictures.first() else { return Err(Error::Input("no pictures to embed".into())) };
        let (height, width) = (first.height as usize, first.width as usize);
        let mut pixels = Vec::with_capacity(pictures.len() * first.data.len());
        for picture in pictures {
            if (picture.height as usize, picture.width as usize) != (height, width) {
                let (h, w) = (picture.height, picture.width);
                return Err(Error::Input(format!(
                    "pictures of {width} x {height} and of {w} x {h} pixels in one batch"
                )));
            }
            pixels.extend_from_slice(&picture.data);
        }
        let pixels = Tensor::from_vec(pixels, (pictures.len(), 3, height, width), &self.device)?;
        self.clip.vision()?.forward_kept(&pixels, kept)
    }

    /// Maps token ids, with begin and end tokens and without padding, to un-normalised embeddings `[texts, embed_dim]`, differentiably.
    ///
    /// # Errors
    /// An empty text, one longer than the context, or ids beyond the vocabulary.
    pub fn embed_tokens(&self, texts: &[Vec<u32>]) -> Result<Tensor> {
        let (config, tokenizer) = (&self.config().text, self.tokenizer());
        let most = tokenizer.context_length();
        if let Some(wrong) = texts.iter().find(|ids| ids.is_empty() || ids.len() > most) {
            let found = wrong.len();
            return Err(Error::Input(format!("a text of {found} tokens, expected 1 to {most}")));
        }
        if let Some(id) = texts.iter().flatten().find(|id| **id as usize >= config.vocab_size) {
            let size = config.vocab_size;
            return Err(Error::Input(format!("the token id {id} is beyond the vocabulary, which has {size} ids")));
        }
        let longest = if config.needs_padding() { most } else { texts.iter().map(Vec::len).max().unwrap_or(0) };
        let padded: Vec<Vec<u32>> = texts.iter().map(|ids| tokenizer.padded(ids, longest)).collect();
        self.clip.text()?.forward(&padded)
    }

    /// The shape of the parameter of this canonical name.
    fn shape(&self, name: &str) -> Vec<usize> {
        match self.variables.all().get(name) {
            Some(var) => var.dims().to_vec(),
            None => self.clip.weights().shape(name),
        }
    }

    /// Shape and elements of the parameter of this canonical name as they are now, without what adapters beside it change.
    ///
    /// # Errors
    /// A name that the model doesn't have.
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        match self.variables.all().get(name) {
            Some(var) => {
                let values = var.as_tensor().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                Ok((var.dims().to_vec(), values))
            }
            None => self.clip.weights().values(name),
        }
    }
}
