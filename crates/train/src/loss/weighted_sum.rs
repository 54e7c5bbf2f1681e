//! Several losses at once.

use candle_core::Tensor;

use super::{Embeddings, Loss, Needs};
use crate::error::{Error, Result};

/// A loss and its weight.
#[derive(Debug)]
pub struct Term {
    /// The factor on its value.
    pub weight: f64,
    /// The loss.
    pub loss: Box<dyn Loss>,
}

/// What a term came to.
#[derive(Debug, Clone)]
pub struct TermValue {
    /// The loss's name.
    pub name: &'static str,
    /// The factor on its value.
    pub weight: f64,
    /// Its value without the factor, a scalar.
    pub value: Tensor,
}

/// The sum of losses, each times its weight.
#[derive(Debug)]
pub struct WeightedSum {
    terms: Vec<Term>,
}

impl WeightedSum {
    /// The sum of these.
    ///
    /// # Errors
    /// No term, or a weight that isn't a positive number.
    pub fn new(terms: Vec<Term>) -> Result<Self> {
        if terms.is_empty() {
            return Err(Error::Invalid("no loss, expected at least one".into()));
        }
        if let Some(term) = terms.iter().find(|term| !(term.weight.is_finite() && term.weight > 0.0)) {
            let (name, weight) = (term.loss.name(), term.weight);
            return Err(Error::Invalid(format!("loss {name}: weight {weight}, expected a number above 0")));
        }
        Ok(Self { terms })
    }

    /// One loss alone.
    pub fn single(loss: impl Loss + 'static) -> Self {
        Self { terms: vec![Term { weight: 1.0, loss: Box::new(loss) }] }
    }

    /// The value of each term.
    ///
    /// # Errors
    /// As those of the terms.
    pub fn values(&self, embeddings: &Embeddings) -> Result<Vec<TermValue>> {
        let value = |term: &Term| {
            Ok(TermValue { name: term.loss.name(), weight: term.weight, value: term.loss.value(embeddings)? })
        };
        self.terms.iter().map(value).collect()
    }

    /// The sum of the terms' values, each times its weight.
    ///
    /// # Errors
    /// Failures of the tensor library.
    pub fn total(values: &[TermValue]) -> Result<Tensor> {
        let mut total: Option<Tensor> = None;
        for TermValue { weight, value, .. } in values {
            let value = if *weight == 1.0 { value.clone() } else { (value * *weight)? };
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        total.ok_or_else(|| Error::Invalid("no loss, expected at least one".into()))
    }
}

impl Loss for WeightedSum {
    fn name(&self) -> &'static str {
        match self.terms.as_slice() {
            [term] => term.loss.name(),
            _ => "sum",
        }
    }

    fn needs(&self) -> Needs {
        self.terms.iter().fold(Needs::default(), |needs, term| needs.or(term.loss.needs()))
    }

    fn value(&self, embeddings: &Embeddings) -> Result<Tensor> {
        Self::total(&self.values(embeddings)?)
    }
}
