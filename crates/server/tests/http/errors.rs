//! Every refusal has the form of the table, whoever made it.

use std::time::Duration;

use crossmodal_engine::batching::BatchLimits;
use serde_json::json;

use crate::support::{Running, options};

#[test]
fn refusals_of_the_framework_have_our_form() {
    let server = Running::new(options());
    assert!(server.get("/nowhere").refused(404, "not_found").contains("/nowhere"));
    let refused = server.ask("PUT", "/v1/embed", &[], b"x");
    refused.refused(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), "POST");
    let json = [("content-type", "application/json")];
    server.ask("POST", "/v1/embed", &json, b"{").refused(400, "invalid_request");
    server.ask("POST", "/v1/embed", &json, b"[]").refused(400, "invalid_request");
    server.ask("POST", "/v1/embed", &json, &vec![b' '; 9_000_000]).refused(413, "too_large");
    server.ask("POST", "/v1/embed", &[("content-type", "text/plain")], b"x").refused(415, "unsupported_media_type");
    server.ask("POST", "/embed/text", &[("content-type", "text/plain")], b"x").refused(415, "unsupported_media_type");
    let form = [("content-type", "multipart/form-data; boundary=edge")];
    server.ask("POST", "/v1/embed", &form, b"no edge").refused(400, "invalid_request");
    let form = [("content-type", "multipart/form-data")];
    server.ask("POST", "/v1/embed", &form, b"x").refused(415, "unsupported_media_type");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"filter": {deep}, "query": "a"}}"#);
    server.ask("POST", "/v1/collections/x/search", &json, body.as_bytes()).refused(400, "invalid_request");
}

#[test]
fn requests_have_names() {
    let server = Running::new(options());
    let answer = server.ask("GET", "/health/live", &[("x-request-id", "mine-1")], b"");
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert!(!server.get("/nowhere").header("x-request-id").is_empty());
    assert_eq!(server.get("/health/live").header("x-content-type-options"), "nosniff");
}

#[test]
fn slow_requests_are_given_up() {
    let mut hasty = options();
    hasty.timeout = Duration::from_millis(1);
    let server = Running::new(hasty);
    let texts = vec![json!({ "text": "a long line about many things ".repeat(20) }); 100];
    server.post("/v1/embed", &json!({ "inputs": texts })).refused(408, "timeout");
    server.get("/health/live").expect(200);
}

#[test]
fn a_full_queue_sends_away_with_a_time_to_come_back() {
    let mut narrow = options();
    narrow.batch = BatchLimits { admitted: 100, ..BatchLimits::default() };
    let server = Running::new(narrow);
    let texts = vec![json!({ "text": "a long line about many things ".repeat(20) }); 100];
    let body = json!({ "inputs": texts });
    let statuses = std::thread::scope(|scope| {
        let ask = || {
            let answer = server.post("/v1/embed", &body);
            if answer.status == 429 {
                answer.refused(429, "overloaded");
                assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            }
            answer.status
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<u16>>()
    });
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    server.post("/v1/embed", &json!({ "inputs": { "text": "a" } })).expect(200);
}
