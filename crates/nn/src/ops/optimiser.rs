//! Steps of an optimiser on variables in place.

use std::sync::Mutex;

use candle_core::{CpuStorage, Error, InplaceOp2, Layout, Result, Tensor};
use crossmodal_kernels::optimiser::{self, AdamW, NEWTON_SCHULZ};

use super::{crew, elements, on_processor, range, session};

/// The moments of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Decaying mean of the gradient.
    pub first: Vec<f32>,
    /// Decaying mean of its square.
    pub second: Vec<f32>,
}

impl Moments {
    /// Those of a parameter that hasn't moved yet.
    pub fn new(parameter: &Tensor) -> Self {
        let count = parameter.elem_count();
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }
}

struct Step<'a> {
    settings: AdamW,
    moments: Mutex<&'a mut Moments>,
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "step of AdamW"
    }

    fn cpu_fwd(&self, parameter: &mut CpuStorage, pl: &Layout, gradient: &CpuStorage, gl: &Layout) -> Result<()> {
        let gradient = elements(gradient, gl)?;
        let CpuStorage::F32(values) = parameter else {
            return Err(Error::Msg("a step of AdamW on something else than f32".into()).bt());
        };
        let mut moments = self.moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Moments { first, second } = &mut **moments;
        self.settings.run(crew(&session()), &mut values[range(pl)?], gradient, first, second);
        Ok(())
    }
}

/// Moves a variable by a step of AdamW, in place and over the kernels. Graphs that were built with the variable before are no longer to be
/// used.
///
/// # Errors
/// A variable that isn't contiguous `f32` on a processor, or a gradient or moments of another size.
pub fn adamw_step(variable: &Tensor, gradient: &Tensor, moments: &mut Moments, settings: AdamW) -> Result<()> {
    let count = variable.elem_count();
    let sizes = [gradient.elem_count(), moments.first.len(), moments.second.len()];
    if sizes != [count; 3] {
        return Err(Error::Msg(format!("gradient and moments of {sizes:?} elements for a variable of {count}")).bt());
    }
    if !on_processor([variable, gradient]) {
        return Err(Error::Msg("a step of AdamW on a variable that isn't f32 on a processor".into()).bt());
    }
    variable.inplace_op2(&gradient.contiguous()?, &Step { settings, moments: Mutex::new(moments) })
}

/// Replaces a matrix of so many rows by about the nearest with singular values of about 1 (0.7 to 1.2), by Newton and Schulz's iteration over the
/// kernels, as Muon does.
///
/// # Panics
/// When the elements aren't of so many rows.
pub fn orthogonalise(matrix: &mut [f32], rows: usize, iterations: usize) {
    optimiser::orthogonalise(crew(&session()), matrix, rows, iterations, NEWTON_SCHULZ);
}
