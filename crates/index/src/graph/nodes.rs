//! Nodes and pivots: equal codes share a node, and nodes near the same pivot lie together in memory.

use std::collections::{HashMap, HashSet};

use crossmodal_kernels::{Buffer, codes};
use rayon::prelude::*;

use super::Arrays;
use super::build::Watch;
use super::quantiser::Quantiser;
use crate::{IndexError, Vectors};

/// Rows that are encoded by one thread at a time.
const CHUNK: u64 = 1024;
/// Most pivots.
const MAX_PIVOTS: u64 = 1024;

/// A reproducible sequence of numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is at least 1 (SplitMix64).
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.0)) * u128::from(bound)) >> 64) as u64
    }

    /// Brings a list into random order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A hash of a code with its height. Two different codes of one hash would share a node, which only makes them harder to tell apart.
fn hash(levels: &[i8], height: u16) -> u64 {
    let word = |bytes: &[i8; 8]| u64::from_le_bytes(bytes.map(|byte| byte as u8));
    levels.as_chunks::<8>().0.iter().fold(mix(u64::from(height) + 1), |sum, bytes| {
        (sum.rotate_left(23) ^ word(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    })
}

/// The nodes of a graph, without links.
#[derive(Debug)]
pub(super) struct Nodes {
    /// The rows of node `i` are `rows[starts[i]..starts[i + 1]]`, in order.
    pub(super) starts: Vec<u32>,
    pub(super) rows: Vec<u32>,
    /// The node of each row.
    pub(super) node_of: Vec<u32>,
    pub(super) codes: Buffer<i8>,
    pub(super) heights: Vec<u16>,
    pub(super) pivots: Vec<u32>,
    pub(super) pivot_codes: Buffer<i8>,
}

impl Nodes {
    /// No nodes.
    pub(super) fn none() -> Self {
        let (starts, rows, node_of, heights, pivots) = (vec![0], Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { starts, rows, node_of, heights, pivots, codes: Buffer::zeroed(0), pivot_codes: Buffer::zeroed(0) }
    }
}

/// A row's place in the order of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    pivot: u32,
    distance: u32,
    hash: u64,
    row: u32,
}

/// Arranges all rows behind `old` nodes, whose rows come first (none at first).
pub(super) fn arrange(
    quantiser: &Quantiser,
    vectors: Vectors<'_>,
    old: Option<&Arrays<'_>>,
    watch: Watch<'_>,
) -> Result<Nodes, IndexError> {
    let length = quantiser.length();
    let first = old.map_or(0, |old| old.node_of.len() as u64);
    let encode = |row: u64, levels: &mut [i8]| quantiser.encode(vectors.row(row), levels);
    let (mut pivot_codes, old_pivots) = match old {
        Some(old) => (old.view.pivot_codes.to_vec(), old.view.pivots.len()),
        None => (Vec::new(), 0),
    };
    choose_pivots(first, vectors.rows(), length, old_pivots, &mut pivot_codes, encode);
    let places = places(first, vectors.rows(), &pivot_codes, length, watch, encode);
    if places.len() as u64 != vectors.rows() - first {
        return Err(IndexError::Cancelled);
    }
    let known: HashMap<u64, u32> = old.map_or_else(HashMap::new, |old| {
        let hash_of = |node: u32| {
            let target = old.view.target(node);
            (hash(target.levels, target.height), node)
        };
        (0..old.view.nodes as u32).into_par_iter().map(hash_of).collect()
    });
    // Which node each new row belongs to: an old one of the same code, the one before it in order, or the next new one.
    let old_nodes = old.map_or(0, |old| old.view.nodes);
    let (mut heads, mut node_of) = (Vec::new(), old.map_or_else(Vec::new, |old| old.node_of.to_vec()));
    node_of.resize(vectors.rows() as usize, 0);
    let mut before = None;
    for place in &places {
        let key = (place.pivot, place.distance, place.hash);
        node_of[place.row as usize] = match known.get(&place.hash) {
            Some(node) => *node,
            None => {
                if before != Some(key) {
                    heads.push(place.row);
                }
                before = Some(key);
                (old_nodes + heads.len() - 1) as u32
            }
        };
    }
    let (starts, rows) = group(&node_of, old_nodes + heads.len());
    let mut codes = Buffer::zeroed((old_nodes + heads.len()) * length);
    let mut heights = old.map_or_else(Vec::new, |old| old.view.heights.to_vec());
    let (old_codes, new_codes) = codes.split_at_mut(old_nodes * length);
    if let Some(old) = old {
        old_codes.copy_from_slice(old.view.codes);
    }
    let levels = new_codes.par_chunks_mut(length).zip(&heads);
    let new_heights: Vec<u16> = levels.map(|(levels, row)| encode(u64::from(*row), levels)).collect();
    if quantiser.has_heights() {
        heights.extend(new_heights);
    }
    let (pivots, pivot_codes) = find_pivots(old, &places, &node_of, &pivot_codes, length);
    Ok(Nodes { starts, rows, node_of, codes, heights, pivots, pivot_codes })
}

/// Adds the codes of new pivots: rows at random, so many that there is one for each of the square root of all rows.
fn choose_pivots(
    first: u64,
    end: u64,
    length: usize,
    old: usize,
    pivot_codes: &mut Vec<i8>,
    encode: impl Fn(u64, &mut [i8]) -> u16,
) {
    let wanted = end.isqrt().clamp(1, MAX_PIVOTS).saturating_sub(old as u64).min(end - first);
    let mut random = Random::new(end);
    for i in 0..wanted {
        // One from each of so many equal parts.
        let (from, to) = (first + (end - first) * i / wanted, first + (end - first) * (i + 1) / wanted);
        let start = pivot_codes.len();
        pivot_codes.resize(start + length, 0);
        encode(from + random.below(to - from), &mut pivot_codes[start..]);
    }
}

/// The places of the rows `first..end`, sorted; fewer when that was called off.
fn places(
    first: u64,
    end: u64,
    pivot_codes: &[i8],
    length: usize,
    watch: Watch<'_>,
    encode: impl Fn(u64, &mut [i8]) -> u16 + Sync,
) -> Vec<Place> {
    let chunks = (first as usize..end as usize).into_par_iter().step_by(CHUNK as usize);
    let mut places: Vec<Place> = chunks
        .flat_map_iter(|start| {
            let start = start as u64;
            let (mut levels, mut distances) = (vec![0; length], vec![0; pivot_codes.len() / length]);
            let encode = &encode;
            let end = if (watch.cancel)() { start } else { end.min(start + CHUNK) };
            (start..end).map(move |row| {
                let height = encode(row, &mut levels);
                codes::squared_distances_of_all(&levels, pivot_codes, &mut distances);
                let nearest = distances.iter().zip(0..).min().unwrap_or((&0, 0));
                Place { pivot: nearest.1, distance: *nearest.0, hash: hash(&levels, height), row: row as u32 }
            })
        })
        .collect();
    places.par_sort_unstable();
    places
}

/// Rows by node: `starts` and `rows` as in [`Nodes`].
fn group(node_of: &[u32], nodes: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0; nodes + 1];
    node_of.iter().for_each(|node| starts[*node as usize + 1] += 1);
    (1..starts.len()).for_each(|i| starts[i] += starts[i - 1]);
    let (mut next, mut rows) = (starts.clone(), vec![0; node_of.len()]);
    for (row, node) in node_of.iter().enumerate() {
        rows[next[*node as usize] as usize] = row as u32;
        next[*node as usize] += 1;
    }
    (starts, rows)
}

/// The node nearest to each pivot that has any: the first of its rows in order.
fn find_pivots(
    old: Option<&Arrays<'_>>,
    places: &[Place],
    node_of: &[u32],
    pivot_codes: &[i8],
    length: usize,
) -> (Vec<u32>, Buffer<i8>) {
    let mut pivots = old.map_or_else(Vec::new, |old| old.view.pivots.to_vec());
    let mut chosen: Vec<usize> = (0..pivots.len()).collect();
    let count = pivots.len();
    let mut taken: HashSet<u32> = pivots.iter().copied().collect();
    for group in places.chunk_by(|a, b| a.pivot == b.pivot).filter(|group| group[0].pivot as usize >= count) {
        let node = node_of[group[0].row as usize];
        if taken.insert(node) {
            pivots.push(node);
            chosen.push(group[0].pivot as usize);
        }
    }
    let mut kept = Buffer::zeroed(chosen.len() * length);
    for (to, from) in kept.chunks_mut(length).zip(chosen) {
        to.copy_from_slice(&pivot_codes[from * length..][..length]);
    }
    (pivots, kept)
}
