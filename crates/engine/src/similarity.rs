//! Comparing inputs directly, usually pictures with texts.

use crossmodal_models::{Embedder, Input, Modality, ProbabilityRule};

use crate::error::{Error, Result};

/// How inputs compare. Matrices have one row per input of the one side and one column per input of the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarity {
    /// Cosines, in -1..=1.
    pub cosines: Vec<Vec<f32>>,
    /// Logits as the model defines them: scaled, and shifted where it has a bias. `None` for models without the notion, and unless
    /// rows are pictures and columns texts.
    pub logits: Option<Vec<Vec<f32>>>,
    /// Probabilities of each text for a picture, as the model defines them; likewise.
    pub probabilities: Option<Vec<Vec<f32>>>,
    /// What makes probabilities of logits.
    pub rule: Option<ProbabilityRule>,
}

/// Compares every input of one side with every one of the other; usually pictures with texts.
///
/// # Errors
/// Nothing on one side, inputs that can't be embedded, or failures of the model.
pub fn similarity(model: &dyn Embedder, rows: &[Input], columns: &[Input]) -> Result<Similarity> {
    if rows.is_empty() || columns.is_empty() {
        return Err(Error::Invalid("a comparison needs at least one picture and one text".into()));
    }
    let all: Vec<Input> = rows.iter().chain(columns).cloned().collect();
    let vectors: Vec<Vec<f32>> = model.embed(&all)?.into_iter().map(|embedding| embedding.unit).collect();
    let (of_rows, of_columns) = vectors.split_at(rows.len());
    let cosines: Vec<Vec<f32>> =
        of_rows.iter().map(|row| of_columns.iter().map(|column| dot(row, column)).collect()).collect();
    let are = |inputs: &[Input], modality| inputs.iter().all(|input| input.modality == modality);
    let defined = are(rows, Modality::Image) && are(columns, Modality::Text);
    let rule = if defined { model.logit_rule()? } else { None };
    let logits = rule.map(|rule| -> Vec<Vec<f32>> {
        cosines.iter().map(|row| row.iter().map(|cosine| cosine * rule.scale + rule.bias).collect()).collect()
    });
    let probabilities = rule
        .zip(logits.as_ref())
        .map(|(rule, logits)| logits.iter().map(|row| probabilities(row, rule.probability)).collect());
    Ok(Similarity { cosines, logits, probabilities, rule: rule.map(|rule| rule.probability) })
}

/// Sums in double precision, which costs nothing at this size and keeps results independent of order.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
}

/// Makes probabilities of one row of logits.
pub(crate) fn probabilities(logits: &[f32], rule: ProbabilityRule) -> Vec<f32> {
    match rule {
        ProbabilityRule::Softmax => {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max).exp()).collect();
            let total: f64 = powers.iter().sum();
            powers.into_iter().map(|power| (power / total) as f32).collect()
        }
        ProbabilityRule::Sigmoid => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_survives_large_logits() {
        let row = probabilities(&[1000.0, 999.0, -1000.0], ProbabilityRule::Softmax);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((row[0] - 0.731_058_6).abs() < 1e-6);
        assert_eq!(row[2], 0.0);
    }

    #[test]
    fn sigmoid_judges_each_logit_alone() {
        assert_eq!(probabilities(&[0.0, 0.0], ProbabilityRule::Sigmoid), [0.5, 0.5]);
    }
}
