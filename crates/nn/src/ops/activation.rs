//! Non-linearities with their gradients, which need nothing but the input.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use crossmodal_kernels::activation::{Nonlinearity, apply, chain};

use super::gradients::returned;
use super::{Values, crew, elements, session};

struct Activate(Nonlinearity);

/// Applies a non-linearity to every element.
///
/// # Errors
/// Failures of the tensor library.
pub(crate) fn activate(x: &Tensor, nonlinearity: Nonlinearity) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Activate(nonlinearity))
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, layout)?;
        let mut y = vec![0.0; x.len()];
        apply(crew(&session()), self.0, x, &mut y);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dy = dy.contiguous()?;
        let mut dx = Values::of(x)?.to_vec();
        chain(crew(&session()), self.0, &Values::of(&dy)?, &mut dx);
        returned(x, dx)
    }
}
