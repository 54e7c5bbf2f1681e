//! From vectors to codes: one centre and one scale for all rows, so that squared distances of codes rank rows as the metric does.
//!
//! Unit vectors are ranked by cosine as by distance. Inner products are turned into distances by one more dimension (Bachrach et al., 2014): each
//! row gets the height that makes its length equal to the greatest one, a query gets none and is scaled to that length. Heights are kept apart
//! from the codes, in units of their scale.

use crossmodal_kernels::{codes, distance};

use crate::{IndexError, Metric, Vectors};

/// Values that centre and scale are computed from, and the fewest rows.
const SAMPLE: usize = 1 << 21;
const LEAST_SAMPLE: usize = 64;
/// Heights are cut here, so that the square of a difference fits 30 bits.
const MAX_HEIGHT: f32 = 32_767.0;

/// How vectors become codes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantiser {
    metric: Metric,
    centre: Vec<f32>,
    scale: f32,
    /// The greatest length of a row, for inner products.
    radius: f32,
}

/// A code with its height (0 unless the metric is the inner product).
#[derive(Debug, Clone, Default)]
pub(super) struct Code {
    pub(super) levels: Vec<i8>,
    pub(super) height: u16,
}

impl Quantiser {
    /// Fits centre, scale and radius to the rows.
    pub(super) fn train(vectors: Vectors<'_>) -> Self {
        let wanted = (SAMPLE / vectors.dimension()).max(LEAST_SAMPLE);
        let step = (vectors.rows() as usize / wanted).max(1);
        let sample = || (0..vectors.rows()).step_by(step).map(|row| vectors.row(row));
        let mut sums = vec![(0f64, 0u32); vectors.dimension()];
        for row in sample() {
            for ((sum, count), value) in sums.iter_mut().zip(row).filter(|(_, value)| value.is_finite()) {
                *sum += f64::from(*value);
                *count += 1;
            }
        }
        let centre: Vec<f32> = sums.iter().map(|(sum, count)| (sum / f64::from((*count).max(1))) as f32).collect();
        let gaps = sample().flat_map(|row| row.iter().zip(&centre).map(|(value, centre)| (value - centre).abs()));
        let mut gaps: Vec<f32> = gaps.filter(|gap| gap.is_finite()).collect();
        gaps.sort_unstable_by(f32::total_cmp);
        let radius = match vectors.metric() {
            Metric::InnerProduct => {
                (0..vectors.rows()).fold(0f32, |most, row| most.max(distance::norm(vectors.row(row))))
            }
            Metric::Cosine | Metric::Euclidean => 0.0,
        };
        let radius = if radius.is_finite() { radius } else { f32::MAX };
        Self { metric: vectors.metric(), scale: best_scale(&gaps), centre, radius }
    }

    /// One that was saved.
    pub(super) fn restore(metric: Metric, centre: &[f32], scale: f32, radius: f32) -> Result<Self, IndexError> {
        let sound = scale.is_finite() && scale > 0.0 && radius.is_finite() && radius >= 0.0;
        if !sound || !centre.iter().all(|value| value.is_finite()) {
            return Err(IndexError::Damaged { reason: "its scale or its centre is not a number".into() });
        }
        Ok(Self { metric, centre: centre.to_vec(), scale, radius })
    }

    pub(super) fn centre(&self) -> &[f32] {
        &self.centre
    }

    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    pub(super) fn radius(&self) -> f32 {
        self.radius
    }

    /// Levels in a code.
    pub(super) fn length(&self) -> usize {
        codes::length(self.centre.len())
    }

    /// Whether codes have heights.
    pub(super) fn has_heights(&self) -> bool {
        self.metric == Metric::InnerProduct
    }

    /// Writes a row's levels and returns its height.
    pub(super) fn encode(&self, row: &[f32], levels: &mut [i8]) -> u16 {
        codes::encode(row, &self.centre, 1.0 / self.scale, levels);
        if !self.has_heights() {
            return 0;
        }
        let length = distance::norm(row);
        let height = (f64::from(self.radius).powi(2) - f64::from(length).powi(2)).max(0.0).sqrt() as f32;
        (height / self.scale).min(MAX_HEIGHT) as u16
    }

    /// The code that a prepared query is compared by.
    pub(super) fn encode_query(&self, query: &[f32]) -> Code {
        let mut levels = vec![0; self.length()];
        let length = distance::norm(query);
        if self.has_heights() && length > 0.0 && length.is_finite() {
            let factor = self.radius / length;
            let scaled: Vec<f32> = query.iter().map(|value| value * factor).collect();
            codes::encode(&scaled, &self.centre, 1.0 / self.scale, &mut levels);
        } else {
            codes::encode(query, &self.centre, 1.0 / self.scale, &mut levels);
        }
        Code { levels, height: 0 }
    }
}

/// The step between levels whose codes have the least squared error on these sorted magnitudes: rare great values are cut where that makes
/// the others finer.
fn best_scale(gaps: &[f32]) -> f32 {
    let Some(most) = gaps.last().filter(|most| **most > 0.0) else { return 1.0 };
    let error = |cut: f32| {
        let inside = gaps.partition_point(|gap| *gap <= cut);
        let beyond: f64 = gaps[inside..].iter().map(|gap| f64::from(gap - cut).powi(2)).sum();
        beyond + inside as f64 * f64::from(cut / codes::LEVELS).powi(2) / 12.0
    };
    let cuts = (0..40).map(|i| most * 0.93f32.powi(i));
    let best = cuts.map(|cut| (error(cut), cut)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(*most, |(_, cut)| cut);
    (best / codes::LEVELS).max(f32::MIN_POSITIVE)
}
