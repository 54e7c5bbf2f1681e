//! Stochastic gradient steps: points that belong together are drawn together, others pushed apart.
//!
//! The loss and the sampling are those of section 3.2 of McInnes, Healy and Melville 2018: every edge acts in a share of the epochs that is its weight,
//! and each time its point is pushed away from a few random ones. Two points at distance `d` on the map are alike by `1 / (1 + SHARPNESS d^2)`; the
//! exponent of UMAP's curve, 0.9 for its default settings, is 1 here, which saves two powers a step and changes little
//! (Boehm, Berens and Kobak 2022, <https://arxiv.org/abs/2007.08902>).
//!
//! Where UMAP moves one point after another, every point here takes its steps of an epoch against the others as they were before it. The
//! points can then be shared out among threads, and neither their number nor their speed changes anything.

use crossmodal_models::CancelToken;
use rayon::prelude::*;

use super::fuzzy::Graph;
use crate::error::Result;

/// Curvature of the likeness: what UMAP's curve has with a least distance of 0.1 and an exponent of 1.
const SHARPNESS: f32 = 1.56;
/// Keeps the push between points at the same place finite.
const SOFTENING: f32 = 0.001;
/// The longest step along one direction, before the rate.
const LONGEST_STEP: f32 = 4.0;
/// Random points that a point is pushed away from, each time that one of its edges acts. UMAP has 5 for each edge but moves both of its ends.
const PUSHES: usize = 3;
/// Half the extent of the map at the start.
const START_EXTENT: f32 = 10.0;
/// How far points are moved at random at the start, so that equal ones part.
const JITTER: f32 = 1e-3;
/// Points of a piece of work.
const PIECE: usize = 128;
/// Up to so many points there are more epochs.
const FEW_POINTS: usize = 10_000;
const EPOCHS_OF_FEW: u32 = 500;
const EPOCHS_OF_MANY: u32 = 200;

/// An edge as one of its ends sees it.
struct Spring {
    other: u32,
    /// The share of the epochs in which it acts.
    weight: f32,
    /// When it acts first, so that equal weights don't all act at once.
    phase: f32,
}

impl Spring {
    fn acts_in(&self, epoch: u32) -> bool {
        let acted = |epochs: u32| (epochs as f32 * self.weight + self.phase).floor();
        acted(epoch + 1) > acted(epoch)
    }
}

/// Where points come to lie that begin at `start`, in -1..=1.
///
/// # Errors
/// Cancellation.
pub(super) fn optimise(
    graph: &Graph,
    start: &[[f32; 2]],
    seed: u64,
    progress: &mut dyn FnMut(f32),
    cancel: &CancelToken,
) -> Result<Vec<[f32; 2]>> {
    let springs: Vec<Vec<Spring>> = (0..graph.count()).map(|point| springs(graph, point, seed)).collect();
    let mut places: Vec<[f32; 2]> =
        start.iter().enumerate().map(|(point, place)| jittered(*place, point, seed)).collect();
    let mut next = places.clone();
    let epochs = if graph.count() <= FEW_POINTS { EPOCHS_OF_FEW } else { EPOCHS_OF_MANY };
    for epoch in 0..epochs {
        cancel.check()?;
        let rate = 1.0 - epoch as f32 / epochs as f32;
        next.par_chunks_mut(PIECE).enumerate().for_each(|(piece, next)| {
            for (at, next) in next.iter_mut().enumerate() {
                let point = piece * PIECE + at;
                let mut random = Random::new(seed, epoch, point);
                *next = moved(point, &springs[point], &places, epoch, rate, &mut random);
            }
        });
        std::mem::swap(&mut places, &mut next);
        progress((epoch + 1) as f32 / epochs as f32);
    }
    Ok(places)
}

fn springs(graph: &Graph, point: usize, seed: u64) -> Vec<Spring> {
    let spring = |edge: &super::fuzzy::Edge| {
        let (low, high) = (edge.other.min(point as u32), edge.other.max(point as u32));
        let bits = hash(seed ^ hash(u64::from(low) << 32 | u64::from(high)));
        Spring { other: edge.other, weight: edge.weight, phase: (bits >> 40) as f32 / (1u64 << 24) as f32 }
    };
    graph.edges(point).iter().map(spring).collect()
}

fn jittered(place: [f32; 2], point: usize, seed: u64) -> [f32; 2] {
    let bits = hash(seed ^ hash(point as u64));
    let random = [bits as u32, (bits >> 32) as u32].map(|bits| bits as f32 / u32::MAX as f32 - 0.5);
    [0, 1].map(|axis| place[axis] * START_EXTENT + random[axis] * JITTER)
}

/// A point's place after an epoch.
fn moved(
    point: usize,
    springs: &[Spring],
    places: &[[f32; 2]],
    epoch: u32,
    rate: f32,
    random: &mut Random,
) -> [f32; 2] {
    let mut place = places[point];
    for spring in springs.iter().filter(|spring| spring.acts_in(epoch)) {
        let (away, square) = difference(place, places[spring.other as usize]);
        let pull = -2.0 * SHARPNESS / (1.0 + SHARPNESS * square);
        let mut step = away.map(|away| limited(pull * away));
        for _ in 0..PUSHES {
            let other = random.below(places.len());
            if other == point {
                continue;
            }
            let (away, square) = difference(place, places[other]);
            let push = 2.0 / ((SOFTENING + square) * (1.0 + SHARPNESS * square));
            step[0] += limited(push * away[0]);
            step[1] += limited(push * away[1]);
        }
        place[0] += rate * step[0];
        place[1] += rate * step[1];
    }
    place
}

fn limited(step: f32) -> f32 {
    step.clamp(-LONGEST_STEP, LONGEST_STEP)
}

fn difference(a: [f32; 2], b: [f32; 2]) -> ([f32; 2], f32) {
    let away = [a[0] - b[0], a[1] - b[1]];
    (away, away[0] * away[0] + away[1] * away[1])
}

/// Random numbers of one point in one epoch.
struct Random(u64);

impl Random {
    fn new(seed: u64, epoch: u32, point: usize) -> Self {
        Self(hash(seed ^ hash(u64::from(epoch) << 32 | point as u64)))
    }

    /// In `0..limit`, which is at most 2^32.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(INCREMENT);
        (((mixed(self.0) >> 32) * limit as u64) >> 32) as usize
    }
}

/// Steele, Lea and Flood's SplitMix64 (2014): the increment, and the function of the counter.
const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Random bits for a number.
pub(super) fn hash(number: u64) -> u64 {
    mixed(number.wrapping_add(INCREMENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_act_in_the_share_of_epochs_that_is_their_weight() {
        for (weight, phase) in [(1.0, 0.3), (0.5, 0.99), (0.013, 0.0), (0.77, 0.5), (0.0, 0.9)] {
            let spring = Spring { other: 0, weight, phase };
            let acted = (0..500).filter(|epoch| spring.acts_in(*epoch)).count();
            assert!((acted as f32 - 500.0 * weight).abs() <= 1.0, "{weight}: {acted}");
        }
    }

    #[test]
    fn random_numbers_are_even_and_differ_by_point_epoch_and_seed() {
        let mut counts = [0usize; 10];
        for point in 0..2_000 {
            let mut random = Random::new(7, 3, point);
            (0..10).for_each(|_| counts[random.below(10)] += 1);
        }
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        let first = |seed, epoch, point| Random::new(seed, epoch, point).below(1 << 30);
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1)];
        assert!((0..4).all(|a| (0..a).all(|b| all[a] != all[b])));
    }
}
