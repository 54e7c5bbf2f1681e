//! Maps for `bench/projection/quality.py`, and how long maps take.
//!
//! ```text
//! projection --rows FILE DIMENSION [SEED]     a map of rows of little-endian f32, compared by Euclidean distance
//! projection --gallery VECTORS                a map of the bundled gallery as `mini` sees it; its vectors go into a file like the one above
//! projection --speed ITEMS DIMENSION          times, as a table row in Markdown
//! ```
//! Maps are printed as CSV: a name and two coordinates a line.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crossmodal_engine::projection::{MOST_ITEMS, Projection, ProjectionOptions, project};
use crossmodal_engine::{CancelToken, Collection, LoadOptions, Metric, Mode, demo, ingest, load};
use crossmodal_store::{Field, Item, ItemVectors, ListRequest, SpaceRef, VectorRecord, VectorStore};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir()?;
    let collection = Collection::open(&folder.path().join("collection"), &Mode::write())?;
    match arguments[..] {
        ["--rows", file, dimension] => rows(&collection, file, dimension, "0"),
        ["--rows", file, dimension, seed] => rows(&collection, file, dimension, seed),
        ["--gallery", vectors] => gallery(&collection, &folder.path().join("pictures"), vectors),
        ["--speed", items, dimension] => speed(&collection, items.parse()?, dimension.parse()?),
        _ => Err("see the head of the program for its arguments".into()),
    }
}

fn rows(collection: &Collection, file: &str, dimension: &str, seed: &str) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    fill(collection, &values, dimension.parse()?, Metric::Euclidean)?;
    print(collection, &made(collection, seed.parse()?)?)
}

fn gallery(collection: &Collection, pictures: &Path, vectors: &str) -> Result<()> {
    demo::unpack(pictures)?;
    let model = load("mini", &LoadOptions::default())?;
    let request = ingest::Request::new(vec![pictures.to_path_buf()]);
    ingest::run(collection, &model, &request, &ingest::Events::none(), &CancelToken::new())?;
    let snapshot = collection.store().snapshot()?;
    let sample = snapshot.sample_items("default", MOST_ITEMS)?;
    let values = sample.vectors.iter().flat_map(|vector| vector.values).flat_map(|value| value.to_le_bytes());
    std::fs::write(vectors, values.collect::<Vec<u8>>())?;
    print(collection, &made(collection, 0)?)
}

fn speed(collection: &Collection, items: usize, dimension: usize) -> Result<()> {
    let mut random = Random(7);
    let centres: Vec<f32> = (0..50 * dimension).map(|_| random.next()).collect();
    let value = |at: usize| centres[at / dimension * 7_919 % 50 * dimension + at % dimension];
    let values: Vec<f32> = (0..items * dimension).map(|at| 1.0 + value(at) + 1.5 * random.next()).collect();
    fill(collection, &values, dimension, Metric::Cosine)?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        made(collection, 0)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    println!("| {items} x {dimension} | {:.2} | {:.2} |", times[0], times[1]);
    Ok(())
}

fn made(collection: &Collection, seed: u64) -> Result<Projection> {
    let options = ProjectionOptions { limit: MOST_ITEMS, seed };
    Ok(project(collection, &options, &mut |_| (), &CancelToken::new())?)
}

fn fill(collection: &Collection, values: &[f32], dimension: usize, metric: Metric) -> Result<()> {
    let space = SpaceRef { id: "rows".into(), model: "rows".into() };
    let field = Field { name: "default".into(), space: space.clone(), dimension, metric };
    collection.store().ensure_field(&field)?;
    let entry = |(at, vector): (usize, &[f32])| {
        let record = VectorRecord {
            field: "default".into(),
            space: space.clone(),
            part: 0,
            modality: "image".into(),
            span: None,
            precision: String::new(),
            cache_key: None,
            vector: vector.to_vec(),
        };
        ItemVectors { item: Item::new(at.to_string(), "image"), vectors: vec![record] }
    };
    let entries: Vec<ItemVectors> = values.chunks_exact(dimension).enumerate().map(entry).collect();
    for batch in entries.chunks(2_000) {
        collection.store().upsert(batch)?;
    }
    Ok(())
}

fn print(collection: &Collection, map: &Projection) -> Result<()> {
    let items = collection.list(&ListRequest::default())?;
    let ids: HashMap<i64, String> = items.into_iter().map(|stored| (stored.key, stored.item.id)).collect();
    let mut out = std::io::stdout().lock();
    for (at, key) in map.keys.iter().enumerate() {
        let id = ids.get(key).ok_or("an item of the map isn't listed")?;
        let name = id.rsplit('/').next().unwrap_or_default();
        writeln!(out, "{name},{},{}", map.x[at], map.y[at])?;
    }
    Ok(())
}

/// Repeatable numbers in -1..1, by Knuth's MMIX generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
