//! Loads an HTTP server for `bench/serve`: a number of keep-alive connections, each sending its next request as soon as it has an answer.
//!
//! `cargo run --release -p crossmodal-server --example http_load -- --address 127.0.0.1:8000 --path /v1/embed --bodies bodies.jsonl
//! --clients 32 --seconds 10`
//!
//! It shares the machine with what it measures, so it does as little as it can: one thread, requests made beforehand, answers read up to their
//! length and not looked at beyond their status. Bodies are the lines of a file, or the files of a folder in the order of their names; connections
//! take them in turn. What is answered while warming up doesn't count. Prints one line of JSON.
//!
//! Servers that compute many inputs together answer in bursts. So that it doesn't matter where in a burst the time begins or ends, the rate is taken
//! from the last answer of the time for warming up to the last answer of all.

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The longest head of an answer.
const MOST_HEAD: usize = 1 << 16;
/// How long a connection that failed waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

struct Arguments {
    address: String,
    path: String,
    content_type: String,
    bodies: String,
    clients: usize,
    warm: Duration,
    time: Duration,
}

impl Arguments {
    fn read() -> Outcome<Self> {
        let mut arguments = Self {
            address: String::new(),
            path: String::new(),
            content_type: "application/json".into(),
            bodies: String::new(),
            clients: 1,
            warm: Duration::from_secs(1),
            time: Duration::from_secs(5),
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--address" => arguments.address = value,
                "--path" => arguments.path = value,
                "--type" => arguments.content_type = value,
                "--bodies" => arguments.bodies = value,
                "--clients" => arguments.clients = value.parse()?,
                "--warm" => arguments.warm = Duration::from_secs_f64(value.parse()?),
                "--seconds" => arguments.time = Duration::from_secs_f64(value.parse()?),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if arguments.address.is_empty() || arguments.path.is_empty() || arguments.bodies.is_empty() {
            return Err("--address, --path and --bodies are needed".into());
        }
        Ok(arguments)
    }

    /// Whole requests, head and body.
    fn requests(&self) -> Outcome<Vec<Vec<u8>>> {
        let bodies = bodies(Path::new(&self.bodies))?;
        if bodies.is_empty() {
            return Err(format!("{} has no bodies", self.bodies).into());
        }
        let Self { path, address, content_type, .. } = self;
        Ok(bodies
            .into_iter()
            .map(|body| {
                let length = body.len();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
                );
                [head.into_bytes(), body].concat()
            })
            .collect())
    }
}

fn bodies(path: &Path) -> Outcome<Vec<Vec<u8>>> {
    if path.is_dir() {
        let mut files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        files.sort();
        return Ok(files.iter().map(std::fs::read).collect::<std::io::Result<_>>()?);
    }
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(|line| line.as_bytes().to_vec()).collect())
}

/// What all connections share.
struct Load {
    address: String,
    requests: Vec<Vec<u8>>,
    next: Cell<usize>,
    start: Instant,
    until: Instant,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    /// Of each answer of status 200.
    answers: Vec<Answered>,
    /// Answers with another status than 200.
    refused: u64,
    /// Connections that failed.
    failed: u64,
    /// The first failure or refusal.
    first: Option<String>,
}

/// One request that was answered.
#[derive(Clone, Copy)]
struct Answered {
    /// When, in seconds from the start.
    at: f64,
    /// After how many milliseconds.
    milliseconds: f64,
    bytes: usize,
}

async fn client(load: Rc<Load>) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < load.until {
        if let Err(error) = connection(&load, &mut seen).await {
            seen.failed += 1;
            seen.first.get_or_insert(error.to_string());
            tokio::time::sleep(PAUSE).await;
        }
    }
    seen
}

/// Requests one after the other over one connection, until the time is up.
async fn connection(load: &Load, seen: &mut Seen) -> Outcome<()> {
    let mut stream = TcpStream::connect(&load.address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(MOST_HEAD);
    loop {
        let sent = Instant::now();
        if sent >= load.until {
            return Ok(());
        }
        let place = load.next.get();
        load.next.set((place + 1) % load.requests.len());
        stream.write_all(&load.requests[place]).await?;
        let answer = answer(&mut stream, &mut buffer).await?;
        let now = Instant::now();
        if answer.status != 200 {
            seen.refused += 1;
            seen.first.get_or_insert_with(|| String::from_utf8_lossy(&buffer[..buffer.len().min(600)]).into_owned());
        } else if now <= load.until {
            seen.answers.push(Answered {
                at: (now - load.start).as_secs_f64(),
                milliseconds: (now - sent).as_secs_f64() * 1000.0,
                bytes: buffer.len(),
            });
        }
        if answer.closes {
            return Ok(());
        }
    }
}

/// The head of an answer.
struct Answer {
    status: u16,
    /// Whether the server ends the connection.
    closes: bool,
}

/// Reads one answer, whose head must give its length, into the buffer.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Outcome<Answer> {
    buffer.clear();
    let head = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > MOST_HEAD {
            return Err("the head of an answer doesn't end".into());
        }
    };
    let text = std::str::from_utf8(&buffer[..head])?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("an answer without a status")?;
    let header = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let length: usize = header("content-length").ok_or("an answer without a length")?.parse()?;
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection within an answer".into());
        }
    }
    Ok(Answer { status, closes })
}

/// The figures of all that was seen, `warm` seconds left out at the start.
fn figures(seen: Seen, warm: f64) -> Value {
    let Seen { mut answers, refused, failed, first } = seen;
    answers.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
    let counted = answers.partition_point(|answer| answer.at <= warm);
    let from = counted.checked_sub(1).map_or(0.0, |last| answers[last].at);
    let until = answers.last().map_or(0.0, |last| last.at);
    let mut times: Vec<f64> = answers[counted..].iter().map(|answer| answer.milliseconds).collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (times.len().saturating_sub(1) as f64 * share).ceil() as usize;
        times.get(place).copied().unwrap_or(0.0)
    };
    let rate = if times.is_empty() { 0.0 } else { times.len() as f64 / (until - from) };
    json!({
        "answered": answers.len(), "requests": times.len(), "requests_per_second": rate,
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0),
        "bytes": answers[counted..].iter().map(|answer| answer.bytes).sum::<usize>(),
        "refused": refused, "failed": failed, "first_failure": first,
    })
}

fn run() -> Outcome<()> {
    let arguments = Arguments::read()?;
    let requests = arguments.requests()?;
    let start = Instant::now();
    let until = start + arguments.warm + arguments.time;
    let load = Rc::new(Load { address: arguments.address, requests, next: Cell::new(0), start, until });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = LocalSet::new().block_on(&runtime, async {
        let clients: Vec<_> = (0..arguments.clients).map(|_| tokio::task::spawn_local(client(load.clone()))).collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await?;
            all.answers.extend(seen.answers);
            all.refused += seen.refused;
            all.failed += seen.failed;
            all.first = all.first.or(seen.first);
        }
        Ok::<_, tokio::task::JoinError>(all)
    })?;
    println!("{}", figures(seen, arguments.warm.as_secs_f64()));
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http_load: {error}");
            ExitCode::FAILURE
        }
    }
}
