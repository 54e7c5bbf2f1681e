//! Backpropagation without copies of the parameters' gradients.
//!
//! Candle adds what an operation returns to a tensor of zeros that it makes for each operand. For parameters that is a pass over
//! memory of thrice their size, by one thread. [`backward`] keeps their gradients aside instead and puts them into the result as they
//! are; candle's own `backward` gives the same, slower.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};

thread_local! {
    /// Gradients of variables that operations of this thread found since [`backward`] began; `None` outside of it.
    static ASIDE: RefCell<Option<HashMap<TensorId, (Tensor, Tensor)>>> = const { RefCell::new(None) };
}

/// Ends the keeping aside, whatever happens.
struct Aside;

impl Drop for Aside {
    fn drop(&mut self) {
        ASIDE.with_borrow_mut(Option::take);
    }
}

/// The gradients of a loss with respect to all variables it depends on: what `loss.backward()` gives, faster.
///
/// # Errors
/// Operations without a gradient, or failures of the tensor library.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    ASIDE.with_borrow_mut(|aside| *aside = Some(HashMap::new()));
    let ended = Aside;
    let mut store = loss.backward()?;
    let found = ASIDE.with_borrow_mut(Option::take).unwrap_or_default();
    drop(ended);
    for (variable, gradient) in found.into_values() {
        let gradient = match store.remove(&variable) {
            Some(other) => (gradient + other)?.detach(),
            None => gradient,
        };
        store.insert(&variable, gradient);
    }
    Ok(store)
}

/// What an operation returns as the gradient of an operand: kept aside for a variable while [`backward`] runs.
pub(crate) fn returned(operand: &Tensor, gradient: Vec<f32>) -> Result<Option<Tensor>> {
    let gradient = Tensor::from_vec(gradient, operand.shape(), operand.device())?;
    keep_aside(operand, gradient)
}

/// Keeps the gradient of a variable aside while [`backward`] runs, and gives it back otherwise.
pub(crate) fn keep_aside(operand: &Tensor, gradient: Tensor) -> Result<Option<Tensor>> {
    if !operand.is_variable() {
        return Ok(Some(gradient));
    }
    ASIDE.with_borrow_mut(|aside| {
        let Some(aside) = aside else { return Ok(Some(gradient)) };
        let sum = match aside.remove(&operand.id()) {
            Some((_, other)) => (gradient + other)?,
            None => gradient,
        };
        aside.insert(operand.id(), (operand.clone(), sum));
        Ok(None)
    })
}
