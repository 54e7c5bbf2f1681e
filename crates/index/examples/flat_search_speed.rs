//! Measures flat search against the speed of merely reading the same memory.
//!
//! `cargo run --release -p crossmodal-index --example flat_search_speed [ROWS] [DIMENSION]`

use std::hint::black_box;
use std::time::{Duration, Instant};

use crossmodal_index::{FlatIndex, Metric, Selection};
use rayon::prelude::*;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let (rows, dimension) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(512));
    let mut state = 1_u64;
    let mut value = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = (0..rows * dimension).map(|_| value()).collect();
    let queries: Vec<Vec<f32>> = (0..256).map(|_| (0..dimension).map(|_| value()).collect()).collect();
    let gigabytes = (rows * dimension * 4) as f64 / 1e9;
    let threads = rayon::current_num_threads();
    println!("{rows} rows of {dimension} dimensions, {gigabytes:.3} GB, {threads} threads, best of several runs");

    let read = best(20, || {
        let sum = |part: &[f32]| part.iter().fold(0_u32, |sum, value| sum.wrapping_add(value.to_bits()));
        black_box(data.par_chunks(1 << 16).map(sum).reduce(|| 0, u32::wrapping_add));
    });
    println!("read only: {:.2} ms, {:.1} GB/s", milliseconds(read), gigabytes / read.as_secs_f64());

    for metric in [Metric::InnerProduct, Metric::Euclidean] {
        let index = FlatIndex::new(dimension, metric, &[&data]).expect("whole rows");
        for count in [1, 4, 32, 256] {
            let queries: Vec<&[f32]> = queries.iter().take(count).map(Vec::as_slice).collect();
            let runs = if count > 100 { 3 } else { 20 };
            let time = best(runs, || {
                black_box(index.search(&queries, 10, Selection::default()).expect("sound queries"));
            });
            println!(
                "{metric}, {count} queries: {:.2} ms, {:.1} GB/s of rows, {:.1} GFLOP/s, {:.0} queries/s",
                milliseconds(time),
                gigabytes / time.as_secs_f64(),
                (2 * rows * dimension * count) as f64 / time.as_secs_f64() / 1e9,
                count as f64 / time.as_secs_f64(),
            );
        }
    }
}

fn best(runs: usize, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
