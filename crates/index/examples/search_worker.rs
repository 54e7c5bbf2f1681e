//! An index in one long-lived process, for measuring it beside others: orders come as JSON lines on standard input, answers go out as
//! JSON lines on standard output. `bench/search` drives it.
//!
//! ```text
//! {"order": "load", "rows": FILE.npy, "queries": FILE.npy, "metric": "cosine"}    -> {"rows": n, "dimension": d}
//! {"order": "build", "kind": "flat", "threads": t, ...options of the kind}        -> {"seconds": s}
//! {"order": "save", "file": FILE}                                                 -> {"seconds": s, "bytes": n}
//! {"order": "open", "file": FILE}   instead of building                           -> {"seconds": s}
//! {"order": "select", "rows": FILE.npy}   later searches see only these (u32 row numbers); all without "rows"
//! {"order": "search", "k": k, "effort": e, "threads": t, "queries": n, "repeat": r, "alone": false, "output": FILE}
//!     the first n queries, r times, all in one call or each alone; writes the row numbers found (u32, k a query)  -> {"seconds": s of one time}
//! {"order": "release"}                gives the vectors' pages back, which are mapped again when needed -> as memory
//! {"order": "probe", "threads": t}                                                -> {"bandwidth": GB/s read}
//! {"order": "memory"}                                                             -> {"resident": bytes, ...}
//! ```
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crossmodal_index::{
    AnnIndex, AnyIndex, BuildControl, CellCodes, CodedRows, Container, FlatIndex, Graph, GraphOptions, IndexKind, Ivf,
    IvfOptions, Metric, Neighbor, RowCodes, RowSet, SearchOptions, Selection, Vectors,
};
use crossmodal_kernels::team::Team;
use crossmodal_kernels::{MappedFile, peak};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What an order does, and its answer.
type Order = fn(&mut Worker, &Value) -> Outcome<Value>;

/// Every order by its name.
const ORDERS: &[(&str, Order)] = &[
    ("load", Worker::load),
    ("build", Worker::build),
    ("save", Worker::save),
    ("open", Worker::open),
    ("select", Worker::select),
    ("search", Worker::search),
    ("probe", Worker::probe),
    ("memory", Worker::memory),
    ("release", Worker::release),
];

fn main() -> Outcome<()> {
    let mut worker = Worker { rows: None, queries: None, metric: Metric::Cosine, index: Index::Flat, allowed: None };
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = worker.obey(&line?).unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// What searches run over.
struct Worker {
    rows: Option<Array>,
    queries: Option<Array>,
    metric: Metric,
    index: Index,
    allowed: Option<RowSet>,
}

/// The index that is searched.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Index {
    Flat,
    Any(AnyIndex),
}

impl Worker {
    fn obey(&mut self, line: &str) -> Outcome<Value> {
        let order: Value = serde_json::from_str(line)?;
        let name = text(&order, "order")?;
        let found = ORDERS.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("unknown order {name:?}"))?;
        found.1(self, &order)
    }

    fn vectors(&self) -> Outcome<Vectors<'_>> {
        let rows = self.rows.as_ref().ok_or("no rows are loaded")?;
        Ok(Vectors::new(rows.width, self.metric, rows.values()?)?)
    }

    fn load(&mut self, order: &Value) -> Outcome<Value> {
        self.metric = text(order, "metric")?.parse()?;
        self.rows = Some(Array::open(text(order, "rows")?)?);
        self.queries = Some(Array::open(text(order, "queries")?)?);
        let vectors = self.vectors()?;
        Ok(json!({ "rows": vectors.rows(), "dimension": vectors.dimension() }))
    }

    fn build(&mut self, order: &Value) -> Outcome<Value> {
        let start = Instant::now();
        let vectors = self.vectors()?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(number(order, "threads").unwrap_or(1)).build()?;
        self.index = match text(order, "kind")? {
            "flat" => Index::Flat,
            "int8" => Index::Any(AnyIndex::Flat(
                pool.install(|| CodedRows::build(vectors, RowCodes::Int8, &BuildControl::default()))?,
            )),
            "half" => Index::Any(AnyIndex::Flat(
                pool.install(|| CodedRows::build(vectors, RowCodes::Half, &BuildControl::default()))?,
            )),
            "ivf" => {
                let codes = if order["codes"] == "rows" { CellCodes::Rows } else { CellCodes::Signs };
                let options = IvfOptions { cells: number(order, "cells"), codes };
                Index::Any(AnyIndex::Ivf(pool.install(|| Ivf::build(vectors, &options, &|_, _| {}, &|| false))?))
            }
            "graph" => {
                let defaults = GraphOptions::default();
                let options = GraphOptions {
                    degree: number(order, "degree").unwrap_or(defaults.degree),
                    build_effort: number(order, "build_effort").unwrap_or(defaults.build_effort),
                    threads: number(order, "threads").unwrap_or(defaults.threads),
                };
                Index::Any(AnyIndex::Graph(Graph::build(vectors, &options, &|_, _| (), &|| false)?))
            }
            other => return Err(format!("unknown kind {other:?}").into()),
        };
        Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
    }

    fn save(&mut self, order: &Value) -> Outcome<Value> {
        let (file, start) = (text(order, "file")?, Instant::now());
        let out = BufWriter::new(File::create(file)?);
        match &self.index {
            Index::Flat => return Err("a flat index has nothing to save".into()),
            Index::Any(index) => index.write(out, [0; 16])?,
        };
        Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "bytes": std::fs::metadata(file)?.len() }))
    }

    fn open(&mut self, order: &Value) -> Outcome<Value> {
        let start = Instant::now();
        let container = Container::open(MappedFile::open(Path::new(text(order, "file")?))?)?;
        if container.stamp().kind != IndexKind::Flat {
            // Few rows of a query are scored exactly, wherever they lie.
            self.rows.iter().for_each(|rows| rows.map.expect_single_reads());
        }
        self.index = Index::Any(AnyIndex::open(container)?);
        Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
    }

    fn select(&mut self, order: &Value) -> Outcome<Value> {
        self.allowed = None;
        if order.get("rows").is_some() {
            let list = Array::open(text(order, "rows")?)?;
            let mut allowed = RowSet::none(self.vectors()?.rows());
            for row in list.numbers::<u32>("<u4")? {
                allowed.insert(u64::from(*row));
            }
            self.allowed = Some(allowed);
        }
        Ok(json!({ "selected": self.allowed.as_ref().map(RowSet::count) }))
    }

    fn search(&mut self, order: &Value) -> Outcome<Value> {
        let (vectors, queries) = (self.vectors()?, self.queries.as_ref().ok_or("no queries are loaded")?);
        let rows: Vec<&[f32]> = queries.values()?.chunks(queries.width).collect();
        let rows = &rows[..number(order, "queries").unwrap_or(rows.len()).min(rows.len())];
        let k = number(order, "k").ok_or("k is missing")?;
        let selection = Selection { allowed: self.allowed.as_ref(), groups: None };
        let options = SearchOptions { k, effort: number(order, "effort"), selection };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(number(order, "threads").unwrap_or(1)).build()?;
        let alone = order["alone"] == true;
        let repeat = number(order, "repeat").unwrap_or(1).max(1);
        let (found, seconds) = pool.install(|| {
            let (mut found, start) = (Vec::new(), Instant::now());
            for _ in 0..repeat {
                found = match alone {
                    true => rows
                        .iter()
                        .map(|row| Ok(self.find(vectors, &[*row], &options)?.remove(0)))
                        .collect::<Outcome<_>>()?,
                    false => self.find(vectors, rows, &options)?,
                };
            }
            Outcome::Ok((found, start.elapsed().as_secs_f64() / repeat as f64))
        })?;
        if order.get("output").is_some() {
            let row = |neighbors: &Vec<Neighbor>| {
                let mut numbers: Vec<u32> = neighbors.iter().map(|neighbor| neighbor.row as u32).collect();
                numbers.resize(k, u32::MAX);
                numbers
            };
            let numbers: Vec<u32> = found.iter().flat_map(row).collect();
            std::fs::write(text(order, "output")?, bytemuck::cast_slice(&numbers))?;
        }
        Ok(json!({ "seconds": seconds }))
    }

    fn find(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Outcome<Vec<Vec<Neighbor>>> {
        Ok(match &self.index {
            Index::Flat => {
                let index = FlatIndex::new(vectors.dimension(), vectors.metric(), &[vectors.values()])?;
                index.search(queries, options.k, options.selection)?
            }
            Index::Any(index) => index.search(vectors, queries, options)?,
        })
    }

    fn release(&mut self, order: &Value) -> Outcome<Value> {
        if let Some(rows) = &self.rows {
            rows.map.release(0..rows.map.len());
        }
        self.memory(order)
    }

    fn probe(&mut self, order: &Value) -> Outcome<Value> {
        let team = Team::new(number(order, "threads").unwrap_or(1));
        Ok(json!({ "bandwidth": peak::bandwidth(&team.session(), Duration::from_millis(300)) }))
    }

    fn memory(&mut self, _: &Value) -> Outcome<Value> {
        let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
        let bytes = |name: &str| {
            let line = rollup.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        Ok(json!({ "resident": bytes("Rss:"), "proportional": bytes("Pss:"), "anonymous": bytes("Anonymous:") }))
    }
}

/// A matrix in a mapped `.npy` file.
struct Array {
    map: MappedFile,
    start: usize,
    width: usize,
    kind: String,
}

impl Array {
    /// Version 1 of the format, in C order, of one or two dimensions.
    fn open(path: &str) -> Outcome<Self> {
        let map = MappedFile::open(Path::new(path))?;
        if map.len() < 10 || map[..8] != *b"\x93NUMPY\x01\x00" {
            return Err(format!("{path} is no .npy file of version 1").into());
        }
        let start = 10 + usize::from(map[8]) + usize::from(map[9]) * 256;
        let header = std::str::from_utf8(map.get(10..start).ok_or("its header is cut off")?)?;
        let after = |key: &str| header.split_once(key).map(|(_, rest)| rest).ok_or(format!("{path} has no {key}"));
        let kind = after("'descr': '")?.split('\'').next().unwrap_or_default().to_owned();
        let shape = after("'shape': (")?.split(')').next().unwrap_or_default();
        let sizes: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
        if !header.contains("'fortran_order': False") {
            return Err(format!("{path} is not in C order").into());
        }
        Ok(Self { start, width: sizes.get(1).copied().unwrap_or(1), kind, map })
    }

    fn numbers<T: bytemuck::AnyBitPattern>(&self, kind: &str) -> Outcome<&[T]> {
        if self.kind != kind {
            return Err(format!("the array has elements of kind {}, expected {kind}", self.kind).into());
        }
        bytemuck::try_cast_slice(&self.map[self.start..]).map_err(|error| error.to_string().into())
    }

    fn values(&self) -> Outcome<&[f32]> {
        self.numbers("<f4")
    }
}

fn text<'a>(order: &'a Value, name: &str) -> Outcome<&'a str> {
    order[name].as_str().ok_or_else(|| format!("the order has no text {name:?}").into())
}

fn number(order: &Value, name: &str) -> Option<usize> {
    order[name].as_u64().map(|number| number as usize)
}
