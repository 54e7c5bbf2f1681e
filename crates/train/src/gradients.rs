//! The gradients of a step: one tensor a parameter, summed over pieces of a batch, with their common norm.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// Numbers that are summed together whatever the number of threads, so that sums are the same on every machine.
const CHUNK: usize = 1 << 15;

/// One gradient for each parameter of a list, in its order; `None` where nothing depended on the parameter.
#[derive(Debug, Clone)]
pub struct Gradients {
    values: Vec<Option<Tensor>>,
}

impl Gradients {
    /// No gradient yet for so many parameters.
    pub fn empty(parameters: usize) -> Self {
        Self { values: vec![None; parameters] }
    }

    /// Takes the gradients of these parameters out of what back-propagation gave.
    pub fn take(store: &mut GradStore, parameters: &[Parameter]) -> Self {
        Self { values: parameters.iter().map(|parameter| take(store, parameter.var.as_tensor())).collect() }
    }

    /// The gradients in the order of the parameters.
    pub fn values(&self) -> &[Option<Tensor>] {
        &self.values
    }

    /// Replaces the gradient of the parameter at this place.
    pub fn set(&mut self, at: usize, gradient: Option<Tensor>) {
        self.values[at] = gradient;
    }

    /// Adds others times a factor.
    ///
    /// # Errors
    /// Gradients of other parameters.
    pub fn add(&mut self, others: &Self, factor: f64) -> Result<()> {
        if self.values.len() != others.values.len() {
            let (own, other) = (self.values.len(), others.values.len());
            return Err(Error::Invalid(format!("gradients of {own} and of {other} parameters can't be added")));
        }
        for (own, other) in self.values.iter_mut().zip(&others.values) {
            let Some(other) = other else { continue };
            let other = if factor == 1.0 { other.clone() } else { (other * factor)? };
            *own = Some(match own.take() {
                Some(own) => (own + other)?,
                None => other,
            });
        }
        Ok(())
    }

    /// The Euclidean length of all gradients as one vector. NaN or infinity where a gradient has one.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn norm(&self) -> Result<f64> {
        let mut total = 0.0;
        for gradient in self.values.iter().flatten() {
            total += with_values(gradient, sum_of_squares)?;
        }
        Ok(total.sqrt())
    }
}

/// Takes a gradient out of what back-propagation gave. It is cut off from the operations that it was computed by: otherwise it would hold on to the batch's whole graph,
/// and whoever multiplied by it would be differentiated through it.
pub(crate) fn take(store: &mut GradStore, tensor: &Tensor) -> Option<Tensor> {
    store.remove(tensor).map(|gradient| gradient.detach())
}

/// Summed in chunks, whose sums are added in their order.
fn sum_of_squares(values: &[f32]) -> f64 {
    let chunk = |chunk: &[f32]| chunk.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    values.par_chunks(CHUNK).map(chunk).collect::<Vec<f64>>().iter().sum()
}

/// The factor that brings gradients of this norm to at most `greatest`, as PyTorch's `clip_grad_norm_` computes it.
pub fn clip_factor(norm: f64, greatest: Option<f64>) -> f64 {
    greatest.map_or(1.0, |greatest| (greatest / (norm + 1e-6)).min(1.0))
}

/// Hands out a tensor's values in row-major order, without a copy where they lie so in memory.
///
/// # Errors
/// Failures of the tensor library.
pub fn with_values<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    if matches!(tensor.device(), Device::Cpu) && tensor.dtype() == DType::F32 {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(work(&values[start..end]));
        }
    }
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(work(&values))
}

/// Changes a variable's values in place; on another device than the processor, by way of a copy.
///
/// # Errors
/// Failures of the tensor library.
pub fn update(var: &Var, work: impl FnOnce(&mut [f32])) -> Result<()> {
    if matches!(var.device(), Device::Cpu) && var.dtype() == DType::F32 && var.is_contiguous() {
        let change = Change(std::cell::RefCell::new(Some(work)));
        return Ok(var.as_tensor().inplace_op1(&change)?);
    }
    let mut values: Vec<f32> = var.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    work(&mut values);
    let changed = Tensor::from_vec(values, var.shape(), var.device())?.to_dtype(var.dtype())?;
    Ok(var.set(&changed)?)
}

/// A change of a tensor's storage, to be made once.
struct Change<F>(std::cell::RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "update of a variable"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let place = layout.contiguous_offsets();
        let work = self.0.borrow_mut().take();
        match (storage, place, work) {
            (CpuStorage::F32(values), Some((start, end)), Some(work)) => {
                work(&mut values[start..end]);
                Ok(())
            }
            _ => Err(candle_core::Error::Msg("a variable's values aren't contiguous 32-bit floats".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_of_all_gradients_together_and_views_are_read_right() {
        let matrix = Tensor::new(&[[3f32, 0.0], [0.0, 0.0], [0.0, 4.0]], &Device::Cpu).unwrap();
        let mut gradients = Gradients::empty(3);
        gradients.set(0, Some(matrix.t().unwrap()));
        gradients.set(2, Some(Tensor::new(&[12f32], &Device::Cpu).unwrap()));
        assert_eq!(gradients.norm().unwrap(), 13.0);
        let column = matrix.narrow(1, 1, 1).unwrap();
        assert_eq!(with_values(&column, <[f32]>::to_vec).unwrap(), [0.0, 0.0, 4.0]);
        assert_eq!(clip_factor(13.0, None), 1.0);
        assert_eq!(clip_factor(0.5, Some(1.0)), 1.0);
        assert!((clip_factor(13.0, Some(1.0)) - 1.0 / 13.0).abs() < 1e-6);
    }

    #[test]
    fn variables_change_in_place() {
        let var = Var::new(&[1f32, 2.0, 3.0], &Device::Cpu).unwrap();
        let view = var.as_tensor().reshape((1, 3)).unwrap();
        update(&var, |values| values.iter_mut().for_each(|x| *x *= 2.0)).unwrap();
        assert_eq!(view.to_vec2::<f32>().unwrap(), [[2.0, 4.0, 6.0]]);
    }
}
