//! Measures how well confidence separates what belongs to a query from what doesn't, beside the best flat cut of cosines.
//!
//! ```text
//! relevance [PICTURES [PICTURE_QUERIES [ABSENT]]]
//! relevance --cost ITEMS
//! ```
//! `PICTURES` is a folder with a `captions.csv` of the columns `file`, `en` (a name) and `keywords_en` (separated by `;`); the bundled gallery
//! unless given. `PICTURE_QUERIES` is such a folder in another style: each of its pictures searches for pictures of the same name or nearly.
//! `ABSENT` is such a folder whose names ask for what `PICTURES` doesn't have. `-` leaves one out. Prints tables in Markdown.
//!
//! What belongs to what: a picture belongs to words if each of them, less stop words and plural endings, is in its name or keywords. Queries are
//! the names and the keywords with 2 or more pictures but at most 5 % of them; names of `ABSENT` that share no word with any picture; and foreign
//! texts on subjects that no emoji has. A picture belongs to a picture if at least half of the words of both names are common.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crossmodal_engine::ingest::{Events, Request};
use crossmodal_engine::{
    CancelToken, Collection, Embedder, LoadOptions, Mode, Part, Query, SearchOptions, demo, ingest, load, read_input,
    relevance,
};
use crossmodal_store::{Item, ItemVectors, VectorRecord, VectorStore};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Hits that are looked at for each query; all cuts compared keep fewer.
const DEPTH: usize = 50;

const STOP_WORDS: [&str; 19] = [
    "a", "an", "and", "the", "of", "in", "on", "at", "with", "to", "for", "from", "by", "is", "it", "s", "no", "not",
    "or",
];

/// Texts on subjects that no emoji has.
const FOREIGN: &str = include_str!("relevance_foreign.txt");

/// A picture with what is known of it.
struct Drawing {
    path: PathBuf,
    name: String,
    keywords: Vec<String>,
    /// Words of name and keywords.
    words: BTreeSet<String>,
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words
        .filter(|word| !STOP_WORDS.contains(word))
        .map(|word| match word.strip_suffix('s') {
            Some(stem) if word.len() > 3 && !stem.ends_with('s') => stem.to_string(),
            _ => word.to_string(),
        })
        .collect()
}

fn drawings(folder: &Path) -> Result<Vec<Drawing>> {
    let mut reader = csv::Reader::from_path(folder.join(demo::CAPTIONS))?;
    let header = reader.headers()?.clone();
    let column = |name: &str| header.iter().position(|found| found == name).ok_or(format!("no column {name}"));
    let (file, name, keywords) = (column("file")?, column("en")?, column("keywords_en")?);
    let mut drawings = Vec::new();
    for record in reader.records() {
        let record = record?;
        let keywords: Vec<String> = record[keywords].split(';').map(|word| word.trim().to_string()).collect();
        let mut known = words(&record[name]);
        known.extend(words(&keywords.join(" ")));
        drawings.push(Drawing {
            path: folder.join(&record[file]).canonicalize()?,
            name: record[name].to_string(),
            keywords: keywords.into_iter().filter(|word| !word.is_empty()).collect(),
            words: known,
        });
    }
    Ok(drawings)
}

/// A query with what belongs to it.
struct Labelled {
    query: Query,
    kind: Kind,
    belongs: HashSet<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Keyword,
    Picture,
    Absent,
    Foreign,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Name, Self::Keyword, Self::Picture, Self::Absent, Self::Foreign];
    const UNMATCHED: [Self; 2] = [Self::Absent, Self::Foreign];
}

fn text_queries(drawings: &[Drawing], absent: &[Drawing]) -> Vec<Labelled> {
    let belonging = |text: &str| -> HashSet<usize> {
        let asked = words(text);
        let holds = |drawing: &Drawing| !asked.is_empty() && asked.is_subset(&drawing.words);
        (0..drawings.len()).filter(|place| holds(&drawings[*place])).collect()
    };
    let labelled = |text: &str, kind, belongs| Labelled { query: Query::text(text), kind, belongs };
    let mut queries = Vec::new();
    for drawing in drawings {
        queries.push(labelled(&drawing.name, Kind::Name, belonging(&drawing.name)));
    }
    let keywords: BTreeSet<&String> = drawings.iter().flat_map(|drawing| &drawing.keywords).collect();
    let most = (drawings.len() / 20).max(3);
    for keyword in keywords {
        let belongs = belonging(keyword);
        if (2..=most).contains(&belongs.len()) {
            queries.push(labelled(keyword, Kind::Keyword, belongs));
        }
    }
    let known: BTreeSet<&String> = drawings.iter().flat_map(|drawing| &drawing.words).collect();
    for drawing in absent {
        if words(&drawing.name).iter().all(|word| !known.contains(word)) {
            queries.push(labelled(&drawing.name, Kind::Absent, HashSet::new()));
        }
    }
    queries.extend(FOREIGN.lines().map(|text| labelled(text, Kind::Foreign, HashSet::new())));
    queries
}

fn picture_queries(drawings: &[Drawing], askers: &[Drawing]) -> Result<Vec<Labelled>> {
    let mut queries = Vec::new();
    for asker in askers {
        let asked = words(&asker.name);
        let alike = |drawing: &Drawing| {
            let own = words(&drawing.name);
            let common = asked.intersection(&own).count();
            2 * common >= asked.union(&own).count() && common > 0
        };
        let belongs: HashSet<usize> = (0..drawings.len()).filter(|place| alike(&drawings[*place])).collect();
        let query = Query { parts: vec![Part::input(1.0, read_input(&asker.path)?)] };
        // Without an answer it is left out: pictures of other things may well look alike.
        if !belongs.is_empty() {
            queries.push(Labelled { query, kind: Kind::Picture, belongs });
        }
    }
    Ok(queries)
}

/// A hit as both cuts see it.
#[derive(Clone, Copy)]
struct Pair {
    query: usize,
    cosine: f32,
    confidence: f32,
    belongs: bool,
}

fn pairs(
    collection: &Collection,
    model: &dyn Embedder,
    queries: &[Labelled],
    drawings: &[Drawing],
) -> Result<Vec<Pair>> {
    let place_of = |id: &str| drawings.iter().position(|drawing| drawing.path.to_str() == Some(id));
    let asked: Vec<Query> = queries.iter().map(|labelled| labelled.query.clone()).collect();
    let mut pairs = Vec::new();
    for (start, asked) in asked.chunks(256).enumerate() {
        for (place, found) in collection.search_all(model, asked, &SearchOptions::top(DEPTH))?.iter().enumerate() {
            let query = start * 256 + place;
            for found in found {
                let drawing = place_of(&found.hit.item.id).ok_or("a hit that isn't labelled")?;
                pairs.push(Pair {
                    query,
                    cosine: found.hit.score,
                    confidence: found.confidence.ok_or("a hit without confidence")?,
                    belongs: queries[query].belongs.contains(&drawing),
                });
            }
        }
    }
    Ok(pairs)
}

/// What a cut does.
struct Outcome {
    precision: f64,
    recall: f64,
    /// Share of the queries of each kind with any hit left.
    answered: Vec<(Kind, f64)>,
}

impl Outcome {
    fn of(queries: &[Labelled], pairs: &[Pair], kept: impl Fn(&Pair) -> bool) -> Self {
        let kept: Vec<&Pair> = pairs.iter().filter(|pair| kept(pair)).collect();
        let right = kept.iter().filter(|pair| pair.belongs).count() as f64;
        let all: usize = queries.iter().map(|query| query.belongs.len()).sum();
        let queried: HashSet<usize> = kept.iter().map(|pair| pair.query).collect();
        let mut answered = Vec::new();
        for kind in Kind::ALL {
            let of_kind: Vec<usize> = (0..queries.len()).filter(|query| queries[*query].kind == kind).collect();
            if !of_kind.is_empty() {
                let with_hits = of_kind.iter().filter(|query| queried.contains(query)).count();
                answered.push((kind, with_hits as f64 / of_kind.len() as f64));
            }
        }
        Self { precision: right / kept.len().max(1) as f64, recall: right / all.max(1) as f64, answered }
    }

    fn f1(&self) -> f64 {
        2.0 * self.precision * self.recall / (self.precision + self.recall).max(1e-12)
    }

    fn row(&self, name: &str) {
        let answered: Vec<String> = self.answered.iter().map(|(_, share)| format!("{:.0} %", share * 100.0)).collect();
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {} |",
            self.precision,
            self.recall,
            self.f1(),
            answered.join(" | ")
        );
    }
}

/// The cut of a value with the best F1 in hindsight, and that F1.
fn best_cut(queries: &[Labelled], pairs: &[Pair], value: impl Fn(&Pair) -> f32) -> f32 {
    let all: usize = queries.iter().map(|query| query.belongs.len()).sum();
    let mut sorted: Vec<(f32, bool)> = pairs.iter().map(|pair| (value(pair), pair.belongs)).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut best, mut cut, mut right) = (0.0, f32::INFINITY, 0);
    for (place, (value, belongs)) in sorted.iter().enumerate() {
        right += usize::from(*belongs);
        let f1 = 2.0 * right as f64 / (place + 1 + all) as f64;
        if f1 > best {
            (best, cut) = (f1, *value);
        }
    }
    cut
}

/// The flat cut at which as large a share of the queries without a match is answered as by the confidence cut.
fn equal_alarm_cut(queries: &[Labelled], pairs: &[Pair]) -> f32 {
    let unmatched = |pair: &&Pair| Kind::UNMATCHED.contains(&queries[pair.query].kind);
    let alarms: HashSet<usize> = pairs
        .iter()
        .filter(unmatched)
        .filter(|pair| pair.confidence >= relevance::RELEVANT)
        .map(|pair| pair.query)
        .collect();
    let mut best: std::collections::HashMap<usize, f32> = std::collections::HashMap::new();
    for pair in pairs.iter().filter(unmatched) {
        let best = best.entry(pair.query).or_insert(f32::NEG_INFINITY);
        *best = best.max(pair.cosine);
    }
    let mut best: Vec<f32> = best.into_values().collect();
    best.sort_by(|a, b| b.total_cmp(a));
    best.get(alarms.len().saturating_sub(1)).copied().unwrap_or(f32::INFINITY)
}

fn report(title: &str, queries: &[Labelled], pairs: &[Pair]) {
    let counts = Kind::ALL.map(|kind| (kind, queries.iter().filter(|query| query.kind == kind).count()));
    let counts: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind:?}")).collect();
    println!("\n### {title}\n\nQueries: {}.\n", counts.join(", "));
    let flat = best_cut(queries, pairs, |pair| pair.cosine);
    let outcome = Outcome::of(queries, pairs, |pair| pair.cosine >= flat);
    let kinds: Vec<String> = outcome.answered.iter().map(|(kind, _)| format!("{kind:?} answered")).collect();
    println!(
        "| cut | precision | recall | F1 | {} |\n|---|---|---|---|{}",
        kinds.join(" | "),
        "---|".repeat(kinds.len())
    );
    outcome.row(&format!("best flat cosine in hindsight, {flat:.3}"));
    if queries.iter().any(|query| Kind::UNMATCHED.contains(&query.kind)) {
        let equal = equal_alarm_cut(queries, pairs);
        Outcome::of(queries, pairs, |pair| pair.cosine >= equal)
            .row(&format!("flat cosine answering as many unmatched queries, {equal:.3}"));
    }
    let kept = |least: f32| move |pair: &Pair| pair.confidence >= least;
    Outcome::of(queries, pairs, kept(relevance::RELEVANT))
        .row(&format!("**automatic: confidence {}**", relevance::RELEVANT));
    for least in [0.5, 0.6, 0.8, 0.9] {
        Outcome::of(queries, pairs, kept(least)).row(&format!("confidence {least}"));
    }
    let hindsight = best_cut(queries, pairs, |pair| pair.confidence);
    Outcome::of(queries, pairs, kept(hindsight)).row(&format!("best confidence in hindsight, {hindsight:.2}"));
}

fn indexed(folder: &Path, drawings: &[Drawing], model: &Arc<dyn Embedder>) -> Result<Collection> {
    let collection = Collection::open(folder, &Mode::write())?;
    let request = Request::new(drawings.iter().map(|drawing| drawing.path.clone()).collect());
    ingest::run(&collection, model, &request, &Events::none(), &CancelToken::new())?;
    Ok(collection)
}

fn quality(arguments: &[String]) -> Result<()> {
    let model = load("mini", &LoadOptions::default())?;
    let place = tempfile::tempdir()?;
    let given = |number: usize| arguments.get(number).filter(|name| *name != "-").map(PathBuf::from);
    let folder = match given(0) {
        Some(folder) => folder,
        None => {
            demo::unpack(&place.path().join("gallery"))?;
            place.path().join("gallery")
        }
    };
    let pictures = drawings(&folder)?;
    let askers = given(1).map(|folder| drawings(&folder)).transpose()?.unwrap_or_default();
    let absent = given(2).map(|folder| drawings(&folder)).transpose()?.unwrap_or_default();
    let collection = indexed(&place.path().join("collection"), &pictures, &model)?;
    let texts = text_queries(&pictures, &absent);
    let of_texts = pairs(&collection, model.as_ref(), &texts, &pictures)?;
    println!("## {} pictures", pictures.len());
    report("Queries by words", &texts, &of_texts);
    if askers.is_empty() {
        return Ok(());
    }
    let images = picture_queries(&pictures, &askers)?;
    let of_images = pairs(&collection, model.as_ref(), &images, &pictures)?;
    report("Queries by pictures", &images, &of_images);
    let offset = texts.len();
    let both: Vec<Labelled> = texts.into_iter().chain(images).collect();
    let moved = of_images.into_iter().map(|pair| Pair { query: pair.query + offset, ..pair });
    let of_both: Vec<Pair> = of_texts.into_iter().chain(moved).collect();
    report("Both, with one cut", &both, &of_both);
    Ok(())
}

/// What confidence costs: the same search through the engine and through the store alone.
fn cost(items: usize) -> Result<()> {
    let model = load("mini", &LoadOptions::default())?;
    let place = tempfile::tempdir()?;
    let collection = Collection::open(&place.path().join("collection"), &Mode::write())?;
    let space = collection.adopt(model.as_ref())?.space;
    let mut state = 1u64;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    for start in (0..items).step_by(4096) {
        let item = |number: usize| ItemVectors {
            item: Item::new(format!("{number}.png"), "image"),
            vectors: vec![VectorRecord {
                field: crossmodal_engine::DEFAULT_FIELD.into(),
                space: space.clone(),
                part: 0,
                modality: "image".into(),
                span: None,
                precision: "fp32".into(),
                cache_key: None,
                vector: (0..model.dimension()).map(|_| value()).collect(),
            }],
        };
        let batch: Vec<ItemVectors> = (start..items.min(start + 4096)).map(item).collect();
        collection.store().upsert(&batch)?;
    }
    ingest::run(&collection, &model, &Request::new(Vec::new()), &Events::none(), &CancelToken::new())?;
    let query = Query::text("red apple");
    let vector = model.embed(&[crossmodal_engine::Input::text("red apple")])?.remove(0).unit;
    let request = crossmodal_store::SearchRequest::new(crossmodal_engine::DEFAULT_FIELD, vector, 10);
    let (mut engine, mut store, mut relevant) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        let start = Instant::now();
        collection.search(model.as_ref(), &query, &SearchOptions::default())?;
        engine.push(start.elapsed().as_secs_f64() * 1e3);
        let start = Instant::now();
        model.embed(&[crossmodal_engine::Input::text("red apple")])?;
        collection.store().search(&request)?;
        store.push(start.elapsed().as_secs_f64() * 1e3);
        let options = SearchOptions { relevant_only: Some(relevance::RELEVANT), ..SearchOptions::default() };
        let start = Instant::now();
        collection.search(model.as_ref(), &query, &options)?;
        relevant.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    println!(
        "{items} items of {} dimensions, median of 15: embedding and nearest items {:.1} ms; with confidence {:.1} ms; relevant only {:.1} ms",
        model.dimension(),
        median(&mut store),
        median(&mut engine),
        median(&mut relevant)
    );
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--cost") => cost(arguments.get(1).ok_or("--cost takes a number of items")?.parse()?),
        _ => quality(&arguments),
    }
}
