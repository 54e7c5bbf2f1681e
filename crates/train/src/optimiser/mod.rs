//! Optimisers: they move parameters against gradients, with state in plain vectors.

mod adamw;
mod ema;
mod muon;
mod schedule;

use std::collections::BTreeMap;

pub use adamw::AdamW;
pub use ema::Average;
pub use muon::Muon;
pub use schedule::{Decay, Schedule, WarmUp};

use crate::error::{Error, Result};
use crate::gradients::{Gradients, update, with_values};
use crate::parameter::{Parameter, Role};

/// A learning rate of its own for some parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRule {
    /// What their canonical names begin with, for example `vision.` or `text.blocks.0.`.
    pub prefix: String,
    /// The factor on the learning rates that they would have otherwise.
    pub factor: f64,
}

/// Muon for matrices of blocks, with a learning rate of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonRule {
    /// Its settings.
    pub muon: Muon,
    /// Its learning rate; a step changes a square matrix's singular values by about as much.
    pub learning_rate: f64,
    /// Its weight decay.
    pub weight_decay: f64,
}

/// How parameters are moved.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimiserRules {
    /// Settings of AdamW.
    pub adamw: AdamW,
    /// AdamW's learning rate at its highest.
    pub learning_rate: f64,
    /// AdamW's weight decay; norms, biases, single vectors and the logit scale have none.
    pub weight_decay: f64,
    /// Muon for matrices of blocks; `None` leaves them to AdamW.
    pub muon: Option<MuonRule>,
    /// Factors for groups; where several fit, the longest prefix counts.
    pub groups: Vec<GroupRule>,
}

impl OptimiserRules {
    /// AdamW alone.
    pub fn adamw(learning_rate: f64, weight_decay: f64) -> Self {
        Self { adamw: AdamW::default(), learning_rate, weight_decay, muon: None, groups: Vec::new() }
    }

    fn factor(&self, name: &str) -> f64 {
        let fitting = self.groups.iter().filter(|group| name.starts_with(&group.prefix));
        fitting.max_by_key(|group| group.prefix.len()).map_or(1.0, |group| group.factor)
    }

    fn slot(&self, parameter: &Parameter) -> Slot {
        let size = parameter.var.elem_count();
        let factor = self.factor(&parameter.name);
        let state = |method, learning_rate: f64, weight_decay, second| Slot {
            method,
            learning_rate: learning_rate * factor,
            weight_decay,
            first: vec![0.0; size],
            second: if second { vec![0.0; size] } else { Vec::new() },
        };
        match self.muon {
            Some(rule) if parameter.role == Role::BlockMatrix && parameter.var.rank() == 2 => {
                state(Method::Muon(rule.muon), rule.learning_rate, rule.weight_decay, false)
            }
            _ => {
                let decay = if parameter.role.decays() { self.weight_decay } else { 0.0 };
                state(Method::AdamW(self.adamw), self.learning_rate, decay, true)
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Method {
    AdamW(AdamW),
    Muon(Muon),
}

/// What belongs to one parameter.
#[derive(Debug)]
struct Slot {
    method: Method,
    learning_rate: f64,
    weight_decay: f64,
    first: Vec<f32>,
    /// Empty for Muon.
    second: Vec<f32>,
}

/// Moves parameters against their gradients.
#[derive(Debug)]
pub struct Optimiser {
    parameters: Vec<Parameter>,
    slots: Vec<Slot>,
    count: u64,
}

impl Optimiser {
    /// An optimiser of these parameters that hasn't seen any gradient.
    pub fn new(parameters: &[Parameter], rules: &OptimiserRules) -> Self {
        let slots = parameters.iter().map(|parameter| rules.slot(parameter)).collect();
        Self { parameters: parameters.to_vec(), slots, count: 0 }
    }

    /// The parameters, in the order that gradients are expected in.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Makes a step: each parameter moves against its gradient times `gradient_factor`, with its learning rate times `rate_factor`. Parameters without gradient stay.
    ///
    /// # Errors
    /// Gradients of other parameters.
    pub fn step(&mut self, gradients: &Gradients, gradient_factor: f64, rate_factor: f64) -> Result<()> {
        if gradients.values().len() != self.parameters.len() {
            let (found, expected) = (gradients.values().len(), self.parameters.len());
            return Err(Error::Invalid(format!("{found} gradients, expected one for each of {expected} parameters")));
        }
        self.count += 1;
        for ((parameter, slot), gradient) in self.parameters.iter().zip(&mut self.slots).zip(gradients.values()) {
            let Some(gradient) = gradient else { continue };
            if gradient.elem_count() != slot.first.len() {
                let (shape, found) = (parameter.var.dims(), gradient.dims());
                let name = &parameter.name;
                return Err(Error::Invalid(format!("gradient of {name} has shape {found:?}, expected {shape:?}")));
            }
            let rate = slot.learning_rate * rate_factor;
            let count = self.count;
            with_values(gradient, |gradient| slot.step(parameter, gradient, gradient_factor, rate, count))??;
        }
        Ok(())
    }

    /// Steps made.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All state, by names that begin with the parameters'.
    pub fn state(&self) -> BTreeMap<String, &[f32]> {
        let mut state = BTreeMap::new();
        for (parameter, slot) in self.parameters.iter().zip(&self.slots) {
            state.insert(format!("{}#first", parameter.name), slot.first.as_slice());
            if !slot.second.is_empty() {
                state.insert(format!("{}#second", parameter.name), slot.second.as_slice());
            }
        }
        state
    }

    /// Takes over state that [`state`](Self::state) gave, after so many steps.
    ///
    /// # Errors
    /// State that is missing or of another size.
    pub fn restore(&mut self, count: u64, mut state: impl FnMut(&str) -> Option<Vec<f32>>) -> Result<()> {
        for (parameter, slot) in self.parameters.iter().zip(&mut self.slots) {
            for (ending, own) in [("first", &mut slot.first), ("second", &mut slot.second)] {
                if own.is_empty() {
                    continue;
                }
                let name = format!("{}#{ending}", parameter.name);
                let found = state(&name).filter(|found| found.len() == own.len());
                *own = found.ok_or_else(|| {
                    Error::Invalid(format!(
                        "state {name} is missing or of another size, expected {} numbers",
                        own.len()
                    ))
                })?;
            }
        }
        self.count = count;
        Ok(())
    }
}

impl Slot {
    /// The parameter's `count`th step, against its gradient times `factor`.
    fn step(&mut self, parameter: &Parameter, gradient: &[f32], factor: f64, rate: f64, count: u64) -> Result<()> {
        match self.method {
            Method::AdamW(AdamW { beta1, beta2, eps }) => {
                let decay = self.weight_decay;
                let settings =
                    crossmodal_nn::AdamW { rate, beta1, beta2, eps, decay, gradient_scale: factor, step: count };
                update(&parameter.var, |values| {
                    crossmodal_nn::adamw(&settings, values, gradient, &mut self.first, &mut self.second);
                })
            }
            Method::Muon(muon) => {
                let shape = parameter.var.dims2()?;
                let stacked = parameter.stacked();
                let direction = muon.direction(gradient, factor, &mut self.first, shape, stacked);
                let keep = (1.0 - rate * self.weight_decay) as f32;
                let rate = rate as f32;
                update(&parameter.var, |values| {
                    values.iter_mut().zip(&direction).for_each(|(x, step)| *x = *x * keep - rate * step);
                })
            }
        }
    }
}
