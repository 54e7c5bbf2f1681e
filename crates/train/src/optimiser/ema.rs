//! A running mean of parameters, which is often better than the last ones.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::gradients::with_values;
use crate::parameter::Parameter;

/// Numbers that a thread updates at a time.
const CHUNK: usize = 1 << 14;

/// The exponential moving average of parameters.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    /// In the order of the parameters.
    values: Vec<Vec<f32>>,
}

impl Average {
    /// An average that starts from the parameters as they are. `decay` says how slowly it forgets, for example 0.999.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn new(parameters: &[Parameter], decay: f64) -> Result<Self> {
        let values = parameters.iter().map(|parameter| with_values(parameter.var.as_tensor(), <[f32]>::to_vec));
        Ok(Self { decay, values: values.collect::<Result<_>>()? })
    }

    /// Takes in the parameters after step number `count`, the first being 1. Early steps count for more, since otherwise the untrained parameters would stay in it for
    /// long: the decay is at most `(1 + count) / (10 + count)`.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn update(&mut self, parameters: &[Parameter], count: u64) -> Result<()> {
        let early = (1.0 + count as f64) / (10.0 + count as f64);
        let share = (1.0 - self.decay.min(early)) as f32;
        for (parameter, mean) in parameters.iter().zip(&mut self.values) {
            with_values(parameter.var.as_tensor(), |values| {
                mean.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(mean, values)| {
                    mean.iter_mut().zip(values).for_each(|(mean, x)| *mean += share * (x - *mean));
                });
            })?;
        }
        Ok(())
    }

    /// The averages in the order of the parameters.
    pub fn values(&self) -> &[Vec<f32>] {
        &self.values
    }

    /// Takes over averages that [`values`](Self::values) gave.
    ///
    /// # Errors
    /// Averages of other sizes.
    pub fn restore(&mut self, values: Vec<Vec<f32>>) -> Result<()> {
        let sizes = |values: &[Vec<f32>]| values.iter().map(Vec::len).collect::<Vec<_>>();
        if sizes(&values) != sizes(&self.values) {
            return Err(Error::Invalid("averages of other parameters, expected those of this model".into()));
        }
        self.values = values;
        Ok(())
    }
}
