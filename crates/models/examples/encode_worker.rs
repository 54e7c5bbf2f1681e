//! Times the towers in a process that `bench/peers` drives beside those of other engines: orders come as JSON lines on standard
//! input, answers go out as JSON lines.
//!
//! `cargo run --release -p crossmodal-models --example encode_worker -- --model DIR [--precision fp32|int8] [--threads N]`
//!
//! | order | does | answer |
//! |---|---|---|
//! | `{"load": {"pixels": "x.npy"}}` | takes prepared pictures, `[n, 3, height, width]` in fp32 | `{"items": n}` |
//! | `{"load": {"ids": "x.json"}}` | takes texts as lists of token ids | `{"items": n}` |
//! | `{"warm": true}` | runs some of the inputs once | `{"seconds": s}` |
//! | `{"repeat": n}` | runs all inputs n times | `{"seconds": s}` |
//! | `{"output": "y.npy"}` | runs them once and writes the features, not normalised | `{"items": n}` |
//! | `{"prepare": {"files": [...], "decode": "exact"}}` | decodes and resizes pictures on one thread | `{"seconds": s}` |
//! | `{"peak": true}` | probes the processor | `{"peak_gflops": x}` |
//! | `{"bandwidth": true}` | probes the memory | `{"read_gigabytes_per_second": x}` |

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use crossmodal_kernels::peak;
use crossmodal_kernels::team::{Team, set_threads};
use crossmodal_models::media::{DecodeMode, PixelTensor};
use crossmodal_models::{CancelToken, ClipModel, LoadOptions, Precision, load_clip};
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Inputs that warming up takes: workloads of thousands would take minutes.
const WARM: usize = 64;

/// How long the machine is probed.
const PROBE: Duration = Duration::from_millis(200);

/// One line of input.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Order {
    Load(Source),
    Warm(bool),
    Repeat(usize),
    Output(String),
    Prepare(Preparation),
    Peak(bool),
    Bandwidth(bool),
}

/// Where inputs are.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Source {
    Pixels(String),
    Ids(String),
}

/// Pictures to decode and resize.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preparation {
    files: Vec<String>,
    decode: String,
}

/// The loaded inputs.
enum Workload {
    Pictures(Vec<PixelTensor>),
    Texts(Vec<Vec<u32>>),
}

impl Workload {
    fn load(source: &Source) -> Outcome<Self> {
        Ok(match source {
            Source::Pixels(file) => Self::Pictures(pictures(&std::fs::read(file)?)?),
            Source::Ids(file) => Self::Texts(serde_json::from_slice(&std::fs::read(file)?)?),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Features of the first `count` inputs.
    fn run(&self, model: &ClipModel, count: usize) -> Outcome<Vec<Vec<f32>>> {
        let (count, cancel) = (count.min(self.len()), CancelToken::new());
        Ok(match self {
            Self::Pictures(pictures) => model.encode_pixels(&pictures[..count], &cancel)?,
            Self::Texts(texts) => model.encode_tokens(&texts[..count], &cancel)?,
        })
    }

    /// Seconds that so many runs take.
    fn seconds(&self, model: &ClipModel, count: usize, repeats: usize) -> Outcome<f64> {
        let start = Instant::now();
        for _ in 0..repeats {
            black_box(self.run(model, count)?);
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// The pictures of a `.npy` file as numpy writes an array of shape `[n, 3, height, width]` in fp32.
fn pictures(bytes: &[u8]) -> Outcome<Vec<PixelTensor>> {
    let wrong = |what: &str| format!("not the .npy file that was expected: {what}");
    if bytes.len() < 10 || &bytes[..8] != b"\x93NUMPY\x01\x00" {
        return Err(wrong("no heading of version 1.0").into());
    }
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = bytes.get(10..10 + length).ok_or_else(|| wrong("cut off"))?;
    let header = std::str::from_utf8(header)?;
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return Err(wrong(header).into());
    }
    let shape = header.split_once('(').and_then(|(_, rest)| rest.split_once(')')).ok_or_else(|| wrong(header))?.0;
    let shape: Vec<usize> = shape.split(',').map(|side| side.trim().parse()).collect::<Result<_, _>>()?;
    let [count, 3, height, width] = shape[..] else { return Err(wrong(header).into()) };
    let data: Vec<f32> = bytes[10 + length..]
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if data.len() != count * 3 * height * width || data.is_empty() {
        return Err(wrong("another number of values than its shape says").into());
    }
    let picture = |data: &[f32]| PixelTensor { width: width as u32, height: height as u32, data: data.to_vec() };
    Ok(data.chunks(3 * height * width).map(picture).collect())
}

/// Writes rows of equal length as a `.npy` file in fp32.
fn write_rows(file: &str, rows: &[Vec<f32>]) -> Outcome<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {columns}), }}", rows.len());
    header.extend(std::iter::repeat_n(' ', 63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
    Ok(std::fs::write(file, bytes)?)
}

/// Seconds to decode, resize and normalise every file, read beforehand, on this thread alone.
fn prepare(model: &ClipModel, preparation: &Preparation) -> Outcome<f64> {
    let mut prep = model.prep().clone();
    prep.decode = match preparation.decode.as_str() {
        "exact" => DecodeMode::Exact,
        "fast" => DecodeMode::Fast,
        other => return Err(format!("decode is exact or fast, not {other}").into()),
    };
    let files: Vec<Vec<u8>> = preparation.files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    if let Some(first) = files.first() {
        black_box(prep.tensor(first)?);
    }
    let start = Instant::now();
    for bytes in &files {
        black_box(prep.tensor(bytes)?);
    }
    Ok(start.elapsed().as_secs_f64())
}

fn obey(model: &ClipModel, workload: &mut Option<Workload>, line: &str) -> Outcome<Value> {
    let order: Order = serde_json::from_str(line)?;
    let loaded = || workload.as_ref().ok_or("nothing is loaded");
    Ok(match order {
        Order::Load(source) => json!({"items": workload.insert(Workload::load(&source)?).len()}),
        Order::Warm(true) => json!({"seconds": loaded()?.seconds(model, WARM, 1)?}),
        Order::Repeat(repeats) => json!({"seconds": loaded()?.seconds(model, usize::MAX, repeats)?}),
        Order::Output(file) => {
            let features = loaded()?.run(model, usize::MAX)?;
            write_rows(&file, &features)?;
            json!({"items": features.len()})
        }
        Order::Prepare(preparation) => json!({"seconds": prepare(model, &preparation)?}),
        Order::Warm(false) | Order::Peak(false) | Order::Bandwidth(false) => return Err("expected true".into()),
        Order::Peak(true) => json!({"peak_gflops": peak::gflops(&Team::global().session(), PROBE)}),
        Order::Bandwidth(true) => {
            json!({"read_gigabytes_per_second": peak::bandwidth(&Team::global().session(), PROBE)})
        }
    })
}

fn main() -> Outcome<()> {
    let mut options = LoadOptions::default();
    let mut name = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match (argument.as_str(), value.as_str()) {
            ("--model", _) => name = Some(value),
            ("--precision", "fp32") => options.precision = Some(Precision::Fp32),
            ("--precision", "int8") => options.precision = Some(Precision::Int8),
            ("--threads", _) => {
                set_threads(value.parse()?);
            }
            _ => return Err(format!("{argument} {value}: expected --model, --precision or --threads").into()),
        }
    }
    let model = load_clip(&name.ok_or("--model is missing")?, &options)?;
    let mut workload = None;
    let mut answers = std::io::stdout().lock();
    writeln!(answers, "{}", json!({"ready": model.config().vision.describe()}))?;
    answers.flush()?;
    for line in std::io::stdin().lock().lines() {
        let answer = obey(&model, &mut workload, &line?).unwrap_or_else(|error| json!({"error": error.to_string()}));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}
