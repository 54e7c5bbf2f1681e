//! The graph of a map: how likely points belong together.
//!
//! Sections 3.1 and 4.1 of McInnes, Healy and Melville 2018. From each point's side, a neighbour at distance `d` belongs to it with the weight
//! `exp(-max(0, d - rho) / sigma)`: `rho` is the distance of the nearest distinct neighbour, `sigma` makes the weights sum to `log2(k)`, so that
//! dense and sparse parts of a space count alike. Two points belong together if either says so: `a + b - a b`.

use rayon::prelude::*;

use super::points::{Near, Neighbours};

/// The least `sigma`, as a part of the mean distance to the neighbours.
const LEAST_SIGMA: f32 = 1e-3;
/// Halvings of the interval that holds `sigma`.
const STEPS: usize = 64;
/// How near the sum must come to its target.
const TOLERANCE: f32 = 1e-5;

/// An undirected weighted graph; each edge is listed at both of its ends.
pub(super) struct Graph {
    /// Where the edges of each point begin, and where the last ones end.
    starts: Vec<usize>,
    edges: Vec<Edge>,
}

/// An edge as one of its ends sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edge {
    pub other: u32,
    /// In 0..=1.
    pub weight: f32,
}

impl Graph {
    /// Number of points.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The edges of a point.
    pub fn edges(&self, point: usize) -> &[Edge] {
        &self.edges[self.starts[point]..self.starts[point + 1]]
    }
}

/// Makes the graph of all points' neighbours.
pub(super) fn graph(neighbours: &[Neighbours]) -> Graph {
    let one_sided: Vec<Vec<Edge>> = neighbours.par_iter().map(|near| weights(near)).collect();
    let seen_from = |from: usize, to: usize| one_sided[from].iter().find(|edge| edge.other as usize == to);
    let mut starts = vec![0; neighbours.len() + 1];
    let mut counts: Vec<usize> = one_sided.iter().map(Vec::len).collect();
    let unrequited = |point: usize| {
        let edges = one_sided[point].iter();
        edges.filter(move |edge| seen_from(edge.other as usize, point).is_none())
    };
    for point in 0..neighbours.len() {
        unrequited(point).for_each(|edge| counts[edge.other as usize] += 1);
    }
    for (point, count) in counts.iter().enumerate() {
        starts[point + 1] = starts[point] + count;
    }
    let mut edges = vec![Edge { other: 0, weight: 0.0 }; starts[neighbours.len()]];
    let mut next = starts.clone();
    let mut put = |point: usize, edge: Edge| {
        edges[next[point]] = edge;
        next[point] += 1;
    };
    for (point, own) in one_sided.iter().enumerate() {
        for edge in own {
            let back = seen_from(edge.other as usize, point).map_or(0.0, |edge| edge.weight);
            put(point, Edge { weight: edge.weight + back - edge.weight * back, ..*edge });
        }
        unrequited(point).for_each(|edge| put(edge.other as usize, Edge { other: point as u32, ..*edge }));
    }
    Graph { starts, edges }
}

/// The weights of a point's neighbours from its own side.
fn weights(near: &[Near]) -> Vec<Edge> {
    let nearest = near.iter().map(|near| near.distance).find(|distance| *distance > 0.0).unwrap_or(0.0);
    let beyond: Vec<f32> = near.iter().map(|near| (near.distance - nearest).max(0.0)).collect();
    let mean = near.iter().map(|near| near.distance).sum::<f32>() / near.len().max(1) as f32;
    let sigma = sigma(&beyond).max(LEAST_SIGMA * mean);
    let weight = |beyond: f32| if beyond > 0.0 { (-beyond / sigma).exp() } else { 1.0 };
    near.iter().zip(&beyond).map(|(near, beyond)| Edge { other: near.point, weight: weight(*beyond) }).collect()
}

/// The scale at which weights sum to `log2(k)`; 0 or infinity where none does.
fn sigma(beyond: &[f32]) -> f32 {
    let target = (beyond.len() as f32).log2();
    let (mut low, mut high, mut middle) = (0.0, f32::INFINITY, 1.0);
    for _ in 0..STEPS {
        let weight = |beyond: &f32| if *beyond > 0.0 { (-beyond / middle).exp() } else { 1.0 };
        let sum: f32 = beyond.iter().map(weight).sum();
        if (sum - target).abs() < TOLERANCE {
            break;
        }
        if sum > target {
            high = middle;
            middle = (low + high) / 2.0;
        } else {
            low = middle;
            middle = if high.is_finite() { (low + high) / 2.0 } else { middle * 2.0 };
        }
    }
    middle
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(distances: &[(u32, f32)]) -> Neighbours {
        distances.iter().map(|(point, distance)| Near { point: *point, distance: *distance }).collect()
    }

    #[test]
    fn weights_sum_to_the_logarithm_of_the_neighbours() {
        for scale in [1e-6, 1.0, 1e4] {
            let all: Vec<_> = (0..8).map(|at| (at, scale * (1.0 + at as f32))).collect();
            let weights = weights(&near(&all));
            let sum: f32 = weights.iter().map(|edge| edge.weight).sum();
            assert!((sum - 3.0).abs() < 1e-3, "{scale}: {sum}");
            assert_eq!(weights[0].weight, 1.0);
            assert!(weights.is_sorted_by(|a, b| a.weight > b.weight));
        }
    }

    #[test]
    fn copies_belong_together_wholly() {
        let equal = weights(&near(&[(1, 0.0), (2, 0.0), (3, 0.0)]));
        assert!(equal.iter().all(|edge| edge.weight == 1.0));
        let mixed = weights(&near(&[(1, 0.0), (2, 0.0), (3, 0.5), (4, 0.7)]));
        let found: Vec<f32> = mixed.iter().map(|edge| edge.weight).collect();
        assert_eq!(found[..3], [1.0; 3]);
        assert!((0.0..1.0).contains(&found[3]));
        assert!(weights(&[]).is_empty());
    }

    #[test]
    fn edges_are_unions_and_stand_at_both_ends() {
        let neighbours = [
            near(&[(1, 1.0), (2, 1.5), (3, 9.0)]),
            near(&[(0, 1.0), (2, 2.0), (3, 4.0)]),
            near(&[(0, 1.5), (1, 2.0), (3, 3.0)]),
            near(&[(2, 3.0), (1, 4.0), (4, 5.0)]),
            near(&[(3, 5.0), (2, 5.5), (1, 6.0)]),
        ];
        let graph = graph(&neighbours);
        assert_eq!(graph.count(), 5);
        let weight = |a: usize, b: u32| graph.edges(a).iter().find(|edge| edge.other == b).map(|edge| edge.weight);
        for a in 0..5 {
            assert!(graph.edges(a).iter().all(|edge| edge.other as usize != a && (0.0..=1.0).contains(&edge.weight)));
            (0..5).for_each(|b| assert_eq!(weight(a, b as u32), weight(b, a as u32), "{a} {b}"));
        }
        let one_sided = |from: usize, to: u32| {
            weights(&neighbours[from]).iter().find(|edge| edge.other == to).map_or(0.0, |edge| edge.weight)
        };
        let (a, b) = (one_sided(0, 2), one_sided(2, 0));
        assert_eq!(weight(0, 2), Some(a + b - a * b));
        assert_eq!(weight(1, 4), Some(one_sided(4, 1)));
        assert_eq!(weight(0, 4), None);
    }
}
