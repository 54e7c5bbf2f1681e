//! Which parameters become variables, and how they are found again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{Tensor, Var};

use crate::error::Result;

/// The variables of a model by canonical names. Towers that are loaded with one put their parameters in.
pub struct Variables {
    selected: Box<dyn Fn(&str) -> bool + Send + Sync>,
    found: Mutex<BTreeMap<String, Var>>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variables").field("found", &self.all().len()).finish_non_exhaustive()
    }
}

impl Variables {
    /// Parameters whose canonical names are `selected` will be variables, all others constants, for which no gradient is computed.
    pub fn new(selected: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { selected: Box::new(selected), found: Mutex::default() }
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
