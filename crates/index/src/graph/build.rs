//! Linking nodes: in batches, each of which sees the graph as it was before, so that no locks are needed and the result doesn't depend on
//! the number of threads (as ParlayANN builds DiskANN's graphs: Manohar et al., 2024).

use crossmodal_kernels::Buffer;
use rayon::prelude::*;

use super::nodes::{Nodes, Random};
use super::pool::{Scratch, with_scratch};
use super::walk::{NONE, View};
use crate::IndexError;

/// A node is left out of a list when one that is in it is nearer to it by this factor of squared distances: the first while there are others, then
/// the second.
const FACTORS: [f32; 2] = [1.0, 1.2];
/// Lists may grow by this much before they are thinned out.
const SLACK_DIVISOR: usize = 2;
/// A batch is at most so large a part of the nodes that are linked already, and at most so many.
const BATCH_DIVISOR: usize = 16;
const MAX_BATCH: usize = 8192;

/// How a build tells how far it is and asks whether to go on.
#[derive(Clone, Copy)]
pub(super) struct Watch<'a> {
    pub(super) progress: &'a (dyn Fn(u64, u64) + Sync),
    pub(super) cancel: &'a (dyn Fn() -> bool + Sync),
}

/// A graph that is being linked.
pub(super) struct Linker<'a> {
    nodes: &'a Nodes,
    length: usize,
    degree: usize,
    /// Room for links of a node: the degree and some slack.
    room: usize,
    links: Vec<u32>,
    /// How many of the pivots are linked.
    pivots: usize,
    effort: usize,
}

impl<'a> Linker<'a> {
    /// `linked` are the links of the first nodes, `degree` each, and `pivots` so many of the pivots are among them.
    pub(super) fn new(
        nodes: &'a Nodes,
        linked: &[u32],
        pivots: usize,
        length: usize,
        degree: usize,
        effort: usize,
    ) -> Self {
        let room = degree + degree / SLACK_DIVISOR;
        let mut links = vec![NONE; (nodes.starts.len() - 1) * room];
        links
            .chunks_mut(room)
            .zip(linked.chunks(degree))
            .for_each(|(room, linked)| room[..degree].copy_from_slice(linked));
        Self { nodes, length, degree, room, links, pivots, effort }
    }

    fn view(&self) -> View<'_> {
        let length = self.length;
        View {
            nodes: self.links.len() / self.room,
            length,
            degree: self.room,
            codes: &self.nodes.codes,
            heights: &self.nodes.heights,
            links: &self.links,
            pivots: &self.nodes.pivots[..self.pivots],
            pivot_codes: &self.nodes.pivot_codes[..self.pivots * length],
        }
    }

    /// Links the nodes from `first` on to the others and to each other.
    pub(super) fn link(&mut self, first: usize, watch: Watch<'_>) -> Result<(), IndexError> {
        let total = self.links.len() / self.room;
        let new_pivots = self.nodes.pivots[self.pivots..].to_vec();
        let is_pivot: std::collections::HashSet<u32> = new_pivots.iter().copied().collect();
        let mut others: Vec<u32> = (first as u32..total as u32).filter(|node| !is_pivot.contains(node)).collect();
        Random::new(total as u64).shuffle(&mut others);
        let mut linked = first;
        for queue in [&new_pivots, &others] {
            let mut rest = &queue[..];
            while !rest.is_empty() {
                if (watch.cancel)() {
                    return Err(IndexError::Cancelled);
                }
                let size = (linked / BATCH_DIVISOR).clamp(1, MAX_BATCH).min(rest.len());
                let mut batch = rest[..size].to_vec();
                // Neighbours in memory one after the other: their surroundings are still in the cache.
                batch.sort_unstable();
                self.insert(&batch);
                rest = &rest[size..];
                linked += size;
                if self.pivots < self.nodes.pivots.len() {
                    self.pivots += size;
                }
                (watch.progress)(linked as u64, total as u64);
            }
        }
        Ok(())
    }

    /// Links a batch.
    fn insert(&mut self, batch: &[u32]) {
        let frozen = &*self;
        let lists: Vec<Vec<u32>> = batch.par_iter().map(|node| frozen.neighbors(*node)).collect();
        let mut pairs: Vec<(u32, u32)> = Vec::with_capacity(batch.len() * self.degree);
        for (node, list) in batch.iter().zip(&lists) {
            pairs.extend(list.iter().map(|target| (*target, *node)));
        }
        self.store(batch.iter().copied().zip(lists));
        pairs.par_sort_unstable();
        let groups: Vec<&[(u32, u32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
        let frozen = &*self;
        let lists: Vec<Vec<u32>> = groups.par_iter().map(|group| frozen.with_more(group)).collect();
        self.store(groups.iter().map(|group| group[0].0).zip(lists));
    }

    fn store(&mut self, lists: impl Iterator<Item = (u32, Vec<u32>)>) {
        for (node, list) in lists {
            let room = &mut self.links[node as usize * self.room..][..self.room];
            let (used, free) = room.split_at_mut(list.len());
            used.copy_from_slice(&list);
            free.fill(NONE);
        }
    }

    /// What a node is to be linked to.
    fn neighbors(&self, node: u32) -> Vec<u32> {
        let view = self.view();
        with_scratch(|scratch| {
            view.walk(view.target(node), self.effort, scratch);
            let mut found: Vec<(u32, u32)> = scratch.pool.iter().filter(|(_, other)| *other != node).collect();
            found.sort_unstable();
            self.thin(view, &found, scratch)
        })
    }

    /// The links of a node together with new ones (pairs of it and another node).
    fn with_more(&self, pairs: &[(u32, u32)]) -> Vec<u32> {
        let (view, node) = (self.view(), pairs[0].0);
        let mut list: Vec<u32> = view.links_of(node).collect();
        let known = list.len();
        for (_, other) in pairs {
            if !list[..known].contains(other) {
                list.push(*other);
            }
        }
        if list.len() <= self.room { list } else { self.thin_list(view, node, &list) }
    }

    /// At most `degree` of a list.
    fn thin_list(&self, view: View<'_>, node: u32, list: &[u32]) -> Vec<u32> {
        with_scratch(|scratch| {
            let mut distances = std::mem::take(&mut scratch.distances);
            view.distances(view.target(node), list, &mut distances);
            let mut found: Vec<(u32, u32)> = distances.iter().copied().zip(list.iter().copied()).collect();
            scratch.distances = distances;
            found.sort_unstable();
            self.thin(view, &found, scratch)
        })
    }

    /// At most `degree` of some nodes with their distances, nearest first: at first such that none is nearer to another one that is taken than to
    /// the node they are for, then, where there is room, such that none is much nearer.
    fn thin(&self, view: View<'_>, found: &[(u32, u32)], scratch: &mut Scratch) -> Vec<u32> {
        let mut taken: Vec<u32> = Vec::with_capacity(self.room);
        // With each the distance to the one that hid it: where that is near enough for the other factor too, nothing is compared again.
        let mut left: Vec<(u32, u32, u32)> =
            found.iter().map(|(distance, node)| (*distance, *node, u32::MAX)).collect();
        for factor in FACTORS {
            left.retain_mut(|(distance, candidate, hider)| {
                if taken.len() == self.degree {
                    return false;
                }
                let hides = |between: &u32| factor * (*between as f32) <= *distance as f32;
                let hidden = hides(hider)
                    || taken.chunks(4).any(|some| {
                        view.distances(view.target(*candidate), some, &mut scratch.distances);
                        let found = scratch.distances.iter().copied().find(hides);
                        *hider = found.unwrap_or(*hider);
                        found.is_some()
                    });
                if !hidden {
                    taken.push(*candidate);
                }
                hidden
            });
        }
        taken
    }

    /// The finished links, `degree` a node, nearest first.
    pub(super) fn finish(self) -> Buffer<u32> {
        let view = self.view();
        let mut links = Buffer::zeroed(view.nodes * self.degree);
        links.par_chunks_mut(self.degree).zip(0..view.nodes as u32).for_each(|(out, node)| {
            let list: Vec<u32> = view.links_of(node).collect();
            let list = if list.len() <= self.degree { list } else { self.thin_list(view, node, &list) };
            let (used, free) = out.split_at_mut(list.len());
            used.copy_from_slice(&list);
            free.fill(NONE);
        });
        links
    }
}
