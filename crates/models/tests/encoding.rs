//! Batches: results that don't depend on what is computed together, in fp32 and int8, and inputs that can't be encoded.

use std::path::{Path, PathBuf};

use crossmodal_models::{CancelToken, ClipModel, Embedder, Error, Input, Kept, LoadOptions, Precision, load_clip};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn model(name: &str, precision: Precision) -> ClipModel {
    let cache = std::env::temp_dir().join("crossmodal-encoding-tests");
    let options = LoadOptions { precision: Some(precision), cache_dir: Some(cache), ..LoadOptions::default() };
    load_clip(name, &options).unwrap()
}

fn models(precision: Precision) -> Vec<ClipModel> {
    let golden = |name: &str| root().join("tests/golden").join(name).to_str().unwrap().to_string();
    ["mini".to_string(), golden("hf-clip/modern-gelu"), golden("open-clip/vit-custom"), golden("open-clip/vit-avgpool")]
        .iter()
        .map(|name| model(name, precision))
        .collect()
}

/// Prompts of a zero-shot classifier, some twice, in no order, and texts of all lengths.
fn texts() -> Vec<String> {
    let labels = ["apple", "red apple", "dog face", "crescent moon", "thumbs up", "x"];
    let templates = ["a photo of a {}.", "a photo of many {}.", "a drawing of the {}", "{}"];
    let mut texts: Vec<String> = templates
        .iter()
        .flat_map(|template| labels.iter().map(|label| template.replace("{}", label)))
        .chain((0..30).map(|words| "so many words ".repeat(words)))
        .collect();
    texts.extend_from_within(3..9);
    texts.reverse();
    texts.push(String::new());
    texts
}

fn pictures() -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root().join("samples/gallery")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "png"));
    paths.sort();
    paths.iter().take(23).map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn a_text_has_one_vector_whatever_it_is_embedded_with() {
    for precision in [Precision::Fp32, Precision::Int8] {
        for model in models(precision) {
            let texts = texts();
            let inputs: Vec<Input> = texts.iter().map(Input::text).collect();
            let together = model.embed(&inputs).unwrap();
            for (input, together) in inputs.iter().zip(&together) {
                let alone = model.embed(std::slice::from_ref(input)).unwrap().remove(0);
                assert_eq!(alone, *together, "{} {precision:?}: {:?}", model.info().name, input.content);
            }
        }
    }
}

#[test]
fn ids_give_the_vector_of_their_text() {
    for model in models(Precision::Fp32) {
        for text in texts() {
            let embedded = model.embed(&[Input::text(&text)]).unwrap().remove(0);
            let parts = model.tokenize(&text).unwrap().unwrap();
            let shortened = parts.shortened(parts.limit, Kept::Beginning).unwrap();
            let own = shortened[1..shortened.len() - 1].to_vec();
            let ids = model.tokenizer().encode(&text).unwrap().ids;
            let padded = model.tokenizer().padded(&ids, model.tokenizer().context_length());
            for ids in [own, ids, padded] {
                let same = model.embed(&[Input::tokens(ids)]).unwrap().remove(0);
                assert_eq!(same.unit, embedded.unit, "{}: {text:?}", model.info().name);
                assert!(!same.truncated);
            }
        }
    }
}

#[test]
fn ids_that_the_model_does_not_know_are_refused() {
    let model = model("mini", Precision::Fp32);
    let message = |ids: Vec<u32>| model.prepare(&Input::tokens(ids)).unwrap_err().to_string();
    assert!(message(vec![5, 6144]).contains("the token id 6144 is beyond the vocabulary of mini, which has 6144 ids"));
    assert!(message(vec![5; 31]).contains("31 token ids, 33 with begin and end tokens"));
    let picture = Input { modality: crossmodal_models::Modality::Image, ..Input::tokens([5]) };
    assert!(model.prepare(&picture).unwrap_err().to_string().contains("expected the bytes of an image file"));
}

#[test]
fn a_picture_has_one_vector_whatever_it_is_embedded_with() {
    for precision in [Precision::Fp32, Precision::Int8] {
        for model in models(precision) {
            let inputs: Vec<Input> = pictures().into_iter().map(Input::image).collect();
            let together = model.embed(&inputs).unwrap();
            for (input, together) in inputs.iter().zip(&together) {
                let alone = model.embed(std::slice::from_ref(input)).unwrap().remove(0);
                assert_eq!(alone, *together, "{} {precision:?}", model.info().name);
            }
        }
    }
}

#[test]
fn a_shared_beginning_is_that_of_the_plain_road() {
    // The differentiable layers know nothing of shared beginnings.
    let name = root().join("tests/golden/open-clip/vit");
    let options = LoadOptions { trainable: true, ..LoadOptions::default() };
    let plain = load_clip(name.to_str().unwrap(), &options).unwrap();
    let packed = model(name.to_str().unwrap(), Precision::Fp32);
    let mut inputs: Vec<Input> = texts().into_iter().map(Input::text).collect();
    // More than go through the layers at a time.
    inputs.extend(pictures().into_iter().cycle().take(70).map(Input::image));
    let (plain, packed) = (plain.embed(&inputs).unwrap(), packed.embed(&inputs).unwrap());
    assert_eq!((plain.len(), packed.len()), (inputs.len(), inputs.len()));
    for (plain, packed) in plain.iter().zip(&packed) {
        let gap = plain.unit.iter().zip(&packed.unit).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(gap < 1e-5, "unit vectors differ by {gap}");
    }
}

#[test]
fn int8_stays_near_fp32() {
    let (exact, quantised) = (model("mini", Precision::Fp32), model("mini", Precision::Int8));
    assert_eq!(exact.space().unwrap(), quantised.space().unwrap(), "one space in every precision");
    let mut inputs: Vec<Input> = pictures().into_iter().map(Input::image).collect();
    inputs.extend(texts().into_iter().map(Input::text));
    for input in &inputs {
        assert_ne!(exact.fingerprint(input), quantised.fingerprint(input));
    }
    let (exact, quantised) = (exact.embed(&inputs).unwrap(), quantised.embed(&inputs).unwrap());
    let cosines: Vec<f32> =
        exact.iter().zip(&quantised).map(|(a, b)| a.unit.iter().zip(&b.unit).map(|(a, b)| a * b).sum()).collect();
    let least = cosines.iter().copied().fold(1.0, f32::min);
    assert!(least >= 0.99, "a cosine of {least}");
    assert!(least < 0.999_999, "int8 makes no difference: it wasn't used");
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let model = model("mini", Precision::Fp32);
    let cancel = CancelToken::new();
    let message = |ids: Vec<u32>| model.encode_tokens(&[vec![1, 2], ids], &cancel).unwrap_err().to_string();
    assert!(message(Vec::new()).contains("a text of 0 tokens"));
    assert!(message(vec![1; 5000]).contains("a text of 5000 tokens"));
    assert!(message(vec![1, 4_000_000]).contains("token id 4000000"));
    assert!(model.encode_tokens(&[], &cancel).unwrap().is_empty());
    assert!(model.encode_pixels(&[], &cancel).unwrap().is_empty());
    let picture = model.prep().tensor(&pictures()[0]).unwrap();
    let tiny = crossmodal_models::media::PixelTensor { data: vec![0.0; 12], width: 2, height: 2 };
    let error = model.encode_pixels(&[picture.clone(), tiny], &cancel).unwrap_err();
    assert!(error.to_string().contains("smaller than a patch"), "{error}");
    let short = crossmodal_models::media::PixelTensor { data: vec![0.0; 12], ..picture.clone() };
    assert!(model.encode_pixels(&[short], &cancel).unwrap_err().to_string().contains("12 pixel values"));
    cancel.cancel();
    assert!(matches!(model.encode_pixels(&[picture], &cancel), Err(Error::Cancelled)));
    assert!(matches!(model.encode_tokens(&[vec![1]], &cancel), Err(Error::Cancelled)));
}
