//! Spans reach a collector: a server in a process of its own, a collector on a loopback socket, and OTLP read without OpenTelemetry's crates.
//!
//! The program calls itself: with a collector in the environment it is the server, without one the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crossmodal_engine::LoadOptions;
use crossmodal_engine::batching::BatchLimits;
use crossmodal_server::logging::{self, LogFormat, LogLevel};
use crossmodal_server::transport::TransportOptions;
use crossmodal_server::{Server, ServerOptions};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn main() {
    if std::env::var_os(ENDPOINT).is_some() {
        return serve();
    }
    spans_reach_a_collector();
    a_protocol_that_is_not_spoken_is_refused();
    println!("2 passed, 0 failed");
}

/// Serves until standard input ends.
fn serve() {
    let logging = match logging::start(LogFormat::Json, LogLevel::Info, false) {
        Ok(logging) => logging,
        Err(reason) => {
            eprintln!("{reason}");
            std::process::exit(2);
        }
    };
    let mini = crossmodal_engine::load("mini", &LoadOptions::default()).unwrap();
    let server = Server::bind(ServerOptions {
        host: "127.0.0.1".into(),
        port: 0,
        models: vec![("mini".into(), mini)],
        collections: Vec::new(),
        data: None,
        keys: None,
        insecure: false,
        rate_limit: None,
        allow_paths: Vec::new(),
        fetch: None,
        cors_origins: Vec::new(),
        allowed_hosts: Vec::new(),
        max_body: 1_000_000,
        max_inputs: 10,
        timeout: Duration::from_secs(60),
        batch: BatchLimits::default(),
        transport: TransportOptions::default(),
    });
    let server = server.unwrap();
    println!("{}", server.address().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = stop.send(());
    });
    server.run(async move { drop(stopped.await) }).unwrap();
    drop(logging);
}

fn itself(endpoint: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(ENDPOINT, endpoint).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        command.env_remove(name);
    }
    command
}

fn spans_reach_a_collector() {
    let (endpoint, posts) = collector();
    let mut server = itself(&endpoint)
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20of-the-collector")
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim();
    let body = r#"{"inputs": {"text": "red apple"}}"#;
    let traced = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    assert!(ask(address, "POST", "/v1/embed", &traced, body).starts_with("HTTP/1.1 200"));
    assert!(ask(address, "GET", "/nowhere", "", "").starts_with("HTTP/1.1 404"));
    // A client whose trace isn't kept: the server doesn't keep its part either.
    let unkept = "traceparent: 00-11111111111111111111111111111111-2222222222222222-00\r\n";
    assert!(ask(address, "GET", "/v1/models", unkept, "").starts_with("HTTP/1.1 200"));
    // Far fewer than a batch, and sooner than one is due: what arrives was sent when the server stopped.
    drop(server.stdin.take());
    let output = server.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let posts: Vec<Post> = posts.try_iter().collect();
    assert!(!posts.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut spans = Vec::new();
    for post in &posts {
        assert!(post.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", post.head);
        let head = post.head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert!(head.contains("authorization: bearer of-the-collector"), "{head}");
        for resource_spans in Message(&post.body).messages(1) {
            let resource = resource_spans.messages(1).next().unwrap();
            assert_eq!(resource.attribute(1, "service.name").unwrap(), "crossmodal");
            assert_eq!(resource.attribute(1, "deployment.environment.name").unwrap(), "test");
            spans.extend(resource_spans.messages(2).flat_map(|scope| scope.messages(2)));
        }
    }
    let named = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.text(5) == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", spans.iter().map(|span| span.text(5)).collect::<Vec<_>>());
        *found[0]
    };
    let embed = named("POST /v1/embed");
    assert_eq!(embed.hex(1), TRACE);
    assert_eq!(embed.hex(4), PARENT);
    assert_eq!(embed.number(6), 2, "the kind of a server's span");
    assert!(embed.number(8) > embed.number(7), "it took some time");
    assert_eq!(embed.attribute(9, "http.route").unwrap(), "/v1/embed");
    assert_eq!(embed.attribute(9, "http.request.method").unwrap(), "POST");
    assert_eq!(embed.attribute(9, "http.response.status_code").unwrap(), "200");
    let unmatched = named("GET");
    assert_ne!(unmatched.hex(1), TRACE);
    assert_eq!(unmatched.hex(4), "");
    assert_eq!(unmatched.attribute(9, "url.path").unwrap(), "/nowhere");
    assert_eq!(unmatched.attribute(9, "http.response.status_code").unwrap(), "404");
    assert!(spans.iter().all(|span| span.text(5) != "GET /v1/models"));
    // Log lines lead to the trace.
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(lines.lines().any(|line| line.contains("\"answered\"") && line.contains(TRACE)), "{lines}");
    println!("test spans_reach_a_collector ... ok ({} posts, {} spans)", posts.len(), spans.len());
}

fn a_protocol_that_is_not_spoken_is_refused() {
    let output = itself("http://127.0.0.1:1").env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let reason = String::from_utf8(output.stderr).unwrap();
    assert!(reason.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\""), "{reason}");
    println!("test a_protocol_that_is_not_spoken_is_refused ... ok");
}

/// Asks over a connection of its own and returns the answer as it came.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What a collector was sent.
struct Post {
    head: String,
    body: Vec<u8>,
}

/// Listens like a collector: reads posts whole and accepts them with the empty message. Returns its address.
fn collector() -> (String, Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, posts) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Some(post) = read_post(&mut stream) {
                    sender.send(post).unwrap();
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    stream.get_mut().write_all(answer).unwrap();
                }
            });
        }
    });
    (endpoint, posts)
}

fn read_post(stream: &mut BufReader<TcpStream>) -> Option<Post> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).unwrap_or(0) == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).unwrap();
    Some(Post { head, body })
}

/// A message of protocol buffers, by the numbers that OTLP gives its fields.
#[derive(Clone, Copy)]
struct Message<'a>(&'a [u8]);

/// The value of a field.
#[derive(Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    fn fields(self) -> impl Iterator<Item = (u64, Field<'a>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let tag = varint(&mut rest);
            let field = match tag & 7 {
                0 => Field::Number(varint(&mut rest)),
                1 => Field::Number(u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut rest) as usize;
                    Field::Bytes(take(&mut rest, length))
                }
                5 => Field::Number(u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()).into()),
                other => panic!("wire type {other}"),
            };
            Some((tag >> 3, field))
        })
    }

    fn all_bytes(self, number: u64) -> impl Iterator<Item = &'a [u8]> {
        self.fields().filter_map(move |(found, field)| match field {
            Field::Bytes(bytes) if found == number => Some(bytes),
            _ => None,
        })
    }

    fn messages(self, number: u64) -> impl Iterator<Item = Message<'a>> {
        self.all_bytes(number).map(Message)
    }

    fn text(self, number: u64) -> String {
        String::from_utf8(self.all_bytes(number).next().unwrap_or_default().to_vec()).unwrap()
    }

    fn hex(self, number: u64) -> String {
        self.all_bytes(number).next().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn number(self, number: u64) -> u64 {
        let found = self.fields().find_map(|(found, field)| match field {
            Field::Number(value) if found == number => Some(value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The value of an attribute in the list with the given number, as text.
    fn attribute(self, number: u64, key: &str) -> Option<String> {
        let pair = self.messages(number).find(|pair| pair.text(1) == key)?;
        let value = pair.messages(2).next()?;
        match value.fields().next()? {
            (1, Field::Bytes(text)) => Some(String::from_utf8(text.to_vec()).unwrap()),
            (3, Field::Number(number)) => Some(number.to_string()),
            _ => None,
        }
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}
