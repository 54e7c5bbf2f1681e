//! Embedding, comparing, classifying: the numbers are those of the engine.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossmodal_engine::Input;
use serde_json::json;

use crate::support::{APPLE, LEMON, Running, drawing, floats, mini, options};

#[test]
fn vectors_are_those_of_the_engine_in_every_form() {
    let server = Running::new(options());
    let inputs = [Input::text("red apple"), Input::image(drawing(APPLE))];
    let expected = mini().embed(&inputs).unwrap();
    let picture = STANDARD.encode(drawing(APPLE));
    let values = json!([{ "text": "red apple" }, { "image": format!("data:image/png;base64,{picture}") }]);
    let answer = server.post("/v1/embed", &json!({ "inputs": values })).expect(200);
    assert_eq!((answer["model"].as_str(), answer["dimension"].as_u64()), (Some("mini"), Some(128)));
    assert_eq!(answer["space"], mini().space().unwrap().to_string());
    assert!(answer["usage"]["tokens"].as_u64().unwrap() >= 3);
    for (found, expected) in answer["embeddings"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!(floats(&found["embedding"]), expected.unit);
    }
    let native = server.post("/v1/embed", &json!({ "inputs": values, "normalize": false })).expect(200);
    assert_eq!(floats(&native["embeddings"][1]["embedding"]), expected[1].native);
    let coded = server.post("/v1/embed", &json!({ "inputs": values[1], "encoding_format": "base64" })).expect(200);
    let bytes = STANDARD.decode(coded["embeddings"][0]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f32> = bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
    assert_eq!(decoded, expected[1].unit);
    let form = server.form("/v1/embed", &[("text", None, b"red apple"), ("image", Some("a.png"), drawing(APPLE))]);
    assert_eq!(form.expect(200)["embeddings"], answer["embeddings"]);
}

#[test]
fn bad_inputs_are_named_and_harm_nobody() {
    let server = Running::new(options());
    let refused = |body| server.post("/v1/embed", &body);
    for (body, status, code, says) in [
        (json!({ "inputs": [] }), 400, "invalid_request", "no inputs"),
        (json!({ "inputs": [{ "text": "a" }, { "image": "aGVsbG8=" }] }), 400, "invalid_input", "input 1"),
        (json!({ "inputs": { "image": "%%" } }), 400, "invalid_input", "base64"),
        (json!({ "inputs": { "audio": "aGVsbG8=" } }), 400, "invalid_input", "text and image"),
        (json!({ "inputs": { "image": "http://127.0.0.1/a.png" } }), 403, "forbidden", "--allow-fetch"),
        (json!({ "inputs": { "text": "a" }, "model": "other" }), 404, "not_found", "other"),
        (json!({ "inputs": { "text": "a" }, "modle": "mini" }), 400, "invalid_request", "modle"),
        (json!({ "inputs": vec![json!({ "text": "a" }); 101] }), 413, "too_large", "101"),
        (json!({ "inputs": { "text": "a".repeat(2_000_000) } }), 413, "too_large", "2000000"),
    ] {
        let message = refused(body).refused(status, code);
        assert!(message.contains(says), "{message}");
    }
    let form = server.form("/v1/embed", &[("taxt", None, b"a")]);
    assert!(form.refused(400, "invalid_request").contains("taxt"));
    server.post("/v1/embed", &json!({ "inputs": { "text": "still there" } })).expect(200);
}

#[test]
fn pictures_and_texts_compare_as_the_model_defines_it() {
    let server = Running::new(options());
    let pictures = [Input::image(drawing(APPLE)), Input::image(drawing(LEMON))];
    let texts = [Input::text("red apple"), Input::text("lemon")];
    let expected = crossmodal_engine::similarity(mini().as_ref(), &pictures, &texts).unwrap();
    let coded = [APPLE, LEMON].map(|name| json!({ "image": STANDARD.encode(drawing(name)) }));
    let words = json!([{ "text": "red apple" }, { "text": "lemon" }]);
    let answer = server.post("/v1/similarity", &json!({ "rows": coded, "columns": words })).expect(200);
    for row in 0..2 {
        assert_eq!(floats(&answer["cosines"][row]), expected.cosines[row]);
        assert_eq!(floats(&answer["logits"][row]), expected.logits.as_ref().unwrap()[row]);
        assert_eq!(floats(&answer["probabilities"][row]), expected.probabilities.as_ref().unwrap()[row]);
    }
    let answer = server.post("/v1/similarity", &json!({ "rows": words, "columns": words })).expect(200);
    assert!(answer.get("logits").is_none() && (answer["cosines"][0][0].as_f64().unwrap() - 1.0).abs() < 1e-6);
    server.post("/v1/similarity", &json!({ "rows": [], "columns": words })).refused(400, "invalid_request");
}

#[test]
fn labels_come_best_first_and_twice_the_same() {
    let server = Running::new(options());
    let body = json!({
        "inputs": [{ "image": STANDARD.encode(drawing(APPLE)) }, { "image": STANDARD.encode(drawing(LEMON)) }],
        "labels": ["lemon", "red apple", "dog face"], "templates": ["a drawing of {}", "{}"],
    });
    let first = server.post("/v1/classify", &body).expect(200);
    let best = |index: usize| first["results"][index]["predictions"][0]["label"].as_str().unwrap().to_string();
    assert_eq!((best(0), best(1)), ("red apple".into(), "lemon".into()));
    let total: f64 = (0..3).map(|p| first["results"][0]["predictions"][p]["probability"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-5);
    assert_eq!(server.post("/v1/classify", &body).expect(200), first);
    let form = [
        ("image", Some("a.png"), drawing(APPLE)),
        ("label", None, &b"lemon"[..]),
        ("label", None, b"red apple"),
        ("label", None, b"dog face"),
        ("template", None, b"a drawing of {}"),
        ("template", None, b"{}"),
    ];
    assert_eq!(server.form("/v1/classify", &form).expect(200)["results"][0], first["results"][0]);
    let repeated = json!({ "inputs": { "text": "a" }, "labels": ["x", "x"] });
    assert!(server.post("/v1/classify", &repeated).refused(400, "invalid_input").contains("given twice"));
    let without_place = json!({ "inputs": { "text": "a" }, "labels": ["x"], "templates": ["y"] });
    server.post("/v1/classify", &without_place).refused(400, "invalid_input");
}

#[test]
fn the_plain_endpoints_answer_exactly_as_described() {
    let server = Running::new(options());
    let (text, picture) = (Input::text("red apple"), Input::image(drawing(APPLE)));
    let expected = mini().embed(&[text.clone(), picture.clone()]).unwrap();
    let answer = server.post("/embed/text", &json!({ "text": "red apple" })).expect(200);
    assert_eq!(answer.as_object().unwrap().len(), 1);
    assert_eq!(floats(&answer["embedding"][0]), expected[0].native);
    let answer = server.form("/embed/image", &[("file", Some("a.png"), drawing(APPLE))]).expect(200);
    assert_eq!(floats(&answer["embedding"][0]), expected[1].native);
    let logit = crossmodal_engine::similarity(mini().as_ref(), &[picture], &[text]).unwrap().logits.unwrap()[0][0];
    let forms: [&[u8]; 3] = [b"red apple", b"\"red apple\"", b"{\"text\": \"red apple\"}"];
    for text in forms {
        let parts = [("text", None, text), ("file", Some("a.png"), drawing(APPLE))];
        for (path, name) in [
            ("/similarity", "similarity"),
            ("/similarit%C3%A9", "similarité"),
            ("/similarit%c3%a9", "similarité"),
            ("/similarite%CC%81", "similarité"),
        ] {
            let answer = server.form(path, &parts).expect(200);
            assert_eq!(answer.as_object().unwrap().len(), 1);
            assert_eq!(answer[name].as_f64().unwrap() as f32, logit, "{path}");
        }
    }
    assert!(server.form("/similarity", &[("text", None, b"a")]).refused(400, "invalid_request").contains("file"));
    assert!(server.form("/embed/image", &[("image", None, b"a")]).refused(400, "invalid_request").contains("file"));
    server.form("/embed/image", &[("file", None, b"no picture")]).refused(400, "invalid_input");
}
