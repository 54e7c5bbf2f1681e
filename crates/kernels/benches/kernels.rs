//! Speed of the kernels as shares of what the machine can do, probed in the same run: `cargo bench -p crossmodal-kernels`.
//!
//! Rounds of all measurements are interleaved, and each line gives the median and the best round. `--threads N` sets the number
//! of threads, `--quick` takes fewer rounds, `--only TEXT` measures what has this text in its name.

use std::time::{Duration, Instant};

use crossmodal_kernels::activation::Nonlinearity;
use crossmodal_kernels::attention::{Attention, Sequence};
use crossmodal_kernels::gemm::{self, Gradient, PackedWeight, Rows, Target, Weight};
use crossmodal_kernels::product::{Finish, Int8Weights, PackedLinear, Product};
use crossmodal_kernels::team::{Crew, Session, Team};
use crossmodal_kernels::{Matrix, Norm, peak};

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// Something to measure: its name, its work in billions of operations, and how to do it once.
struct Case<'a> {
    name: String,
    gigaflop: f64,
    once: Box<dyn FnMut(Crew<'_>) + 'a>,
    rates: Vec<f64>,
}

fn case<'a>(name: String, flop: usize, once: impl FnMut(Crew<'_>) + 'a) -> Case<'a> {
    Case { name, gigaflop: flop as f64 / 1e9, once: Box::new(once), rates: Vec::new() }
}

/// Products of the shapes that CLIP's towers have: rows, inputs, outputs.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 512, 2048),
    (12, 512, 1536),
    (12, 512, 2048),
    (12, 2048, 512),
    (50, 768, 2304),
    (50, 768, 3072),
    (50, 3072, 768),
    (200, 768, 2304),
    (200, 768, 3072),
    (200, 3072, 768),
    (257, 1024, 4096),
    (257, 4096, 1024),
];

fn products<'a>() -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (rows, inner, out) in SHAPES {
        let weight = numbers(inner * out);
        let int8 = PackedLinear::int8(&Int8Weights::quantise(&weight, inner), inner, None, None);
        let fp32 = PackedLinear::fp32(&weight, inner, None, None);
        for (kind, linear) in [("fp32", fp32), ("int8", int8)] {
            let (input, mut output) = (Matrix::from_rows(&numbers(rows * inner), inner), Matrix::default());
            let run = move |crew: Crew<'_>| Product::of(&linear).run(crew, &input, &mut output);
            cases.push(case(format!("product {kind} {rows} x {inner} x {out}"), 2 * rows * inner * out, run));
        }
    }
    let (rows, inner, out) = (200, 768, 3072);
    for int8 in [false, true] {
        let weight = numbers(inner * out);
        let linear = if int8 {
            PackedLinear::int8(&Int8Weights::quantise(&weight, inner), inner, None, None)
        } else {
            PackedLinear::fp32(&weight, inner, None, None)
        };
        let norm = Norm::new(vec![1.0; inner], vec![0.0; inner], 1e-5);
        let (input, mut output) = (Matrix::from_rows(&numbers(rows * inner), inner), Matrix::default());
        let run = move |crew: Crew<'_>| {
            let product = Product::of(&linear).after(&norm).then(Finish::Activate(Nonlinearity::QuickGelu));
            product.run(crew, &input, &mut output);
        };
        let kind = if int8 { "int8" } else { "fp32" };
        cases.push(case(
            format!("norm, product {kind}, quick GELU {rows} x {inner} x {out}"),
            2 * rows * inner * out,
            run,
        ));
    }
    cases
}

/// The products of a whole tower of twelve blocks, whose weights come from memory each time: of ViT-B/32's text tower for a few rows,
/// of its image tower for more.
fn towers<'a>() -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (rows, width) in [(1, 512), (5, 512), (12, 512), (18, 512), (50, 768), (200, 768), (400, 768)] {
        for int8 in [false, true] {
            let shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)].repeat(12);
            let linear = |(inner, out): &(usize, usize)| {
                let weight = numbers(inner * out);
                if int8 {
                    PackedLinear::int8(&Int8Weights::quantise(&weight, *inner), *inner, None, None)
                } else {
                    PackedLinear::fp32(&weight, *inner, None, None)
                }
            };
            let flop = 2 * rows * shapes.iter().map(|(inner, out)| inner * out).sum::<usize>();
            let linears: Vec<PackedLinear> = shapes.iter().map(linear).collect();
            let narrow = Matrix::from_rows(&numbers(rows * width), width);
            let wide = Matrix::from_rows(&numbers(rows * 4 * width), 4 * width);
            let mut output = Matrix::default();
            let run = move |crew: Crew<'_>| {
                for linear in &linears {
                    let input = if linear.inner() == width { &narrow } else { &wide };
                    Product::of(linear).run(crew, input, &mut output);
                }
            };
            let kind = if int8 { "int8" } else { "fp32" };
            cases.push(case(format!("tower {kind}, {rows} rows, width {width}"), flop, run));
        }
    }
    cases
}

fn attentions<'a>() -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (count, tokens, heads, causal) in
        [(1, 50, 12, false), (4, 50, 12, false), (1, 257, 16, false), (8, 77, 8, true)]
    {
        let head_width = 64;
        let width = heads * head_width;
        let packed = Matrix::from_rows(&numbers(count * tokens * 3 * width), 3 * width);
        let mut out = Matrix::zeroed(count * tokens, width);
        let sequence = |at: usize| {
            let rows = at * tokens..(at + 1) * tokens;
            Sequence { queries: rows.clone(), prefix: Vec::new(), keys: rows }
        };
        let sequences: Vec<_> = (0..count).map(sequence).collect();
        let run = move |crew: Crew<'_>| {
            let (queries, keys) = ((&packed, 0), (&packed, width));
            Attention { heads, head_width, queries, keys, sequences: &sequences, causal }.run(crew, &mut out);
        };
        let flop = count * tokens * tokens * width * 4 / if causal { 2 } else { 1 };
        let kind = if causal { "causal" } else { "full" };
        cases.push(case(format!("attention, {kind}, {count} x {tokens} tokens, {heads} heads"), flop, run));
    }
    cases
}

/// Products of a training step: of `mini`'s image tower with a batch of 256 and of ViT-B/32's with one of 32 (rows, inputs, outputs).
fn training<'a>() -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    for (rows, inner, out) in [
        (16_640, 192, 576),
        (16_640, 192, 192),
        (16_640, 192, 768),
        (16_640, 768, 192),
        (1600, 768, 2304),
        (1600, 768, 768),
        (1600, 768, 3072),
        (1600, 3072, 768),
    ] {
        let flop = 2 * rows * inner * out;
        let (x, weight, dy) = (numbers(rows * inner), numbers(inner * out), numbers(rows * out));
        let (x_again, weight_again, dy_again) = (x.clone(), weight.clone(), dy.clone());
        let mut y = vec![0.0; rows * out];
        let forward = move |crew: Crew<'_>| {
            let packed = PackedWeight::new(crew, Weight::OutDepth(&weight), inner);
            gemm::product(crew, Rows::new(&x, inner), &packed, gemm::Finish::STORE, Target::new(&mut y, out));
        };
        cases.push(case(format!("training, output, {rows} x {inner} x {out}"), flop, forward));
        let mut dx = vec![0.0; rows * inner];
        let backward = move |crew: Crew<'_>| {
            let packed = PackedWeight::new(crew, Weight::DepthOut(&weight_again), out);
            gemm::product(crew, Rows::new(&dy, out), &packed, gemm::Finish::STORE, Target::new(&mut dx, inner));
        };
        cases.push(case(format!("training, input's gradient, {rows} x {inner} x {out}"), flop, backward));
        let (mut dw, mut db) = (vec![0.0; out * inner], vec![0.0; out]);
        let gradient = move |crew: Crew<'_>| {
            let (outputs, inputs) = (Rows::new(&dy_again, out), Rows::new(&x_again, inner));
            Gradient { outputs, inputs, scale: 1.0, accumulate: false }.run(crew, &mut dw, Some(&mut db));
        };
        cases.push(case(format!("training, weight's gradient, {rows} x {inner} x {out}"), flop, gradient));
    }
    cases
}

fn measure(session: &Session<'_>, case: &mut Case<'_>) {
    let crew = Crew::Team(session);
    let repeats = (40e-3 / (case.gigaflop / 60.0)).clamp(1.0, 2000.0) as usize;
    (case.once)(crew);
    let start = Instant::now();
    (0..repeats).for_each(|_| (case.once)(crew));
    case.rates.push(case.gigaflop * repeats as f64 / start.elapsed().as_secs_f64());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after =
        |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)?.parse().ok());
    let rounds = if arguments.iter().any(|a| a == "--quick") { 3 } else { 11 };
    let threads = after("--threads").unwrap_or_else(crossmodal_kernels::team::threads);
    let team = Team::new(threads);
    let session = team.session();
    let only = arguments.iter().position(|a| a == "--only").and_then(|at| arguments.get(at + 1));
    let mut cases = products();
    cases.extend(towers());
    cases.extend(attentions());
    cases.extend(training());
    cases.retain(|case| only.is_none_or(|only| case.name.contains(only.as_str())));
    let mut peaks = Vec::new();
    for _ in 0..rounds {
        for case in &mut cases {
            measure(&session, case);
        }
        peaks.push(peak::gflops(&session, Duration::from_millis(60)));
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let peak = peaks.iter().copied().fold(0.0, f64::max);
    println!("{threads} threads, fp32 peak {peak:.1} GFLOP/s (median of the rounds {:.1})", median(&mut peaks));
    let bytes = peak::bandwidth(&session, Duration::from_millis(500));
    println!("memory bandwidth {bytes:.1} GB/s\n");
    println!("{:<60} {:>10} {:>8} {:>8}", "", "GFLOP/s", "of peak", "best");
    for case in &mut cases {
        let (middle, best) = (median(&mut case.rates), case.rates.iter().copied().fold(0.0, f64::max));
        println!("{:<60} {middle:>10.1} {:>7.0}% {:>7.0}%", case.name, middle / peak * 100.0, best / peak * 100.0);
    }
}
