//! The walk: from the pivots nearest to a target to its nearest nodes, along links, by codes alone.

use crossmodal_kernels::codes;

use super::pool::{Pool, Scratch};
use super::quantiser::Code;

/// So many of the nearest pivots a walk begins at.
const ENTRIES: usize = 8;
/// What fills a list of links that has fewer.
pub(super) const NONE: u32 = u32::MAX;

/// A graph's arrays, wherever they lie. Nothing that is read from them is trusted: numbers of nodes and rows are compared with what is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// Number of nodes.
    pub(super) nodes: usize,
    /// Levels in a code.
    pub(super) length: usize,
    /// Links that a node has room for.
    pub(super) degree: usize,
    /// A code a node.
    pub(super) codes: &'a [i8],
    /// A height a node, or nothing.
    pub(super) heights: &'a [u16],
    /// `degree` nodes for each node; from the first [`NONE`] on there are none.
    pub(super) links: &'a [u32],
    /// Nodes where walks begin.
    pub(super) pivots: &'a [u32],
    /// Their codes, one behind the other.
    pub(super) pivot_codes: &'a [i8],
}

/// A code with its height, wherever it lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) levels: &'a [i8],
    pub(super) height: u16,
}

impl<'a> From<&'a Code> for Target<'a> {
    fn from(code: &'a Code) -> Self {
        Self { levels: &code.levels, height: code.height }
    }
}

impl<'a> View<'a> {
    /// The nodes that a node is linked to, up to the first that doesn't exist: [`NONE`], or damage.
    #[inline]
    pub(super) fn links_of(&self, node: u32) -> impl Iterator<Item = u32> + 'a {
        let nodes = self.nodes;
        self.slots(node).iter().copied().take_while(move |link| (*link as usize) < nodes)
    }

    /// All places for links of a node.
    #[inline]
    fn slots(&self, node: u32) -> &'a [u32] {
        self.links.get(node as usize * self.degree..).and_then(|rest| rest.get(..self.degree)).unwrap_or_default()
    }

    /// A node as a target.
    pub(super) fn target(&self, node: u32) -> Target<'a> {
        let levels = &self.codes[node as usize * self.length..][..self.length];
        Target { levels, height: self.heights.get(node as usize).copied().unwrap_or(0) }
    }

    /// The squared distances from a target to nodes that exist.
    #[inline]
    pub(super) fn distances(&self, target: Target<'_>, nodes: &[u32], out: &mut Vec<u32>) {
        out.resize(nodes.len(), 0);
        codes::squared_distances(target.levels, self.codes, nodes, out);
        self.add_heights(target, nodes, out);
    }

    #[inline]
    pub(super) fn add_heights(&self, target: Target<'_>, nodes: &[u32], out: &mut [u32]) {
        if !self.heights.is_empty() {
            for (distance, node) in out.iter_mut().zip(nodes) {
                let height = self.heights.get(*node as usize).copied().unwrap_or(0);
                let gap = u32::from(height.abs_diff(target.height));
                *distance = distance.saturating_add(gap * gap);
            }
        }
    }

    /// Puts the nearest pivots into the (empty) pool.
    pub(super) fn enter(&self, target: Target<'_>, pool: &mut Pool, scratch: &mut Entry<'_>) {
        let count = self.pivots.len().min(self.pivot_codes.len() / self.length);
        scratch.distances.resize(count, 0);
        codes::squared_distances_of_all(target.levels, &self.pivot_codes[..count * self.length], scratch.distances);
        self.add_heights(target, &self.pivots[..count], scratch.distances);
        for (pivot, distance) in self.pivots.iter().zip(scratch.distances.iter()) {
            if (*pivot as usize) < self.nodes && !scratch.seen.contains(*pivot) {
                pool.push(*distance, *pivot);
            }
        }
        pool.iter().for_each(|(_, pivot)| {
            scratch.seen.insert(pivot);
        });
    }

    /// Leaves the nearest nodes found in the scratch's pool, `effort` of them.
    pub(super) fn walk(&self, target: Target<'_>, effort: usize, scratch: &mut Scratch) {
        self.walk_around(target, None, effort, scratch);
    }

    /// As [`View::walk`], as if one node weren't there.
    pub(super) fn walk_around(&self, target: Target<'_>, without: Option<u32>, effort: usize, scratch: &mut Scratch) {
        let Scratch { pool, seen, fresh, distances, .. } = scratch;
        seen.reset(self.nodes);
        without.into_iter().for_each(|node| _ = seen.insert(node));
        pool.reset(effort.min(ENTRIES));
        self.enter(target, pool, &mut Entry { seen, distances });
        pool.widen(effort);
        while let Some(node) = pool.next() {
            self.fresh_links(node, seen, fresh);
            if let Some(next) = pool.peek() {
                codes::prefetch(self.slots(next));
            }
            self.distances(target, fresh, distances);
            for (link, distance) in fresh.iter().zip(distances.iter()) {
                pool.push(*distance, *link);
            }
        }
    }

    /// The linked nodes that were not seen before.
    #[inline]
    pub(super) fn fresh_links(&self, node: u32, seen: &mut super::pool::Seen, fresh: &mut Vec<u32>) {
        fresh.clear();
        fresh.reserve(self.degree);
        for link in self.links_of(node) {
            if seen.insert(link) {
                fresh.push(link);
            }
        }
    }
}

/// What [`View::enter`] needs.
pub(super) struct Entry<'a> {
    pub(super) seen: &'a mut super::pool::Seen,
    pub(super) distances: &'a mut Vec<u32>,
}
