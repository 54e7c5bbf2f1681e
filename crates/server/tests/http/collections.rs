//! Collections, items, searches: what is added is found, and what is deleted isn't.

use crossmodal_engine::{Input, Query, SearchOptions};
use serde_json::{Value, json};

use crate::support::{APPLE, LEMON, Running, drawing, floats, gallery, mini, options};

fn ids(answer: &Value) -> Vec<String> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_search_finds_what_the_engine_finds() {
    let (server, _data) = Running::with_gallery();
    let collection = crossmodal_engine::Collection::open(gallery(), &crossmodal_engine::Mode::read()).unwrap();
    let expected = collection.search(mini().as_ref(), &Query::text("red apple"), &SearchOptions::top(5)).unwrap();
    let search = |body: Value| server.post("/v1/collections/gallery/search", &body).expect(200);
    let answer = search(json!({ "query": "red apple", "k": 5 }));
    assert_eq!((answer["model"].as_str(), answer["searched"].as_u64()), (Some("mini"), Some(240)));
    for (hit, expected) in answer["hits"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!(hit["id"], expected.hit.item.id);
        assert_eq!(hit["score"].as_f64().unwrap() as f32, expected.hit.score);
        assert_eq!(hit["confidence"].as_f64().unwrap() as f32, expected.confidence.unwrap());
    }
    assert_eq!(answer["hits"][0]["metadata"]["fr"], "pomme rouge");
    let next = search(json!({ "query": "red apple", "k": 2, "offset": answer["next_offset"].as_u64().unwrap() - 3 }));
    assert_eq!(next["hits"][0], answer["hits"][2]);
    assert_eq!(next["hits"][0]["rank"], 3);
    let bare = search(json!({ "query": "red apple", "k": 1, "metadata": false }));
    assert!(bare["hits"][0].get("metadata").is_none());
}

#[test]
fn queries_are_sums_of_anything() {
    let (server, _data) = Running::with_gallery();
    let search = |body: Value| server.post("/v1/collections/gallery/search", &body).expect(200);
    let apple = search(json!({ "query": "red apple", "k": 1 }))["hits"][0].clone();
    let key = apple["key"].as_i64().unwrap();
    let like = search(json!({ "parts": [{ "item": key }], "k": 3 }));
    assert!(like["model"].is_null() && !ids(&like).contains(&APPLE.to_string()));
    let vector = mini().embed(&[Input::image(drawing(APPLE))]).unwrap().remove(0).unit;
    let by_vector = search(json!({ "parts": [{ "vector": vector }], "k": 3 }));
    assert_eq!(ids(&by_vector)[0], APPLE);
    assert!((by_vector["hits"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert!(by_vector["hits"][0].get("confidence").is_none() && by_vector.get("searched").is_none());
    let request = json!({ "k": 3, "parts": [{ "text": "yellow", "weight": 0.5 }] }).to_string();
    let form = [("request", None, request.as_bytes()), ("image", Some("x.png"), drawing(LEMON))];
    let dropped = server.form("/v1/collections/gallery/search", &form).expect(200);
    assert_eq!(ids(&dropped)[0], LEMON);
    let sum = search(json!({ "query": "2:dog face + cat face - mouse", "k": 5 }));
    assert_eq!(sum["hits"].as_array().unwrap().len(), 5);
    let words = search(json!({ "query": "pomme", "mode": "text", "k": 5 }));
    assert!(ids(&words).contains(&APPLE.to_string()));
    let both = search(json!({ "query": "pomme rouge", "mode": "hybrid", "alpha": 0.5, "k": 5 }));
    assert_eq!(ids(&both)[0], APPLE);
    let filtered = search(json!({ "query": "fruit", "filter": "en = 'lemon'" }));
    assert_eq!(ids(&filtered), [LEMON]);
    assert_eq!(filtered["searched"], 1);
    let relevant = search(json!({ "query": "interest rate swap", "relevant_only": true }));
    assert!(relevant["hits"].as_array().unwrap().is_empty());
}

#[test]
fn a_query_reads_no_files_of_the_server() {
    let (server, _data) = Running::with_gallery();
    let secret = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
    std::fs::write(secret.path(), drawing(APPLE)).unwrap();
    let search = |query: String| server.post("/v1/collections/gallery/search", &json!({ "query": query, "k": 2 }));
    let there = search(secret.path().display().to_string()).expect(200);
    let gone = secret.path().display().to_string();
    drop(secret);
    assert_eq!(search(gone).expect(200)["hits"], there["hits"]);
    let named = search("dog + image:/etc/hostname".into());
    assert_eq!(named.status, 400, "{:?}", String::from_utf8_lossy(&named.body));
}

#[test]
fn searches_that_make_no_sense_say_why() {
    let (server, _data) = Running::with_gallery();
    for (body, status, code, says) in [
        (json!({}), 400, "invalid_request", "nothing to search for"),
        (json!({ "query": "a", "k": 0 }), 400, "invalid_request", "`k`"),
        (json!({ "query": "a", "filter": "year >=" }), 400, "invalid_request", "`filter`"),
        (json!({ "query": "a", "parts": [{ "text": "b", "item": 1 }] }), 400, "invalid_request", "parts[0]"),
        (json!({ "parts": [{ "item": 99_999 }] }), 404, "not_found", "99999"),
        (json!({ "parts": [{ "vector": [1.0, 2.0] }] }), 400, "invalid_input", "128"),
        (json!({ "parts": [{ "vector": vec![0.0; 128] }] }), 400, "invalid_input", ""),
        (json!({ "query": "a", "parts": [{ "text": "b", "weight": 0 }] }), 400, "invalid_request", "weight"),
        (json!({ "query": "dog + cat +" }), 400, "invalid_input", "after"),
    ] {
        let message = server.post("/v1/collections/gallery/search", &body).refused(status, code);
        assert!(message.contains(says), "{body}: {message}");
    }
    let elsewhere = server.post("/v1/collections/nowhere/search", &json!({ "query": "a" }));
    assert!(elsewhere.refused(404, "not_found").contains("gallery"));
}

#[test]
fn what_is_added_is_found_and_what_is_deleted_is_gone() {
    let (server, data) = Running::with_gallery();
    let made = server.post("/v1/collections", &json!({ "name": "fruit" })).expect(201);
    assert_eq!((made["items"].as_u64(), made["removable"].as_bool()), (Some(0), Some(true)));
    assert!(server.post("/v1/collections", &json!({ "name": "fruit" })).refused(409, "conflict").contains("fruit"));
    let metadata = json!({ "year": 2024 }).to_string();
    let parts = [
        ("file", Some("../apple.png"), drawing(APPLE)),
        ("file", Some("lemon.png"), drawing(LEMON)),
        ("file", Some("notes.txt"), &b"words"[..]),
        ("file", Some("broken.png"), &drawing(APPLE)[..200]),
        ("metadata", None, metadata.as_bytes()),
    ];
    let job = server.form("/v1/collections/fruit/items", &parts).expect(202);
    let job = server.finished(job["id"].as_u64().unwrap());
    assert_eq!((job["state"].as_str(), job["progress"]["embedded"].as_u64()), (Some("done"), Some(2)), "{job}");
    let skipped: Vec<&str> = job["skipped"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    assert_eq!(skipped, ["notes.txt", "broken.png"]);
    let uploads = data.path().join("fruit.cm/uploads");
    assert_eq!(std::fs::read_dir(&uploads).unwrap().count(), 2);
    let hits = server.post("/v1/collections/fruit/search", &json!({ "query": "red apple" })).expect(200);
    assert_eq!(ids(&hits), ["apple.png", "lemon.png"]);
    assert_eq!(hits["hits"][0]["metadata"]["year"], 2024);
    // The command line and the server see the same collection; neither locks the other out.
    let other = crossmodal_engine::Collection::open(&data.path().join("fruit.cm"), &crossmodal_engine::Mode::write());
    drop(other.unwrap());
    let key = hits["hits"][0]["key"].as_i64().unwrap();
    let item = format!("/v1/collections/fruit/items/{key}");
    assert_eq!(server.get(&item).expect(200)["uploaded"], true);
    assert_eq!(server.get(&format!("{item}/file")).body, drawing(APPLE));
    server.delete(&item).expect(204);
    server.get(&item).refused(404, "not_found");
    assert_eq!(std::fs::read_dir(&uploads).unwrap().count(), 1);
    server.delete("/v1/collections/fruit").expect(204);
    server.get("/v1/collections/fruit").refused(404, "not_found");
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0);
    assert!(server.delete("/v1/collections/gallery").refused(403, "forbidden").contains("--data"));
    for name in ["", "../x", "a/b", "a b"] {
        server.post("/v1/collections", &json!({ "name": name })).refused(400, "invalid_request");
    }
}

#[test]
fn items_are_listed_page_by_page_and_shown() {
    let (server, _data) = Running::with_gallery();
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = server.get(&format!("/v1/collections/gallery/items?limit=100&after={after}")).expect(200);
        assert_eq!(page["total"], 240);
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["key"].as_i64().unwrap()));
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen.len(), 240);
    assert!(seen.is_sorted());
    let filtered = server.get("/v1/collections/gallery/items?filter=en%20%3D%20%27lemon%27").expect(200);
    assert_eq!((filtered["total"].as_u64(), filtered["items"][0]["name"].as_str()), (Some(1), Some(LEMON)));
    let lemon = filtered["items"][0]["key"].as_i64().unwrap();
    let thumbnail = server.get(&format!("/v1/collections/gallery/items/{lemon}/thumbnail?size=32"));
    assert_eq!((thumbnail.status, thumbnail.header("content-type")), (200, "image/jpeg"));
    assert!(thumbnail.body.starts_with(b"\xff\xd8\xff"));
    let tag = thumbnail.header("etag").to_string();
    let again = format!("/v1/collections/gallery/items/{lemon}/thumbnail?size=32");
    assert_eq!(server.ask("GET", &again, &[("if-none-match", &tag)], b"").status, 304);
    for path in ["items?limit=0", "items?limit=1001", "items?limt=1", "items/x", "items/1/thumbnail?size=5000"] {
        server.get(&format!("/v1/collections/gallery/{path}")).refused(400, "invalid_request");
    }
}

#[test]
fn files_are_added_by_path_only_below_the_allowed_folders() {
    let (data, pictures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inside = pictures.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("apple.png"), drawing(APPLE)).unwrap();
    std::fs::write(pictures.path().join("secret.png"), drawing(LEMON)).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(pictures.path().join("secret.png"), inside.join("way-out.png")).unwrap();
    let mut allowed = options();
    allowed.data = Some(data.path().into());
    allowed.allow_paths = vec![inside.clone()];
    let server = Running::new(allowed);
    server.post("/v1/collections", &json!({ "name": "a" })).expect(201);
    let add = |path: String| server.post("/v1/collections/a/items", &json!({ "paths": [path] }));
    let job = add(inside.display().to_string()).expect(202);
    let job = server.finished(job["id"].as_u64().unwrap());
    assert_eq!((job["progress"]["embedded"].as_u64(), job["skipped"].as_array().unwrap().len()), (Some(1), 1), "{job}");
    for path in ["/etc/passwd", "/no/such/file", "inside", "..", &format!("{}/../secret.png", inside.display())] {
        add(path.to_string()).refused(403, "forbidden");
    }
    assert_eq!(server.get("/v1/collections/a/items").expect(200)["total"], 1);
}

#[test]
fn a_collection_is_laid_out_in_the_plane() {
    let (server, _data) = Running::with_gallery();
    let start = std::time::Instant::now();
    let map = loop {
        let answer = server.get("/v1/collections/gallery/map?limit=100");
        if answer.status == 200 {
            break answer.expect(200);
        }
        assert_eq!(answer.expect(202)["state"], "computing");
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!((map["total"].as_u64(), map["keys"].as_array().unwrap().len()), (Some(240), 100));
    for axis in ["x", "y"] {
        let places = floats(&map[axis]);
        assert!(places.len() == 100 && places.iter().all(|place| (-1.0..=1.0).contains(place)));
    }
    server.get("/v1/collections/gallery/map?limit=0").refused(400, "invalid_request");
}
