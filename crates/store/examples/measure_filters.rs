//! Measures a local store with metadata: writing, filters of many selectivities, search by words.
//!
//! `cargo run --release -p crossmodal-store --example measure_filters -- [ITEMS] [DIMENSION] [FOLDER]`; a folder that exists is only
//! read. Times are medians of several runs; the first of them, with a cold cache, is printed beside.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crossmodal_store::{
    Comparison, Field, Filter, FilterPath, Item, ItemVectors, LocalStore, Metric, OpenOptions, SearchRequest, Source,
    SpaceRef, TextRequest, VectorRecord, VectorStore,
};
use serde_json::json;

const BATCH: usize = 256;
const WORDS: u64 = 5_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let (items, dimension) = (number(0, 100_000)?, number(1, 64)? as usize);
    let temporary = std::env::temp_dir().join(format!("measure-filters-{}", std::process::id()));
    let folder = arguments.get(2).map_or(temporary.clone(), PathBuf::from);
    if !folder.exists() {
        write(&folder, items, dimension)?;
    }
    filters(&folder, items, dimension)?;
    texts(&folder)?;
    if folder == temporary {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// The same numbers for the same seed.
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Words are as unevenly spread as in texts.
fn word(seed: u64) -> String {
    let uniform = (random(seed) >> 11) as f64 / (1u64 << 53) as f64;
    format!("word{}", (WORDS as f64).powf(uniform) as u64)
}

fn entry(number: u64, items: u64, dimension: usize, space: &SpaceRef) -> ItemVectors {
    let mut item = Item::new(format!("photos/{}/{number}.jpg", number % 100), "image");
    let uri = format!("/home/someone/photos/{}/{number}.jpg", number % 100);
    item.source =
        Some(Source { uri, size: Some(random(number) % 5_000_000), modified_ns: Some(number as i64 * 1_000) });
    let words: Vec<_> = (0..12).map(|at| word(number * 12 + at)).collect();
    let metadata = json!({
        "caption": words.join(" "), "year": 1990 + random(number) % 30, "tags": [word(number), word(number + 7)],
        "camera": {"model": format!("model-{}", number % 20), "iso": 100 << (number % 6)},
        "score": random(number) as f64 / u64::MAX as f64, "rank": number.wrapping_mul(7_919) % items,
        "thousandth": number % 1000, "tenth": number % 10, "flag": number.is_multiple_of(2),
    });
    item.metadata = metadata.as_object().cloned().unwrap_or_default();
    let value = |at| (random(number * dimension as u64 + at as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let vector = VectorRecord {
        field: "f".to_owned(),
        space: space.clone(),
        part: 0,
        modality: "image".to_owned(),
        span: None,
        precision: "fp32".to_owned(),
        cache_key: None,
        vector: (0..dimension).map(value).collect(),
    };
    ItemVectors { item, vectors: vec![vector] }
}

fn write(folder: &Path, items: u64, dimension: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = LocalStore::open(folder, &OpenOptions::write())?;
    let space = SpaceRef { id: "0".repeat(32), model: "none".to_owned() };
    store.ensure_field(&Field { name: "f".to_owned(), space: space.clone(), dimension, metric: Metric::Cosine })?;
    let mut seconds = 0.0;
    for first in (0..items).step_by(BATCH) {
        let numbers = first..items.min(first + BATCH as u64);
        let batch: Vec<_> = numbers.map(|number| entry(number, items, dimension, &space)).collect();
        let start = Instant::now();
        store.upsert(&batch)?;
        seconds += start.elapsed().as_secs_f64();
    }
    let megabytes = store.info()?.bytes as f64 / 1e6;
    println!("wrote {items} items of dimension {dimension}: {seconds:.2} s, {megabytes:.0} MB");
    Ok(())
}

/// Milliseconds: the median of several runs, and the first.
fn time<T>(
    mut work: impl FnMut() -> Result<T, crossmodal_store::StoreError>,
) -> Result<(f64, f64, T), crossmodal_store::StoreError> {
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        let result = work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if times.len() == 5 {
            let first = times[0];
            times.sort_by(f64::total_cmp);
            return Ok((times[2], first, result));
        }
    }
}

fn filters(folder: &Path, items: u64, dimension: usize) -> Result<(), Box<dyn std::error::Error>> {
    let store = LocalStore::open(folder, &OpenOptions::read())?;
    let path = |key: &str| FilterPath::metadata(key);
    let less = |key: &str, limit: u64| Filter::compare(path(key), Comparison::Less, limit as i64);
    let cases = [
        ("rank < 0.01 %", less("rank", items / 10_000)),
        ("rank < 0.1 %", less("rank", items / 1_000)),
        ("rank < 1 %", less("rank", items / 100)),
        ("rank < 10 %", less("rank", items / 10)),
        ("rank < 50 %", less("rank", items / 2)),
        ("rank < 100 %", less("rank", items)),
        ("thousandth = 5", Filter::equals(path("thousandth"), 5)),
        ("tenth = 5", Filter::equals(path("tenth"), 5)),
        ("tags = word77", Filter::equals(path("tags"), "word77")),
        (
            "camera.model = model-3",
            Filter::equals(FilterPath::Metadata(vec!["camera".into(), "model".into()]), "model-3"),
        ),
        (
            "tenth = 5 and flag and rank < 50 %",
            Filter::And(vec![
                Filter::equals(path("tenth"), 4),
                Filter::equals(path("flag"), true),
                less("rank", items / 2),
            ]),
        ),
        ("not tenth = 5", Filter::equals(path("tenth"), 5).negated()),
        ("caption like '%word77 %'", Filter::Like { path: path("caption"), pattern: "%word77 %".into() }),
        ("path like '%/77/%'", Filter::Like { path: FilterPath::Uri, pattern: "%/77/%".into() }),
        ("modality = image", Filter::equals(FilterPath::Modality, "image")),
        ("size < 50000", Filter::compare(FilterPath::Size, Comparison::Less, 50_000)),
    ];
    println!("\nfilter | matching | count ms (first) | search ms (first)\n---|---|---|---");
    for (name, filter) in cases {
        let (count, first_count, matching) = time(|| store.count(Some(&filter)))?;
        let request = SearchRequest { filter: Some(filter), ..SearchRequest::new("f", vec![1.0; dimension], 10) };
        let (search, first_search, _) = time(|| store.search(&request))?;
        println!("{name} | {matching} | {count:.2} ({first_count:.2}) | {search:.2} ({first_search:.2})");
    }
    let (all, first, _) = time(|| store.search(&SearchRequest::new("f", vec![1.0; dimension], 10)))?;
    println!("none | {items} | | {all:.2} ({first:.2})");
    Ok(())
}

fn texts(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let store = LocalStore::open(folder, &OpenOptions::read())?;
    println!("\ntext | hits of 10 | ms (first)\n---|---|---");
    for text in ["word4000", "word77", "word3", "word1 word2 word3 word400 word4000", "\"word3 word1\"", "word40*"] {
        let request = TextRequest { text: text.to_owned(), k: 10, ..TextRequest::default() };
        let (median, first, hits) = time(|| store.search_text(&request))?;
        println!("{text} | {} | {median:.2} ({first:.2})", hits.len());
    }
    Ok(())
}
