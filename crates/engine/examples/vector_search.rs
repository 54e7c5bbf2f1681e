//! How fast single vectors are searched for, one call after the other on one thread, with the hits' items.
//!
//! ```text
//! vector_search COLLECTION QUERIES.npy [EFFORT]
//! ```
//! Prints calls a second: of the engine, of the store alone, and of a searcher that answers with ids alone.

use std::path::Path;
use std::time::Instant;

use crossmodal_engine::exchange::npy::NpyReader;
use crossmodal_engine::{Collection, Mode, Query, SearchOptions};
use crossmodal_store::{SearchRequest, VectorStore};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Rounds over all queries; the median counts.
const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [collection, queries, rest @ ..] = &arguments[..] else {
        return Err("vector_search COLLECTION QUERIES.npy [EFFORT]".into());
    };
    let effort = rest.first().map(|effort| effort.parse()).transpose()?;
    let collection = Collection::open(Path::new(collection), &Mode::read())?;
    let mut reader = NpyReader::open(Path::new(queries))?;
    let columns = reader.columns();
    let values = reader.floats(reader.rows())?;
    let queries: Vec<&[f32]> = values.chunks_exact(columns).collect();
    let field = collection.info()?.fields.remove(0).field.name;
    let options = SearchOptions { effort, ..SearchOptions::default() };
    let mut engine = |query: &[f32]| -> Result<usize> {
        Ok(collection.search_vectors(&[Query::vector(query.to_vec())], &options)?[0].len())
    };
    measure("engine", &queries, &mut engine)?;
    let mut store = |query: &[f32]| -> Result<usize> {
        let request = SearchRequest { effort, ..SearchRequest::new(&field, query.to_vec(), 10) };
        Ok(collection.store().search(&request)?[0].len())
    };
    measure("store", &queries, &mut store)?;
    let searcher = collection.store().searcher(&field, None)?;
    let mut ids =
        |query: &[f32]| -> Result<usize> { Ok(searcher.search(vec![query.to_vec()], 10, effort, false)?[0].len()) };
    measure("ids alone", &queries, &mut ids)
}

fn measure(name: &str, queries: &[&[f32]], search: &mut dyn FnMut(&[f32]) -> Result<usize>) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..=ROUNDS {
        let (start, mut hits) = (Instant::now(), 0);
        for query in queries {
            hits += search(query)?;
        }
        rates.push(queries.len() as f64 / start.elapsed().as_secs_f64());
        assert_eq!(hits, 10 * queries.len());
    }
    // The first round loads what is to be loaded.
    rates.remove(0);
    rates.sort_by(f64::total_cmp);
    println!("{name}: {:.0} calls/s ({:.0} to {:.0})", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
    Ok(())
}
