//! The routes of other servers: what their clients send, what they read, and the errors that they know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossmodal_engine::{Embedding, Input, Kept};
use crossmodal_server::safety::keys::{Keys, Scopes};
use serde_json::{Value, json};

use crate::support::{APPLE, Answer, LEMON, Running, drawing, floats, mini, options};

const LONG: &str = "a red apple beside a yellow lemon on a wooden table in the morning light of a kitchen with large windows \
    and many other things that nobody would ever put into one sentence";

fn embedded(inputs: &[Input]) -> Vec<Embedding> {
    mini().embed(inputs).unwrap()
}

fn unit(input: Input) -> Vec<f32> {
    embedded(&[input]).remove(0).unit
}

fn picture(name: &str) -> Input {
    Input::image(drawing(name).to_vec())
}

fn data_uri(name: &str) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(drawing(name)))
}

/// Equal up to what batches may differ by in the last digit.
#[track_caller]
fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let gap = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap < 1e-6, "vectors differ by {gap}");
}

/// The vectors of an answer of `/v1/embeddings`, having checked what stands around them.
#[track_caller]
fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    let body = answer.expect(200);
    assert_eq!((body["object"].as_str(), body["model"].as_str()), (Some("list"), Some("mini")));
    assert_eq!(body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]);
    let objects = body["data"].as_array().unwrap().iter().enumerate();
    let vector = |(place, object): (usize, &Value)| {
        assert_eq!((object["object"].as_str(), object["index"].as_u64()), (Some("embedding"), Some(place as u64)));
        floats(&object["embedding"])
    };
    objects.map(vector).collect()
}

/// The error of an answer in OpenAI's form: its code and its parameter.
#[track_caller]
fn openai_error(answer: &Answer, status: u16) -> (String, Value) {
    let error = answer.expect(status)["error"].take();
    assert!(!error["message"].as_str().unwrap().is_empty() && error["type"].is_string(), "{error}");
    assert_eq!(error.as_object().unwrap().len(), 4, "{error}");
    (error["code"].as_str().unwrap().to_string(), error["param"].clone())
}

/// The type of an error in the form of text-embeddings-inference.
#[track_caller]
fn inference_error(answer: &Answer, status: u16) -> String {
    let error = answer.expect(status);
    assert!(error["error"].is_string() && error.as_object().unwrap().len() == 2, "{error}");
    error["error_type"].as_str().unwrap().to_string()
}

/// The message of an error in Cohere's form.
#[track_caller]
fn cohere_error(answer: &Answer, status: u16) -> String {
    let error = answer.expect(status);
    assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
    error["message"].as_str().unwrap().to_string()
}

#[test]
fn openai_takes_texts_and_token_ids() {
    let server = Running::new(options());
    let expected = embedded(&[Input::text("red apple"), Input::text("a dog")]);
    let ask = |input: Value| {
        vectors(&server.post("/v1/embeddings", &json!({ "model": "mini", "input": input, "user": "me" })))
    };
    assert_near(&ask(json!("red apple"))[0], &expected[0].unit);
    let both = ask(json!(["red apple", "a dog"]));
    assert_eq!(both.len(), 2);
    both.iter().zip(&expected).for_each(|(found, expected)| assert_near(found, &expected.unit));
    let parts = mini().tokenize("red apple").unwrap().unwrap();
    let bare = parts.text_ids();
    let whole: Vec<u32> = parts.tokens.iter().map(|token| token.id).collect();
    for input in [json!(bare), json!([bare]), json!([whole]), json!([bare, whole])] {
        ask(input).iter().for_each(|found| assert_near(found, &expected[0].unit));
    }
    let body = server.post("/embeddings", &json!({ "input": ["red apple"] })).expect(200);
    assert_eq!(body["usage"], json!({ "prompt_tokens": whole.len(), "total_tokens": whole.len() }));
}

#[test]
fn openai_writes_numbers_and_base64() {
    let server = Running::new(options());
    let expected = unit(Input::text("red apple"));
    let body =
        json!({ "input": "red apple", "encoding_format": "base64", "dimensions": expected.len(), "model": "mini" });
    let answer = server.post("/v1/embeddings", &body).expect(200);
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let numbers: Vec<f32> = bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert_near(&numbers, &expected);
    let same = server.post("/v1/embeddings", &json!({ "input": "red apple", "encoding_format": "float" }));
    assert_eq!(vectors(&same)[0], numbers, "the two forms are of one vector");
}

#[test]
fn pictures_as_jina_and_infinity_send_them() {
    let server = Running::new(options());
    let (apple, lemon, words) = (unit(picture(APPLE)), unit(picture(LEMON)), unit(Input::text("red apple")));
    let ask = |body: Value| vectors(&server.post("/v1/embeddings", &body));
    let mixed = json!([{ "text": "red apple" }, { "image": data_uri(APPLE) }, "red apple", { "image": STANDARD.encode(drawing(LEMON)) }]);
    let found = ask(json!({ "input": mixed, "embedding_type": "float", "normalized": true, "task": "text-matching" }));
    for (found, expected) in found.iter().zip([&words, &apple, &words, &lemon]) {
        assert_near(found, expected);
    }
    let body = json!({ "model": "default/not-specified", "modality": "image", "dimensions": 0, "input": [data_uri(APPLE), data_uri(LEMON)] });
    let found = ask(body);
    assert_near(&found[0], &apple);
    assert_near(&found[1], &lemon);
    assert_near(&ask(json!({ "modality": "image", "input": data_uri(LEMON) }))[0], &lemon);
    assert_near(&ask(json!({ "modality": "text", "input": "red apple" }))[0], &words);
    let usage =
        server.post("/v1/embeddings", &json!({ "modality": "image", "input": data_uri(LEMON) })).expect(200)["usage"]
            .take();
    assert_eq!(usage, json!({ "prompt_tokens": 0, "total_tokens": 0 }));
}

#[test]
fn openai_refuses_in_its_form() {
    let server = Running::new(options());
    let ask = |body: Value, status: u16| openai_error(&server.post("/v1/embeddings", &body), status);
    let told = |code: &str, field: Value| (code.to_string(), field);
    let (request, input) = ("invalid_request", "invalid_input");
    assert_eq!(ask(json!({ "input": "a", "model": "none" }), 404), told("not_found", json!("model")));
    assert_eq!(ask(json!({ "input": "a", "dimensions": 7 }), 400), told(input, json!("dimensions")));
    assert_eq!(ask(json!({ "input": [] }), 400), told(request, json!("input")));
    assert_eq!(ask(json!({ "input": "" }), 400), told(request, json!("input")));
    assert_eq!(ask(json!({ "input": [[]] }), 400), told(request, json!("input")));
    assert_eq!(ask(json!({ "input": ["a", ""] }), 400), told(request, json!("input")));
    assert_eq!(ask(json!({ "input": vec!["a"; 2049] }), 400), told(request, json!("input")));
    assert_eq!(ask(json!({ "input": vec!["a"; 101] }), 413), told("too_large", json!("input")));
    assert_eq!(ask(json!({ "input": [9_999_999] }), 400), told(input, json!("input")));
    assert_eq!(ask(json!({ "input": vec![5; 100] }), 400), told(input, json!("input")));
    assert_eq!(ask(json!({ "input": LONG, "truncate": false }), 400), told(input, json!("input")));
    assert_eq!(ask(json!({ "input": ["x"], "modality": "audio" }), 400), told(input, json!("input")));
    assert_eq!(ask(json!({ "input": ["%%"], "modality": "image" }), 400), told(input, json!("input")));
    assert_eq!(ask(json!({ "input": ["http://x/a.png"], "modality": "image" }), 403), told("forbidden", Value::Null));
    assert_eq!(ask(json!({ "input": "a", "normalized": false }), 400), told(request, json!("normalized")));
    assert_eq!(ask(json!({ "input": "a", "encoding_format": "int8" }), 400), told(request, Value::Null));
    assert_eq!(ask(json!({ "input": true }), 400), told(request, Value::Null));
    assert_eq!(ask(json!({}), 400), told(request, Value::Null));
    assert_eq!(openai_error(&server.get("/v1/embeddings"), 405).0, "method_not_allowed");
    let json = [("content-type", "application/json")];
    let large = server.ask("POST", "/v1/embeddings", &json, &vec![b' '; 9_000_000]);
    assert_eq!(openai_error(&large, 413).0, "too_large");
    let typed = server.ask("POST", "/v1/embeddings", &[("content-type", "text/plain")], b"a");
    assert_eq!(openai_error(&typed, 415).0, "unsupported_media_type");
    let message =
        server.post("/v1/embeddings", &json!({ "input": ["a", 5] })).expect(400)["error"]["message"].to_string();
    assert!(message.contains("input 1: 5, expected a text"), "{message}");
    vectors(&server.post("/v1/embeddings", &json!({ "input": LONG })));
}

#[test]
fn dialects_want_keys_in_their_form() {
    let keys = Keys::new().with_plain("dialects", "a-key-that-is-long-enough-to-pass", Scopes::READ).unwrap();
    let server = Running::new(crossmodal_server::ServerOptions { keys: Some(keys), ..options() });
    let body = json!({ "input": "a", "inputs": "a", "input_type": "search_query", "texts": ["a"] });
    assert_eq!(openai_error(&server.post("/v1/embeddings", &body), 401).0, "unauthorized");
    assert_eq!(inference_error(&server.post("/embed", &body), 401), "Validation");
    cohere_error(&server.post("/v2/embed", &body), 401);
    server.post("/v1/embed", &body).refused(401, "unauthorized");
    let headers = [("content-type", "application/json"), ("authorization", "Bearer a-key-that-is-long-enough-to-pass")];
    server.ask("POST", "/v1/embeddings", &headers, body.to_string().as_bytes()).expect(200);
    // Ready a moment after the first model is: whoever waits for it asks again.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.get("/health").status != 200 {
        assert!(std::time::Instant::now() < deadline, "never ready");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn text_embeddings_inference_embeds() {
    let server = Running::new(options());
    let expected = embedded(&[Input::text("red apple"), Input::text("a dog")]);
    let ask = |body: Value| server.post("/embed", &body).expect(200);
    assert_near(&floats(&ask(json!({ "inputs": "red apple" }))[0]), &expected[0].unit);
    let both = ask(json!({ "inputs": ["red apple", "a dog"], "normalize": true, "truncate": false }));
    assert_eq!(both.as_array().unwrap().len(), 2);
    assert_near(&floats(&both[1]), &expected[1].unit);
    assert_near(&floats(&ask(json!({ "inputs": "red apple", "normalize": false }))[0]), &expected[0].native);
    let long = unit(Input::text(LONG));
    assert_near(&floats(&ask(json!({ "inputs": LONG }))[0]), &long);
    let end = ask(json!({ "inputs": [LONG], "truncate": true, "truncation_direction": "Left" }));
    let parts = mini().tokenize(LONG).unwrap().unwrap();
    let ids = parts.shortened(parts.limit, Kept::End).unwrap();
    assert_near(&floats(&end[0]), &unit(Input::tokens(ids)));
    assert_near(&floats(&ask(json!({ "inputs": [{ "image": data_uri(APPLE) }] }))[0]), &unit(picture(APPLE)));
}

#[test]
fn text_embeddings_inference_refuses_in_its_form() {
    let server = Running::new(options());
    let ask = |path: &str, body: Value, status: u16| inference_error(&server.post(path, &body), status);
    assert_eq!(ask("/embed", json!({ "inputs": LONG, "truncate": false }), 422), "Validation");
    assert_eq!(ask("/embed", json!({ "inputs": [] }), 400), "Empty");
    assert_eq!(ask("/embed", json!({ "inputs": "" }), 400), "Empty");
    assert_eq!(ask("/embed", json!({ "inputs": "a", "prompt_name": "query" }), 422), "Validation");
    assert_eq!(ask("/embed", json!({ "inputs": "a", "dimensions": 3 }), 422), "Validation");
    assert_eq!(ask("/embed", json!({ "inputs": vec!["a"; 101] }), 413), "Validation");
    assert_eq!(ask("/embed", json!({ "inputs": 5 }), 422), "Validation");
    assert_eq!(ask("/tokenize", json!({ "inputs": [] }), 400), "Empty");
    assert_eq!(ask("/rerank", json!({ "query": "a", "texts": ["b"] }), 501), "Validation");
    let similar = |sentences: Value| json!({ "inputs": { "source_sentence": "a", "sentences": sentences } });
    assert_eq!(ask("/similarity", similar(json!([])), 400), "Empty");
    assert_eq!(ask("/similarity", similar(json!([""])), 400), "Empty");
    assert_eq!(ask("/similarity", json!({ "inputs": "a" }), 422), "Validation");
    assert_eq!(inference_error(&server.get("/embed"), 405), "Validation");
    server.get("/similarity").refused(405, "method_not_allowed");
}

#[test]
fn text_embeddings_inference_tells_and_compares() {
    let server = Running::new(options());
    let info = server.get("/info").expect(200);
    assert_eq!((info["model_id"].as_str(), info["model_dtype"].as_str()), (Some("mini"), Some("float32")));
    assert_eq!(info["model_type"], json!({ "embedding": { "pooling": "last_token" } }));
    assert_eq!((info["max_input_length"].as_u64(), info["max_client_batch_size"].as_u64()), (Some(32), Some(100)));
    assert!(info["model_sha"].is_null() && info["max_concurrent_requests"].as_u64().unwrap() > 0);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));

    let tokens = server.post("/tokenize", &json!({ "inputs": ["red apple", "x"] })).expect(200);
    let expected = mini().tokenize("red apple").unwrap().unwrap().tokens;
    let row = tokens[0].as_array().unwrap();
    assert_eq!((tokens.as_array().unwrap().len(), row.len()), (2, expected.len()));
    for (found, expected) in row.iter().zip(&expected) {
        assert_eq!(
            (found["id"].as_u64(), found["special"].as_bool()),
            (Some(expected.id.into()), Some(expected.special))
        );
        assert_eq!(found["start"].as_u64(), expected.bytes.map(|(start, _)| start as u64));
        assert_eq!(found["stop"].as_u64(), expected.bytes.map(|(_, stop)| stop as u64));
    }
    assert_eq!(
        (row[1]["text"].as_str(), row[1]["start"].as_u64(), row[1]["stop"].as_u64()),
        (Some("red"), Some(0), Some(3))
    );
    let bare = server.post("/tokenize", &json!({ "inputs": "red apple", "add_special_tokens": false })).expect(200);
    assert_eq!(bare[0].as_array().unwrap().len(), expected.len() - 2);

    let body = json!({ "inputs": { "source_sentence": "red apple", "sentences": ["red apple", "a dog"] }, "parameters": { "truncate": true } });
    let cosines = floats(&server.post("/similarity", &body).expect(200));
    let compared = crossmodal_engine::similarity(
        mini().as_ref(),
        &[Input::text("red apple")],
        &[Input::text("red apple"), Input::text("a dog")],
    );
    assert_near(&cosines, &compared.unwrap().cosines[0]);
    let parts = [("text", None, &b"red apple"[..]), ("file", Some("apple.png"), drawing(APPLE))];
    assert!(server.form("/similarity", &parts).expect(200)["similarity"].is_number(), "a form is the plain endpoint's");
    assert_eq!(server.get("/health").expect(200)["status"], "ok");
}

#[test]
fn cohere_embeds_texts_pictures_and_mixtures() {
    let server = Running::new(options());
    let ask = |body: Value| server.post("/v2/embed", &body).expect(200);
    let (words, apple) = (unit(Input::text("red apple")), unit(picture(APPLE)));
    let answer = ask(json!({ "model": "mini", "input_type": "search_document", "texts": ["red apple", "a dog"] }));
    assert_near(&floats(&answer["embeddings"]["float"][0]), &words);
    assert_eq!(answer["embeddings"].as_object().unwrap().len(), 1);
    assert_eq!(answer["texts"], json!(["red apple", "a dog"]));
    assert_eq!(
        (answer["response_type"].as_str(), answer["id"].as_str().unwrap().len()),
        (Some("embeddings_by_type"), 36)
    );
    assert_eq!(answer["meta"]["api_version"]["version"], "2");
    let tokens = mini().tokenize("red apple").unwrap().unwrap().tokens.len()
        + mini().tokenize("a dog").unwrap().unwrap().tokens.len();
    assert_eq!(answer["meta"]["billed_units"], json!({ "input_tokens": tokens }));

    let answer = ask(
        json!({ "model": "mini", "input_type": "image", "images": [data_uri(APPLE)], "embedding_types": ["float", "ubinary"] }),
    );
    assert_near(&floats(&answer["embeddings"]["float"][0]), &apple);
    assert_eq!(answer["embeddings"]["ubinary"][0].as_array().unwrap().len(), apple.len() / 8);
    assert_eq!(answer["meta"]["billed_units"], json!({ "images": 1 }));
    let shown = &answer["images"][0];
    assert_eq!((shown["format"].as_str(), shown["bit_depth"].as_u64()), (Some("png"), Some(24)));
    assert!(shown["width"].as_u64().unwrap() > 0 && shown["height"] == shown["width"], "{shown}");

    let picture = json!({ "type": "image_url", "image_url": { "url": data_uri(APPLE) } });
    let words_part = json!({ "type": "text", "text": "red apple" });
    let inputs = json!([{ "content": [words_part.clone(), picture.clone()] }, { "content": [picture] }, { "content": [words_part] }]);
    let answer = ask(json!({ "model": "mini", "input_type": "search_document", "inputs": inputs }));
    let rows = &answer["embeddings"]["float"];
    let sum: Vec<f32> = words.iter().zip(&apple).map(|(a, b)| a + b).collect();
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    assert_near(&floats(&rows[0]), &sum.iter().map(|value| value / length).collect::<Vec<f32>>());
    assert_near(&floats(&rows[1]), &apple);
    assert_near(&floats(&rows[2]), &words);
    assert!(answer["texts"].is_null() && answer["images"].is_null());
}

#[test]
fn cohere_cuts_and_refuses_in_its_form() {
    let server = Running::new(options());
    let body = |more: Value| {
        let mut body = json!({ "model": "mini", "input_type": "search_query" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let vector = |more: Value| floats(&server.post("/v2/embed", &body(more)).expect(200)["embeddings"]["float"][0]);
    let parts = mini().tokenize(LONG).unwrap().unwrap();
    let of = |most: usize, keep: Kept| unit(Input::tokens(parts.shortened(most, keep).unwrap()));
    assert_near(&vector(json!({ "texts": [LONG] })), &unit(Input::text(LONG)));
    assert_near(&vector(json!({ "texts": [LONG], "truncate": "START" })), &of(parts.limit, Kept::End));
    assert_near(&vector(json!({ "texts": [LONG], "truncate": "END", "max_tokens": 8 })), &of(8, Kept::Beginning));
    let refused = |more: Value, status: u16, part: &str| {
        let message = cohere_error(&server.post("/v2/embed", &body(more)), status);
        assert!(message.contains(part), "{message}");
    };
    refused(json!({ "texts": [LONG], "truncate": "NONE" }), 400, "tokens");
    refused(json!({ "texts": ["a"], "input_type": null }), 400, "input_type");
    refused(json!({ "texts": ["a"], "input_type": "song" }), 400, "search_document");
    refused(json!({ "texts": ["a"], "embedding_types": ["int4"] }), 400, "int4");
    refused(json!({ "texts": ["a"], "output_dimension": 3 }), 400, "dimensions");
    refused(json!({ "texts": ["a"], "images": ["b"] }), 400, "exactly one");
    refused(json!({ "texts": [] }), 400, "nothing to embed");
    refused(json!({ "inputs": [{ "content": [{ "type": "sound" }] }] }), 400, "image_url");
    refused(json!({ "texts": ["a"], "model": "none" }), 404, "none");
    refused(json!({ "images": ["data:image/png;base64,AAAA"] }), 400, "");
    cohere_error(&server.get("/v2/embed"), 405);
    assert!(cohere_error(&server.post("/v2/rerank", &json!({})), 501).contains("reranker"));
    assert!(cohere_error(&server.post("/v1/rerank", &json!({})), 501).contains("reranker"));
}

#[test]
fn dialects_are_hasty_in_their_form() {
    let mut hasty = options();
    hasty.timeout = std::time::Duration::from_millis(1);
    let server = Running::new(hasty);
    let answer = server.post("/v1/embeddings", &json!({ "input": vec![LONG; 100] }));
    assert_eq!(openai_error(&answer, 408).0, "timeout");
}
