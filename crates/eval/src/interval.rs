//! How far an estimate may be off: Wilson intervals of proportions, bootstrap intervals of anything.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::random::Random;

/// How an interval was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The score interval of a proportion (Wilson, 1927); right also near 0 and 1.
    Wilson,
    /// Percentiles over resamples of the queries (Efron, 1979).
    Bootstrap,
}

/// An interval that covers the true value with probability `level`, were the queries drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// For example 0.95.
    pub level: f64,
    /// How it was found.
    pub method: Method,
}

/// A value and how far it may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Where the true one may lie.
    pub interval: Interval,
}

/// The Wilson score interval of `successes` out of `trials`.
///
/// # Errors
/// No trials, more successes than trials, or a level that isn't between 0 and 1.
pub fn wilson(successes: usize, trials: usize, level: f64) -> Result<Interval> {
    if trials == 0 || successes > trials {
        return Err(Error::Invalid(format!("{successes} successes of {trials} trials have no proportion")));
    }
    let deviate = normal_quantile(0.5 + checked(level)? / 2.0);
    let (count, share) = (trials as f64, successes as f64 / trials as f64);
    let square = deviate * deviate / count;
    let centre = (share + square / 2.0) / (1.0 + square);
    let half = deviate / (1.0 + square) * (share * (1.0 - share) / count + square / (4.0 * count)).sqrt();
    // The ends are exact at no and at all successes; rounding mustn't leave them beside 0 and 1.
    let low = if successes == 0 { 0.0 } else { (centre - half).max(0.0) };
    let high = if successes == trials { 1.0 } else { (centre + half).min(1.0) };
    Ok(Interval { low, high, level, method: Method::Wilson })
}

/// The share of hits, with its Wilson interval.
///
/// # Errors
/// As [`wilson`].
pub fn proportion(hits: &[bool], level: f64) -> Result<Estimate> {
    let successes = hits.iter().filter(|hit| **hit).count();
    let interval = wilson(successes, hits.len(), level)?;
    Ok(Estimate { value: successes as f64 / hits.len() as f64, interval })
}

fn checked(level: f64) -> Result<f64> {
    if level > 0.0 && level < 1.0 {
        Ok(level)
    } else {
        Err(Error::Invalid(format!("a confidence level of {level}, expected one between 0 and 1")))
    }
}

/// The normal distribution function, from the series `1/2 + density(x) (x + x^3/3 + x^5/(3 5) + ...)`.
fn normal_distribution(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 3.0);
    while term.abs() > 1e-17 * sum.abs() {
        term *= x * x / odd;
        sum += term;
        odd += 2.0;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// The deviate below which a share of at least a half of the normal distribution lies, found by halving.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (0.0, 9.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if normal_distribution(middle) < share { low = middle } else { high = middle }
    }
    low
}

/// The arithmetic mean. NaN where there is nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// The middle value, or the mean of the two middle ones; reorders `values`. NaN where there is nothing.
pub fn median(values: &mut [f64]) -> f64 {
    let half = values.len() / 2;
    if values.is_empty() {
        return f64::NAN;
    }
    let is_odd = values.len() % 2 == 1;
    let (below, middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let middle = *middle;
    let lower = below.iter().copied().max_by(f64::total_cmp);
    match lower {
        Some(lower) if !is_odd => f64::midpoint(lower, middle),
        Some(_) | None => middle,
    }
}

/// How a bootstrap is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Confidence level.
    pub level: f64,
    /// The same seed gives the same interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

impl Bootstrap {
    /// The percentile interval of a statistic over queries that are resampled with replacement. `statistic` gets the places of the queries
    /// of a resample. With `clusters`, one number a query, all queries of a cluster are drawn together: captions of one picture aren't independent.
    /// Resamples whose statistic is NaN are left out.
    ///
    /// # Errors
    /// No queries, no resamples, another number of clusters than queries, a level that isn't between 0 and 1, or a statistic that is always NaN.
    pub fn interval(
        &self,
        queries: usize,
        clusters: Option<&[u32]>,
        mut statistic: impl FnMut(&[usize]) -> f64,
    ) -> Result<Interval> {
        let level = checked(self.level)?;
        let units = units(queries, clusters)?;
        if self.resamples == 0 {
            return Err(Error::Invalid("a bootstrap of 0 resamples, expected at least 1".into()));
        }
        let mut random = Random::new(self.seed);
        let mut values = Vec::with_capacity(self.resamples);
        let mut drawn = Vec::with_capacity(queries);
        for _ in 0..self.resamples {
            drawn.clear();
            for _ in 0..units.len() {
                drawn.extend_from_slice(&units[random.below(units.len())]);
            }
            values.push(statistic(&drawn));
        }
        values.retain(|value| !value.is_nan());
        values.sort_unstable_by(f64::total_cmp);
        if values.is_empty() {
            return Err(Error::Invalid("a statistic that is NaN for every resample".into()));
        }
        let tail = (1.0 - level) / 2.0;
        let (low, high) = (percentile(&values, tail), percentile(&values, 1.0 - tail));
        Ok(Interval { low, high, level, method: Method::Bootstrap })
    }

    /// The mean of `values`, one a query, with its interval.
    ///
    /// # Errors
    /// As [`interval`](Self::interval).
    pub fn mean(&self, values: &[f64], clusters: Option<&[u32]>) -> Result<Estimate> {
        let of = |places: &[usize]| mean(places.iter().map(|place| values[*place]));
        let interval = self.interval(values.len(), clusters, of)?;
        Ok(Estimate { value: mean(values.iter().copied()), interval })
    }

    /// The median of `values`, one a query, with its interval.
    ///
    /// # Errors
    /// As [`interval`](Self::interval).
    pub fn median(&self, values: &[f64], clusters: Option<&[u32]>) -> Result<Estimate> {
        let mut drawn = Vec::with_capacity(values.len());
        let interval = self.interval(values.len(), clusters, |places| {
            drawn.clear();
            drawn.extend(places.iter().map(|place| values[*place]));
            median(&mut drawn)
        })?;
        Ok(Estimate { value: median(&mut values.to_vec()), interval })
    }
}

/// What is drawn together: the places of the queries of each cluster.
fn units(queries: usize, clusters: Option<&[u32]>) -> Result<Vec<Vec<usize>>> {
    if queries == 0 {
        return Err(Error::Invalid("no queries, expected at least one".into()));
    }
    let Some(clusters) = clusters else {
        return Ok((0..queries).map(|query| vec![query]).collect());
    };
    if clusters.len() != queries {
        return Err(Error::Invalid(format!("{queries} queries and {} numbers of clusters", clusters.len())));
    }
    let mut members = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (query, cluster) in clusters.iter().enumerate() {
        members.entry(*cluster).or_default().push(query);
    }
    Ok(members.into_values().collect())
}

/// A percentile of ascending values, linear between neighbours.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_tables() {
        for (share, expected) in [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.995, 2.575_829_303_548_901)] {
            assert!((normal_quantile(share) - expected).abs() < 1e-12, "{share}");
        }
    }

    #[test]
    fn wilson_is_the_textbook_interval() {
        // Computed in Python with statistics.NormalDist.
        let found = wilson(15, 50, 0.95).unwrap();
        assert!(
            (found.low - 0.191_035_535_008_809_6).abs() < 1e-12 && (found.high - 0.437_503_504_644_533_8).abs() < 1e-12,
            "{found:?}"
        );
        let none = wilson(0, 10, 0.95).unwrap();
        assert!(none.low == 0.0 && (none.high - 0.277_532_799_862_889_2).abs() < 1e-12, "{none:?}");
        let all = wilson(10, 10, 0.95).unwrap();
        assert!(all.high == 1.0 && (all.low - (1.0 - none.high)).abs() < 1e-12);
    }

    #[test]
    fn the_bootstrap_of_a_mean_agrees_with_the_normal_interval() {
        let values: Vec<f64> = (0..400).map(|place| f64::from(place % 20)).collect();
        let found = Bootstrap { resamples: 4000, ..Bootstrap::default() }.mean(&values, None).unwrap();
        // Variance of 0..20 is (400 - 1) / 12.
        let half = 1.96 * (399.0 / 12.0 / 400.0f64).sqrt();
        assert_eq!(found.value, 9.5);
        assert!((found.interval.low - (9.5 - half)).abs() < 0.05 * half, "{found:?}");
        assert!((found.interval.high - (9.5 + half)).abs() < 0.05 * half, "{found:?}");
    }

    #[test]
    fn clusters_widen_the_interval_as_fewer_independent_queries_do() {
        // Every value four times, in clusters of four: as uncertain as a quarter of the queries.
        let values: Vec<f64> = (0..400).map(|place| f64::from(place / 4 % 20)).collect();
        let clusters: Vec<u32> = (0..400).map(|place| place / 4).collect();
        let quarter: Vec<f64> = values.iter().copied().step_by(4).collect();
        let bootstrap = Bootstrap::default();
        let width = |found: Estimate| found.interval.high - found.interval.low;
        let (clustered, alone) =
            (bootstrap.mean(&values, Some(&clusters)).unwrap(), bootstrap.mean(&values, None).unwrap());
        assert_eq!(width(clustered), width(bootstrap.mean(&quarter, None).unwrap()));
        assert!(width(clustered) > 1.7 * width(alone));
    }

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(f64::from).collect();
        let with = |seed| Bootstrap { seed, ..Bootstrap::default() }.median(&values, None).unwrap();
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
        assert_eq!(with(1).value, 24.5);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [7.0]), 7.0);
        assert!(median(&mut []).is_nan() && mean([]).is_nan());
    }

    #[test]
    fn what_has_no_interval_is_refused() {
        assert!(wilson(0, 0, 0.95).is_err() && wilson(2, 1, 0.95).is_err() && wilson(1, 2, 1.0).is_err());
        assert!(proportion(&[], 0.95).is_err());
        let bootstrap = Bootstrap::default();
        assert!(bootstrap.mean(&[], None).is_err());
        assert!(bootstrap.mean(&[1.0], Some(&[0, 1])).is_err());
        assert!(bootstrap.interval(1, None, |_| f64::NAN).is_err());
        assert!(Bootstrap { resamples: 0, ..bootstrap }.mean(&[1.0], None).is_err());
    }
}
