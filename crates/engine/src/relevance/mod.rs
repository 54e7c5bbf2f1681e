//! How unlikely a score is by chance: calibrated confidence for scores that can't be compared as they are.
//!
//! A cosine of 0.3 is a perfect match for one text and noise for another; pictures are nearer to pictures than to any text; some
//! items are near to everything. What a score means is therefore measured against unrelated pairs, in three steps.
//!
//! 1. **Levels.** The level of a query is the mean of its best 4 % of scores over a sample of the collection's items. The level of an
//!    item is the mean of its best 4 % of scores over *reference queries*. A normalised score is `s - (level of query + level of item) / 2`.
//!    (Speaker verification does so with its cohorts: adaptive symmetric score normalisation.)
//! 2. **Null distribution.** The normalised scores of all reference queries with all items of the sample, fitted by a normal distribution through
//!    the median and the 99th percentile: what lies above may be related after all and has no say.
//! 3. **Many items.** A tail probability `p` means `n * p` expected hits by chance among `n` items. The confidence is `exp(-n * p)`,
//!    the probability that none of `n` unrelated items scores as high.
//!
//! Reference queries are made like the query: of generic texts for texts, of other items for pictures and items, and as the same weighted sum for
//! a sum. The texts' vectors are the only thing that costs a model; they are kept as a setting of the collection (`stored`).
//! All else is computed from a sample when a changed collection is first searched, and kept until it changes (`kept`), so that it is never out of
//! date.
//!
//! The choices (4 %, both levels, the fit, the correction) were made by measurement: `bench/results/2026-11-23-relevance.md`.

mod bank;
mod kept;
pub(crate) mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

pub(crate) use self::bank::{Bank, dot, normalised};
pub(crate) use self::kept::{Confidences, KeptStatistics};

/// Items that statistics are made of.
pub(crate) const SAMPLE: usize = 1024;
/// Reference queries.
const REFERENCES: usize = 256;
/// Fewer items than this, or fewer reference queries, tell nothing: then there is no confidence.
pub const LEAST_ITEMS: usize = 32;
/// The share of best scores that makes a level.
const LEVEL_SHARE: f64 = 0.04;
/// Pairs with at least this cosine are the same content, not an unrelated pair.
const SAME: f32 = 0.9999;
/// The confidence that a hit needs to be called relevant: at it, three in ten searches for what isn't there find something.
pub const RELEVANT: f32 = 0.7;

/// What a query is made of: the modality and the weight of each part.
pub(crate) type Recipe = Vec<(String, f32)>;

/// The collection as statistics see it: vectors of items, by modality.
#[derive(Debug)]
pub(crate) struct Statistics {
    items: BTreeMap<String, Arc<Bank>>,
}

impl Statistics {
    /// Of sampled vectors with their modalities.
    pub fn new(sample: Vec<(String, Vec<f32>)>) -> Self {
        let mut items: BTreeMap<String, Bank> = BTreeMap::new();
        for (modality, vector) in sample {
            items.entry(modality).or_insert_with(|| Bank::new(vector.len())).push(&vector);
        }
        Self { items: items.into_iter().map(|(modality, bank)| (modality, Arc::new(bank))).collect() }
    }

    /// The null distribution of queries of a recipe against items of a modality, given the vectors of generic texts where there is a
    /// model; none where there is too little to tell.
    pub fn null(&self, recipe: &Recipe, modality: &str, texts: Option<&Bank>) -> Option<Null> {
        let items = self.items.get(modality).filter(|items| items.rows() >= LEAST_ITEMS)?;
        let references = self.references(recipe, texts)?;
        Null::fit(references, items.clone())
    }

    /// Reference queries, made of references as the recipe says.
    fn references(&self, recipe: &Recipe, texts: Option<&Bank>) -> Option<Bank> {
        let bank = |modality: &String| match (modality.as_str(), texts) {
            ("text", Some(texts)) => Some(texts),
            _ => self.items.get(modality).map(Arc::as_ref),
        };
        let banks: Vec<&Bank> = recipe.iter().map(|(modality, _)| bank(modality)).collect::<Option<_>>()?;
        let count = banks.iter().map(|bank| bank.rows()).min()?.min(REFERENCES);
        let dimension = banks.first()?.dimension();
        if count < LEAST_ITEMS || banks.iter().any(|bank| bank.dimension() != dimension) {
            return None;
        }
        let mut references = Bank::new(dimension);
        for number in 0..count {
            let mut sum = vec![0f32; dimension];
            for (place, (bank, (_, weight))) in banks.iter().zip(recipe).enumerate() {
                // Every part takes another reference, a third of the way on.
                let turn = (number + place * (count / 3 + 1)) % count;
                let row = bank.row(turn * bank.rows() / count);
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            }
            references.push(&sum);
        }
        Some(references)
    }
}

/// The distribution of the normalised scores of unrelated pairs.
#[derive(Debug)]
pub(crate) struct Null {
    references: Bank,
    items: Arc<Bank>,
    median: f64,
    deviation: f64,
}

impl Null {
    fn fit(references: Bank, items: Arc<Bank>) -> Option<Self> {
        let scores = references.products(&items);
        let columns = items.rows();
        let of_references: Vec<f32> =
            scores.par_chunks(columns).map(|row| level(row.iter().copied())).collect::<Option<_>>()?;
        let of_items: Vec<f32> = (0..columns)
            .into_par_iter()
            .map(|column| level(scores.iter().skip(column).step_by(columns).copied()))
            .collect::<Option<_>>()?;
        let normalised = |(place, score): (usize, &f32)| {
            (*score < SAME).then(|| score - 0.5 * (of_references[place / columns] + of_items[place % columns]))
        };
        let mut null: Vec<f32> = scores.iter().enumerate().filter_map(normalised).collect();
        let last = null.len().checked_sub(1)?;
        let quantile = |null: &mut [f32], share: f64| {
            f64::from(*null.select_nth_unstable_by((last as f64 * share) as usize, f32::total_cmp).1)
        };
        let (median, high) = (quantile(&mut null, 0.5), quantile(&mut null, 0.99));
        // The 99th percentile of the standard normal distribution.
        let deviation = (high - median) / 2.326_347_874;
        (deviation > 0.0).then_some(Self { references, items, median, deviation })
    }
}

/// Judges the hits of one query.
pub(crate) struct Judge {
    null: Arc<Null>,
    query: Vec<f32>,
    /// The query's level.
    level: f32,
    /// Number of items that were searched.
    searched: f64,
}

impl Judge {
    /// For the hits of a unit query among `searched` items; none where the query has no level.
    pub fn new(null: Arc<Null>, query: &[f32], searched: u64) -> Option<Self> {
        let level = level(null.items.times(query).into_iter())?;
        Some(Self { null, query: query.to_vec(), level, searched: searched.max(1) as f64 })
    }

    /// The confidence in a hit with this unit vector, 0..=1; none where the item has no level.
    pub fn confidence(&self, vector: &[f32]) -> Option<f32> {
        let of_item = level(self.null.references.times(vector).into_iter())?;
        let normalised = f64::from(dot(&self.query, vector) - 0.5 * (self.level + of_item));
        let by_chance = upper_tail((normalised - self.null.median) / self.null.deviation);
        Some((-self.searched * by_chance).exp() as f32)
    }
}

/// The mean of the best 4 % of scores, at least one, that aren't of the same content.
fn level(scores: impl Iterator<Item = f32>) -> Option<f32> {
    let mut scores: Vec<f32> = scores.filter(|score| *score < SAME).collect();
    let count = ((scores.len() as f64 * LEVEL_SHARE).round() as usize).max(1).min(scores.len());
    let last = count.checked_sub(1)?;
    scores.select_nth_unstable_by(last, |a, b| b.total_cmp(a));
    Some(scores[..count].iter().sum::<f32>() / count as f32)
}

/// The probability that a standard normal variable exceeds `z`: by its power series near 0, by Laplace's continued fraction beyond.
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z < 3.0 {
        let (mut term, mut sum, mut odd) = (z, z, 1.0);
        while term > 1e-17 * sum {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        0.5 - density * sum
    } else {
        let fraction = (1..=64).rev().fold(z, |below, step| z + f64::from(step) / below);
        density / fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_the_normal_distribution() {
        // Abramowitz and Stegun, table 26.1 and 26.2.
        let known = [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457),
            (2.326_347_874, 0.01),
            (2.999, 1.354_336_5e-3),
            (3.0, 1.349_898_031_630_1e-3),
            (5.0, 2.866_515_718_79e-7),
            (10.0, 7.619_853e-24),
            (-1.0, 0.841_344_746_068_543),
        ];
        for (z, expected) in known {
            assert!((upper_tail(z) / expected - 1.0).abs() < 2e-6, "{z}: {}", upper_tail(z));
        }
        assert_eq!(upper_tail(60.0), 0.0);
    }

    #[test]
    fn levels_are_means_of_the_best() {
        let scores = (0..100).map(|score| score as f32 / 200.0);
        assert_eq!(level(scores.chain([1.0])), Some((0.495 + 0.49 + 0.485 + 0.48) / 4.0));
        assert_eq!(level([0.25].into_iter()), Some(0.25));
        assert_eq!(level([1.0].into_iter()), None);
    }

    /// Unit vectors spread over all directions.
    fn directions(count: usize, seed: u64) -> Vec<Vec<f32>> {
        let mut state = seed;
        let mut value = || {
            let mut sum = 0.0;
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (state >> 40) as f32 / (1 << 24) as f32;
            }
            sum - 6.0
        };
        let vectors = (0..count).map(|_| (0..32).map(|_| value()).collect::<Vec<f32>>());
        vectors.map(|vector| normalised(&vector)).collect()
    }

    #[test]
    fn chance_has_no_confidence_and_a_match_has() {
        let mut texts = Bank::new(32);
        directions(256, 1).iter().for_each(|vector| texts.push(vector));
        let items = directions(1000, 2);
        let sample = items.iter().map(|vector| ("image".to_string(), vector.clone())).collect();
        let statistics = Statistics::new(sample);
        let null = |recipe: &Recipe, modality: &str| statistics.null(recipe, modality, Some(&texts));
        let recipe = vec![("text".to_string(), 1.0)];
        assert!(null(&recipe, "audio").is_none());
        assert!(null(&vec![("audio".to_string(), 1.0)], "image").is_none());
        let fitted = Arc::new(null(&recipe, "image").unwrap());
        let mut passed = 0;
        for query in directions(200, 3) {
            let judge = Judge::new(fitted.clone(), &query, 1000).unwrap();
            let top = items.iter().map(|item| judge.confidence(item).unwrap()).fold(0.0, f32::max);
            passed += usize::from(top >= 0.5);
        }
        // Half of the queries without a match reach 0.5, by definition.
        assert!((70..=130).contains(&passed), "{passed} of 200");
        let query = &directions(1, 4)[0];
        let near: Vec<f32> = query.iter().zip(&items[0]).map(|(a, b)| a + 0.3 * b).collect();
        let near = normalised(&near);
        let judge = Judge::new(fitted.clone(), query, 1000).unwrap();
        assert!(judge.confidence(&near).unwrap() > 0.999);
        let sum = vec![("text".to_string(), 1.0), ("image".to_string(), -0.5)];
        assert!(null(&sum, "image").is_some());
    }
}
