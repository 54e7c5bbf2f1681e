//! Token ids against the reference implementations: awkward texts with the full CLIP vocabulary, and the tiny models' own.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use crossmodal_models::config::OpenClipTokenizer;
use crossmodal_models::source::{Located, ModelName, resolve};
use crossmodal_models::tokenizer::{Kept, Tokenizer};
use crossmodal_models::{ErrorKind, LoadOptions};
use safetensors::SafeTensors;
use serde_json::Value;

const CLIP_SIZE: usize = 49_408;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

fn located(path: &Path) -> Located {
    resolve(&ModelName::Path { path: path.to_path_buf(), layout: None }, &LoadOptions::default()).unwrap()
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

fn texts(folder: &str) -> Vec<String> {
    serde_json::from_value(json(golden(folder).join("golden.json"))["texts"].clone()).unwrap()
}

/// An integer tensor of the golden file, flat.
fn integers(folder: &str, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(golden(folder).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    data.chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn assert_ids(tokenizer: &Tokenizer, folder: &str, name: &str) {
    let expected = integers(folder, name);
    let context = tokenizer.context_length();
    let texts = texts(folder);
    assert_eq!(expected.len(), texts.len() * context);
    for (text, row) in texts.iter().zip(expected.chunks(context)) {
        let ids = tokenizer.padded(&tokenizer.encode(text).unwrap().ids, context);
        assert_eq!(ids.into_iter().map(i64::from).collect::<Vec<_>>(), row, "{folder}: {text:?}");
    }
}

fn assert_lengths(tokenizer: &Tokenizer, name: &str) {
    for (text, length) in texts("clip-bpe").iter().zip(integers("clip-bpe", name)) {
        let encoded = tokenizer.encode(text).unwrap();
        assert_eq!(encoded.full_length as i64, length, "{text:?}");
        assert_eq!(encoded.truncated, length > 77, "{text:?}");
    }
}

fn clip_merges() -> String {
    let packed = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/clip_merges.txt.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut text).unwrap();
    text
}

/// The characters that stand for bytes, in the order of their tokens.
fn byte_symbols() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let symbols =
        (0..256).filter(printable).chain((0..256).filter(|byte| !printable(byte)).zip(256..).map(|(_, code)| code));
    symbols.map(|code| char::from_u32(code).unwrap()).collect()
}

/// Hugging Face files with the full CLIP vocabulary, as the oldest repositories have them.
fn clip_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let merges = clip_merges();
    let mut tokens: Vec<String> = byte_symbols().into_iter().map(String::from).collect();
    tokens.extend(byte_symbols().into_iter().map(|symbol| format!("{symbol}</w>")));
    tokens.extend(merges.lines().skip(1).map(|line| line.replace(' ', "")));
    tokens.extend(["<|startoftext|>", "<|endoftext|>"].map(String::from));
    let vocab: HashMap<String, usize> = tokens.into_iter().zip(0..).collect();
    assert_eq!(vocab.len(), CLIP_SIZE);
    std::fs::write(folder.path().join("vocab.json"), serde_json::to_vec(&vocab).unwrap()).unwrap();
    let lines = merges.lines().skip(1).collect::<Vec<_>>().join("\n");
    std::fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{lines}\n")).unwrap();
    folder
}

#[test]
fn open_clip_ids_of_awkward_texts() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer =
        Tokenizer::open_clip(&located(folder.path()), &OpenClipTokenizer::default(), 77, CLIP_SIZE).unwrap();
    assert_eq!(tokenizer.pad_id(), 0);
    assert_ids(&tokenizer, "clip-bpe", "open_clip/input_ids");
    assert_lengths(&tokenizer, "open_clip/lengths_before_truncation");
}

#[test]
fn hugging_face_ids_of_awkward_texts() {
    let folder = clip_folder();
    let tokenizer = Tokenizer::hugging_face(&located(folder.path()), 77, CLIP_SIZE).unwrap();
    assert_eq!(tokenizer.pad_id(), 49_407);
    assert_ids(&tokenizer, "clip-bpe", "hf/input_ids");
    assert_lengths(&tokenizer, "hf/lengths_before_truncation");
}

#[test]
fn hugging_face_models() {
    for folder in ["hf-clip/legacy-quick-gelu", "hf-clip/modern-gelu"] {
        let config = json(golden(folder).join("config.json"));
        let number = |field: &str| config["text_config"][field].as_u64().unwrap() as usize;
        let (context, size) = (number("max_position_embeddings"), number("vocab_size"));
        let tokenizer = Tokenizer::hugging_face(&located(&golden(folder)), context, size).unwrap();
        assert_ids(&tokenizer, folder, "text/input_ids");
    }
}

#[test]
fn open_clip_models() {
    for folder in ["open-clip/vit", "open-clip/vit-custom", "open-clip/vit-avgpool"] {
        let config = json(golden(folder).join("open_clip_config.json"));
        let number = |field: &str| config["model_cfg"]["text_cfg"][field].as_u64().unwrap() as usize;
        let (context, size) = (number("context_length"), number("vocab_size"));
        let files = located(&golden(folder));
        let tokenizer = Tokenizer::open_clip(&files, &OpenClipTokenizer::default(), context, size).unwrap();
        assert_ids(&tokenizer, folder, "text/input_ids");
    }
}

/// Without the packed list, `merges.txt` gives the same vocabulary.
#[test]
fn open_clip_reads_plain_merges() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("open-clip/vit").join("merges.txt"), folder.path().join("merges.txt")).unwrap();
    let tokenizer = Tokenizer::open_clip(&located(folder.path()), &OpenClipTokenizer::default(), 77, 914).unwrap();
    assert_ids(&tokenizer, "open-clip/vit", "text/input_ids");
}

/// `hf_tokenizer_name` switches to the Hugging Face files in the folder, with OpenCLIP's cleaning in front.
#[test]
fn open_clip_with_hugging_face_tokenizer() {
    let files = located(&golden("open-clip/vit"));
    let own = OpenClipTokenizer { hf_tokenizer_name: Some("local".into()), clean: None };
    let cleaned = Tokenizer::open_clip(&files, &own, 77, 914).unwrap();
    let plain = Tokenizer::hugging_face(&files, 77, 914).unwrap();
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text).unwrap().ids;
    assert_eq!(ids(&cleaned, "a &lt;b&gt; “cat”"), ids(&plain, "a <b> \"cat\""));
    assert_ne!(ids(&cleaned, "&lt;"), ids(&plain, "&lt;"));
    assert_eq!(cleaned.pad_id(), plain.pad_id());
}

#[test]
fn cleaning_modes() {
    let folder = tempfile::tempdir().unwrap();
    let ids = |clean: &str, text: &str| {
        let config = OpenClipTokenizer { hf_tokenizer_name: None, clean: Some(clean.into()) };
        Tokenizer::open_clip(&located(folder.path()), &config, 77, CLIP_SIZE).unwrap().encode(text).unwrap().ids
    };
    assert_eq!(ids("canonicalize", "A_Photo: of (cats)!"), ids("lower", "a photo of cats"));
    assert_eq!(ids("whitespace", " a \n b "), ids("lower", "a b"));
    assert_ne!(ids("whitespace", "A"), ids("lower", "A"));
    let config = OpenClipTokenizer { hf_tokenizer_name: None, clean: Some("upper".into()) };
    let error = Tokenizer::open_clip(&located(folder.path()), &config, 77, CLIP_SIZE).unwrap_err().to_string();
    assert!(error.contains("tokenizer_kwargs.clean") && error.contains("\"upper\""), "{error}");
}

/// Specials in the text count as specials, also `<|…|>` in another case when the files mark them as normalised.
#[test]
fn special_tokens_as_old_files_mark_them() {
    let folder = clip_folder();
    let write = |name: &str, value: Value| std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    let token = |content: &str| serde_json::json!({"content": content, "normalized": true, "lstrip": false, "rstrip": false, "single_word": false});
    write("tokenizer_config.json", serde_json::json!({"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}));
    write(
        "special_tokens_map.json",
        serde_json::json!({"bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "unk_token": token("<|endoftext|>"), "pad_token": token("<|endoftext|>")}),
    );
    let tokenizer = Tokenizer::hugging_face(&located(folder.path()), 77, CLIP_SIZE).unwrap();
    assert_eq!(tokenizer.context_length(), 16, "model_max_length is shorter than the context");
    assert_eq!(tokenizer.encode("<|EndOfText|>").unwrap().ids, [49_406, 49_407, 49_407]);
    let long = tokenizer.encode(&"cat ".repeat(20)).unwrap();
    assert_eq!((long.ids.len(), long.ids[15], long.full_length, long.truncated), (16, 49_407, 22, true));
}

#[test]
fn a_vocabulary_that_is_too_large_is_refused() {
    let folder = clip_folder();
    let files = located(folder.path());
    let cases = [
        Tokenizer::hugging_face(&files, 77, 49_407),
        Tokenizer::open_clip(&located(tempfile::tempdir().unwrap().path()), &OpenClipTokenizer::default(), 77, 1000),
    ];
    for (result, size) in cases.into_iter().zip(["49407", "1000"]) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        let message = error.to_string();
        assert!(message.contains("49408") && message.contains(size) && message.contains("doesn't match"), "{message}");
    }
}

#[test]
fn the_built_in_model_has_a_tokenizer() {
    let files = resolve(&ModelName::Builtin, &LoadOptions::default()).unwrap();
    let tokenizer = Tokenizer::hugging_face(&files, 32, 6144).unwrap();
    let expected = json(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mini/expected.json"));
    let golden = expected["texts"].as_array().unwrap();
    assert!(!golden.is_empty());
    for case in golden {
        let ids = tokenizer.padded(&tokenizer.encode(case["text"].as_str().unwrap()).unwrap().ids, 32);
        assert_eq!(serde_json::json!(ids), case["input_ids"], "{case}");
    }
}

#[test]
fn a_very_long_word_is_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let simple = Tokenizer::open_clip(&located(folder.path()), &OpenClipTokenizer::default(), 77, CLIP_SIZE).unwrap();
    let folder = clip_folder();
    let hugging_face = Tokenizer::hugging_face(&located(folder.path()), 77, CLIP_SIZE).unwrap();
    for text in ["a".repeat(200_000), "é!".repeat(100_000), " ".repeat(200_000), "&amp;".repeat(40_000)] {
        for tokenizer in [&simple, &hugging_face] {
            assert!(tokenizer.encode(&text).unwrap().ids.len() <= 77);
        }
    }
}

/// Both kinds of tokenizer with the full vocabulary, and the golden ids of each.
fn clip_tokenizers() -> [(Tokenizer, Vec<i64>); 2] {
    let empty = tempfile::tempdir().unwrap();
    let simple = Tokenizer::open_clip(&located(empty.path()), &OpenClipTokenizer::default(), 77, CLIP_SIZE).unwrap();
    let hugging_face = Tokenizer::hugging_face(&located(clip_folder().path()), 77, CLIP_SIZE).unwrap();
    [(simple, integers("clip-bpe", "open_clip/input_ids")), (hugging_face, integers("clip-bpe", "hf/input_ids"))]
}

#[test]
fn a_text_taken_apart_has_the_golden_ids() {
    for (tokenizer, expected) in clip_tokenizers() {
        for (text, row) in texts("clip-bpe").iter().zip(expected.chunks(77)) {
            let (parts, encoded) = (tokenizer.tokenize(text).unwrap(), tokenizer.encode(text).unwrap());
            assert_eq!((parts.limit, parts.tokens.len()), (77, encoded.full_length), "{text:?}");
            assert_eq!(parts.truncated(), encoded.truncated);
            let shortened = parts.shortened(77, Kept::Beginning).unwrap();
            let own = shortened[1..shortened.len() - 1].to_vec();
            // A begin token written out makes ids look complete.
            let given = if own.first() == Some(&49_406) { shortened } else { own };
            let ids = tokenizer.padded(&tokenizer.complete(&given).unwrap(), 77);
            assert_eq!(ids.into_iter().map(i64::from).collect::<Vec<_>>(), row, "{text:?}");
            let special: Vec<bool> = parts.tokens.iter().map(|token| token.special).collect();
            assert_eq!(special.iter().filter(|special| **special).count(), 2, "{text:?}");
            assert!(special[0] && special[special.len() - 1]);
        }
    }
}

#[test]
fn ids_that_begin_with_the_begin_token_are_complete() {
    for (tokenizer, expected) in clip_tokenizers() {
        for row in expected.chunks(77) {
            // As a reference tokenizer gives them: with padding.
            let row: Vec<u32> = row.iter().map(|id| u32::try_from(*id).unwrap()).collect();
            assert_eq!(tokenizer.complete(&row).unwrap(), row);
        }
        let (begin, end) = (49_406, 49_407);
        assert_eq!(tokenizer.complete(&[]).unwrap(), [begin, end], "an empty text");
        assert_eq!(tokenizer.complete(&[320]).unwrap(), [begin, 320, end]);
        assert_eq!(tokenizer.complete(&[begin, 320]).unwrap(), [begin, 320, end]);
        assert_eq!(tokenizer.complete(&[begin, 320, end]).unwrap(), [begin, 320, end]);
        assert_eq!(tokenizer.complete(&[320; 75]).unwrap().len(), 77);
        let error = tokenizer.complete(&[320; 76]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(
            error.to_string().contains("76 token ids, 78 with begin and end tokens, but the model reads at most 77")
        );
        let error = tokenizer.complete(&[begin; 78]).unwrap_err().to_string();
        assert!(error.contains("78 token ids"), "{error}");
    }
}

#[test]
fn tokens_know_their_part_of_the_text() {
    let [(simple, _), (hugging_face, _)] = clip_tokenizers();
    let written = |tokenizer: &Tokenizer, text: &str| {
        let tokens = tokenizer.tokenize(text).unwrap().tokens;
        tokens.into_iter().map(|token| (token.text, token.bytes)).collect::<Vec<_>>()
    };
    let place = |text: &str, bytes| (text.to_string(), bytes);
    assert_eq!(
        written(&hugging_face, "Red  caf\u{e9}!"),
        [
            place("<|startoftext|>", None),
            place("Red", Some((0, 3))),
            place("caf\u{e9}", Some((5, 10))),
            place("!", Some((10, 11))),
            place("<|endoftext|>", None)
        ]
    );
    assert_eq!(
        written(&simple, "Red  caf\u{e9}!"),
        ["<start_of_text>", "red", "caf\u{e9}", "!", "<end_of_text>"].map(|text| place(text, None))
    );
    for text in texts("clip-bpe") {
        for token in hugging_face.tokenize(&text).unwrap().tokens {
            let Some((start, end)) = token.bytes else { continue };
            assert_eq!(String::from_utf8_lossy(&text.as_bytes()[start..end]), token.text, "{text:?}");
        }
    }
}

#[test]
fn tokenizers_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}
