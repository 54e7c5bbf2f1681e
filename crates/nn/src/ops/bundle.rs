//! Any number of parameters as one operand.
//!
//! An operation of candle has at most three operands, a block of a transformer a dozen parameters. They are tied to one tensor of a single
//! element by a chain of carriers, which do nothing forwards. Backwards the block is reached before its carriers: it leaves the
//! gradients with the bundle, and each carrier hands over those of its parameters.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, TensorId};

use super::gradients::keep_aside;

/// Gradients on their way from an operation to the carriers of its parameters.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    found: Mutex<HashMap<TensorId, Tensor>>,
}

impl Bundle {
    /// Ties those of the parameters that need gradients to one tensor.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub(crate) fn tie(parameters: &[&Tensor]) -> Result<(Tensor, Arc<Self>)> {
        let bundle = Arc::new(Self::default());
        let mut seen = HashSet::new();
        let needed = parameters.iter().copied().filter(|parameter| parameter.track_op() && seen.insert(parameter.id()));
        let needed: Vec<&Tensor> = needed.collect();
        let mut tied = Tensor::zeros(1, DType::F32, &Device::Cpu)?;
        for pair in needed.chunks(2) {
            let carrier = Carrier(bundle.clone());
            tied = match pair {
                [first, second] => first.apply_op3(second, &tied, carrier)?,
                [first] => first.apply_op2(&tied, carrier)?,
                _ => tied,
            };
        }
        Ok((tied, bundle))
    }

    /// Leaves the gradient of a parameter for its carrier.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub(crate) fn leave(&self, parameter: &Tensor, gradient: Vec<f32>) -> Result<()> {
        let gradient = Tensor::from_vec(gradient, parameter.shape(), parameter.device())?;
        let Some(gradient) = keep_aside(parameter, gradient)? else { return Ok(()) };
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let gradient = match found.remove(&parameter.id()) {
            Some(other) => (gradient + other)?,
            None => gradient,
        };
        found.insert(parameter.id(), gradient);
        Ok(())
    }

    /// The gradient that was left for a parameter. One that is computed from others always gets one, since candle relies on it.
    fn take(&self, parameter: &Tensor) -> Result<Option<Tensor>> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&parameter.id());
        match found {
            None if !parameter.is_variable() => parameter.zeros_like().map(Some),
            found => Ok(found),
        }
    }
}

/// The gradient of what a bundle is tied to: nothing depends on its value, but its carriers have to be reached.
pub(crate) fn reached(tied: &Tensor) -> Result<Option<Tensor>> {
    tied.track_op().then(|| tied.zeros_like()).transpose()
}

/// Ties one or two parameters to what is tied already.
struct Carrier(Arc<Bundle>);

fn tied() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(1))
}

impl CustomOp2 for Carrier {
    fn name(&self) -> &'static str {
        "parameter of a block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(tied())
    }

    fn bwd(&self, a: &Tensor, rest: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.0.take(a)?, reached(rest)?))
    }
}

impl CustomOp3 for Carrier {
    fn name(&self) -> &'static str {
        "parameters of a block"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(tied())
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        rest: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((self.0.take(a)?, self.0.take(b)?, reached(rest)?))
    }
}
