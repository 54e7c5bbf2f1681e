//! The transport against clients that do what clients do: over real sockets, with time limits cut short.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::routing::{get, post};
use crossmodal_server::transport::{Drained, TransportCounts, TransportOptions, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The limit that a test is about.
const SHORT: Duration = Duration::from_millis(300);
/// What nothing in these tests may take, on a busy machine either.
const LONG: Duration = Duration::from_secs(20);
const LARGE: usize = 64 << 20;

struct Server {
    address: SocketAddr,
    counts: Arc<TransportCounts>,
    /// Set when the handler of `/forever` is dropped.
    left: Arc<AtomicBool>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<std::io::Result<Drained>>,
}

impl Server {
    async fn start(options: TransportOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("address");
        let (counts, left) = (Arc::clone(&options.counts), Arc::new(AtomicBool::new(false)));
        let (stop, stopped) = oneshot::channel();
        let app = app(Arc::clone(&left));
        let running = tokio::spawn(serve(listener, app, options, async {
            let _ = stopped.await;
        }));
        Self { address, counts, left, stop, running }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("connected"))
    }

    async fn send(&self, bytes: impl AsRef<[u8]>) -> Client {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client
    }

    /// Whether a well-behaved client is served.
    async fn is_well(&self) -> bool {
        let answer = self.send("GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.rest().await;
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello")
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < LONG, "{what}: {:?}", self.counts);
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) -> Drained {
        self.stop.send(()).expect("running");
        timeout(LONG, self.running).await.expect("ends").expect("no panic").expect("no error")
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Everything until the connection ends, in whatever way.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = timeout(LONG, self.0.read_to_end(&mut bytes)).await.expect("the connection ends");
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// One answer with a content length.
    async fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return String::from_utf8(bytes).expect("UTF-8");
                }
            }
            let byte = timeout(LONG, self.0.read_u8()).await.expect("in time");
            bytes.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&bytes))));
        }
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Answers at once and reads the body afterwards.
async fn read_behind(body: Body) -> &'static str {
    tokio::spawn(axum::body::to_bytes(body, LARGE));
    "taken"
}

async fn panics() -> &'static str {
    panic!("as asked")
}

fn app(left: Arc<AtomicBool>) -> Router {
    let large = || async {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let pieces = (0..LARGE >> 20).map(move |_| Ok::<_, std::convert::Infallible>(piece.clone()));
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    Router::new()
        .route("/hello", get(|| async { "hello" }))
        .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/early", post(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "too large") }))
        .route("/large", get(large))
        .route("/behind", post(read_behind))
        .route("/slow", get(|| async { sleep(SHORT * 2).await }))
        .route("/panic", get(panics))
        .route(
            "/forever",
            get(move || async move {
                let _left = SetOnDrop(left);
                sleep(LONG * 10).await;
            }),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
}

fn post_of(length: usize) -> String {
    format!("POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_many_requests_and_handlers_know_the_peer() {
    let server = Server::start(TransportOptions::default()).await;
    let mut client = server.connect().await;
    let peer = client.0.local_addr().expect("address").to_string();
    for _ in 0..50 {
        client.send("GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(client.answer().await.ends_with(&peer));
        client.send(format!("{}{}", post_of(5), "12345")).await;
        assert!(client.answer().await.ends_with("\r\n\r\n5"));
    }
    assert_eq!((server.counts.open(), server.counts.accepted()), (1, 1));
    drop(client);
    server.until("closed", |server| server.counts.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_is_answered_with_408_and_silence_with_silence() {
    let server = Server::start(TransportOptions { header_timeout: SHORT, ..TransportOptions::default() }).await;
    let answer = server.send("GET /hello HTTP/1.1\r\nhost: x\r\nx-half").await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#""code":"timeout""#), "{answer}");
    assert_eq!(server.connect().await.rest().await, "");

    // A byte now and then doesn't stretch the time.
    let start = Instant::now();
    let (mut reading, mut writing) = server.connect().await.0.into_split();
    let drip = tokio::spawn(async move {
        for byte in "GET /hello HTTP/1.1\r\nx-long: ".bytes().chain(std::iter::repeat(b'x')) {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(SHORT / 10).await;
        }
    });
    let mut answer = Vec::new();
    let _ = timeout(LONG, reading.read_to_end(&mut answer)).await.expect("ends");
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408 "));
    assert!(start.elapsed() < SHORT * 10, "{:?}", start.elapsed());
    drip.abort();

    // Half a head after a request that was served.
    let mut client = server.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
    client.send("GET /he").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
    server.until("counted", |server| server.counts.header_timeouts() == 3 && server.counts.open() == 0).await;
    assert!(server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resting_connection_is_closed_after_its_own_time() {
    let options = TransportOptions { header_timeout: LONG, keep_alive: SHORT, ..TransportOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.answer().await;
    let start = Instant::now();
    assert_eq!(client.rest().await, "");
    assert!((SHORT / 2..SHORT * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    // A request that takes longer isn't rest.
    let mut client = server.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_is_answered_with_408() {
    let server = Server::start(TransportOptions { body_stall: SHORT, ..TransportOptions::default() }).await;
    let answer = server.send(post_of(100) + "only this").await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains(r#""code":"timeout""#), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    let chunked = "POST /length HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    assert!(server.send(chunked).await.rest().await.starts_with("HTTP/1.1 408 "));

    // Nor does a byte now and then help.
    let mut client = server.send(post_of(1000)).await;
    let start = Instant::now();
    let mut answer = [0; 12];
    loop {
        let _ = client.0.write_all(b"x").await;
        if timeout(SHORT / 10, client.0.read_exact(&mut answer)).await.is_ok_and(|read| read.is_ok()) {
            break;
        }
        assert!(start.elapsed() < LONG);
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.until("counted", |server| server.counts.body_stalls() == 3 && server.counts.open() == 0).await;

    // A slow one that gets on is waited for, in all longer than the limit.
    let mut client = server.send(post_of(20 * 2048)).await;
    for _ in 0..20 {
        client.send([b'x'; 2048]).await;
        sleep(SHORT / 10).await;
    }
    assert!(client.answer().await.ends_with("40960"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped() {
    let server = Server::start(TransportOptions { write_stall: SHORT, ..TransportOptions::default() }).await;
    let request = "GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let stuck = server.send(request).await;
    server.until("dropped", |server| server.counts.write_stalls() == 1 && server.counts.open() == 0).await;
    drop(stuck);

    // A slow one that gets on receives everything, in all later than the limit.
    let mut slow = server.send(request).await;
    let (start, mut received, mut buffer) = (Instant::now(), 0, vec![0; 1 << 20]);
    loop {
        let count = timeout(LONG, slow.0.read(&mut buffer)).await.expect("in time").expect("read");
        received += count;
        if count == 0 {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(received > LARGE, "{received}");
    assert!(start.elapsed() > SHORT, "the test reads too fast to show anything");
    assert_eq!(server.counts.write_stalls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_hundred_connections_meet_a_limit_of_a_hundred() {
    let options = TransportOptions { max_connections: 100, header_timeout: LONG * 3, ..TransportOptions::default() };
    let server = Server::start(options).await;
    let mut clients = Vec::new();
    for _ in 0..600 {
        clients.push(server.connect().await);
    }
    server.until("all seen", |server| server.counts.accepted() + server.counts.refused() == 600).await;
    assert_eq!((server.counts.open(), server.counts.refused()), (100, 500));
    let mut refused = clients.split_off(100);
    for client in &mut refused {
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n") && answer.contains(r#""code":"unavailable""#), "{answer}");
    }
    // Who is in is served, and who leaves makes room.
    for client in &mut clients {
        client.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(client.answer().await.ends_with("hello"));
    }
    assert!(server.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await.rest().await.starts_with("HTTP/1.1 503 "));
    drop(clients);
    server.until("room again", |server| server.counts.open() == 0).await;
    assert!(server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_what_is_in_flight_and_closes_what_rests() {
    let server = Server::start(TransportOptions { header_timeout: LONG, ..TransportOptions::default() }).await;
    let address = server.address;
    let mut fresh = server.connect().await;
    let mut resting = server.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    resting.answer().await;
    let mut in_flight = server.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.until("all there", |server| server.counts.open() == 3).await;
    sleep(SHORT / 3).await;
    let start = Instant::now();
    let stopped = tokio::spawn(server.stop());
    assert_eq!((fresh.rest().await, resting.rest().await), (String::new(), String::new()));
    assert!(start.elapsed() < SHORT, "resting connections took {:?}", start.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "still accepting");
    let answer = in_flight.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(stopped.await.expect("no panic"), Drained { finished: 3, cut: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_cut_off() {
    let server = Server::start(TransportOptions { drain: SHORT, ..TransportOptions::default() }).await;
    let (left, counts) = (Arc::clone(&server.left), Arc::clone(&server.counts));
    let mut client = server.send("GET /forever HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.until("there", |server| server.counts.open() == 1).await;
    sleep(SHORT / 3).await;
    let start = Instant::now();
    assert_eq!(server.stop().await, Drained { finished: 0, cut: 1 });
    assert!((SHORT..SHORT * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(client.rest().await, "");
    assert!(left.load(Ordering::SeqCst));
    assert_eq!(counts.open(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_beyond_the_limits_are_answered_with_431() {
    let server = Server::start(TransportOptions::default()).await;
    let within = format!("GET /hello HTTP/1.1\r\nhost: x\r\nx-a: {}\r\nconnection: close\r\n\r\n", "a".repeat(30_000));
    assert!(server.send(within).await.rest().await.starts_with("HTTP/1.1 200"));
    for length in [40_000, 1_000_000] {
        let large = format!("GET /hello HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(length));
        assert!(server.send(large).await.rest().await.starts_with("HTTP/1.1 431 "), "{length}");
    }
    let many: String = (0..200).map(|number| format!("x-{number}: a\r\n")).collect();
    let many = format!("GET /hello HTTP/1.1\r\nhost: x\r\n{many}\r\n");
    assert!(server.send(many).await.rest().await.starts_with("HTTP/1.1 431 "));
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    let answer = server.send(long).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 "), "{answer}");
    assert!(server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_harms_nobody() {
    let server = Server::start(TransportOptions { header_timeout: SHORT, ..TransportOptions::default() }).await;
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut cases: Vec<Vec<u8>> = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /hello\r\n\r\n",
        b"GET /hello HTTP/9.9\r\n\r\n",
        b"GET /he\0llo HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /length HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /length HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /length HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /length HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /length HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nab",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    cases.extend((0..20).map(|length| (0..1 << (length / 2)).map(|_| noise()).collect()));
    for case in &cases {
        let mut client = server.send(case).await;
        let _ = client.0.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, client.0.read_to_end(&mut answer)).await.expect("ends");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{case:?}: {answer:?}");
    }
    assert_eq!(server.counts.panics(), 0);
    assert!(server.is_well().await);
    server.until("all gone", |server| server.counts.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(TransportOptions::default()).await;
    let requests: String = (1..=100).map(|length| post_of(length) + &"x".repeat(length)).collect();
    let last = "GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = server.send(requests + last).await.rest().await;
    let bodies: Vec<&str> =
        answers.split("HTTP/1.1 200 OK\r\n").skip(1).filter_map(|answer| answer.split("\r\n\r\n").nth(1)).collect();
    let expected: Vec<String> = (1..=100).map(|length| length.to_string()).chain(["hello".to_string()]).collect();
    assert_eq!(bodies, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_body_arrives() {
    let server = Server::start(TransportOptions::default()).await;
    for _ in 0..5 {
        let mut client = server.send("POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await;
        // As simple clients do: all of the body first, then a look at the answer.
        client.send(vec![b'x'; 8_000_000]).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with("too large"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_read_behind_its_answer_is_no_pause() {
    let options = TransportOptions { header_timeout: SHORT, keep_alive: SHORT, ..TransportOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.send("POST /behind HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n").await;
    assert!(client.answer().await.ends_with("taken"));
    for _ in 0..10 {
        sleep(SHORT / 4).await;
        client.send([b'x'; 100]).await;
    }
    client.send("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(client.answer().await.ends_with("hello"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_is_answered_for() {
    let server = Server::start(TransportOptions::default()).await;
    let answer = server.send("GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains(r#""code":"internal""#), "{answer}");
    assert!(!answer.contains("as asked"));
    assert_eq!(server.counts.panics(), 1);
    assert!(server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_work_for_it() {
    let server = Server::start(TransportOptions::default()).await;
    let client = server.send("GET /forever HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.until("there", |server| server.counts.open() == 1).await;
    sleep(SHORT / 3).await;
    assert!(!server.left.load(Ordering::SeqCst));
    drop(client);
    server.until("left", |server| server.left.load(Ordering::SeqCst) && server.counts.open() == 0).await;
}

#[tokio::test]
async fn limits_that_let_nothing_through_are_refused() {
    let default = TransportOptions::default;
    for (options, word) in [
        (TransportOptions { max_connections: 0, ..default() }, "max_connections"),
        (TransportOptions { max_header_bytes: 100, ..default() }, "max_header_bytes"),
        (TransportOptions { body_stall: Duration::ZERO, ..default() }, "time limit"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let error = serve(listener, Router::new(), options, std::future::pending()).await.expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// Runs the ignored test below in a process that may open few files.
#[cfg(unix)]
#[test]
fn a_server_without_file_descriptors_recovers() {
    let program = std::env::current_exe().expect("this test program");
    let output = std::process::Command::new("sh")
        .args(["-c", r#"ulimit -n 64 && exec "$0" --ignored --exact --nocapture in_want_of_file_descriptors"#])
        .arg(program)
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(unix)]
#[ignore = "run by `a_server_without_file_descriptors_recovers`, with few file descriptors"]
#[tokio::test(flavor = "multi_thread")]
async fn in_want_of_file_descriptors() {
    let server = Server::start(TransportOptions::default()).await;
    let mut clients = Vec::new();
    // Both sides are in this process, so whoever comes first takes the last descriptor.
    loop {
        match TcpStream::connect(server.address).await {
            Ok(client) => clients.push(client),
            Err(_) if server.counts.accept_errors() > 0 => break,
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
        assert!(clients.len() < 64, "there is no limit");
    }
    let before = server.counts.accept_errors();
    sleep(Duration::from_secs(1)).await;
    let tries = server.counts.accept_errors() - before;
    assert!(tries < 20, "{tries} tries in a second");
    drop(clients);
    server.until("recovered", |server| server.counts.open() == 0).await;
    assert!(server.is_well().await);
}
