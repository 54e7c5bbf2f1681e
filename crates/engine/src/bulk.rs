//! Many queries from a file of vectors at once: results as arrays, speed without loading.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crossmodal_models::CancelToken;
use crossmodal_store::Filter;

use crate::collection::Collection;
use crate::error::{Error, Result};
use crate::exchange::npy::{self, NpyReader};

/// Queries in a file.
#[derive(Debug, Clone)]
pub struct BulkSearch {
    /// `.npy`: f16, f32 or f64 of shape (n, dimension), C order.
    pub queries: PathBuf,
    /// Number of hits for each query, at least 1.
    pub k: usize,
    /// How many candidates an approximate index weighs; its own rule when absent.
    pub effort: Option<usize>,
    /// Whether every vector is compared.
    pub exact: bool,
    /// Only items that satisfy it are found.
    pub filter: Option<Filter>,
    /// Queries that are searched together, at least 1.
    pub batch_size: usize,
}

/// Ids of hits, row-major: integers where every id is a decimal integer of 64 bits, else texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HitIds {
    /// -1 where there are fewer hits.
    Integers(Vec<i64>),
    /// Empty where there are fewer hits.
    Texts(Vec<String>),
}

/// The hits of all queries, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkResults {
    /// Number of queries.
    pub queries: usize,
    /// Places for hits of each query.
    pub k: usize,
    /// Ids, `queries` times `k`.
    pub ids: HitIds,
    /// Scores, `queries` times `k`; minus infinity where there are fewer hits.
    pub scores: Vec<f32>,
    /// Seconds that searching took: without opening the collection, reading the queries, and one search beforehand that
    /// loads what is to be loaded.
    pub seconds: f64,
    /// Seconds that the search beforehand took.
    pub loading_seconds: f64,
}

/// Searches the collection's only field, or its default one, for every query of a file.
///
/// # Errors
/// A file that can't be read or has another dimension, a query with values that can't be compared, an invalid filter, failures of the
/// storage, and [`Cancelled`](crossmodal_models::Error::Cancelled).
pub fn search_file(
    collection: &Collection,
    search: &BulkSearch,
    progress: &mut dyn FnMut(usize, usize),
    cancel: &CancelToken,
) -> Result<BulkResults> {
    let mut queries = NpyReader::open(&search.queries)?;
    let field = collection.main_field()?;
    let (found, expected) = (queries.columns(), field.dimension);
    if found != expected {
        let reason = format!("holds vectors of {found} dimensions, the collection's have {expected}");
        return Err(Error::file(&search.queries, reason));
    }
    let k = search.k.max(1);
    let all = queries.rows();
    let mut results = BulkResults {
        queries: all,
        k,
        ids: HitIds::Integers(Vec::with_capacity(all * k)),
        scores: Vec::with_capacity(all * k),
        seconds: 0.0,
        loading_seconds: 0.0,
    };
    let loading = Instant::now();
    let searcher = collection.store().searcher(&field.name, search.filter.as_ref())?;
    let mut done = 0;
    while done < all {
        cancel.check()?;
        let values = queries.floats(search.batch_size.max(1))?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let reason = format!("has {} in row {}, expected finite numbers", values[at], done + at / expected);
            return Err(Error::file(&search.queries, reason));
        }
        let batch: Vec<Vec<f32>> = values.chunks_exact(expected).map(<[f32]>::to_vec).collect();
        if done == 0 {
            searcher.search(batch[..1].to_vec(), k, search.effort, search.exact)?;
            results.loading_seconds = loading.elapsed().as_secs_f64();
        }
        let count = batch.len();
        let start = Instant::now();
        let hits = searcher.search(batch, k, search.effort, search.exact)?;
        results.seconds += start.elapsed().as_secs_f64();
        for hits in hits {
            let missing = k.saturating_sub(hits.len());
            for (id, score) in hits {
                results.ids.push(Some(id.to_owned()));
                results.scores.push(score);
            }
            for _ in 0..missing {
                results.ids.push(None);
                results.scores.push(f32::NEG_INFINITY);
            }
        }
        done += count;
        progress(done, all);
    }
    Ok(results)
}

impl HitIds {
    fn push(&mut self, id: Option<String>) {
        if let Self::Integers(numbers) = self {
            match &id {
                None => return numbers.push(-1),
                Some(id) => {
                    // Written otherwise (007, +1) it is a name that only looks like a number; -1 means that there is none.
                    let number = id.parse::<i64>().ok().filter(|number| *number != -1 && number.to_string() == *id);
                    match number {
                        Some(number) => return numbers.push(number),
                        None => *self = Self::Texts(texts(numbers)),
                    }
                }
            }
        }
        if let Self::Texts(texts) = self {
            texts.push(id.unwrap_or_default());
        }
    }
}

fn texts(numbers: &[i64]) -> Vec<String> {
    numbers.iter().map(|number| if *number == -1 { String::new() } else { number.to_string() }).collect()
}

impl BulkResults {
    /// Where the scores of results in `path` are written: `R.scores.npy` for `R.npy`.
    pub fn scores_path(path: &Path) -> PathBuf {
        path.with_extension("scores.npy")
    }

    /// Writes the ids to `path` (int64, or text of fixed width) and the scores (f32) beside them, both of shape (queries, k).
    ///
    /// # Errors
    /// Failures of writing.
    pub fn write(&self, path: &Path) -> Result<()> {
        let shape = [self.queries, self.k];
        npy::write(&Self::scores_path(path), "<f4", &shape, self.scores.iter().map(|score| score.to_le_bytes()))?;
        match &self.ids {
            HitIds::Integers(numbers) => npy::write(path, "<i8", &shape, numbers.iter().map(|id| id.to_le_bytes())),
            HitIds::Texts(texts) => npy::write_texts(path, &shape, texts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_integers_until_one_is_not() {
        let mut ids = HitIds::Integers(Vec::new());
        ids.push(Some("7".into()));
        ids.push(None);
        ids.push(Some("-3".into()));
        assert_eq!(ids, HitIds::Integers(vec![7, -1, -3]));
        ids.push(Some("007".into()));
        ids.push(Some("8".into()));
        ids.push(None);
        let texts = ["7", "", "-3", "007", "8", ""].map(String::from).to_vec();
        assert_eq!(ids, HitIds::Texts(texts));
    }
}
