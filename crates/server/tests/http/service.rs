//! Health, models, metrics, the page, the description.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Running, options};

#[test]
fn the_service_tells_what_it_is() {
    let server = Running::new(options());
    server.get("/health/live").expect(200);
    let start = Instant::now();
    while server.get("/health/ready").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    let version = server.get("/v1/version").expect(200);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let models = server.get("/v1/models").expect(200);
    assert_eq!((models["object"].as_str(), models["data"][0]["id"].as_str()), (Some("list"), Some("mini")));
    assert_eq!(server.get("/v1/models/mini").expect(200), models["data"][0]);
    server.get("/v1/models/no/such/model").refused(404, "not_found");
    server.post("/v1/embed", &json!({ "inputs": { "text": "a" } })).expect(200);
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    for name in ["crossmodal_requests_total", "crossmodal_stage_seconds", "crossmodal_batch_inputs", "# EOF"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(metrics.contains(r#"route="/v1/models/{*id}",status="404""#), "{metrics}");
}

#[test]
fn the_page_comes_with_a_strict_policy_and_is_asked_for_once() {
    let server = Running::new(options());
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let html = String::from_utf8(page.body.clone()).unwrap();
    let mut assets = 0;
    for piece in html.split("/assets/").skip(1) {
        let name = piece.split(['"', '\'']).next().unwrap();
        assert_eq!(server.get(&format!("/assets/{name}")).status, 200, "{name}");
        assets += 1;
    }
    assert!(assets >= 2);
    let tag = page.header("etag").to_string();
    assert_eq!(server.ask("GET", "/", &[("if-none-match", &tag)], b"").status, 304);
    server.get("/assets/no.js").refused(404, "not_found");
    server.get("/assets/..%2f..%2fCargo.toml").refused(404, "not_found");
    assert_eq!(server.get("/docs/").status, 200);
}

#[test]
fn every_documented_route_exists() {
    let server = Running::new(options());
    let description = server.get("/openapi.json").expect(200);
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() >= 24, "{}", paths.len());
    let mut names = BTreeSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_string()), "{path}");
            let filled = path.replace("{id}", "1").replace("{name}", "x").replace("{key}", "1").replace('é', "%C3%A9");
            let answer = server.ask(&method.to_uppercase(), &filled, &[("content-type", "application/json")], b"{}");
            assert_ne!(answer.status, 405, "{method} {path}");
            if answer.status == 404 {
                let message = answer.refused(404, "not_found");
                assert!(!message.contains("there is no /"), "{method} {path}: {message}");
            }
            let (exact, class) = (answer.status.to_string(), format!("{}XX", answer.status / 100));
            let told = operation["responses"].get(exact).or(operation["responses"].get(class));
            assert!(told.is_some(), "{method} {path}: {}", answer.status);
        }
    }
}
