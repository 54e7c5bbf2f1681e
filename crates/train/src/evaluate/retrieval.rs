//! Retrieval over embeddings: scores in blocks, ranks, and what is told of them.

use candle_core::{Device, Tensor};
use crossmodal_eval::{Bootstrap, Estimate, Retrieval, proportion};
use crossmodal_models::CancelToken;
use serde::Serialize;

use super::embed::{Counterparts, Items};
use super::{Options, Progress};
use crate::error::{Error, Result};

/// Queries whose scores are computed together.
const BLOCK: usize = 256;
/// First places that nDCG looks at.
const GAIN_AT: usize = 10;

/// The share of queries with a correct candidate among their first `k`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RecallAt {
    /// The number of first places.
    pub k: usize,
    /// The share.
    #[serde(flatten)]
    pub share: Estimate,
}

/// Retrieval one way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Direction {
    /// Number of queries.
    pub queries: usize,
    /// Number of candidates.
    pub candidates: usize,
    /// What retrieval papers report as recall@k.
    pub recall: Vec<RecallAt>,
    /// Median over queries of the rank of the best correct candidate; 1 is the best.
    pub median_rank: Estimate,
    /// Mean over queries of 1 / that rank.
    pub mean_reciprocal_rank: Estimate,
    /// Mean normalised discounted cumulative gain of the first ten.
    pub ndcg_at_10: Estimate,
}

/// Vectors as the rows of a matrix.
fn matrix(vectors: &[Vec<f32>]) -> Result<Tensor> {
    let columns = vectors.first().map_or(0, Vec::len);
    let values: Vec<f32> = vectors.concat();
    Ok(Tensor::from_vec(values, (vectors.len(), columns), &Device::Cpu)?)
}

/// Hands the scores of every query with all candidates to `each`, row by row: cosines, since the vectors have unit length.
pub(super) fn score(
    queries: &[Vec<f32>],
    candidates: &[Vec<f32>],
    cancel: &CancelToken,
    mut each: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    if queries.is_empty() || candidates.is_empty() {
        return Err(Error::Invalid("nothing to compare: one of the two sides is empty".into()));
    }
    let columns = matrix(candidates)?.t()?.contiguous()?;
    for (number, block) in queries.chunks(BLOCK).enumerate() {
        cancel.check()?;
        let scores: Vec<f32> = matrix(block)?.matmul(&columns)?.flatten_all()?.to_vec1()?;
        for (row, scores) in scores.chunks_exact(candidates.len()).enumerate() {
            each(number * BLOCK + row, scores)?;
        }
    }
    Ok(())
}

/// Items by counterparts, and counterparts by items.
pub(super) fn both(
    items: &Items,
    counterparts: &Counterparts,
    options: &Options,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Direction, Direction)> {
    let of_counterparts: Vec<&[usize]> = counterparts.items.iter().map(Vec::as_slice).collect();
    let mut of_items: Vec<Vec<usize>> = vec![Vec::new(); items.vectors.len()];
    for (counterpart, items) in counterparts.items.iter().enumerate() {
        items.iter().for_each(|item| of_items[*item].push(counterpart));
    }
    // Items whose every counterpart was unreadable have no question to ask, but they are candidates.
    let asking: Vec<usize> = (0..of_items.len()).filter(|item| !of_items[*item].is_empty()).collect();
    let queries: Vec<Vec<f32>> = asking.iter().map(|item| items.vectors[*item].clone()).collect();
    let correct: Vec<&[usize]> = asking.iter().map(|item| of_items[*item].as_slice()).collect();
    let all = counterparts.vectors.len() + queries.len();
    let mut done = 0;
    let mut step = |more: usize| {
        done += more;
        progress(Progress { stage: "ranking", done, all });
    };
    let by_right = rank(&counterparts.vectors, &items.vectors, &of_counterparts, cancel, &mut step)?;
    let by_left = rank(&queries, &counterparts.vectors, &correct, cancel, &mut step)?;
    // Several captions of one item rise and fall together.
    let is_alone =
        counterparts.owner.len() == counterparts.owner.iter().collect::<std::collections::HashSet<_>>().len();
    let clusters = (!is_alone).then_some(counterparts.owner.as_slice());
    Ok((tell(&by_right, clusters, options)?, tell(&by_left, None, options)?))
}

fn rank(
    queries: &[Vec<f32>],
    candidates: &[Vec<f32>],
    correct: &[&[usize]],
    cancel: &CancelToken,
    step: &mut dyn FnMut(usize),
) -> Result<Retrieval> {
    let mut retrieval = Retrieval::new(candidates.len());
    score(queries, candidates, cancel, |query, scores| {
        retrieval.add(scores, correct[query])?;
        if (query + 1).is_multiple_of(BLOCK) || query + 1 == queries.len() {
            step(query % BLOCK + 1);
        }
        Ok(())
    })?;
    Ok(retrieval)
}

/// Shares of independent queries get Wilson intervals, everything else is bootstrapped.
fn tell(retrieval: &Retrieval, clusters: Option<&[u32]>, options: &Options) -> Result<Direction> {
    let bootstrap = &options.bootstrap;
    let recall = |k: &usize| {
        let hits = retrieval.hits_at(*k);
        Ok(RecallAt { k: *k, share: share(&hits, clusters, bootstrap)? })
    };
    let ranks: Vec<f64> = retrieval.first_ranks().into_iter().map(f64::from).collect();
    Ok(Direction {
        queries: retrieval.queries(),
        candidates: retrieval.candidates(),
        recall: options.recall_at.iter().map(recall).collect::<Result<_>>()?,
        median_rank: bootstrap.median(&ranks, clusters)?,
        mean_reciprocal_rank: bootstrap.mean(&retrieval.reciprocal_ranks(), clusters)?,
        ndcg_at_10: bootstrap.mean(&retrieval.ndcg_at(GAIN_AT), clusters)?,
    })
}

fn share(hits: &[bool], clusters: Option<&[u32]>, bootstrap: &Bootstrap) -> Result<Estimate> {
    Ok(match clusters {
        None => proportion(hits, bootstrap.level)?,
        Some(clusters) => {
            let values: Vec<f64> = hits.iter().map(|hit| f64::from(u8::from(*hit))).collect();
            bootstrap.mean(&values, Some(clusters))?
        }
    })
}
