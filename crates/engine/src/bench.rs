//! How fast a model runs on this machine: throughput and latency by modality and batch size, beside what the machine can do at most.
//!
//! Only the model is timed, not decoding or tokenising. Batches of all sizes are interleaved over the rounds, so that a machine that
//! slows down for a moment slows down all of them.

use std::time::{Duration, Instant};

use crossmodal_models::{CancelToken, Embedder, Input, Modality, Prepared, compute};
use serde::Serialize;

use crate::error::{Error, Result};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which of the model's modalities; empty means all that can be measured.
    pub modalities: Vec<Modality>,
    /// Numbers of items in a batch.
    pub batch_sizes: Vec<usize>,
    /// Lengths of texts in tokens, start and end included; lengths that the model cuts are left out.
    pub text_tokens: Vec<usize>,
    /// Time for each measurement.
    pub time: Duration,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            modalities: Vec::new(),
            batch_sizes: vec![1, 8, 32],
            text_tokens: vec![12, 77],
            time: Duration::from_secs(2),
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// `image` or `text`.
    pub modality: String,
    /// Items in a batch.
    pub batch: usize,
    /// Tokens of each text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Throughput, from the median batch.
    pub items_per_second: f64,
    /// Median time of a batch in milliseconds.
    pub p50_ms: f64,
    /// Time of a batch in milliseconds that 95 % don't exceed.
    pub p95_ms: f64,
    /// Nominal operations per second ([`Prepared::nominal_flops`]) over the machine's peak. Above what was really computed where the
    /// model needn't compute everything, and above 1 possibly in int8.
    pub share_of_peak: f64,
}

/// How fast a model is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the model.
    pub model: String,
    /// Its arithmetic.
    pub precision: String,
    /// Threads that computed.
    pub threads: usize,
    /// The machine's peak with these threads, in billions of fp32 operations per second.
    pub peak_gflops: f64,
    /// Gigabytes per second that it reads from memory.
    pub memory_gb_per_second: f64,
    /// Every modality, length and batch size.
    pub results: Vec<Measurement>,
}

struct Case {
    modality: Modality,
    tokens: Option<usize>,
    inputs: Vec<Input>,
    seconds: Vec<f64>,
    flops: f64,
}

/// Rounds over all cases: each takes its share of the time in every round.
const ROUNDS: u32 = 5;

/// Measures a model. `progress` hears how many of how many rounds are done.
///
/// # Errors
/// A modality the model hasn't, a batch size of 0, failures of the model, cancellation.
pub fn run(
    model: &dyn Embedder,
    request: &Request,
    cancel: &CancelToken,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report> {
    let mut cases = cases(model, request)?;
    let steps = cases.len() * ROUNDS as usize;
    let mut peak = compute::peak(Duration::from_millis(300));
    for round in 0..ROUNDS as usize {
        let count = cases.len();
        for (place, case) in cases.iter_mut().enumerate() {
            progress(round * count + place, steps);
            if round == 0 {
                // Loads the tower and brings its weights into the caches.
                model.encode(prepare(model, &case.inputs)?, cancel)?;
            }
            measure(model, case, request.time / ROUNDS, cancel)?;
        }
        let again = compute::peak(Duration::from_millis(200));
        peak.gflops = peak.gflops.max(again.gflops);
        peak.bandwidth = peak.bandwidth.max(again.bandwidth);
    }
    progress(steps, steps);
    Ok(Report {
        model: model.info().name.clone(),
        precision: model.info().precision.as_str().to_string(),
        threads: compute::threads(),
        peak_gflops: peak.gflops,
        memory_gb_per_second: peak.bandwidth,
        results: cases.into_iter().map(|case| case.result(peak.gflops)).collect(),
    })
}

fn cases(model: &dyn Embedder, request: &Request) -> Result<Vec<Case>> {
    if request.batch_sizes.contains(&0) {
        return Err(Error::Invalid("a batch size of 0, expected at least 1".into()));
    }
    let wanted = if request.modalities.is_empty() { model.modalities() } else { &request.modalities };
    let mut cases = Vec::new();
    for modality in wanted {
        if !model.modalities().contains(modality) {
            return Err(Error::Invalid(format!("{} has no tower for {modality}", model.info().name)));
        }
        for batch in &request.batch_sizes {
            let mut add = |tokens, inputs| {
                cases.push(Case { modality: *modality, tokens, inputs, seconds: Vec::new(), flops: 0.0 });
            };
            match modality {
                Modality::Image => add(None, (0..*batch).map(picture).collect()),
                Modality::Text => {
                    for tokens in &request.text_tokens {
                        if let Some(inputs) = texts(model, *tokens, *batch)? {
                            add(Some(*tokens), inputs);
                        }
                    }
                }
                Modality::Audio | Modality::Video | Modality::Depth | Modality::Thermal | Modality::Imu => {
                    return Err(Error::Invalid(format!("{modality} can't be measured in this version")));
                }
            }
        }
    }
    Ok(cases)
}

/// A small picture, another for each seed, in a format that needs no encoder.
fn picture(seed: usize) -> Input {
    const SIDE: usize = 64;
    let pixels = (0..SIDE * SIDE * 3).map(|at| ((at * (seed * 2 + 7) + at / 192 * 31) % 251) as u8);
    // A BMP file: sizes and offsets, then rows of blue, green and red from the bottom.
    let mut bytes = b"BM".to_vec();
    let size = (54 + SIDE * SIDE * 3) as u32;
    for field in [size, 0, 54, 40, SIDE as u32, SIDE as u32, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(pixels);
    Input::image(bytes)
}

/// Texts of exactly so many tokens, all different from the first word on, so that nothing is shared; `None` where the model cuts
/// them.
fn texts(model: &dyn Embedder, tokens: usize, batch: usize) -> Result<Option<Vec<Input>>> {
    const WORDS: [&str; 32] = [
        "red", "blue", "green", "dog", "cat", "house", "tree", "car", "road", "boat", "bird", "fish", "hand", "book",
        "door", "lamp", "rain", "snow", "sun", "moon", "star", "hill", "lake", "rock", "sand", "milk", "bread", "fire",
        "ice", "wind", "wood", "gold",
    ];
    let mut inputs = Vec::new();
    for item in 0..batch {
        // The number in base 32 comes first, then words as they come.
        let mut words = vec![WORDS[item % 32], WORDS[item / 32 % 32]];
        let text = loop {
            let text = words.join(" ");
            let prepared = model.prepare(&Input::text(&text))?;
            if prepared.truncated {
                return Ok(None);
            }
            if prepared.cost >= tokens {
                break text;
            }
            words.push(WORDS[(item * 7 + words.len() * 11) % 32]);
        };
        inputs.push(Input::text(text));
    }
    Ok(Some(inputs))
}

fn prepare(model: &dyn Embedder, inputs: &[Input]) -> Result<Vec<Prepared>> {
    inputs.iter().map(|input| Ok(model.prepare(input)?)).collect()
}

fn measure(model: &dyn Embedder, case: &mut Case, time: Duration, cancel: &CancelToken) -> Result<()> {
    let mut spent = Duration::ZERO;
    while spent < time {
        let prepared = prepare(model, &case.inputs)?;
        case.flops = prepared.iter().map(|prepared| prepared.nominal_flops).sum();
        let start = Instant::now();
        model.encode(prepared, cancel)?;
        let taken = start.elapsed();
        spent += taken;
        case.seconds.push(taken.as_secs_f64());
    }
    Ok(())
}

impl Case {
    fn result(mut self, peak_gflops: f64) -> Measurement {
        self.seconds.sort_by(f64::total_cmp);
        let at = |share: f64| self.seconds[((self.seconds.len() - 1) as f64 * share).round() as usize];
        let (p50, p95) = (at(0.5), at(0.95));
        Measurement {
            modality: self.modality.to_string(),
            batch: self.inputs.len(),
            tokens: self.tokens,
            items_per_second: self.inputs.len() as f64 / p50,
            p50_ms: p50 * 1e3,
            p95_ms: p95 * 1e3,
            share_of_peak: self.flops / p50 / (peak_gflops * 1e9),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossmodal_models::{LoadOptions, load};

    use super::*;

    fn request(modalities: &[Modality], batch_sizes: &[usize]) -> Request {
        Request {
            modalities: modalities.to_vec(),
            batch_sizes: batch_sizes.to_vec(),
            text_tokens: vec![5, 400],
            time: Duration::from_millis(5),
        }
    }

    #[test]
    fn every_case_is_measured() {
        let model = load("mini", &LoadOptions::default()).unwrap();
        let mut steps = Vec::new();
        let heard = |done, all| steps.push((done, all));
        let report = run(model.as_ref(), &request(&[], &[1, 3]), &CancelToken::new(), heard).unwrap();
        // Texts of 400 tokens are beyond the model's context.
        let cases: Vec<_> = report.results.iter().map(|r| (r.modality.as_str(), r.batch, r.tokens)).collect();
        assert_eq!(cases, [("text", 1, Some(5)), ("text", 3, Some(5)), ("image", 1, None), ("image", 3, None)]);
        for result in &report.results {
            assert!(result.items_per_second > 0.0 && result.p50_ms <= result.p95_ms && result.share_of_peak > 0.0);
        }
        assert!(report.peak_gflops > 0.1 && report.memory_gb_per_second > 0.01);
        assert_eq!(steps.last(), Some(&(20, 20)));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let model = load("mini", &LoadOptions::default()).unwrap();
        let message =
            |request: &Request| run(model.as_ref(), request, &CancelToken::new(), |_, _| {}).unwrap_err().to_string();
        assert!(message(&request(&[Modality::Audio], &[1])).contains("no tower for audio"));
        assert!(message(&request(&[], &[0])).contains("batch size of 0"));
        let cancel = CancelToken::new();
        cancel.cancel();
        assert!(run(model.as_ref(), &request(&[], &[1]), &cancel, |_, _| {}).is_err());
    }
}
