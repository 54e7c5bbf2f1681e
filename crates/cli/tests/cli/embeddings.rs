//! `embed`, `similarity`, `classify`: formats, order, and numbers that agree with each other.

use crate::support::{Home, Run, assert_close, dot, drawing, noise, numbers, softmax};

const APPLE: &str = "1f34e.png";
const MOON: &str = "1f312.png";

fn home() -> Home {
    let home = Home::new();
    home.drawings("pics", &[APPLE, MOON]);
    home
}

fn embeddings(run: &Run) -> Vec<Vec<f64>> {
    run.json_lines().iter().map(|line| numbers(&line["embedding"])).collect()
}

#[test]
fn lines_come_in_the_order_of_the_arguments() {
    let home = home();
    let run = home.run_with_input(&format!("embed --text first pics/{APPLE} - --text last pics"), "one\n\ntwo ü\n");
    let lines = run.expect(0).json_lines();
    let inputs: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["input"].as_str().unwrap(), line["modality"].as_str().unwrap())).collect();
    let expected = [
        ("first", "text"),
        ("pics/1f34e.png", "image"),
        ("one", "text"),
        ("", "text"),
        ("two ü", "text"),
        ("last", "text"),
        ("pics/1f312.png", "image"),
        ("pics/1f34e.png", "image"),
    ];
    assert_eq!(inputs, expected);
    assert_eq!(lines[1]["embedding"], lines[7]["embedding"]);
}

#[test]
fn unit_vectors_unless_raw_ones_are_asked_for() {
    let home = home();
    let unit = embeddings(&home.run("embed --text moon pics").expect(0));
    let raw = embeddings(&home.run("embed --raw --text moon pics").expect(0));
    for (unit, raw) in unit.iter().zip(&raw) {
        let length = dot(raw, raw).sqrt();
        assert!((dot(unit, unit) - 1.0).abs() < 1e-5 && (length - 1.0).abs() > 1e-3);
        assert_close(unit, &raw.iter().map(|value| value / length).collect::<Vec<_>>(), 1e-6);
    }
}

#[test]
fn long_texts_are_cut_as_the_reference_does() {
    let run = Home::new().run_arguments(["embed", "--text", &"red apple ".repeat(500)]).expect(0);
    assert_eq!(embeddings(&run)[0].len(), 128);
}

#[test]
fn files_hold_the_same_numbers() {
    let home = home();
    let expected = embeddings(&home.run("embed --text moon pics").expect(0));
    home.run("embed --text moon pics --output e.npy").expect(0);
    home.run("embed --text moon pics --output e.safetensors -q").expect(0);
    let told = home.run("embed --text moon pics --output e.jsonl --json").expect(0).json();
    assert_eq!((told["rows"].as_u64(), told["dimension"].as_u64()), (Some(3), Some(128)));

    let npy = std::fs::read(home.path("e.npy")).unwrap();
    assert_eq!(&npy[..8], b"\x93NUMPY\x01\x00");
    let length = usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    let header = std::str::from_utf8(&npy[10..10 + length]).unwrap();
    assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 128), }");
    assert_rows(&npy[10 + length..], &expected);

    let bytes = std::fs::read(home.path("e.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let inputs = &metadata.metadata().as_ref().unwrap()["inputs"];
    assert_eq!(inputs, "[\"moon\",\"pics/1f312.png\",\"pics/1f34e.png\"]");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("embeddings").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[3, 128][..]));
    assert_rows(tensor.data(), &expected);

    let text = std::fs::read_to_string(home.path("e.jsonl")).unwrap();
    assert_eq!(text, home.run("embed --text moon pics").stdout);
    let files = home.path("").read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count();
    assert_eq!(files, 3, "temporary files are left");
}

fn assert_rows(data: &[u8], expected: &[Vec<f64>]) {
    let found: Vec<f64> = data.as_chunks::<4>().0.iter().map(|raw| f64::from(f32::from_le_bytes(*raw))).collect();
    assert_close(&found, &expected.concat(), 1e-7);
}

#[test]
fn a_failing_input_is_named_and_the_rest_goes_on() {
    let home = home();
    std::fs::write(home.path("broken.png"), b"no picture").unwrap();
    let run = home.run(&format!("embed --text moon broken.png missing.png pics/{APPLE}")).expect(1);
    assert_eq!(run.json_lines().len(), 2);
    assert!(
        run.stderr.contains("error: broken.png: ") && run.stderr.contains("error: missing.png: "),
        "{}",
        run.stderr
    );
    for name in ["e.npy", "e.safetensors"] {
        let run = home.run(&format!("embed --text moon broken.png --output {name}")).expect(1);
        assert!(run.stderr.contains("1 input failed") && !home.path(name).exists(), "{}", run.stderr);
    }
    home.run("embed --text moon broken.png --output e.jsonl").expect(1);
    assert_eq!(std::fs::read_to_string(home.path("e.jsonl")).unwrap().lines().count(), 1);
    let run = home.run("embed --text moon --output nowhere/e.npy").expect(1);
    assert!(run.stderr.contains("nowhere/e.npy"), "{}", run.stderr);
    home.run("embed - -").expect(2);
}

#[test]
fn similarities_and_probabilities_follow_from_the_embeddings() {
    let home = home();
    let texts = ["red apple", "moon", "smile"];
    let mut arguments = vec!["--text", "red apple", "--text", "moon", "--text", "smile", "pics", "--json"];
    let compared = home.run_arguments(std::iter::once("similarity").chain(arguments.clone())).expect(0).json();
    arguments.pop();
    let vectors = embeddings(&home.run_arguments(std::iter::once("embed").chain(arguments)).expect(0));
    let scale = home.run("model info mini --json").expect(0).json()["logits"]["scale"].as_f64().unwrap();
    let (words, pictures) = vectors.split_at(3);
    for (row, picture) in pictures.iter().enumerate() {
        let cosines: Vec<f64> = words.iter().map(|text| dot(picture, text)).collect();
        assert_close(&numbers(&compared["cosines"][row]), &cosines, 1e-5);
        assert_close(&numbers(&compared["probabilities"][row]), &softmax(&cosines, scale), 1e-3);
        assert_eq!(compared["rule"], "softmax");
    }
    // The same numbers as zero-shot classes, best first.
    let lines = home.run_arguments(["classify", "pics", "--labels", &texts.join(","), "--json"]).expect(0).json_lines();
    for (row, line) in lines.iter().enumerate() {
        let mut expected = numbers(&compared["probabilities"][row]);
        expected.sort_by(|a, b| b.total_cmp(a));
        let labels = line["labels"].as_array().unwrap();
        let found: Vec<f64> = labels.iter().map(|label| label["probability"].as_f64().unwrap()).collect();
        assert_close(&found, &expected, 1e-4);
    }
    assert_eq!(
        (lines[0]["path"].as_str(), lines[0]["labels"][0]["label"].as_str()),
        (Some("pics/1f312.png"), Some("moon"))
    );
    assert_eq!(lines[1]["labels"][0]["label"], "red apple");
    let text = home.run_arguments(["similarity", "--text", "moon", "pics"]).expect(0).stdout;
    assert!(text.contains("Cosines") && text.contains("pics/1f312.png") && text.contains("100.0 %"), "{text}");
}

#[test]
fn templates_are_averaged_as_directions() {
    let home = home();
    std::fs::write(home.path("labels.txt"), "red apple\n\nmoon\n").unwrap();
    let templates = ["--template", "a drawing of a {}", "--template", "the {} emoji"];
    let line = ["classify", "pics/1f312.png", "--labels-file", "labels.txt", "--json"];
    let found = home.run_arguments(line.iter().chain(&templates)).expect(0).json_lines();
    let prompts = ["a drawing of a red apple", "the red apple emoji", "a drawing of a moon", "the moon emoji"];
    let mut arguments = vec!["embed"];
    prompts.iter().for_each(|prompt| arguments.extend(["--text", prompt]));
    arguments.push("pics/1f312.png");
    let vectors = embeddings(&home.run_arguments(arguments).expect(0));
    let class = |pair: &[Vec<f64>]| -> f64 {
        let sum: Vec<f64> = pair[0].iter().zip(&pair[1]).map(|(a, b)| a + b).collect();
        dot(&sum, &vectors[4]) / dot(&sum, &sum).sqrt()
    };
    let scale = home.run("model info mini --json").json()["logits"]["scale"].as_f64().unwrap();
    let expected = softmax(&[class(&vectors[0..2]), class(&vectors[2..4])], scale);
    let moon = found[0]["labels"].as_array().unwrap().iter().find(|label| label["label"] == "moon").unwrap();
    assert_close(&[moon["probability"].as_f64().unwrap()], &expected[1..], 1e-4);
}

#[test]
fn classes_that_make_no_sense_are_refused() {
    let home = home();
    let cases = [("a,,b", "{}", "empty"), ("a,a", "{}", "twice"), ("a,b", "a photo", "{}")];
    for (labels, template, expected) in cases {
        let run = home.run_arguments(["classify", "pics", "--labels", labels, "--template", template]).expect(1);
        assert!(run.stderr.contains(expected), "{}", run.stderr);
    }
    let picture = drawing(MOON);
    let run = home
        .run_arguments(["classify", "missing.png", picture.to_str().unwrap(), "--labels", "moon,sun", "--json"])
        .expect(1);
    assert!(run.json_lines().len() == 1 && run.stderr.contains("missing.png"), "{}", run.stderr);
    let text = home.run("classify pics --labels a,b,c,d,e,f,g").expect(0).stdout;
    assert_eq!(text.lines().count(), 12, "five labels and a heading for each picture:\n{text}");
}

#[test]
fn texts_that_are_cut_are_told() {
    let home = Home::new();
    let long = "apple ".repeat(100);
    let run = home.run_arguments(["embed", "--text", &long, "--text", "apple"]).expect(0);
    assert_eq!(run.json_lines().len(), 2);
    assert_eq!(run.stderr.matches("longer than the model reads").count(), 1, "{}", run.stderr);
}

/// A large JPEG of soft waves, and a drawing.
fn large_pictures() -> Home {
    let home = Home::new();
    home.drawings("pics", &[APPLE]);
    let mut waves = noise(1, 1024);
    for (at, byte) in waves[54..].iter_mut().enumerate() {
        let (x, y, channel) = (at / 3 % 1024, at / 3072, at % 3);
        let wave = 50.0 * ((x as f64 / 90.0).sin() + (y as f64 / 60.0 + channel as f64).cos());
        // A little of the noise stays.
        *byte = (wave + 120.0) as u8 + (*byte >> 5);
    }
    let jpeg = crossmodal_engine::media::thumbnail(&waves, 1024).unwrap();
    std::fs::write(home.path("pics/waves.jpg"), jpeg).unwrap();
    home
}

#[test]
fn fast_decoding_changes_large_jpegs_a_little_and_nothing_else() {
    let home = large_pictures();
    let run = |options: &str| embeddings(&home.run(&format!("embed pics{options}")).expect(0));
    let (exact, fast) = (run(""), run(" --decode fast"));
    assert_eq!(run(" --decode exact"), exact);
    // The drawing comes first.
    assert_eq!(exact[0], fast[0]);
    let cosine = dot(&exact[1], &fast[1]);
    assert!(exact[1] != fast[1] && cosine > 0.99, "cosine {cosine}");
    let from_environment = home.command().args(["embed", "pics"]).env("CROSSMODAL_DECODE", "fast").output().unwrap();
    assert_eq!(embeddings(&from_environment.into()), fast);
    assert!(home.run("embed pics --decode slow").expect(2).stderr.contains("[possible values: exact, fast]"));
}

#[test]
fn a_collection_embeds_again_what_was_decoded_otherwise() {
    let home = large_pictures();
    let index = |options: &str| {
        let report = home.run(&format!("index pics --collection c --json{options}")).expect(0).json();
        report["embedded"].as_u64().unwrap()
    };
    assert_eq!([index(""), index(""), index(" --decode exact"), index(" --decode fast")], [2, 0, 0, 2]);
}

#[test]
fn int8_changes_vectors_a_little() {
    let home = home();
    let embed = |options: &str| home.run(&format!("embed --text moon pics {options}")).expect(0);
    let (exact, quantised) = (embeddings(&embed("--precision fp32")), embeddings(&embed("--precision int8")));
    for (exact, quantised) in exact.iter().zip(&quantised) {
        let cosine = dot(exact, quantised);
        assert!((0.99..0.999_999).contains(&cosine), "{cosine}");
    }
    assert_eq!(embed("").stdout, embed("--precision fp32").stdout);
    assert!(home.run("model info mini --precision int8").expect(0).stdout.contains("int8"));
    let wrong = home.run("embed --text x --precision int4").expect(2);
    assert!(wrong.stderr.contains("int4") && wrong.stderr.contains("int8"), "{}", wrong.stderr);
}

#[test]
fn speed_is_measured_beside_what_the_machine_can_do() {
    let home = Home::new();
    let report = home.run("bench mini --modality image --batch 1,2 --seconds 1 --threads 1 --json").expect(0).json();
    assert_eq!((report["model"].as_str(), report["precision"].as_str()), (Some("mini"), Some("fp32")));
    assert_eq!(report["threads"], 1);
    assert!(report["peak_gflops"].as_f64().unwrap() > 0.1);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, batch) in results.iter().zip([1, 2]) {
        assert_eq!((result["modality"].as_str(), result["batch"].as_i64()), (Some("image"), Some(batch)));
        assert!(result.get("tokens").is_none());
        let [rate, p50, p95, share] =
            ["items_per_second", "p50_ms", "p95_ms", "share_of_peak"].map(|name| result[name].as_f64().unwrap());
        assert!(p50 <= p95 && share > 0.0 && (rate * p50 / 1e3 / batch as f64 - 1.0).abs() < 1e-6, "{result}");
    }
    let table = home.run("bench mini --modality text --batch 1 --tokens 8 --seconds 1").expect(0).stdout;
    assert!(["items/s", "GFLOP/s", "text"].iter().all(|part| table.contains(part)), "{table}");
    home.run("bench mini --batch 0").expect(2);
}
