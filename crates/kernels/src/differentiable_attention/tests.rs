//! Attention and its gradients against formulas in double precision.

use super::*;
use crate::instructions::everywhere;
use crate::team::Team;
use crate::testing::{close, numbers};

/// Values and gradients of a loss `sum(out * d_out)`, straight from the formulas.
struct Reference {
    out: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
}

#[expect(clippy::needless_range_loop, reason = "formulas are clearer with their indices")]
fn reference(attention: &Attention<'_>, d_out: &[f32]) -> Reference {
    let Attention { sequences, heads, head_width, queries, keys, query, key, mask } = *attention;
    let width = heads * head_width;
    let scale = (head_width as f64).powf(-0.5);
    let mut found = Reference {
        out: vec![0.0; sequences * queries * width],
        dq: vec![0.0; query.data.len()],
        dk: vec![0.0; key.data.len()],
    };
    for sequence in 0..sequences {
        for head in 0..heads {
            let q_at =
                |i: usize, c: usize| (sequence * queries + i) * query.stride + query.column + head * head_width + c;
            let k_at = |j: usize, part: usize, c: usize| {
                (sequence * keys + j) * key.stride + key.column + part * width + head * head_width + c
            };
            let o_at = |i: usize, c: usize| (sequence * queries + i) * width + head * head_width + c;
            for i in 0..queries {
                let score = |j: usize| {
                    let product: f64 = (0..head_width)
                        .map(|c| f64::from(query.data[q_at(i, c)]) * f64::from(key.data[k_at(j, 0, c)]))
                        .sum();
                    let masked = match mask {
                        Mask::Full => 0.0,
                        Mask::Causal => {
                            if j > i {
                                f64::NEG_INFINITY
                            } else {
                                0.0
                            }
                        }
                        Mask::Additive(mask) => {
                            let first = if mask.len() == queries * keys { 0 } else { sequence * queries };
                            f64::from(mask[(first + i) * keys + j])
                        }
                    };
                    product * scale + masked
                };
                let scores: Vec<f64> = (0..keys).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                let shares: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / total).collect();
                let d_share = |j: usize| -> f64 {
                    (0..head_width).map(|c| f64::from(d_out[o_at(i, c)]) * f64::from(key.data[k_at(j, 1, c)])).sum()
                };
                let inner: f64 = (0..keys).map(|j| shares[j] * d_share(j)).sum();
                for j in 0..keys {
                    let d_score = shares[j] * (d_share(j) - inner);
                    for c in 0..head_width {
                        found.out[o_at(i, c)] += shares[j] * f64::from(key.data[k_at(j, 1, c)]);
                        found.dq[q_at(i, c)] += scale * d_score * f64::from(key.data[k_at(j, 0, c)]);
                        found.dk[k_at(j, 0, c)] += scale * d_score * f64::from(query.data[q_at(i, c)]);
                        found.dk[k_at(j, 1, c)] += shares[j] * f64::from(d_out[o_at(i, c)]);
                    }
                }
            }
        }
    }
    found
}

#[test]
fn packed_attention_and_its_gradients_equal_their_formulas() {
    let team = Team::new(3);
    for (heads, head_width) in [(1, 1), (2, 3), (3, 16), (2, 17), (2, 64)] {
        for (sequences, tokens) in [(3, 1), (2, 2), (1, 7), (2, 50), (1, 65), (1, 130)] {
            let width = heads * head_width;
            let qkv = numbers(sequences * tokens * 3 * width, 1);
            let d_out = numbers(sequences * tokens * width, 2);
            let blocked = |at: usize| at % tokens != (at / tokens) % tokens && at.is_multiple_of(3);
            let mask = |count: usize| -> Vec<f32> {
                (0..count).map(|at| if blocked(at) { f32::NEG_INFINITY } else { 0.0 }).collect()
            };
            let (one, each) = (mask(tokens * tokens), mask(sequences * tokens * tokens));
            for mask in [Mask::Full, Mask::Causal, Mask::Additive(&one), Mask::Additive(&each)] {
                let attention = Attention::packed(&qkv, tokens, (heads, head_width), mask);
                let expected = reference(&attention, &d_out);
                let mut both = expected.dq.clone();
                both.iter_mut().zip(&expected.dk).for_each(|(both, dk)| *both += dk);
                let session = team.session();
                let check = |crew: Crew<'_>| {
                    let mut out = vec![f32::NAN; d_out.len()];
                    let mut statistics = vec![f32::NAN; 2 * sequences * heads * tokens];
                    attention.forward(crew, &mut out, &mut statistics);
                    close(&out, &expected.out, 3e-5);
                    let mut gradient = vec![f32::NAN; qkv.len()];
                    attention.backward(crew, &statistics, &d_out, Gradients::Packed(&mut gradient));
                    close(&gradient, &both, 2e-4);
                };
                everywhere(|| check(Crew::Solo));
                check(Crew::Team(&session));
            }
        }
    }
}

#[test]
fn queries_may_be_fewer_than_keys_and_lie_elsewhere() {
    let (heads, head_width, sequences) = (2, 20, 3);
    let width = heads * head_width;
    for (queries, keys) in [(1, 9), (1, 50), (5, 33)] {
        let (q, kv) = (numbers(sequences * queries * (width + 3), 1), numbers(sequences * keys * (2 * width + 1), 2));
        let d_out = numbers(sequences * queries * width, 3);
        let mask: Vec<f32> =
            (0..sequences * queries * keys).map(|at| if at % 5 == 1 { f32::NEG_INFINITY } else { 0.0 }).collect();
        let attention = Attention {
            sequences,
            heads,
            head_width,
            queries,
            keys,
            query: Place { data: &q, stride: width + 3, column: 2 },
            key: Place { data: &kv, stride: 2 * width + 1, column: 1 },
            mask: Mask::Additive(&mask),
        };
        let expected = reference(&attention, &d_out);
        let mut out = vec![f32::NAN; d_out.len()];
        let mut statistics = vec![f32::NAN; 2 * sequences * heads * queries];
        attention.forward(Crew::Solo, &mut out, &mut statistics);
        close(&out, &expected.out, 3e-5);
        let (mut dq, mut dk) = (vec![0.0; q.len()], vec![0.0; kv.len()]);
        attention.backward(Crew::Solo, &statistics, &d_out, Gradients::Apart(&mut dq, &mut dk));
        close(&dq, &expected.dq, 2e-4);
        close(&dk, &expected.dk, 2e-4);
    }
}

#[test]
fn a_query_that_sees_nothing_gives_numbers() {
    let (tokens, width) = (5, 8);
    let qkv = numbers(tokens * 3 * width, 1);
    let mask = vec![f32::NEG_INFINITY; tokens * tokens];
    let attention = Attention::packed(&qkv, tokens, (1, width), Mask::Additive(&mask));
    let (mut out, mut statistics) = (vec![f32::NAN; tokens * width], vec![f32::NAN; 2 * tokens]);
    attention.forward(Crew::Solo, &mut out, &mut statistics);
    let mut gradient = vec![f32::NAN; qkv.len()];
    attention.backward(Crew::Solo, &statistics, &out, Gradients::Packed(&mut gradient));
    assert!(out.iter().chain(&gradient).all(|x| x.is_finite()));
}
