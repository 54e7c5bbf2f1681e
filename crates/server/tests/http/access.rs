//! Who may do what, how often, and from where.

use crossmodal_server::safety::keys::{Keys, Scopes};
use crossmodal_server::{Server, ServerError};
use serde_json::json;

use crate::support::{Running, options};

const READER: &str = "reader-secret-0123456789";
const WRITER: &str = "writer-secret-0123456789";

fn keys() -> Keys {
    let keys = Keys::new().with_plain("reader", READER, Scopes::READ).unwrap();
    keys.with_plain("writer", WRITER, Scopes::ALL).unwrap()
}

#[test]
fn keys_open_what_their_scopes_say() {
    let data = tempfile::tempdir().unwrap();
    let mut guarded = options();
    (guarded.keys, guarded.data) = (Some(keys()), Some(data.path().into()));
    let server = Running::new(guarded);
    let with = |method: &str, path: &str, key: &str, body: &str| {
        let header = format!("Bearer {key}");
        server.ask(method, path, &[("authorization", &header), ("content-type", "application/json")], body.as_bytes())
    };
    for path in ["/v1/models", "/v1/collections", "/metrics", "/v1/models/mini", "/v1/jobs"] {
        let refused = server.get(path);
        refused.refused(401, "unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        with("GET", path, "wrong-secret-0123456789", "").refused(401, "unauthorized");
        assert_eq!(with("GET", path, READER, "").status, 200, "{path}");
        assert_eq!(server.ask("GET", path, &[("x-api-key", READER)], b"").status, 200);
    }
    let create = json!({ "name": "a" }).to_string();
    assert!(with("POST", "/v1/collections", READER, &create).refused(403, "forbidden").contains("reader"));
    with("POST", "/v1/collections", WRITER, &create).expect(201);
    with("DELETE", "/v1/collections/a", READER, "").refused(403, "forbidden");
    // What shows nothing needs no key.
    for path in ["/health/live", "/", "/openapi.json", "/docs/"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_wide_address_needs_a_key_or_a_word() {
    let mut wide = options();
    wide.host = "0.0.0.0".into();
    assert!(matches!(Server::bind(wide), Err(ServerError::NoKey { .. })));
    let mut insecure = options();
    (insecure.host, insecure.insecure) = ("0.0.0.0".into(), true);
    assert!(Server::bind(insecure).is_ok());
    let mut guarded = options();
    (guarded.host, guarded.keys) = ("0.0.0.0".into(), Some(keys()));
    assert!(Server::bind(guarded).is_ok());
}

#[test]
fn a_client_has_its_allowance() {
    let mut limited = options();
    limited.rate_limit = Some((0.5, 3));
    let server = Running::new(limited);
    for _ in 0..3 {
        server.get("/v1/version").expect(200);
    }
    let refused = server.get("/v1/version");
    refused.refused(429, "rate_limited");
    assert!((1..=3).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
    server.get("/health/live").expect(200);
}

#[test]
fn pages_of_other_sites_may_not_use_it_unless_named() {
    let server = Running::new(options());
    let from = |server: &Running, origin: &str| server.ask("GET", "/v1/version", &[("origin", origin)], b"");
    let own = format!("http://{}", server.address);
    assert_eq!(from(&server, &own).status, 200);
    from(&server, "https://foe.example").refused(403, "forbidden");
    let rebound = server.ask("GET", "/v1/version", &[("host", "foe.example")], b"");
    assert!(rebound.refused(403, "forbidden").contains("foe.example"));
    let mut open = options();
    open.cors_origins = vec!["https://friend.example".into()];
    let server = Running::new(open);
    let answer = from(&server, "https://friend.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, "https://friend.example"));
    from(&server, "https://foe.example").refused(403, "forbidden");
    let headers = [("origin", "https://friend.example"), ("access-control-request-method", "POST")];
    let preflight = server.ask("OPTIONS", "/v1/embed", &headers, b"");
    assert!(preflight.status == 200 && preflight.header("access-control-allow-methods").contains("POST"));
}
