//! Operations with gradients over the kernels, for `f32` on a processor. Layers use them where their operands are such, and candle's own
//! operations elsewhere; tests compare both.
//!
//! None computes a gradient that nobody needs: that of a frozen parameter, or of an input that depends on no variable.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod block;
pub(crate) mod bundle;
pub(crate) mod gradients;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod optimiser;
pub(crate) mod parameters;
pub(crate) mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, StorageRef, Tensor};
use crossmodal_kernels::team::{Crew, Session, Team};

pub use gradients::backward;
pub use optimiser::{adamw, orthogonalise};
pub use rows::{take_rows, take_tokens};
pub use tokens::{assemble_tokens, embed_tokens};

/// Whether all of these are `f32` on a processor.
pub(crate) fn on_processor<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// The threads that operations are shared out to. Only one such session may be open in a thread.
pub(crate) fn session() -> Session<'static> {
    Team::global().session()
}

/// The crew of a session.
pub(crate) fn crew<'a>(session: &'a Session<'_>) -> Crew<'a> {
    Crew::Team(session)
}

/// The elements of a storage that a contiguous layout covers.
pub(crate) fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    Ok(&storage.as_slice::<f32>()?[range(layout)?])
}

pub(crate) fn range(layout: &Layout) -> Result<Range<usize>> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("operand of shape {:?} isn't contiguous", layout.shape())).bt())?;
    Ok(start..end)
}

/// The elements of a contiguous `f32` tensor on a processor, in row-major order.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> Values<'a> {
    /// # Errors
    /// Another type, device or order.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let range = range(layout)?;
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(Self { storage, range }),
            _ => Err(Error::Msg(format!("operand of shape {:?} isn't f32 on a processor", tensor.shape())).bt()),
        }
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `of` makes no such values.
            _ => &[],
        }
    }
}
