//! Which parameters become variables, and how they are found again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use crossmodal_nn::Linear;

use super::initialise::Random;

use crate::error::Result;

/// Which linear maps of blocks get low-rank adapters, and of which kind (LoRA, Hu et al. 2021).
pub struct AdapterRule {
    /// The smaller dimension of the two matrices, at least 1.
    pub rank: usize,
    /// The factor on their product; customarily a constant over the rank.
    pub scale: f64,
    /// Decides on the first values of the inner matrix; the outer one begins at 0, so that nothing changes at first.
    pub seed: u64,
    /// Whether the map of this name gets one: `vision.blocks.0.attention.q`, `.k`, `.v`, `.out`, or `vision.blocks.0.mlp.fc1`, `.fc2`.
    pub targets: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// An adapter that was made.
#[derive(Debug, Clone)]
struct Adapter {
    /// What the names of its two variables begin with.
    name: String,
    outputs: Range<usize>,
}

/// The variables of a model by canonical names. Towers that are loaded with one put their parameters in.
pub struct Variables {
    selected: Box<dyn Fn(&str) -> bool + Send + Sync>,
    found: Mutex<BTreeMap<String, Var>>,
    rule: Option<AdapterRule>,
    /// The type of linear maps' products, where it isn't the parameters'.
    products: Option<DType>,
    /// Adapters by the canonical name of the weight beside which they are.
    adapters: Mutex<BTreeMap<String, Vec<Adapter>>>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variables").field("found", &self.all().len()).finish_non_exhaustive()
    }
}

impl Variables {
    /// Parameters whose canonical names are `selected` will be variables, all others constants, for which no gradient is computed.
    pub fn new(selected: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self {
            selected: Box::new(selected),
            found: Mutex::default(),
            rule: None,
            products: None,
            adapters: Mutex::default(),
        }
    }

    /// The same with adapters.
    #[must_use]
    pub fn with_adapters(self, rule: AdapterRule) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// The same with products of linear maps and of attention in this type, for example [`DType::BF16`], and everything else in 32 bits.
    #[must_use]
    pub fn with_products(self, products: DType) -> Self {
        Self { products: Some(products), ..self }
    }

    /// The map of this canonical name with products in the type that was asked for.
    pub(crate) fn computed(&self, linear: Linear) -> Linear {
        match self.products {
            Some(products) => linear.with_products(products),
            None => linear,
        }
    }

    /// The map of this canonical name, of shape `out x inner`, with the adapters that it is to have.
    pub(crate) fn adapted(
        &self,
        prefix: &str,
        mut linear: Linear,
        (out, inner): (usize, usize),
        device: &Device,
    ) -> Result<Linear> {
        let Some(rule) = self.rule.as_ref().filter(|_| prefix.contains(".blocks.")) else { return Ok(linear) };
        let third = out / 3;
        let parts: Vec<(String, String, Range<usize>)> = match prefix.strip_suffix("qkv") {
            Some(start) => ["q", "k", "v"]
                .into_iter()
                .enumerate()
                .map(|(at, part)| {
                    (format!("{start}{part}"), format!("{prefix}.adapter.{part}"), at * third..(at + 1) * third)
                })
                .collect(),
            None => vec![(prefix.to_string(), format!("{prefix}.adapter"), 0..out)],
        };
        for (target, name, outputs) in parts {
            if !(rule.targets)(&target) {
                continue;
            }
            let mut random = Random::new(rule.seed, &name);
            let bound = (inner as f64).powf(-0.5);
            let values: Vec<f32> = (0..rule.rank * inner).map(|_| random.uniform(-bound, bound) as f32).collect();
            let a = Var::from_tensor(&Tensor::from_vec(values, (rule.rank, inner), device)?)?;
            let b = Var::zeros((outputs.len(), rule.rank), DType::F32, device)?;
            let (inner_map, outer_map) = (a.as_tensor().clone(), b.as_tensor().clone());
            linear = linear.with_adapter_on(outputs.clone(), inner_map, outer_map, rule.scale)?;
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.insert(format!("{name}.a"), a);
            found.insert(format!("{name}.b"), b);
            let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
            adapters.entry(format!("{prefix}.weight")).or_default().push(Adapter { name, outputs });
        }
        Ok(linear)
    }

    /// Adds what adapters change to the elements of the weight of this canonical name, so that it does alone what it did with them. `values` gives the elements of
    /// adapters' variables that are to be other than they are now.
    pub(crate) fn merge(
        &self,
        canonical: &str,
        weight: &mut [f32],
        mut values: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        let adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner).get(canonical).cloned();
        let (Some(adapters), Some(rule)) = (adapters, &self.rule) else { return Ok(()) };
        let vars = self.all();
        for Adapter { name, outputs } in adapters {
            let mut matrix = |name: String| -> Result<Tensor> {
                let var = &vars[&name];
                Ok(match values(&name) {
                    Some(values) => Tensor::from_vec(values, var.shape(), &Device::Cpu)?,
                    None => var.as_tensor().to_device(&Device::Cpu)?,
                })
            };
            let (a, b) = (matrix(format!("{name}.a"))?, matrix(format!("{name}.b"))?);
            let change: Vec<f32> = (b.matmul(&a)? * rule.scale)?.flatten_all()?.to_vec1()?;
            let inner = a.dim(1)?;
            let rows = &mut weight[outputs.start * inner..outputs.end * inner];
            rows.iter_mut().zip(change).for_each(|(x, change)| *x += change);
        }
        Ok(())
    }

    /// The parameter of this canonical name with these values: a variable, if it is selected.
    pub(crate) fn parameter(&self, name: &str, values: Tensor) -> Result<Tensor> {
        if !(self.selected)(name) {
            return Ok(values);
        }
        let var = Var::from_tensor(&values)?;
        let tensor = var.as_tensor().clone();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_string(), var);
        Ok(tensor)
    }

    /// All variables there are so far, in alphabetical order.
    pub fn all(&self) -> BTreeMap<String, Var> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
