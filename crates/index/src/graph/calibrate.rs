//! The default effort: the least with which nearly all of the nearest nodes of sampled ones are found.

use crossmodal_kernels::codes;
use rayon::prelude::*;

use super::nodes::Random;
use super::pool::with_scratch;
use super::quantiser::Code;
use super::walk::{Target, View};

/// Neighbours that are looked for.
const K: usize = 10;
/// The share of them that must be found.
const SHARE: f64 = 0.985;
/// Efforts that are tried.
const EFFORTS: [usize; 12] = [16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512];
/// Comparisons that samples may cost, and how many samples there are at least and at most.
const COMPARISONS: usize = 200_000_000;
const SAMPLES: (usize, usize) = (64, 400);
/// Nodes compared at a time.
const BLOCK: usize = 1024;

/// The effort for a search that names none. Each sampled node is looked for as if it weren't there, so that it stands for a query that isn't among
/// the rows; `code_of` is its code as a query.
pub(super) fn default_effort(view: View<'_>, code_of: impl Fn(u32) -> Code + Sync) -> usize {
    if view.nodes <= K {
        return EFFORTS[0];
    }
    let mut random = Random::new(view.nodes as u64);
    let count = (COMPARISONS / view.nodes).clamp(SAMPLES.0, SAMPLES.1);
    let samples: Vec<u32> = (0..count).map(|_| random.below(view.nodes as u64) as u32).collect();
    let found: Vec<[usize; EFFORTS.len()]> =
        samples.par_iter().map(|node| found(view, *node, &code_of(*node))).collect();
    let enough = |at: usize| found.iter().map(|found| found[at]).sum::<usize>() as f64 >= SHARE * (K * count) as f64;
    (0..EFFORTS.len()).find(|at| enough(*at)).map_or(EFFORTS[EFFORTS.len() - 1], |at| EFFORTS[at])
}

/// How many of a node's nearest others each effort finds, the node being looked for by a query's code.
fn found(view: View<'_>, node: u32, code: &Code) -> [usize; EFFORTS.len()] {
    let target = Target::from(code);
    with_scratch(|scratch| {
        scratch.results.reset(K);
        let mut distances = vec![0; BLOCK];
        for (block, codes) in view.codes.chunks(BLOCK * view.length).enumerate() {
            let first = (block * BLOCK) as u32;
            let nodes: Vec<u32> = (first..first + (codes.len() / view.length) as u32).collect();
            distances.resize(nodes.len(), 0);
            codes::squared_distances_of_all(target.levels, codes, &mut distances);
            view.add_heights(target, &nodes, &mut distances);
            for (other, distance) in nodes.into_iter().zip(&distances).filter(|(other, _)| *other != node) {
                scratch.results.push(*distance, other);
            }
        }
        let farthest = scratch.results.bound();
        EFFORTS.map(|effort| {
            view.walk_around(target, Some(node), effort, scratch);
            scratch.pool.iter().take(K).filter(|(distance, _)| *distance <= farthest).count()
        })
    })
}
