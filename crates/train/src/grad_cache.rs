//! Gradients of a batch: at once, or in pieces with the same result in the memory of one piece (GradCache).

use std::ops::Range;

use candle_core::{Tensor, Var};
use crossmodal_nn::backward;

use crate::batch::{Batch, Side};
use crate::error::Result;
use crate::gradients::{Gradients, take};
use crate::loss::{Concepts, Duplicates, Embeddings, Loss, Pairing, Teacher, TermValue, WeightedSum};
use crate::model::Model;

/// How a batch is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct View<'a> {
    /// The patches that each picture is seen through.
    pub kept: Option<&'a [Vec<u32>]>,
    /// What becomes of duplicates.
    pub duplicates: Duplicates,
    /// Samples that go through the towers at a time; `None` is all. A contrastive loss still sees the whole batch.
    pub piece: Option<usize>,
    /// What a larger model makes of the batch.
    pub teacher: Option<&'a Teacher>,
}

/// What a batch came to.
#[derive(Debug)]
pub struct Outcome {
    /// The gradient of the loss for each parameter of the model.
    pub gradients: Gradients,
    /// The loss.
    pub loss: f64,
    /// Its terms, each without its weight.
    pub terms: Vec<(&'static str, f64)>,
    /// The share of left samples whose most similar right one belongs to them.
    pub accuracy: f64,
}

/// The loss of a batch and its gradients. In pieces (Gao et al. 2021) the towers are run twice: once for the embeddings of all pieces, of which the loss and its
/// gradient at each embedding are computed, then piece by piece with that gradient at the output.
///
/// # Errors
/// Samples that the model can't take, or a batch without what the loss needs.
pub fn gradients(model: &Model, batch: &Batch, loss: &WeightedSum, view: &View<'_>) -> Result<Outcome> {
    let samples = batch.left.len();
    match view.piece.filter(|piece| *piece < samples) {
        None => at_once(model, batch, loss, view),
        Some(piece) => in_pieces(model, batch, loss, view, piece.max(1)),
    }
}

/// The sides of a batch that a loss looks at.
fn sides<'a>(batch: &'a Batch, loss: &WeightedSum) -> Vec<&'a Side> {
    let negatives = batch.negatives.as_ref().filter(|_| loss.needs().negatives);
    [Some(&batch.left), Some(&batch.right), negatives].into_iter().flatten().collect()
}

fn at_once(model: &Model, batch: &Batch, loss: &WeightedSum, view: &View<'_>) -> Result<Outcome> {
    let vectors = sides(batch, loss)
        .into_iter()
        .map(|side| model.embed(side, 0..side.len(), view.kept))
        .collect::<Result<Vec<Tensor>>>()?;
    let (embeddings, values) = evaluate(model, batch, loss, view, &vectors)?;
    let total = WeightedSum::total(&values)?;
    let mut store = backward(&total)?;
    let gradients = Gradients::take(&mut store, model.parameters());
    outcome(gradients, &total, &values, &embeddings)
}

fn in_pieces(model: &Model, batch: &Batch, loss: &WeightedSum, view: &View<'_>, piece: usize) -> Result<Outcome> {
    let sides = sides(batch, loss);
    let pieces = |side: &Side| -> Vec<Range<usize>> {
        (0..side.len()).step_by(piece).map(|start| start..(start + piece).min(side.len())).collect()
    };
    let mut leaves = Vec::new();
    for side in &sides {
        // Detached at once, so that a piece's graph is gone before the next one begins.
        let embed = |samples| Ok(model.embed(side, samples, view.kept)?.detach());
        let parts = pieces(side).into_iter().map(embed).collect::<Result<Vec<Tensor>>>()?;
        leaves.push(Var::from_tensor(&Tensor::cat(&parts, 0)?)?);
    }
    let vectors: Vec<Tensor> = leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect();
    let (embeddings, values) = evaluate(model, batch, loss, view, &vectors)?;
    let total = WeightedSum::total(&values)?;
    let mut store = backward(&total)?;
    // Temperature and scaffold have their whole gradients here.
    let mut gradients = Gradients::take(&mut store, model.parameters());
    let slopes: Vec<Option<Tensor>> = leaves.iter().map(|leaf| take(&mut store, leaf.as_tensor())).collect();
    drop(store);
    for (side, slope) in sides.iter().zip(&slopes) {
        let Some(slope) = slope else { continue };
        for samples in pieces(side) {
            let slope = slope.narrow(0, samples.start, samples.len())?;
            let vectors = model.embed(side, samples, view.kept)?;
            // The tower may be locked, so that nothing depends on it.
            if !vectors.track_op() {
                break;
            }
            let mut store = backward(&(vectors * slope)?.sum_all()?)?;
            gradients.add(&Gradients::take(&mut store, model.parameters()), 1.0)?;
        }
    }
    outcome(gradients, &total, &values, &embeddings)
}

/// The loss's terms, of vectors in the order of [`sides`].
fn evaluate(
    model: &Model,
    batch: &Batch,
    loss: &WeightedSum,
    view: &View<'_>,
    vectors: &[Tensor],
) -> Result<(Embeddings, Vec<TermValue>)> {
    let concepts = model.concepts().zip(batch.concepts.clone());
    let embeddings = Embeddings {
        left: vectors[0].clone(),
        right: vectors[1].clone(),
        negatives: vectors.get(2).cloned(),
        teacher: view.teacher.cloned(),
        features: None,
        concepts: concepts.map(|(table, numbers)| Concepts { table: table.clone(), numbers }),
        temperature: model.temperature().clone(),
        pairing: Pairing::of(view.duplicates, &batch.left_content, &batch.right_content)?,
    };
    let values = loss.values(&embeddings)?;
    Ok((embeddings, values))
}

fn outcome(gradients: Gradients, total: &Tensor, values: &[TermValue], embeddings: &Embeddings) -> Result<Outcome> {
    let number = |value: &Tensor| Ok::<_, crate::error::Error>(f64::from(value.to_scalar::<f32>()?));
    Ok(Outcome {
        gradients,
        loss: number(total)?,
        terms: values.iter().map(|term| Ok((term.name, number(&term.value)?))).collect::<Result<_>>()?,
        accuracy: embeddings.accuracy()?,
    })
}
