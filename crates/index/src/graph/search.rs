//! A search: by walking or scanning, then scoring what was found exactly.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crossmodal_kernels::codes;
use rayon::prelude::*;

use super::pool::{Pool, Scratch, with_scratch};
use super::walk::Target;
use super::{Arrays, Graph};
use crate::{FlatIndex, GroupedTopK, IndexError, Neighbor, SearchOptions, Selection, TopK, Vectors};

/// So many more candidates than results are scored exactly, or half as many as results where that is more.
const LEAST_EXTRA: usize = 8;
/// Rows that are scanned at a time.
const SCAN_BLOCK: usize = 256;
/// A walk that keeps selected rows only begins at so many pivots: what is selected may lie far from the query, among clusters that are hardly linked.
const SELECTED_ENTRIES: usize = 128;
/// The least default effort of such a walk.
const LEAST_SELECTED_EFFORT: usize = 96;
/// A walk that meets a selected row only now and then looks at about so many nodes for each place of its pool and step between selected rows; scanning
/// is chosen where it looks at fewer.
const WALK_COST: u64 = 8;

pub(super) fn search(
    graph: &Graph,
    vectors: Vectors<'_>,
    queries: &[&[f32]],
    options: &SearchOptions<'_>,
) -> Result<Vec<Vec<Neighbor>>, IndexError> {
    graph.check_rows(vectors)?;
    let rows = graph.shape.rows as u64;
    let vectors = vectors.prefix(rows);
    if let Some(groups) = options.selection.groups.filter(|groups| (groups.len() as u64) < rows) {
        return Err(IndexError::GroupCount { found: groups.len() as u64, expected: rows });
    }
    let prepared = vectors.prepare(queries)?;
    let selected = options.selection.allowed.map_or(rows, |allowed| allowed.count_before(rows));
    if options.k == 0 || selected == 0 {
        return Ok(vec![Vec::new(); queries.len()]);
    }
    let k = options.k.min(selected as usize);
    let whole = selected == rows && options.selection.groups.is_none();
    let default_effort = match graph.shape.default_effort.max(2 * k) {
        effort if whole => effort,
        // What is selected may lie far from the query, where more must be looked at.
        effort => (2 * effort).max(LEAST_SELECTED_EFFORT),
    };
    let effort = options.effort.unwrap_or(default_effort).clamp(k, (rows as usize).max(k));
    let search = Search { graph, arrays: graph.arrays(), vectors, selection: options.selection, selected, k, effort };
    match &prepared[..] {
        [query] => Ok(vec![search.one(query)?]),
        many => many.par_iter().map(|query| search.one(query)).collect(),
    }
}

struct Search<'a> {
    graph: &'a Graph,
    arrays: Arrays<'a>,
    vectors: Vectors<'a>,
    selection: Selection<'a>,
    selected: u64,
    k: usize,
    effort: usize,
}

impl Search<'_> {
    fn one(&self, query: &[f32]) -> Result<Vec<Neighbor>, IndexError> {
        let code = self.graph.quantiser.encode_query(query);
        let target = Target::from(&code);
        let found = with_scratch(|scratch| {
            let mut rows = Vec::with_capacity(2 * self.effort);
            let plain = self.selection.groups.is_none() && self.selected == self.vectors.rows();
            let enough = if plain {
                self.arrays.view.walk(target, self.effort, scratch);
                self.expand(&scratch.pool, &mut rows);
                true
            } else {
                !self.scanning_is_cheaper() && self.walk_selected(target, scratch, &mut rows)
            };
            let mut found = if enough { self.score(query, &rows) } else { Vec::new() };
            if found.len() < self.k {
                self.scan(target, scratch, &mut rows);
                found = self.score(query, &rows);
            }
            (found, rows.len())
        });
        let (found, candidates) = found;
        // Fewer than are selected only where the last word has a score that is no number, or the file is damaged.
        let complete = found.len() == self.k || (self.selection.groups.is_some() && candidates > 0);
        if complete {
            return Ok(found);
        }
        let flat = FlatIndex::new(self.vectors.dimension(), self.vectors.metric(), &[self.vectors.values()])?;
        Ok(flat.search(&[query], self.k, self.selection)?.pop().unwrap_or_default())
    }

    fn allows(&self, row: u32) -> bool {
        self.selection.allowed.is_none_or(|allowed| allowed.contains(u64::from(row)))
    }

    /// The rows of a node; only such that exist.
    fn rows_of(&self, node: u32) -> impl Iterator<Item = u32> {
        let (starts, rows) = (self.arrays.starts, self.arrays.node_of.len());
        let bound = |at: usize| starts.get(at).map_or(0, |start| *start as usize);
        let range = bound(node as usize)..bound(node as usize + 1);
        let list = self.arrays.rows.get(range).unwrap_or_default();
        list.iter().copied().filter(move |row| (*row as usize) < rows)
    }

    /// Rows of one node that are looked at: they have one code, and usually one score.
    fn most_of_a_node(&self) -> usize {
        2 * self.k + 64
    }

    /// The rows of the nearest nodes, somewhat more than are wanted: codes order near ones nearly as exact scores do.
    fn expand(&self, pool: &Pool, rows: &mut Vec<u32>) {
        for (_, node) in pool.iter().take(self.k + (self.k / 2).max(LEAST_EXTRA)) {
            rows.extend(self.rows_of(node).take(self.most_of_a_node()));
        }
    }

    /// Whether a scan of the selected rows looks at fewer than a walk that has to pass by the others.
    fn scanning_is_cheaper(&self) -> bool {
        let walk = WALK_COST * self.effort as u64 * self.vectors.rows() / self.selected;
        self.selected <= walk
    }

    /// Walks through all nodes and keeps selected rows; false when that took as long as a scan would.
    fn walk_selected(&self, target: Target<'_>, scratch: &mut Scratch, rows: &mut Vec<u32>) -> bool {
        let Scratch { pool, results, seen, fresh, distances } = scratch;
        let view = self.arrays.view;
        seen.reset(view.nodes);
        pool.reset(SELECTED_ENTRIES);
        view.enter(target, pool, &mut super::walk::Entry { seen, distances });
        let mut keep = Keep::new(self, results);
        let mut frontier: BinaryHeap<Reverse<(u32, u32)>> = BinaryHeap::new();
        for (distance, node) in pool.iter() {
            frontier.push(Reverse((distance, node)));
            keep.offer(distance, node);
        }
        let (mut looked_at, budget) = (0, self.selected.max(4 * self.effort as u64));
        while let Some(Reverse((distance, node))) = frontier.pop() {
            if distance > keep.bound() {
                break;
            }
            view.fresh_links(node, seen, fresh);
            view.distances(target, fresh, distances);
            for (link, distance) in fresh.iter().zip(distances.iter()) {
                if *distance <= keep.bound() {
                    frontier.push(Reverse((*distance, *link)));
                    keep.offer(*distance, *link);
                }
            }
            looked_at += fresh.len() as u64;
            if looked_at > budget {
                return false;
            }
        }
        keep.finish(rows);
        true
    }

    /// Compares the codes of all selected rows.
    fn scan(&self, target: Target<'_>, scratch: &mut Scratch, rows: &mut Vec<u32>) {
        let Scratch { results, fresh, distances, .. } = scratch;
        let (view, node_of) = (self.arrays.view, self.arrays.node_of);
        rows.clear();
        let mut keep = Keep::new(self, results);
        let mut block: Vec<u32> = Vec::with_capacity(SCAN_BLOCK);
        let mut flush = |block: &mut Vec<u32>| {
            fresh.clear();
            // A node that doesn't exist is in a damaged file only; any other keeps its row among the candidates.
            fresh.extend(block.iter().map(|row| node_of[*row as usize].min(view.nodes.saturating_sub(1) as u32)));
            view.distances(target, fresh, distances);
            for (row, distance) in block.iter().zip(distances.iter()) {
                keep.offer_row(*distance, *row);
            }
            block.clear();
        };
        let mut each = |row: u64| {
            block.push(row as u32);
            if block.len() == SCAN_BLOCK {
                flush(&mut block);
            }
        };
        let all = self.vectors.rows().min(node_of.len() as u64);
        match self.selection.allowed {
            Some(allowed) => allowed.iter().take_while(|row| *row < all).for_each(&mut each),
            None => (0..all).for_each(&mut each),
        }
        flush(&mut block);
        keep.finish(rows);
    }

    /// The best `k` of some rows by their exact scores.
    fn score(&self, query: &[f32], rows: &[u32]) -> Vec<Neighbor> {
        const AHEAD: usize = 2;
        rows.iter().take(AHEAD).for_each(|row| codes::prefetch(self.vectors.row(u64::from(*row))));
        let scores = rows.iter().enumerate().map(|(i, row)| {
            if let Some(next) = rows.get(i + AHEAD) {
                codes::prefetch(self.vectors.row(u64::from(*next)));
            }
            (self.vectors.score(query, u64::from(*row)), u64::from(*row))
        });
        let ranked = match self.selection.groups {
            None => {
                let mut top = TopK::new(self.k);
                scores.for_each(|(score, row)| top.push(score, row));
                top.into_sorted()
            }
            Some(groups) => {
                let mut top = GroupedTopK::new(self.k);
                scores.for_each(|(score, row)| top.push(score, row, groups[row as usize]));
                top.into_sorted()
            }
        };
        ranked.iter().map(|ranked| Neighbor { row: ranked.row, score: ranked.score }).collect()
    }
}

/// The nearest selected rows so far, and the best row of each of the nearest groups.
struct Keep<'a, 's> {
    search: &'a Search<'a>,
    rows: &'s mut Pool,
    groups: Option<(&'a [i64], GroupedTopK)>,
}

impl<'a, 's> Keep<'a, 's> {
    fn new(search: &'a Search<'a>, rows: &'s mut Pool) -> Self {
        rows.reset(search.effort);
        let groups = search.selection.groups.map(|groups| (groups, GroupedTopK::new(search.effort)));
        Self { search, rows, groups }
    }

    /// What a node must not be farther than to matter.
    fn bound(&self) -> u32 {
        match &self.groups {
            None => self.rows.bound(),
            Some((_, top)) => top.bound().map_or(u32::MAX, |worst| -worst.score as u32),
        }
    }

    fn offer(&mut self, distance: u32, node: u32) {
        let search = self.search;
        for row in search.rows_of(node).filter(|row| search.allows(*row)).take(search.most_of_a_node()) {
            self.offer_row(distance, row);
        }
    }

    fn offer_row(&mut self, distance: u32, row: u32) {
        self.rows.push(distance, row);
        if let Some((groups, top)) = &mut self.groups {
            top.push(-(distance as f32), u64::from(row), groups[row as usize]);
        }
    }

    /// Adds what was kept.
    fn finish(self, rows: &mut Vec<u32>) {
        rows.extend(self.rows.iter().map(|(_, row)| row));
        if let Some((_, top)) = self.groups {
            rows.extend(top.into_sorted().iter().map(|ranked| ranked.row as u32));
            rows.sort_unstable();
            rows.dedup();
        }
    }
}
