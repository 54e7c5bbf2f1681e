//! The larger model of a distillation: it sees the same prepared batch.

use crossmodal_models::{CancelToken, ClipModel, Embedder, LoadOptions, load_clip};

use candle_core::{Device, Tensor};

use crate::batch::{Batch, Side, normalised};
use crate::error::{Error, Result};
use crate::loss::Teacher;
use crate::model::Model;

/// A model whose embeddings are the target of another's.
#[derive(Debug)]
pub struct TeacherModel {
    clip: ClipModel,
    scale: f64,
}

impl TeacherModel {
    /// Loads a teacher for this student. Both look at the same pixels and token ids, so they must prepare pictures and texts alike.
    ///
    /// # Errors
    /// A model that can't be loaded, or that prepares pictures or texts otherwise than the student.
    pub fn load(name: &str, options: &LoadOptions, student: &Model) -> Result<Self> {
        let clip = load_clip(name, options)?;
        let differs = |what: &str, own: String, other: String| {
            Error::Invalid(format!(
                "teacher {name}: {what} as {own}, the student as {other}; teacher and student must prepare their inputs alike"
            ))
        };
        let (own, other) = (clip.prep().fingerprint(), student.clip().prep().fingerprint());
        if own != other {
            return Err(differs("prepares pictures", own, other));
        }
        let probe = "a photo of 2 dogs, near an old bridge at night!";
        let ids = |tokenizer: &crossmodal_models::tokenizer::Tokenizer| {
            Ok::<_, Error>((tokenizer.describe().to_string(), tokenizer.encode(probe)?.ids, tokenizer.context_length()))
        };
        let (own, other) = (ids(clip.tokenizer())?, ids(student.clip().tokenizer())?);
        if own.1 != other.1 || own.2 < other.2 {
            return Err(differs("reads texts", own.0, other.0));
        }
        let scale = clip.logit_rule()?.map_or(1.0, |rule| f64::from(rule.scale));
        Ok(Self { clip, scale })
    }

    /// What the teacher makes of a batch.
    ///
    /// # Errors
    /// A raised `cancel` token, or weights that can't be read.
    pub fn look(&self, batch: &Batch, device: &Device, cancel: &CancelToken) -> Result<Teacher> {
        let embed = |side: &Side| -> Result<Tensor> {
            let vectors = match side {
                Side::Pictures(pictures) => self.clip.encode_pixels(&normalised(pictures, self.clip.prep()), cancel)?,
                Side::Pixels(pictures) => self.clip.encode_pixels(pictures, cancel)?,
                Side::Tokens(texts) => self.clip.encode_tokens(texts, cancel)?,
            };
            let rows = vectors.len();
            let native = Tensor::from_vec(vectors.concat(), (rows, self.clip.dimension()), device)?;
            Ok(crossmodal_nn::l2_normalise(&native)?)
        };
        Ok(Teacher { left: embed(&batch.left)?, right: embed(&batch.right)?, scale: self.scale })
    }
}
