//! Jobs: followed as they go, called off, and over when the server is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Running, drawing, options};

/// Many different pictures, so that a job takes a while.
fn pictures(count: u32) -> Vec<(String, Vec<u8>)> {
    (0..count)
        .map(|number| {
            let (side, mut state) = (64u32, u64::from(number) * 2 + 1);
            let size = side * side * 3;
            let mut bytes = b"BM".to_vec();
            for word in [54 + size, 0, 54, 40, side, side, 1 | 24 << 16, 0, size, 2835, 2835, 0, 0] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            bytes.extend((0..size).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            }));
            (format!("{number}.bmp"), bytes)
        })
        .collect()
}

fn start(server: &Running, count: u32) -> u64 {
    server.post("/v1/collections", &json!({ "name": "many" })).expect(201);
    let pictures = pictures(count);
    let parts: Vec<_> = pictures.iter().map(|(name, bytes)| ("file", Some(name.as_str()), &bytes[..])).collect();
    server.form("/v1/collections/many/items", &parts).expect(202)["id"].as_u64().unwrap()
}

fn server() -> (Running, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let mut options = options();
    options.data = Some(data.path().into());
    (Running::new(options), data)
}

#[test]
fn a_job_is_followed_to_its_end() {
    let (server, _data) = server();
    let id = start(&server, 200);
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let (mut names, mut last) = (Vec::new(), Value::Null);
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(name) = line.strip_prefix("event: ") {
            names.push(name.to_string());
        } else if let Some(data) = line.strip_prefix("data: ") {
            last = serde_json::from_str(data).unwrap();
        }
    }
    assert_eq!(names.pop().as_deref(), Some("end"));
    assert!(names.iter().all(|name| name == "progress"));
    assert_eq!((last["state"].as_str(), last["progress"]["written"].as_u64()), (Some("done"), Some(200)));
    assert_eq!(server.get("/v1/jobs").expect(200)["jobs"][0], last);
    server.get("/v1/jobs/77").refused(404, "not_found");
    server.get("/v1/jobs/x").refused(400, "invalid_request");
}

#[test]
fn a_job_is_called_off_and_what_it_committed_stays() {
    let (server, _data) = server();
    let id = start(&server, 400);
    server.delete(&format!("/v1/jobs/{id}")).expect(202);
    let job = server.finished(id);
    assert_eq!(job["state"], "cancelled");
    let items = server.get("/v1/collections/many/items").expect(200)["total"].as_u64().unwrap();
    assert!(items < 400, "{items}");
    // Searches go on.
    server.post("/v1/collections/many/search", &json!({ "query": "noise" })).expect(200);
}

#[test]
fn stopping_the_server_finishes_what_is_under_way() {
    let (server, data) = server();
    start(&server, 400);
    let cut = server.stop();
    assert_eq!(cut, 0);
    let folder = data.path().join("many.cm");
    let collection = crossmodal_engine::Collection::open(&folder, &crossmodal_engine::Mode::write()).unwrap();
    assert!(collection.verify().unwrap().problems.is_empty());
}

#[test]
fn a_collection_that_another_process_writes_to_says_so() {
    let (server, data) = server();
    server.fruit("fruit");
    let folder = data.path().join("fruit.cm");
    let other = crossmodal_engine::Collection::open(&folder, &crossmodal_engine::Mode::write()).unwrap();
    let refused = server.delete("/v1/collections/fruit/items/1");
    refused.refused(409, "conflict");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    server.delete("/v1/collections/fruit").refused(409, "conflict");
    let job = server.add("fruit", &[("again.png", drawing("1f34c.png"))]);
    assert_eq!(job["state"], "failed");
    drop(other);
    server.delete("/v1/collections/fruit/items/1").expect(204);
}
