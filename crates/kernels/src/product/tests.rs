//! Products against sums in double precision, at awkward sizes.

use super::*;
use crate::team::Team;
use crate::testing::{close, numbers};

fn reference(x: &[f32], weight: &[f32], inner: usize, bias: Option<&[f32]>, gain: Option<&[f32]>) -> Vec<f64> {
    let out = weight.len() / inner;
    let cell = |row: usize, column: usize| {
        let products = x[row * inner..][..inner].iter().zip(&weight[column * inner..][..inner]);
        let sum: f64 = products.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
        let biased = sum + bias.map_or(0.0, |bias| f64::from(bias[column]));
        biased * gain.map_or(1.0, |gain| f64::from(gain[column]))
    };
    (0..x.len() / inner).flat_map(|row| (0..out).map(move |column| (row, column))).map(|(r, c)| cell(r, c)).collect()
}

const SIZES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 5, 3),
    (2, 16, 16),
    (3, 17, 15),
    (5, 31, 33),
    (6, 64, 48),
    (7, 40, 100),
    (11, 8, 257),
    (13, 33, 32),
    (50, 96, 40),
    (97, 24, 50),
    (193, 19, 18),
    (12, 512, 160),
    (301, 72, 7),
];

#[test]
fn equals_a_sum_of_products() {
    let team = Team::new(3);
    let session = team.session();
    for (rows, inner, out) in SIZES {
        let (x, weight, bias, gain) =
            (numbers(rows * inner, 1), numbers(out * inner, 2), numbers(out, 3), numbers(out, 4));
        for (bias, gain) in [(None, None), (Some(&bias[..]), None), (Some(&bias[..]), Some(&gain[..]))] {
            let packed = PackedLinear::fp32(&weight, inner, bias, gain);
            let expected = reference(&x, &weight, inner, bias, gain);
            let input = Matrix::from_rows(&x, inner);
            for crew in [Crew::Solo, Crew::Team(&session)] {
                let mut found = Matrix::default();
                Product::of(&packed).run(crew, &input, &mut found);
                close(&found.to_vec(), &expected, 3e-6 * inner as f64);
                let mut onto = Matrix::from_rows(&numbers(rows * out, 5), out);
                let before = onto.to_vec();
                Product::of(&packed).then(Finish::Add).run(crew, &input, &mut onto);
                let sums: Vec<f64> = before.iter().zip(&expected).map(|(x, y)| f64::from(*x) + y).collect();
                close(&onto.to_vec(), &sums, 3e-6 * inner as f64);
            }
        }
    }
}

#[test]
fn some_columns_equal_those_of_the_whole() {
    let (rows, inner, out) = (19, 37, 75);
    let (x, weight, bias) = (numbers(rows * inner, 1), numbers(out * inner, 2), numbers(out, 3));
    let quantised = PackedLinear::int8(&Int8Weights::quantise(&weight, inner), inner, Some(&bias), None);
    for packed in [PackedLinear::fp32(&weight, inner, Some(&bias), None), quantised] {
        let input = Matrix::from_rows(&x, inner);
        let mut whole = Matrix::default();
        Product::of(&packed).run(Crew::Solo, &input, &mut whole);
        for columns in [0..75, 0..16, 16..32, 3..4, 15..17, 25..50, 50..75, 74..75, 30..30] {
            let mut part = Matrix::default();
            Product::of(&packed).only(columns.clone()).run(Crew::Solo, &input, &mut part);
            for row in 0..rows {
                assert_eq!(part.row(row), &whole.row(row)[columns.clone()], "{columns:?}");
            }
        }
    }
}

#[test]
fn norm_and_nonlinearity_are_those_of_their_own_functions() {
    let team = Team::new(2);
    let session = team.session();
    for (rows, inner, out) in [(1, 16, 16), (7, 33, 20), (50, 64, 100), (130, 48, 65)] {
        let (x, weight, bias) = (numbers(rows * inner, 1), numbers(out * inner, 2), numbers(out, 3));
        let norm = Norm::new(numbers(inner, 6), numbers(inner, 7), 1e-5);
        let packed = PackedLinear::fp32(&weight, inner, Some(&bias), None);
        let input = Matrix::from_rows(&x, inner);
        let mut normed = Matrix::from_rows(&x, inner);
        norm.rows(Crew::Solo, &mut normed);
        let mut expected = Matrix::default();
        Product::of(&packed).run(Crew::Solo, &normed, &mut expected);
        for nonlinearity in [Nonlinearity::QuickGelu, Nonlinearity::Gelu, Nonlinearity::GeluTanh] {
            let mut found = Matrix::default();
            let product = Product::of(&packed).after(&norm).then(Finish::Activate(nonlinearity));
            product.run(Crew::Team(&session), &input, &mut found);
            let mut activated = expected.to_vec();
            nonlinearity.apply(&mut activated);
            assert_eq!(found.to_vec(), activated);
        }
    }
}

#[test]
fn quantised_products_stay_near() {
    let team = Team::new(3);
    let session = team.session();
    for (rows, inner, out) in SIZES {
        let (x, weight, bias, gain) =
            (numbers(rows * inner, 1), numbers(out * inner, 2), numbers(out, 3), numbers(out, 4));
        let levels = Int8Weights::quantise(&weight, inner);
        assert!(levels.values.iter().all(|level| i32::from(level.abs()) <= INT8_LEVELS));
        let packed = PackedLinear::int8(&levels, inner, Some(&bias), Some(&gain));
        // With activations quantised the same way, the product is exact.
        let mut rounded = Vec::new();
        for row in x.chunks(inner) {
            let mut quantised = vec![0; inner];
            let RowScale { scale, zero } = quantise_row(row, &mut quantised);
            rounded.extend(quantised.iter().map(|level| scale * (i32::from(*level) - zero) as f32));
        }
        let expected = reference(&rounded, &levels.dequantise(), inner, Some(&bias), Some(&gain));
        let mut alone = Matrix::default();
        Product::of(&packed).run(Crew::Solo, &Matrix::from_rows(&x, inner), &mut alone);
        close(&alone.to_vec(), &expected, 1e-6 * inner as f64);
        let mut shared = Matrix::default();
        Product::of(&packed).run(Crew::Team(&session), &Matrix::from_rows(&x, inner), &mut shared);
        assert_eq!(alone.to_vec(), shared.to_vec(), "integers don't depend on who adds them up");
        let exact = reference(&x, &weight, inner, Some(&bias), Some(&gain));
        let error: f64 = alone.to_vec().iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
        let size: f64 = exact.iter().map(|x| x * x).sum();
        assert!(error.sqrt() < 0.05 * size.sqrt() + 1e-6, "{rows} x {inner} x {out}: {}", error.sqrt() / size.sqrt());
    }
}

#[test]
fn all_zero_rows_and_weights_give_the_bias() {
    let bias = numbers(20, 3);
    let levels = Int8Weights::quantise(&[0.0; 20 * 9], 9);
    let packed = PackedLinear::int8(&levels, 9, Some(&bias), None);
    let mut found = Matrix::default();
    Product::of(&packed).run(Crew::Solo, &Matrix::zeroed(3, 9), &mut found);
    assert_eq!(found.to_vec(), bias.repeat(3));
}

#[test]
#[should_panic(expected = "a level beyond 63")]
fn wider_levels_are_refused() {
    PackedLinear::int8(&Int8Weights { values: vec![1, -64], scales: vec![1.0] }, 2, None, None);
}
