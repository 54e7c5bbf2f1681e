//! `serve` and `key`, as typed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::Home;

/// A server as a process, ended when it is dropped.
struct Served {
    child: Child,
    address: String,
    first: Value,
}

impl Served {
    fn new(home: &Home, line: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = home.command();
        command.args("serve --port 0 --json --log warn".split(' ')).args(line.split_whitespace());
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let first: Value = serde_json::from_str(&first).unwrap();
        Self { child, address: first["address"].as_str().unwrap().to_string(), first }
    }

    /// Status and JSON of an answer.
    fn ask(&self, method: &str, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Api-Key: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// Asks it to terminate; its exit code.
    fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "it doesn't stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_collection_is_served_and_the_command_line_still_writes_to_it() {
    let home = Home::new();
    home.drawings("pictures", &["1f34e.png", "1f34b.png"]);
    home.run("index pictures --collection fruit.cm").expect(0);
    let server = Served::new(&home, "--collection fruit.cm --data own", &[]);
    assert_eq!((&server.first["models"], &server.first["collections"]), (&json!(["mini"]), &json!(["fruit"])));
    let search = |server: &Served| {
        let asked = json!({ "query": "red apple", "k": 5 });
        let (status, answer) = server.ask("POST", "/v1/collections/fruit/search", "", &asked);
        assert_eq!(status, 200, "{answer}");
        answer["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["name"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(search(&server), ["1f34e.png", "1f34b.png"]);
    home.drawings("more", &["1f422.png"]);
    home.run("index more --collection fruit.cm").expect(0);
    assert_eq!(search(&server).len(), 3);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn keys_are_made_used_and_taken_back() {
    let home = Home::new();
    let made = home.run("key new laptop --scopes read").expect(0);
    let key = made.stderr.lines().find_map(|line| line.strip_prefix("key: ")).unwrap().to_string();
    assert!(!made.stdout.contains(&key));
    std::fs::write(home.path("keys"), &made.stdout).unwrap();
    let server = Served::new(&home, "--keys keys", &[("CROSSMODAL_API_KEY", "an-operator-of-this-server")]);
    assert_eq!(server.ask("GET", "/v1/models", "", &Value::Null).0, 401);
    assert_eq!(server.ask("GET", "/v1/models", &key, &Value::Null).0, 200);
    assert_eq!(server.ask("GET", "/v1/models", "an-operator-of-this-server", &Value::Null).0, 200);
    let create = json!({ "name": "a" });
    assert_eq!(server.ask("POST", "/v1/collections", &key, &create).0, 403);
    // Without --data there is no place for it, whoever asks.
    assert_eq!(server.ask("POST", "/v1/collections", "an-operator-of-this-server", &create).0, 403);
    assert!(home.run("key new x --scopes all").expect(2).stderr.contains("read,write"));
    assert!(home.run_arguments(["key", "new", "a b"]).expect(2).stderr.contains("a b"));
}

#[test]
fn what_can_not_be_served_is_said_at_once() {
    let home = Home::new();
    for (line, code, says) in [
        ("serve --collection nowhere.cm", 1, "nowhere.cm"),
        ("serve --model no/such/model", 1, "no/such/model"),
        ("serve --host 0.0.0.0 --port 0", 1, "--insecure"),
        ("serve --model mini --model mini", 2, "NAME=MODEL"),
        ("serve --api-key short --port 0", 2, "16"),
        ("serve --keys missing --port 0", 1, "missing"),
        ("serve --cors-origin example.org --port 0", 2, "example.org"),
        ("serve --rate-limit 0 --port 0", 2, "--rate-limit"),
        ("serve --allow-path /no/such/folder --port 0", 2, "/no/such/folder"),
        ("serve --fetch-host a --port 0", 2, "--allow-fetch"),
    ] {
        let run = home.run(line).expect(code);
        assert!(run.stderr.contains(says), "{line}: {}", run.stderr);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert!(home.run(&format!("serve --port {port}")).expect(1).stderr.contains(&port.to_string()));
}
