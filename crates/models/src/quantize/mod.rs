//! Quantised copies of models: a folder in the source's layout with 8-bit weights, about a quarter of the size in 32-bit floats.
//!
//! The linear layers of all blocks and the token table are stored in 8-bit integers with a scale per row, everything else as 32-bit
//! floats with exactly the source's values. Such a folder loads like any other model and runs in integers unless another precision is
//! asked for. It carries the id of its source's weights, so that its vectors stay in the source's space.
//!
//! Pictures get the same vectors, bit for bit, as from the source loaded with [`Precision::Int8`](crate::Precision::Int8). Texts get
//! nearly the same: there, the token table is used as the source has it. On `mini`, rounding the table too takes the mean cosine between
//! texts in fp32 and in int8 from 0.999824 to 0.999816; it is half of a small text tower, so it is worth that.

mod file;
mod folder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::companions::{companions, weight_name};
use crate::embedder::Embedder;
use crate::error::{Error, Result};
use crate::load::locate_clip;
use crate::options::LoadOptions;
use crate::space::ORIGIN_KEY;
use crate::weights::CanonicalWeights;
use file::WeightWriter;
use folder::{NewFolder, Place};

/// Metadata key of safetensors files that says how their matrices are quantised.
pub const SCHEME_KEY: &str = "crossmodal.quantization";

/// The value of [`SCHEME_KEY`]: each row of a matrix is integers from -63 to 63 times a scale, those of the token table from -127 to
/// 127.
pub const SCHEME: &str = "int8 per row, 63 levels, 127 in the token table";

/// How a copy is made.
#[derive(Debug, Clone, Default)]
pub struct QuantizeOptions {
    /// Replace a quantised copy that is there already. Anything else that is there is never touched.
    pub force: bool,
    /// How the source is loaded; precision and preparation don't matter. Its token is watched between tensors.
    pub load: LoadOptions,
}

/// What became of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuantizeReport {
    /// Name of the source.
    pub model: String,
    /// The copy's folder.
    pub folder: PathBuf,
    /// Id of the weights, of source and copy alike.
    pub weights_id: String,
    /// Size of the source's weight files, whatever they hold.
    pub source_bytes: u64,
    /// Size that the weights have in 32-bit floats.
    pub fp32_bytes: u64,
    /// Size of the copy's weight file.
    pub bytes: u64,
    /// Number of tensors in integers.
    pub quantised: usize,
    /// Number of tensors in floating point; scales aren't counted.
    pub kept: usize,
}

/// Writes a quantised copy of the model of this name (as [`load`](crate::load) understands it) into the folder `out`, which mustn't
/// exist. Tensors are read, quantised and written one after the other. The folder appears under its name when it is complete; until
/// then, and after a failure, there is nothing of it. `progress` hears how many of how many tensors are done.
///
/// # Errors
/// A model that can't be loaded or is quantised already; an `out` that exists, lies within the source's folder or around it, or can't be
/// written; cancellation.
pub fn quantize(
    name: &str,
    out: &Path,
    options: &QuantizeOptions,
    mut progress: impl FnMut(usize, usize),
) -> Result<QuantizeReport> {
    let load = LoadOptions { precision: None, trainable: false, ..options.load.clone() };
    let (located, model) = locate_clip(name, &load)?;
    let weights = model.weights();
    if weights.is_quantised() {
        return Err(Error::Input(format!("{}: is quantised already", located.describe())));
    }
    let place = Place::choose(out, &located, weights.checkpoint(), options.force)?;
    let id = model.weights_id()?.to_string();
    let metadata = [("format", "pt"), (ORIGIN_KEY, &id), (SCHEME_KEY, SCHEME)];
    let tensors = tensors(weights);
    let folder = NewFolder::beside(&place)?;
    for (name, bytes) in companions(&located, &model)? {
        folder.write(&name, &bytes)?;
    }
    let weights_name = weight_name(model.config().layout);
    let mut writer = WeightWriter::create(&folder, weights_name, weights.checkpoint(), &tensors, &metadata)?;
    for (done, tensor) in tensors.iter().enumerate() {
        progress(done, tensors.len());
        options.load.cancel.check()?;
        writer.add(weights.checkpoint(), tensor)?;
    }
    let bytes = writer.finish()?;
    progress(tensors.len(), tensors.len());
    folder.put_in_place(options.force)?;
    let quantised = tensors.iter().filter(|tensor| tensor.form.is_quantised()).count();
    Ok(QuantizeReport {
        model: model.info().name.clone(),
        folder: out.to_path_buf(),
        weights_id: id,
        source_bytes: weights.checkpoint().size(),
        fp32_bytes: 4 * model.info().parameters,
        bytes,
        quantised,
        kept: tensors.len() - quantised,
    })
}

/// A tensor of the source, and what becomes of it.
#[derive(Debug)]
struct SourceTensor<'a> {
    name: &'a str,
    form: Form,
}

/// What a copy holds of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The same numbers.
    Floats,
    /// Integers of the range that products take.
    Factors,
    /// Integers of any range, for rows that are looked up.
    Rows,
}

impl Form {
    /// What becomes of a canonical tensor, as far as its rows are the source's.
    fn of(canonical: &str) -> Self {
        const LINEAR: [&str; 4] =
            [".attention.qkv.weight", ".attention.out.weight", ".mlp.fc1.weight", ".mlp.fc2.weight"];
        let in_block = canonical.contains(".blocks.") && LINEAR.iter().any(|ending| canonical.ends_with(ending));
        match canonical {
            "text.tokens" => Self::Rows,
            _ if in_block => Self::Factors,
            _ => Self::Floats,
        }
    }

    fn is_quantised(self) -> bool {
        self != Self::Floats
    }
}

/// All tensors that matter, in alphabetical order. Buffers are left out.
fn tensors(weights: &CanonicalWeights) -> Vec<SourceTensor<'_>> {
    let mut forms: BTreeMap<&str, Form> = weights.sources().into_iter().map(|name| (name, Form::Floats)).collect();
    for canonical in weights.names() {
        forms.extend(weights.row_sources(canonical).iter().map(|name| (name.as_str(), Form::of(canonical))));
    }
    forms.into_iter().map(|(name, form)| SourceTensor { name, form }).collect()
}
