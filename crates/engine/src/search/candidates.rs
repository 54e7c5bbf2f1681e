//! The candidates of queries, ranked by vectors, by words, or by both.

use std::collections::HashMap;

use crossmodal_store::{Fusion, Hit, RankedList, SearchRequest, TextHit, TextRequest, VectorStore, fuse};

use super::page::Page;
use super::query::Ranking;
use crate::error::{Error, Result};

/// The best `k` candidates of each query, fewer only where there are no more.
pub(super) fn candidates(pages: &[Page<'_>], request: &SearchRequest, k: usize) -> Result<Vec<Vec<Hit>>> {
    let Some(first) = pages.first() else { return Ok(Vec::new()) };
    let near = || {
        let queries = pages.iter().map(|page| page.direction.vector.clone()).collect();
        first.collection.store().search(&SearchRequest { queries, k, ..request.clone() })
    };
    match first.options.ranking {
        Ranking::Vectors => Ok(near()?),
        Ranking::Words => pages.iter().map(|page| by_words(page, k)).collect(),
        Ranking::Both { vectors } => {
            let both = near()?.into_iter().zip(pages);
            both.map(|(near, page)| Ok(fused(near, by_words(page, k)?, vectors, k))).collect()
        }
    }
}

fn by_words(page: &Page<'_>, k: usize) -> Result<Vec<Hit>> {
    if page.direction.words.is_empty() {
        return Err(Error::Invalid("a search by words needs words".into()));
    }
    let (text, filter) = (page.direction.words.clone(), page.options.filter.clone());
    let hits = page.collection.store().search_text(&TextRequest { text, k, filter, offset: 0 })?;
    let hit = |TextHit { key, score, item }: TextHit| Hit {
        key,
        score,
        part: 0,
        modality: item.modality.clone(),
        span: None,
        item,
        vector: None,
    };
    Ok(hits.into_iter().map(hit).collect())
}

/// One ranking of two. The hit itself is the one found by its vector, where there is one.
fn fused(near: Vec<Hit>, by_words: Vec<Hit>, vectors: Option<f32>, k: usize) -> Vec<Hit> {
    let ranked = |hits: &[Hit]| hits.iter().map(|hit| (hit.key, hit.score)).collect::<Vec<_>>();
    let (of_vectors, of_words) = (ranked(&near), ranked(&by_words));
    let (fusion, share) = vectors.map_or((Fusion::RANKS, 0.5), |share| (Fusion::Scores, share));
    let lists = [RankedList { hits: &of_vectors, weight: share }, RankedList { hits: &of_words, weight: 1.0 - share }];
    let mut hits: HashMap<i64, Hit> = by_words.into_iter().chain(near).map(|hit| (hit.key, hit)).collect();
    let fused = fuse(&lists, fusion, k).into_iter();
    fused.filter_map(|fused| Some(Hit { score: fused.score, ..hits.remove(&fused.key)? })).collect()
}
