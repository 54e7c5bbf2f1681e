//! Parameters of layers as the kernels take them, and sums of their gradients.

use std::ops::Range;

use candle_core::{Result, Tensor};
use crossmodal_kernels::Lease;
use crossmodal_kernels::gemm::{
    Finish, Gradient, Normalisation, PackedWeight, Rows, Target, Then, Weight, column_sums, product,
};
use crossmodal_kernels::team::Crew;

use super::Values;
use super::bundle::Bundle;
use crate::linear::Linear;
use crate::norm::LayerNorm;

/// Parameters of a layer norm.
pub(crate) struct NormValues<'a> {
    weight: Values<'a>,
    bias: Values<'a>,
    pub(crate) eps: f32,
}

impl<'a> NormValues<'a> {
    /// # Errors
    /// Parameters that aren't contiguous `f32` on a processor.
    pub(crate) fn of(norm: &'a LayerNorm) -> Result<Self> {
        let [weight, bias] = norm.parameters();
        Ok(Self { weight: Values::of(weight)?, bias: Values::of(bias)?, eps: norm.eps() as f32 })
    }

    /// The norm of rows with these statistics.
    pub(crate) fn with<'b>(&'b self, statistics: &'b [[f32; 2]]) -> Normalisation<'b> {
        Normalisation { statistics, weight: &self.weight, bias: &self.bias }
    }
}

/// Sums of the gradients of a norm's parameters.
pub(crate) struct NormSums {
    sums: Option<(Vec<f32>, Vec<f32>)>,
}

impl NormSums {
    pub(crate) fn of(norm: &LayerNorm) -> Self {
        let wanted = norm.parameters().into_iter().any(Tensor::track_op);
        let [weight, bias] = norm.parameters().map(Tensor::elem_count);
        Self { sums: wanted.then(|| (vec![0.0; weight], vec![0.0; bias])) }
    }

    pub(crate) fn wanted(&self) -> bool {
        self.sums.is_some()
    }

    pub(crate) fn parts(&mut self) -> Option<(&mut [f32], &mut [f32])> {
        self.sums.as_mut().map(|(weight, bias)| (&mut weight[..], &mut bias[..]))
    }

    /// Leaves the sums with a bundle.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub(crate) fn leave(self, norm: &LayerNorm, bundle: &Bundle) -> Result<()> {
        let Some((weight, bias)) = self.sums else { return Ok(()) };
        for (parameter, sums) in norm.parameters().into_iter().zip([weight, bias]) {
            if parameter.track_op() {
                bundle.leave(parameter, sums)?;
            }
        }
        Ok(())
    }
}

/// Parameters of a linear map.
pub(crate) struct LinearValues<'a> {
    weight: Values<'a>,
    bias: Option<Values<'a>>,
    adapters: Vec<AdapterValues<'a>>,
    inner: usize,
    out: usize,
}

struct AdapterValues<'a> {
    down: Values<'a>,
    up: Values<'a>,
    scale: f32,
    outputs: Range<usize>,
    rank: usize,
}

impl<'a> LinearValues<'a> {
    /// # Errors
    /// Parameters that aren't contiguous `f32` on a processor.
    pub(crate) fn of(map: &'a Linear) -> Result<Self> {
        let (out, inner) = map.weight().dims2()?;
        let mut adapters = Vec::new();
        for adapter in map.adapters() {
            adapters.push(AdapterValues {
                down: Values::of(&adapter.down)?,
                up: Values::of(&adapter.up)?,
                scale: adapter.scale as f32,
                outputs: adapter.outputs.clone(),
                rank: adapter.down.dims2()?.0,
            });
        }
        let bias = map.bias().map(Values::of).transpose()?;
        Ok(Self { weight: Values::of(map.weight())?, bias, adapters, inner, out })
    }
}

/// A linear map, packed to be applied.
pub(crate) struct ForwardMap<'a> {
    values: &'a LinearValues<'a>,
    weight: PackedWeight,
    /// Down and up.
    adapters: Vec<(PackedWeight, PackedWeight)>,
}

impl<'a> ForwardMap<'a> {
    pub(crate) fn new(crew: Crew<'_>, values: &'a LinearValues<'a>) -> Self {
        let pack = |weight: &[f32], depth| PackedWeight::new(crew, Weight::OutDepth(weight), depth);
        let adapters = values.adapters.iter().map(|a| (pack(&a.down, values.inner), pack(&a.up, a.rank))).collect();
        Self { values, weight: pack(&values.weight, values.inner), adapters }
    }

    /// Applies the map to rows and stores the result, or adds it to other rows.
    pub(crate) fn apply(&self, crew: Crew<'_>, x: Rows<'_>, then: Then<'_>, out: &mut [f32]) {
        let LinearValues { bias, adapters, out: width, .. } = self.values;
        let finish = Finish { bias: bias.as_deref(), then, ..Finish::STORE };
        product(crew, x, &self.weight, finish, Target::new(out, *width));
        for (adapter, (down, up)) in adapters.iter().zip(&self.adapters) {
            let mut low = Lease::of(x.count() * adapter.rank);
            product(crew, x, down, Finish::STORE, Target::new(&mut low, adapter.rank));
            let finish = Finish { scale: adapter.scale, ..Finish::ACCUMULATE };
            let target = Target { data: out, width: *width, columns: adapter.outputs.clone() };
            product(crew, Rows::new(&low, adapter.rank), up, finish, target);
        }
    }
}

/// A linear map, packed for the gradients.
pub(crate) struct BackwardMap<'a> {
    values: &'a LinearValues<'a>,
    /// From gradients of outputs to those of inputs.
    weight: PackedWeight,
    /// From gradients of an adapter's outputs to those at its rank, from there to those of the inputs, and from inputs to the rank.
    adapters: Vec<[PackedWeight; 3]>,
}

impl<'a> BackwardMap<'a> {
    pub(crate) fn new(crew: Crew<'_>, values: &'a LinearValues<'a>) -> Self {
        let back = |weight: &[f32], depth| PackedWeight::new(crew, Weight::DepthOut(weight), depth);
        let adapter = |adapter: &AdapterValues<'_>| {
            [
                back(&adapter.up, adapter.outputs.len()),
                back(&adapter.down, adapter.rank),
                PackedWeight::new(crew, Weight::OutDepth(&adapter.down), values.inner),
            ]
        };
        let adapters = values.adapters.iter().map(adapter).collect();
        Self { values, weight: back(&values.weight, values.out), adapters }
    }

    pub(crate) fn has_adapters(&self) -> bool {
        !self.adapters.is_empty()
    }

    /// The gradients of the inputs. What follows comes ahead of what adapters add, so with adapters they can only be stored.
    pub(crate) fn input_gradient(&self, crew: Crew<'_>, dy: Rows<'_>, then: Then<'_>, dx: &mut [f32]) {
        let inner = self.values.inner;
        product(crew, dy, &self.weight, Finish { then, ..Finish::STORE }, Target::new(dx, inner));
        for (adapter, [up, down, _]) in self.values.adapters.iter().zip(&self.adapters) {
            let low = self.low_gradient(crew, dy, adapter, up);
            product(crew, Rows::new(&low, adapter.rank), down, Finish::ACCUMULATE, Target::new(dx, inner));
        }
    }

    /// Gradients at the rank of an adapter.
    fn low_gradient(&self, crew: Crew<'_>, dy: Rows<'_>, adapter: &AdapterValues<'_>, up: &PackedWeight) -> Lease {
        let mut low = Lease::of(dy.count() * adapter.rank);
        let finish = Finish { scale: adapter.scale, ..Finish::STORE };
        product(crew, dy.columns(adapter.outputs.clone()), up, finish, Target::new(&mut low, adapter.rank));
        low
    }
}

/// Sums of the gradients of a linear map's parameters, as far as they are wanted.
pub(crate) struct LinearSums {
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    /// Down and up.
    adapters: Vec<[Option<Vec<f32>>; 2]>,
    /// Whether there is something to add to.
    begun: bool,
}

/// Room for a gradient where it is wanted. Left as the system gives it where it is written first.
fn room(parameter: &Tensor) -> Option<Vec<f32>> {
    parameter.track_op().then(|| vec![0.0; parameter.elem_count()])
}

impl LinearSums {
    pub(crate) fn of(map: &Linear) -> Self {
        let adapters = map.adapters().iter().map(|adapter| [room(&adapter.down), room(&adapter.up)]).collect();
        Self { weight: room(map.weight()), bias: map.bias().and_then(room), adapters, begun: false }
    }

    /// Adds what these rows give.
    pub(crate) fn add(&mut self, crew: Crew<'_>, map: &BackwardMap<'_>, dy: Rows<'_>, x: Rows<'_>) {
        let accumulate = self.begun;
        self.begun = true;
        let gradient = Gradient { outputs: dy, inputs: x, scale: 1.0, accumulate };
        match (&mut self.weight, &mut self.bias) {
            (Some(weight), bias) => gradient.run(crew, weight, bias.as_deref_mut()),
            (None, Some(bias)) => column_sums(crew, dy, accumulate, bias),
            (None, None) => {}
        }
        let adapters = map.values.adapters.iter().zip(&map.adapters);
        for ((adapter, [up, _, down]), [down_sums, up_sums]) in adapters.zip(&mut self.adapters) {
            if let Some(sums) = down_sums {
                let low = map.low_gradient(crew, dy, adapter, up);
                let outputs = Rows::new(&low, adapter.rank);
                Gradient { outputs, ..gradient }.run(crew, sums, None);
            }
            if let Some(sums) = up_sums {
                let mut low = Lease::of(x.count() * adapter.rank);
                product(crew, x, down, Finish::STORE, Target::new(&mut low, adapter.rank));
                let (outputs, inputs) = (dy.columns(adapter.outputs.clone()), Rows::new(&low, adapter.rank));
                Gradient { outputs, inputs, scale: adapter.scale, accumulate }.run(crew, sums, None);
            }
        }
    }

    /// Leaves the sums with a bundle.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub(crate) fn leave(self, map: &Linear, bundle: &Bundle) -> Result<()> {
        let leave = |parameter: &Tensor, sums: Option<Vec<f32>>| match sums {
            Some(sums) => bundle.leave(parameter, sums),
            None => Ok(()),
        };
        leave(map.weight(), self.weight)?;
        if let Some(bias) = map.bias() {
            leave(bias, self.bias)?;
        }
        for (adapter, [down, up]) in map.adapters().iter().zip(self.adapters) {
            leave(&adapter.down, down)?;
            leave(&adapter.up, up)?;
        }
        Ok(())
    }
}
