//! Every operation against its twin made of candle's own, in double precision: values, and gradients of every operand.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::{
    Activation, AttentionMask, LayerNorm, Linear, Mlp, PatchEmbedding, SelfAttention, TransformerBlock,
    assemble_tokens, backward, embed_tokens, forward_blocks, take_rows, take_tokens,
};

/// Numbers between -1 and 1.
fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flat(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Result and gradients of a computation over variables of this type, for the loss `sum(result * numbers)`.
fn run(
    dtype: DType,
    operands: &[Tensor],
    frozen: &[usize],
    fast: bool,
    work: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> (Tensor, Vec<Option<Tensor>>) {
    let variables: Vec<Tensor> = operands
        .iter()
        .enumerate()
        .map(|(at, operand)| {
            let operand = operand.to_dtype(dtype).unwrap();
            if frozen.contains(&at) { operand } else { Var::from_tensor(&operand).unwrap().into_inner() }
        })
        .collect();
    let result = work(&variables).unwrap();
    let weights = numbers(result.dims(), 77).to_dtype(dtype).unwrap();
    let loss = (&result * weights).unwrap().sum_all().unwrap();
    let store = if fast { backward(&loss).unwrap() } else { loss.backward().unwrap() };
    let gradients = variables.iter().map(|variable| store.get(variable).cloned()).collect();
    (result.detach(), gradients)
}

fn close(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    let (found, expected) = (flat(found), flat(expected));
    let largest = expected.iter().fold(0f64, |most, x| most.max(x.abs())).max(1e-3);
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let gap = (found - expected).abs();
        assert!(gap <= 3e-5 * largest, "{name}, {at}: {found} is not {expected} (largest {largest})");
    }
}

/// Compares `f32` over kernels with `f64` over candle's operations, with both ways to run backwards, and with each operand frozen.
fn compare(name: &str, shapes: &[&[usize]], work: &dyn Fn(&[Tensor]) -> Result<Tensor>) {
    let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
    let (expected, gradients) = run(DType::F64, &operands, &[], false, work);
    let everything = std::iter::once(None).chain((0..operands.len()).map(Some));
    for frozen in everything {
        for fast in [false, true] {
            let frozen: Vec<usize> = frozen.into_iter().collect();
            if frozen.len() == operands.len() {
                continue;
            }
            let (found, slopes) = run(DType::F32, &operands, &frozen, fast, work);
            close(name, &found, &expected);
            for (at, (slope, expected)) in slopes.iter().zip(&gradients).enumerate() {
                let name = format!("{name}: gradient of operand {at}, frozen {frozen:?}, fast {fast}");
                match slope {
                    None => assert!(frozen.contains(&at), "{name} is missing"),
                    Some(slope) => close(&name, slope, expected.as_ref().unwrap()),
                }
            }
        }
    }
}

#[test]
fn linear_maps_equal_their_twins() {
    for (leading, inner, out) in [(&[1][..], 1, 1), (&[5], 3, 17), (&[2, 7], 33, 5), (&[3, 2, 9], 16, 48)] {
        let x = [leading, &[inner]].concat();
        let with_bias = |o: &[Tensor]| Linear::new(o[1].clone(), Some(o[2].clone())).forward(&o[0]);
        compare("linear", &[&x, &[out, inner], &[out]], &with_bias);
        let without = |o: &[Tensor]| Linear::new(o[1].clone(), None).forward(&o[0]);
        compare("linear without bias", &[&x, &[out, inner]], &without);
        let transposed = |o: &[Tensor]| Linear::new(o[1].t()?, None).forward(&o[0]);
        compare("linear with a transposed weight", &[&x, &[inner, out]], &transposed);
    }
}

#[test]
fn adapters_equal_a_product_of_their_own() {
    let (inner, out, rank) = (10, 24, 3);
    let shapes: [&[usize]; 7] =
        [&[2, 5, inner], &[out, inner], &[out], &[rank, inner], &[8, rank], &[2, inner], &[8, 2]];
    let adapted = |o: &[Tensor]| {
        let map = Linear::new(o[1].clone(), Some(o[2].clone()));
        let map = map.with_adapter_on(8..16, o[3].clone(), o[4].clone(), 0.5)?;
        map.with_adapter_on(16..24, o[5].clone(), o[6].clone(), 2.0)?.forward(&o[0])
    };
    compare("adapters", &shapes, &adapted);
    // By the formula: the adapters as an addition to the weight.
    let merged = |o: &[Tensor]| {
        let first = (o[4].matmul(&o[3])? * 0.5)?.pad_with_zeros(0, 8, 8)?;
        let second = (o[6].matmul(&o[5])? * 2.0)?.pad_with_zeros(0, 16, 0)?;
        Linear::new((&o[1] + first + second)?, Some(o[2].clone())).forward(&o[0])
    };
    let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
    let (expected, gradients) = run(DType::F64, &operands, &[], false, &merged);
    let (found, slopes) = run(DType::F32, &operands, &[], true, &adapted);
    close("merged", &found, &expected);
    for (slope, expected) in slopes.iter().zip(gradients) {
        close("merged", slope.as_ref().unwrap(), &expected.unwrap());
    }
    let map = || Linear::new(operands[1].clone(), None);
    assert!(map().with_adapter(operands[3].clone(), operands[4].clone(), 1.0).is_err(), "8 outputs of 24");
    assert!(map().with_adapter_on(20..28, operands[3].clone(), operands[4].clone(), 1.0).is_err(), "outputs beyond");
}

#[test]
fn norms_and_activations_equal_their_twins() {
    for shape in [&[1, 5][..], &[3, 16], &[2, 3, 33], &[70, 8]] {
        let width = shape[shape.len() - 1];
        let norm = |o: &[Tensor]| LayerNorm::new(o[1].clone(), o[2].clone(), 1e-5).forward(&o[0]);
        compare("layer norm", &[shape, &[width], &[width]], &norm);
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            compare(activation.as_str(), &[shape], &|o: &[Tensor]| activation.forward(&(&o[0] * 3.0)?));
        }
    }
}

/// Padding of texts, different from row to row.
fn padding(batch: usize, tokens: usize, dtype: DType) -> AttentionMask {
    let present: Vec<Vec<bool>> =
        (0..batch).map(|row| (0..tokens).map(|at| at == 0 || at + row < tokens).collect()).collect();
    AttentionMask::causal_with_padding(&present, dtype, &Device::Cpu).unwrap()
}

#[test]
fn attention_equals_its_twin() {
    for (batch, tokens, heads, head_width) in [(2, 1, 1, 3), (3, 7, 2, 5), (2, 20, 3, 16)] {
        let width = heads * head_width;
        for kind in 0..4 {
            let attend = |o: &[Tensor]| {
                let mask = match kind {
                    0 => AttentionMask::Full,
                    1 => AttentionMask::Causal,
                    2 => padding(batch, tokens, o[0].dtype()),
                    // From head to head another, which the kernels don't do.
                    _ => AttentionMask::Additive(numbers(&[1, heads, tokens, tokens], 9).to_dtype(o[0].dtype())?),
                };
                let qkv = Linear::new(o[1].clone(), Some(o[2].clone()));
                SelfAttention::new(qkv, Linear::new(o[3].clone(), None), heads).forward(&o[0], &mask)
            };
            let shapes: [&[usize]; 4] = [&[batch, tokens, width], &[3 * width, width], &[3 * width], &[width, width]];
            compare(&format!("attention, mask {kind}"), &shapes, &attend);
        }
    }
}

const WIDTH: usize = 12;
const HIDDEN: usize = 20;
const HEADS: usize = 3;

/// A block of these parameters, in the order of [`block_shapes`], with adapters where there are more.
fn block_of(o: &[Tensor], activation: Activation, biased: bool) -> Result<TransformerBlock> {
    let map = |at: usize| Linear::new(o[at].clone(), biased.then(|| o[at + 1].clone()));
    let (mut qkv, mut fc1, mut fc2) = (map(2), map(8), map(10));
    if let [a, b, c, d, e, f] = &o[12..] {
        qkv = qkv.with_adapter_on(2 * WIDTH..3 * WIDTH, a.clone(), b.clone(), 0.5)?;
        fc1 = fc1.with_adapter(c.clone(), d.clone(), 0.25)?;
        fc2 = fc2.with_adapter(e.clone(), f.clone(), 2.0)?;
    }
    Ok(TransformerBlock {
        norm1: LayerNorm::new(o[0].clone(), o[1].clone(), 1e-5),
        attention: SelfAttention::new(qkv, map(4), HEADS),
        scale1: None,
        norm2: LayerNorm::new(o[6].clone(), o[7].clone(), 1e-5),
        mlp: Mlp { fc1, activation, fc2 },
        scale2: None,
    })
}

fn block_shapes(adapted: bool) -> Vec<Vec<usize>> {
    let mut shapes = vec![
        vec![WIDTH],
        vec![WIDTH],
        vec![3 * WIDTH, WIDTH],
        vec![3 * WIDTH],
        vec![WIDTH, WIDTH],
        vec![WIDTH],
        vec![WIDTH],
        vec![WIDTH],
        vec![HIDDEN, WIDTH],
        vec![HIDDEN],
        vec![WIDTH, HIDDEN],
        vec![WIDTH],
    ];
    if adapted {
        let ranks = [(2, WIDTH, WIDTH), (3, WIDTH, HIDDEN), (4, HIDDEN, WIDTH)];
        shapes.extend(ranks.into_iter().flat_map(|(rank, inner, out)| [vec![rank, inner], vec![out, rank]]));
    }
    shapes
}

#[test]
fn blocks_equal_their_twins() {
    for (batch, tokens) in [(1, 1), (2, 7), (3, 18)] {
        for (adapted, activation) in [(false, Activation::QuickGelu), (true, Activation::Gelu)] {
            for kind in 0..3 {
                let work = |o: &[Tensor]| {
                    let mask = match kind {
                        0 => AttentionMask::Full,
                        1 => AttentionMask::Causal,
                        _ => padding(batch, tokens, o[0].dtype()),
                    };
                    block_of(&o[1..], activation, true)?.forward(&o[0], &mask)
                };
                let mut shapes = vec![vec![batch, tokens, WIDTH]];
                shapes.extend(block_shapes(adapted));
                let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
                compare(&format!("block of {batch} x {tokens}, mask {kind}, adapters {adapted}"), &shapes, &work);
            }
        }
    }
}

#[test]
fn blocks_without_biases_and_of_computed_parameters_equal_their_twins() {
    let mut shapes = vec![vec![2, 5, WIDTH]];
    shapes.extend(block_shapes(false));
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    // Parameters that are results themselves get their gradients on the way, and two blocks share theirs.
    let work = |o: &[Tensor]| {
        let computed: Vec<Tensor> = o[1..].iter().map(|x| x * 0.5).collect::<Result<_>>()?;
        let block = block_of(&computed, Activation::GeluTanh, true)?;
        let plain = block_of(&o[1..], Activation::GeluTanh, true)?;
        let x = block.forward(&o[0], &AttentionMask::Full)?;
        forward_blocks(&[block, plain.clone(), plain], &x, &AttentionMask::Causal)
    };
    compare("shared block", &shapes, &work);
    let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
    let work = |o: &[Tensor]| block_of(&o[1..], Activation::GeluTanh, false)?.forward(&o[0], &AttentionMask::Full);
    let (expected, gradients) = run(DType::F64, &operands, &[], false, &work);
    let (found, slopes) = run(DType::F32, &operands, &[], true, &work);
    close("block without biases", &found, &expected);
    for (slope, expected) in slopes.iter().zip(&gradients) {
        assert_eq!(slope.is_some(), expected.is_some());
        if let (Some(slope), Some(expected)) = (slope, expected) {
            close("block without biases", slope, expected);
        }
    }
}

#[test]
fn a_large_block_goes_through_in_parts_with_the_same_result() {
    // More rows than are worked on at a time.
    let shape = [70, 33, WIDTH];
    let mut shapes = vec![shape.to_vec()];
    shapes.extend(block_shapes(true));
    let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
    let work = |o: &[Tensor]| block_of(&o[1..], Activation::Gelu, true)?.forward(&o[0], &AttentionMask::Causal);
    let (expected, gradients) = run(DType::F64, &operands, &[], false, &work);
    let (found, slopes) = run(DType::F32, &operands, &[], true, &work);
    close("large block", &found, &expected);
    for (slope, expected) in slopes.iter().zip(gradients) {
        close("large block", slope.as_ref().unwrap(), &expected.unwrap());
    }
    let inference: Vec<Tensor> = operands.iter().map(|x| x.to_dtype(DType::F32).unwrap()).collect();
    let alone = work(&inference).unwrap();
    assert!(!alone.track_op());
    assert_eq!(flat(&alone), flat(&found), "nothing that is trained changes nothing");
}

#[test]
fn a_run_of_blocks_goes_back_no_further_than_is_needed() {
    let operands: Vec<Tensor> =
        block_shapes(false).iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
    let x = numbers(&[2, 6, WIDTH], 50);
    // Of three blocks, the parameters of one are variables.
    for trained in 0..3 {
        let run = |dtype: DType, together: bool| {
            let variables: Vec<Var> =
                operands.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap()).collect();
            let block = |number: usize| {
                let parameter = |variable: &Var| {
                    if number == trained { variable.as_tensor().clone() } else { variable.as_tensor().detach() }
                };
                block_of(&variables.iter().map(parameter).collect::<Vec<_>>(), Activation::Gelu, true).unwrap()
            };
            let blocks = [block(0), block(1), block(2)];
            let x = x.to_dtype(dtype).unwrap();
            let y = if together {
                forward_blocks(&blocks, &x, &AttentionMask::Causal).unwrap()
            } else {
                blocks.iter().fold(x, |x, block| block.forward(&x, &AttentionMask::Causal).unwrap())
            };
            let store = backward(&y.sqr().unwrap().sum_all().unwrap()).unwrap();
            variables.iter().map(|variable| store.get(variable).unwrap().clone()).collect::<Vec<_>>()
        };
        let expected = run(DType::F64, false);
        for together in [false, true] {
            for (at, (found, expected)) in run(DType::F32, together).iter().zip(&expected).enumerate() {
                close(&format!("block {trained} of three, {at}, together {together}"), found, expected);
            }
        }
    }
}

#[test]
fn a_second_backward_pass_gives_the_same() {
    let x = Var::from_tensor(&numbers(&[2, 5, WIDTH], 1).to_dtype(DType::F32).unwrap()).unwrap();
    let parameters: Vec<Tensor> = block_shapes(false)
        .iter()
        .enumerate()
        .map(|(at, shape)| Var::from_tensor(&numbers(shape, at).to_dtype(DType::F32).unwrap()).unwrap().into_inner())
        .collect();
    let block = block_of(&parameters, Activation::Gelu, true).unwrap();
    let loss = block.forward(&x, &AttentionMask::Full).unwrap().sqr().unwrap().sum_all().unwrap();
    let (first, second, third) = (loss.backward().unwrap(), backward(&loss).unwrap(), loss.backward().unwrap());
    for parameter in parameters.iter().chain([x.as_tensor()]) {
        let [first, second, third] = [&first, &second, &third].map(|store| flat(store.get(parameter).unwrap()));
        assert_eq!(first, second);
        assert_eq!(first, third);
    }
}

#[test]
fn rows_and_tokens_equal_their_twins() {
    let rows = [3, 0, 3, 6, 5, 3];
    compare("rows", &[&[7, 5]], &|o: &[Tensor]| take_rows(&o[0], &rows, &[2, 3]));
    let kept = [0, 2, 4, 0, 1, 4];
    compare("tokens", &[&[2, 5, 3]], &|o: &[Tensor]| take_tokens(&(&o[0] * 2.0)?, &kept));
    let table = numbers(&[7, 5], 1).to_dtype(DType::F32).unwrap();
    assert!(take_rows(&table, &[7], &[1]).unwrap_err().to_string().contains("row 7 of a table of 7"));
    assert!(take_rows(&table, &[1, 2], &[3]).is_err());
    let x = numbers(&[2, 5, 3], 1);
    assert!(take_tokens(&x, &[0, 5]).unwrap_err().to_string().contains("position 5"));
    assert!(take_tokens(&x, &[0, 1, 2]).is_err());
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let f32s = |shape: &[usize]| numbers(shape, 1).to_dtype(DType::F32).unwrap();
    let x = f32s(&[2, 3, 4]);
    let error = Linear::new(f32s(&[5, 7]), None).forward(&x).unwrap_err().to_string();
    assert!(error.contains("a map from 7 elements meets a tensor of shape [2, 3, 4]"), "{error}");
    let error = LayerNorm::new(f32s(&[5]), f32s(&[5]), 1e-5).forward(&x).unwrap_err().to_string();
    assert!(error.contains("a norm of 5"), "{error}");
    let mut shapes = block_shapes(false);
    shapes[8] = vec![HIDDEN, WIDTH + 1];
    let parameters: Vec<Tensor> = shapes.iter().map(|shape| f32s(shape)).collect();
    let block = block_of(&parameters, Activation::Gelu, true).unwrap();
    let error = block.forward(&f32s(&[2, 3, WIDTH]), &AttentionMask::Full).unwrap_err().to_string();
    assert!(error.contains("mlp.fc1.weight of shape [20, 13], expected [20, 12]"), "{error}");
}

#[test]
fn pooled_blocks_equal_a_row_of_the_whole() {
    let (batch, tokens) = (3, 7);
    let at = [6, 0, 3];
    let mut shapes = vec![vec![batch, tokens, WIDTH]];
    shapes.extend(block_shapes(true));
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    for kind in 0..3 {
        let mask = |dtype| match kind {
            0 => AttentionMask::Full,
            1 => AttentionMask::Causal,
            _ => padding(batch, tokens, dtype),
        };
        let pooled =
            |o: &[Tensor]| block_of(&o[1..], Activation::Gelu, true)?.forward_pooled(&o[0], &at, &mask(o[0].dtype()));
        compare(&format!("pooled block, mask {kind}"), &shapes, &pooled);
        let whole = |o: &[Tensor]| {
            let y = block_of(&o[1..], Activation::Gelu, true)?.forward(&o[0], &mask(o[0].dtype()))?;
            take_tokens(&y, &at)?.reshape((batch, WIDTH))
        };
        let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(at, shape)| numbers(shape, at + 1)).collect();
        let (expected, gradients) = run(DType::F64, &operands, &[], false, &whole);
        let (found, slopes) = run(DType::F32, &operands, &[], true, &pooled);
        close("pooled against whole", &found, &expected);
        for (slope, expected) in slopes.iter().zip(gradients) {
            close("pooled against whole", slope.as_ref().unwrap(), &expected.unwrap());
        }
    }
}

#[test]
fn first_tensors_of_towers_equal_their_twins() {
    let shapes: [&[usize]; 3] = [&[2, 6, 5], &[5], &[7, 5]];
    compare("tokens of a picture", &shapes, &|o: &[Tensor]| assemble_tokens(&o[0], &o[1], &o[2], None));
    let kept = [3, 0, 5, 2, 1, 5];
    let shapes: [&[usize]; 3] = [&[2, 3, 5], &[1, 1, 5], &[7, 5]];
    compare("kept tokens of a picture", &shapes, &|o: &[Tensor]| assemble_tokens(&o[0], &o[1], &o[2], Some(&kept)));
    let ids = [vec![1, 4, 1, 0], vec![8, 1, 3, 3]];
    let shapes: [&[usize]; 2] = [&[9, 5], &[6, 5]];
    compare("tokens of a text", &shapes, &|o: &[Tensor]| embed_tokens(&o[0], &o[1], &ids));
    let o: Vec<Tensor> = [[2, 3, 5], [1, 1, 5]].iter().map(|shape| numbers(shape, 1)).collect();
    let positions = numbers(&[7, 5], 2);
    let beyond = assemble_tokens(&o[0], &o[1], &positions, Some(&[0, 1, 2, 3, 4, 6])).unwrap_err().to_string();
    assert!(beyond.contains("patch 6 of 6"), "{beyond}");
    assert!(assemble_tokens(&o[0], &o[1], &positions, None).is_err());
    let table = numbers(&[9, 5], 1);
    for (ids, reason) in [
        (vec![vec![9]], "token id 9 of a vocabulary of 9"),
        (vec![vec![1], vec![1, 2]], "1 and 2 tokens"),
        (vec![vec![0; 8]], "the context holds 7"),
    ] {
        let error = embed_tokens(&table, &positions, &ids).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Everything that a pair of towers is made of, from variables: none may be left without a gradient.
#[test]
fn every_variable_gets_a_gradient() {
    let mut variables = Vec::new();
    let mut variable = |name: &str, shape: &[usize]| {
        let values = numbers(shape, variables.len() + 1).to_dtype(DType::F32).unwrap();
        let variable = Var::from_tensor(&values).unwrap().into_inner();
        variables.push((name.to_owned(), variable.clone()));
        variable
    };
    let mut block = |name: &str| {
        let shapes = block_shapes(true);
        let parameters: Vec<Tensor> =
            shapes.iter().enumerate().map(|(at, shape)| variable(&format!("{name}.{at}"), shape)).collect();
        block_of(&parameters, Activation::QuickGelu, true).unwrap()
    };
    let blocks = [block("vision"), block("vision, pooled"), block("text"), block("text, pooled")];
    let patches = PatchEmbedding::new(&variable("patch", &[WIDTH, 3, 4, 4]), Some(variable("patch bias", &[WIDTH])));
    let (class, positions) = (variable("class", &[WIDTH]), variable("positions", &[5, WIDTH]));
    let (table, text_positions) = (variable("tokens", &[6, WIDTH]), variable("text positions", &[4, WIDTH]));
    let norm = LayerNorm::new(variable("norm", &[WIDTH]), variable("norm bias", &[WIDTH]), 1e-5);
    let projection = Linear::new(variable("projection", &[8, WIDTH]), None);
    let pixels = numbers(&[2, 3, 8, 8], 99).to_dtype(DType::F32).unwrap();
    let x = patches.unwrap().forward(&pixels).unwrap();
    let x = assemble_tokens(&x, &class, &positions, None).unwrap();
    let x = blocks[0].forward(&x, &AttentionMask::Full).unwrap();
    let image = blocks[1].forward_pooled(&x, &[0, 0], &AttentionMask::Full).unwrap();
    let x = embed_tokens(&table, &text_positions, &[vec![0, 1, 2, 3], vec![4, 5, 0, 1]]).unwrap();
    let x = blocks[2].forward(&x, &AttentionMask::Causal).unwrap();
    let text = blocks[3].forward_pooled(&x, &[3, 3], &AttentionMask::Causal).unwrap();
    let [image, text] = [image, text].map(|x| projection.forward(&norm.forward(&x).unwrap()).unwrap());
    let [image, text] = [image, text].map(|x| crate::l2_normalise(&x).unwrap());
    let loss = image.matmul(&text.t().unwrap()).unwrap().sqr().unwrap().sum_all().unwrap();
    for store in [loss.backward().unwrap(), backward(&loss).unwrap()] {
        for (name, variable) in &variables {
            let gradient = store.get(variable).unwrap_or_else(|| panic!("{name} gets no gradient"));
            // Adding the same to all keys of a head changes no softmax: their bias alone has none.
            let values = flat(gradient);
            assert!(values.iter().any(|x| x.abs() > 1e-9), "{name} gets a gradient of zeros");
            assert!(values.iter().all(|x| x.is_finite()), "{name}: {values:?}");
        }
    }
}
