//! The choice of road: kernels on slices where nobody asks for a gradient and the numbers are plain `f32` in the processor's
//! memory, differentiable operations everywhere else.

use std::ops::Deref;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor};

/// A tensor whose elements can be read as one slice.
pub(crate) struct Plain<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    range: (usize, usize),
}

impl<'a> Plain<'a> {
    /// The tensor's elements in row-major order; `None` where the fused road is closed: the tensor takes part in a gradient,
    /// lies elsewhere, isn't `f32`, or isn't contiguous.
    pub(crate) fn of(tensor: &'a Tensor) -> Option<Self> {
        if tensor.track_op() {
            return None;
        }
        let (storage, layout) = tensor.storage_and_layout();
        let range = layout.contiguous_offsets()?;
        matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))).then(|| Self { storage: Box::new(storage), range })
    }

    /// As [`of`](Self::of) for a tensor that may be absent: `Some(None)` where it is.
    pub(crate) fn maybe(tensor: Option<&'a Tensor>) -> Option<Option<Self>> {
        match tensor {
            None => Some(None),
            Some(tensor) => Self::of(tensor).map(Some),
        }
    }

    /// The elements.
    pub(crate) fn slice(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.0..self.range.1],
            // Ruled out when this was made.
            _ => &[],
        }
    }
}

/// Whether every one of these tensors is open to the fused road.
pub(crate) fn open(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| Plain::of(tensor).is_some())
}

struct InPlace<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                (self.0)(&mut values[start..end]);
                Ok(())
            }
            _ => candle_core::bail!("a fused operation was given a tensor that isn't contiguous f32"),
        }
    }
}

/// Works on the elements of a tensor that nobody else holds: the fresh result of a matrix product.
pub(crate) fn in_place(tensor: &Tensor, work: impl Fn(&mut [f32])) -> Result<()> {
    tensor.inplace_op1(&InPlace(work))
}
