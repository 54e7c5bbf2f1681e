//! From candidates to a page of hits: confidence, groups, diversity, paging, over a pool that grows as needed.

use std::collections::{HashMap, HashSet};

use crossmodal_store::{Hit, SearchRequest, VectorStore};

use super::candidates::candidates;
use super::direction::Direction;
use super::diversity;
use super::query::{Found, Ranking, SearchOptions};
use crate::collection::Collection;
use crate::error::Result;
use crate::relevance::{Bank, Confidences, Judge, dot};

/// The judges of a query's hits, by the modality of what was found.
type Judges = HashMap<String, Option<Judge>>;

/// The candidates that a choice among hits begins with.
const POOL: usize = 256;
/// How much larger the next pool is.
const GROWTH: usize = 4;

/// A query on its way to a page of hits.
pub(super) struct Page<'a> {
    pub collection: &'a Collection,
    pub options: &'a SearchOptions,
    pub direction: &'a Direction,
    pub confidences: &'a Confidences<'a>,
}

/// Fills the pages of all queries: together at first, then each with as many candidates as it needs.
pub(super) fn fill(pages: &[Page<'_>], request: &SearchRequest) -> Result<Vec<Vec<Found>>> {
    let Some(first) = pages.first() else { return Ok(Vec::new()) };
    let own = pages.iter().map(|page| page.direction.items.len()).max().unwrap_or(0);
    let k = first_pool(first.options).saturating_add(own);
    let pools = candidates(pages, request, k)?;
    pages.iter().zip(pools).map(|(page, pool)| page.fill(pool, k, request)).collect()
}

fn first_pool(options: &SearchOptions) -> usize {
    let needed = options.needed();
    if options.diversity.is_some() {
        // Steps, so that neighbouring pages choose among the same candidates.
        POOL.max(needed.saturating_mul(2).checked_next_power_of_two().unwrap_or(usize::MAX))
    } else if options.relevant_only.is_some() || options.ranking != Ranking::Vectors {
        POOL.max(needed.saturating_mul(GROWTH))
    } else if options.group_by.is_some() {
        needed.saturating_mul(GROWTH)
    } else {
        needed
    }
}

impl Page<'_> {
    fn fill(&self, mut pool: Vec<Hit>, mut k: usize, request: &SearchRequest) -> Result<Vec<Found>> {
        loop {
            let exhausted = pool.len() < k;
            let (found, enough) = self.select(pool)?;
            if exhausted || enough {
                return self.choose(found);
            }
            k = k.saturating_mul(GROWTH);
            pool = candidates(std::slice::from_ref(self), request, k)?.pop().unwrap_or_default();
        }
    }

    /// The hits that may be shown, best first, and whether more candidates would change nothing on this page.
    fn select(&self, pool: Vec<Hit>) -> Result<(Vec<Found>, bool)> {
        let last_quarter = pool.len() - pool.len() / 4;
        let mut judges = Judges::new();
        let mut groups = HashSet::new();
        let (mut found, mut late) = (Vec::new(), false);
        for (place, mut hit) in pool.into_iter().enumerate() {
            if self.direction.items.contains(&hit.item.id) {
                continue;
            }
            let group = self.options.group_by.as_ref().and_then(|group_by| group_by.of(&hit.item));
            if group.as_ref().is_some_and(|group| groups.contains(group)) {
                continue;
            }
            if !self.is_near(&mut hit)? {
                continue;
            }
            let mut confidence = None;
            if let Some(least) = self.options.relevant_only {
                confidence = self.confidence(&mut hit, &mut judges)?;
                if confidence.is_none_or(|confidence| confidence < least) {
                    continue;
                }
                late |= place >= last_quarter;
            }
            groups.extend(group.clone());
            found.push(Found { hit, confidence, group });
        }
        let full = found.len() >= self.options.needed();
        // Confidence falls with the score, if not strictly: where the last candidates have too little, further ones have too.
        let enough = full || (self.options.relevant_only.is_some() && !late);
        Ok((found, enough))
    }

    /// The page itself: hits in their final order, without those of other pages.
    fn choose(&self, mut found: Vec<Found>) -> Result<Vec<Found>> {
        if let Some(nearness) = self.options.diversity {
            found.truncate(first_pool(self.options));
            found = self.diversify(found, nearness)?;
        }
        let mut judges = Judges::new();
        let mut page: Vec<Found> = found.into_iter().skip(self.options.offset).take(self.options.k.max(1)).collect();
        for found in &mut page {
            if found.confidence.is_none() {
                found.confidence = self.confidence(&mut found.hit, &mut judges)?;
            }
            found.hit.vector = None;
        }
        Ok(page)
    }

    /// The order of maximal marginal relevance; hits without a vector come last.
    fn diversify(&self, found: Vec<Found>, nearness: f32) -> Result<Vec<Found>> {
        let mut vectors = Bank::new(self.direction.vector.len());
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for mut found in found {
            match self.vector(&mut found.hit)? {
                Some(vector) => {
                    vectors.push(vector);
                    with.push(Some(found));
                }
                None => without.push(found),
            }
        }
        let scores: Vec<f32> = with.iter().flatten().map(|found| found.hit.score).collect();
        let order = diversity::choose(&scores, &vectors, nearness, self.options.needed());
        Ok(order.into_iter().filter_map(|place| with[place].take()).chain(without).collect())
    }

    /// Whether a hit that something other than vectors ranks has the cosine that is asked for.
    fn is_near(&self, hit: &mut Hit) -> Result<bool> {
        match self.options.min_score {
            Some(least) if self.options.ranking != Ranking::Vectors => {
                Ok(self.vector(hit)?.is_some_and(|vector| dot(&self.direction.vector, vector) >= least))
            }
            _ => Ok(true),
        }
    }

    fn confidence(&self, hit: &mut Hit, judges: &mut Judges) -> Result<Option<f32>> {
        let Some(recipe) = &self.direction.recipe else { return Ok(None) };
        if !judges.contains_key(&hit.modality) {
            let judge = self.confidences.judge(recipe, &hit.modality, &self.direction.vector)?;
            judges.insert(hit.modality.clone(), judge);
        }
        let Some(judge) = judges.get(&hit.modality).and_then(Option::as_ref) else { return Ok(None) };
        Ok(self.vector(hit)?.and_then(|vector| judge.confidence(vector)))
    }

    /// The vector that a hit was found by; none for one found by words that has no such vector. It is read once, and comes with hits that
    /// were found by it.
    fn vector<'h>(&self, hit: &'h mut Hit) -> Result<Option<&'h [f32]>> {
        if hit.vector.is_none() {
            let mut vectors = self.collection.store().vectors(&hit.item.id)?.into_iter();
            let field = self.confidences.field();
            let found = vectors.find(|own| own.field == field && own.part == hit.part && own.modality == hit.modality);
            hit.vector = found.map(|own| own.vector);
        }
        Ok(hit.vector.as_deref())
    }
}
