//! Products and gradients of weights against sums in double precision, at awkward sizes, with everything that is fused in.

use super::*;
use crate::instructions::everywhere;
use crate::team::Team;
use crate::testing::{close, numbers};

const SIZES: [(usize, usize, usize); 13] = [
    (1, 1, 1),
    (1, 5, 3),
    (2, 16, 16),
    (3, 17, 15),
    (7, 31, 33),
    (8, 64, 48),
    (9, 40, 100),
    (50, 96, 40),
    (97, 24, 50),
    (301, 72, 7),
    (33, 1100, 20),
    (5, 2100, 65),
    (700, 9, 400),
];

/// `a [rows, depth]` times `b [depth, columns]`, both given by their elements.
fn reference(
    (rows, depth, columns): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let cell = |row: usize, column: usize| (0..depth).map(|k| a(row, k) * b(k, column)).sum();
    (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(r, c)| cell(r, c)).collect()
}

/// Calls `work` with a crew of one, in each instruction set, and with one of several.
fn crews(work: impl Fn(Crew<'_>)) {
    let team = Team::new(3);
    everywhere(|| work(Crew::Solo));
    work(Crew::Team(&team.session()));
}

#[test]
fn rows_times_a_weight_and_its_transpose() {
    for (rows, depth, out) in SIZES {
        let (x, weight) = (numbers(rows * depth, 1), numbers(out * depth, 2));
        let at = |row: usize, k: usize| f64::from(x[row * depth + k]);
        let transposed = reference((rows, depth, out), at, |k, c| f64::from(weight[c * depth + k]));
        let straight = reference((rows, depth, out), at, |k, c| f64::from(weight[k * out + c]));
        crews(|crew| {
            for (weight, expected) in [(Weight::OutDepth(&weight), &transposed), (Weight::DepthOut(&weight), &straight)]
            {
                let packed = PackedWeight::new(crew, weight, depth);
                let mut found = vec![f32::NAN; rows * out];
                product(crew, Rows::new(&x, depth), &packed, Finish::STORE, Target::new(&mut found, out));
                close(&found, expected, 3e-6 * depth as f64);
                product(crew, Rows::new(&x, depth), &packed, Finish::ACCUMULATE, Target::new(&mut found, out));
                let twice: Vec<f64> = expected.iter().map(|x| 2.0 * x).collect();
                close(&found, &twice, 6e-6 * depth as f64);
            }
        });
    }
}

#[test]
fn what_follows_a_product_is_applied_in_order() {
    for (rows, depth, out) in SIZES {
        let (x, weight) = (numbers(rows * depth, 1), numbers(out * depth, 2));
        let (bias, gain, residual) = (numbers(out, 3), numbers(out, 4), numbers(rows * (out + 3), 5));
        let at = |row: usize, k: usize| f64::from(x[row * depth + k]);
        let sums = reference((rows, depth, out), at, |k, c| f64::from(weight[c * depth + k]));
        let value = |at: usize| (sums[at] * 0.75 + f64::from(bias[at % out])) * f64::from(gain[at % out]);
        let rest = Rows::new(&residual, out + 3).columns(2..out + 2);
        let finish = |then| Finish { scale: 0.75, bias: Some(&bias), gain: Some(&gain), then };
        crews(|crew| {
            let packed = PackedWeight::new(crew, Weight::OutDepth(&weight), depth);
            // Into columns of wider rows, whose others stay.
            let mut found = vec![-7.0; rows * (out + 4)];
            let target = Target { data: &mut found, width: out + 4, columns: 1..out + 1 };
            product(crew, Rows::new(&x, depth), &packed, finish(Then::AddTo(rest)), target);
            let expected: Vec<f64> = (0..rows * (out + 4))
                .map(|cell| match (cell / (out + 4), cell % (out + 4)) {
                    (row, column) if (1..=out).contains(&column) => {
                        value(row * out + column - 1) + f64::from(residual[row * (out + 3) + column + 1])
                    }
                    _ => -7.0,
                })
                .collect();
            close(&found, &expected, 1e-5 * depth as f64);
            for nonlinearity in [Nonlinearity::QuickGelu, Nonlinearity::Gelu, Nonlinearity::GeluTanh] {
                let before = numbers(rows * out, 6);
                let mut slopes = before.clone();
                crate::activation::chain(Crew::Solo, nonlinearity, &vec![1.0; before.len()], &mut slopes);
                let mut found = before.clone();
                let finish = finish(Then::Derivative(nonlinearity));
                product(crew, Rows::new(&x, depth), &packed, finish, Target::new(&mut found, out));
                let expected: Vec<f64> = (0..rows * out).map(|at| value(at) * f64::from(slopes[at])).collect();
                close(&found, &expected, 1e-5 * depth as f64);
            }
        });
    }
}

/// Rows after a layer norm or a non-linearity, computed for themselves.
fn through(x: &[f32], width: usize, through: Through<'_>) -> Vec<f32> {
    let mut out = x.to_vec();
    match through {
        Through::Nothing => {}
        Through::Activation(nonlinearity) => nonlinearity.apply(&mut out),
        Through::Norm(norm) => {
            for (row, [mean, reciprocal]) in out.chunks_exact_mut(width).zip(norm.statistics) {
                for ((x, weight), bias) in row.iter_mut().zip(norm.weight).zip(norm.bias) {
                    *x = (*x - mean) * reciprocal * weight + bias;
                }
            }
        }
    }
    out
}

#[test]
fn layers_ahead_of_a_product_are_computed_on_the_way() {
    for (rows, depth, out) in SIZES {
        let (x, weight, outputs) = (numbers(rows * depth, 1), numbers(out * depth, 2), numbers(rows * out, 3));
        let statistics: Vec<[f32; 2]> = numbers(2 * rows, 4).as_chunks::<2>().0.to_vec();
        let (gain, offset) = (numbers(depth, 5), numbers(depth, 6));
        let norm = Normalisation { statistics: &statistics, weight: &gain, bias: &offset };
        let plain = Rows::new(&x, depth);
        let cases = [
            (plain.normalised(norm), Through::Norm(norm)),
            (plain.activated(Nonlinearity::Gelu), Through::Activation(Nonlinearity::Gelu)),
            (plain.activated(Nonlinearity::QuickGelu), Through::Activation(Nonlinearity::QuickGelu)),
        ];
        for (fused, kind) in cases {
            let values = through(&x, depth, kind);
            crews(|crew| {
                let packed = PackedWeight::new(crew, Weight::OutDepth(&weight), depth);
                let run = |x| {
                    let mut found = vec![0.0; rows * out];
                    product(crew, x, &packed, Finish::STORE, Target::new(&mut found, out));
                    found
                };
                let expected: Vec<f64> = run(Rows::new(&values, depth)).into_iter().map(f64::from).collect();
                close(&run(fused), &expected, 4e-5 * depth as f64);
                let gradient = |inputs| {
                    let outputs = Rows::new(&outputs, out);
                    let mut found = vec![0.0; out * depth];
                    Gradient { outputs, inputs, scale: 1.0, accumulate: false }.run(crew, &mut found, None);
                    found
                };
                let expected: Vec<f64> = gradient(Rows::new(&values, depth)).into_iter().map(f64::from).collect();
                close(&gradient(fused), &expected, 4e-5 * rows as f64);
                // The second half of the rows alone.
                let half = rows / 2..rows;
                let mut part = vec![0.0; half.len() * out];
                product(crew, fused.part(half.clone()), &packed, Finish::STORE, Target::new(&mut part, out));
                assert_eq!(part, run(fused)[half.start * out..]);
            });
        }
    }
}

#[test]
fn gradients_of_weights_and_biases_are_sums_over_rows() {
    for (rows, inner, out) in SIZES {
        let (x, dy) = (numbers(rows * inner, 1), numbers(rows * (out + 5), 2));
        let output = |row: usize, column: usize| f64::from(dy[row * (out + 5) + column + 4]);
        let expected = reference((out, rows, inner), |o, row| output(row, o), |row, i| f64::from(x[row * inner + i]));
        let bias: Vec<f64> = (0..out).map(|column| (0..rows).map(|row| output(row, column)).sum()).collect();
        let outputs = Rows::new(&dy, out + 5).columns(4..out + 4);
        let inputs = Rows::new(&x, inner);
        let solo = {
            let (mut weight, mut sums) = (vec![f32::NAN; out * inner], vec![f32::NAN; out]);
            let gradient = Gradient { outputs, inputs, scale: 1.0, accumulate: false };
            gradient.run(Crew::Solo, &mut weight, Some(&mut sums));
            (weight, sums)
        };
        crews(|crew| {
            let (mut weight, mut sums) = (vec![f32::NAN; out * inner], vec![f32::NAN; out]);
            let gradient = Gradient { outputs, inputs, scale: 1.0, accumulate: false };
            gradient.run(crew, &mut weight, Some(&mut sums));
            close(&weight, &expected, 3e-6 * rows as f64);
            close(&sums, &bias, 3e-6 * rows as f64);
            if crew.threads() > 1 {
                assert_eq!((&weight, &sums), (&solo.0, &solo.1), "sums depend on the number of threads");
            }
            Gradient { scale: 0.5, accumulate: true, ..gradient }.run(crew, &mut weight, Some(&mut sums));
            let more: Vec<f64> = expected.iter().map(|x| 1.5 * x).collect();
            close(&weight, &more, 5e-6 * rows as f64);
            column_sums(crew, outputs, true, &mut sums);
            let thrice: Vec<f64> = bias.iter().map(|x| 3.0 * x).collect();
            close(&sums, &thrice, 1e-5 * rows as f64);
        });
    }
}

#[test]
fn no_rows_give_no_gradient() {
    let mut weight = vec![3.0; 12];
    let mut bias = vec![3.0; 4];
    let empty = Gradient { outputs: Rows::new(&[], 4), inputs: Rows::new(&[], 3), scale: 1.0, accumulate: false };
    empty.run(Crew::Solo, &mut weight, Some(&mut bias));
    assert!(weight.iter().chain(&bias).all(|x| *x == 0.0));
}

#[test]
fn threads_change_nothing() {
    let (rows, depth, out) = (203, 130, 77);
    let (x, weight) = (numbers(rows * depth, 1), numbers(out * depth, 2));
    let run = |crew: Crew<'_>| {
        let packed = PackedWeight::new(crew, Weight::OutDepth(&weight), depth);
        let mut found = vec![0.0; rows * out];
        product(crew, Rows::new(&x, depth), &packed, Finish::STORE, Target::new(&mut found, out));
        found
    };
    let alone = run(Crew::Solo);
    for threads in [2, 3, 5] {
        let team = Team::new(threads);
        assert_eq!(run(Crew::Team(&team.session())), alone);
    }
}
