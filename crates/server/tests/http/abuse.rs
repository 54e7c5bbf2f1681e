//! What attackers try: each is refused with the right code, and the server goes on.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossmodal_server::safety::fetch::FetchRules;
use serde_json::json;

use crate::support::{APPLE, Answer, Running, drawing, options};

/// A server that fetches addresses by its usual rules.
fn fetching() -> Running {
    let mut fetching = options();
    fetching.fetch = Some(FetchRules { timeout: Duration::from_secs(5), ..FetchRules::default() });
    Running::new(fetching)
}

fn embed(server: &Running, image: &str) -> Answer {
    server.post("/v1/embed", &json!({ "inputs": { "image": image } }))
}

#[test]
fn addresses_inside_are_not_fetched_however_they_are_written() {
    let server = fetching();
    // Something listens there, so that a refusal isn't an unreachable address.
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = inside.local_addr().unwrap().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "[fe80::1]",
        "[fc00::1]",
    ] {
        let answer = embed(&server, &format!("http://{host}:{port}/a.png"));
        assert!([400, 403].contains(&answer.status), "{host}: {}", answer.status);
        let code = answer.expect(answer.status)["error"]["code"].as_str().unwrap().to_string();
        assert!(code == "forbidden" || (code == "invalid_input" && answer.status == 400), "{host}: {code}");
    }
    for address in
        ["http://user:secret@127.0.0.1/", "file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1:70/"]
    {
        let status = embed(&server, address).status;
        assert!([400, 403].contains(&status), "{address}: {status}");
    }
    inside.set_nonblocking(true).unwrap();
    assert!(inside.accept().is_err(), "it was connected to");
}

#[test]
fn redirects_lead_nowhere_inside() {
    // The first step is allowed on purpose; where it leads isn't a public address either, but another port tells the two apart.
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, outside) = (inside.local_addr().unwrap().port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut rules = options();
    rules.fetch =
        Some(FetchRules { allow_hosts: Some(vec!["localhost".into()]), allow_private: true, ..FetchRules::default() });
    let server = Running::new(rules);
    let start = outside.local_addr().unwrap().port();
    let redirecting = std::thread::spawn(move || {
        let (mut stream, _) = outside.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).unwrap();
        let location = format!("http://127.0.0.1:{port}/a.png");
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    embed(&server, &format!("http://localhost:{start}/a.png")).refused(403, "forbidden");
    redirecting.join().unwrap();
    inside.set_nonblocking(true).unwrap();
    assert!(inside.accept().is_err(), "the redirect was followed");
}

/// A PNG whose header tells of a picture as large as asked for.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = drawing(APPLE).to_vec();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = bytes[12..29].iter().fold(u32::MAX, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
        crc
    });
    bytes[29..33].copy_from_slice(&(!checksum).to_be_bytes());
    bytes
}

#[test]
fn pictures_that_unpack_to_gigabytes_are_refused_by_their_head() {
    let server = Running::new(options());
    let mut jpeg = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01".to_vec();
    jpeg.extend(b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00\x12\x34\xff\xd9");
    for bomb in [png_of(50_000, 50_000), png_of(2_000_000_000, 2_000_000_000), jpeg] {
        let start = Instant::now();
        embed(&server, &STANDARD.encode(&bomb)).refused(413, "too_large");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    embed(&server, &STANDARD.encode(drawing(APPLE))).expect(200);
}

/// Sends bytes as they are and reads what comes back until the server hangs up.
fn raw(server: &Running, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn heads_have_limits() {
    let server = Running::new(options());
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "a".repeat(200_000));
    assert!(raw(&server, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many: String = (0..5000).map(|number| format!("X-{number}: a\r\n")).collect();
    assert!(
        raw(&server, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").as_bytes())
            .starts_with("HTTP/1.1 431 ")
    );
    server.get("/health/live").expect(200);
}

#[test]
fn paths_lead_nowhere_else() {
    let server = Running::new(options());
    for path in [
        "/assets/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/%00",
        "/v1/collections/..%2f..%2fetc/items",
        "/v1/collections/%2e%2e/items/1/file",
        "/v1/models/../../etc/passwd",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw(&server, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
        assert!(!answer.contains("root:"));
    }
}

#[test]
fn requests_within_requests_are_not_smuggled() {
    let server = Running::new(options());
    let smuggled = "POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
                    0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = raw(&server, smuggled.as_bytes());
    assert!(!answer.contains("\"object\":\"list\"") || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let twice = "POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde";
    assert!(raw(&server, twice.as_bytes()).starts_with("HTTP/1.1 400 "));
}
