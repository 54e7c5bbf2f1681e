//! One place that starts servers and asks them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossmodal_engine::batching::BatchLimits;
use crossmodal_engine::{Collection, Embedder, LoadOptions, Mode, demo, ingest, metadata::Metadata};
use crossmodal_server::transport::TransportOptions;
use crossmodal_server::{Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The built-in model.
pub fn mini() -> Arc<dyn Embedder> {
    static MINI: OnceLock<Arc<dyn Embedder>> = OnceLock::new();
    MINI.get_or_init(|| crossmodal_engine::load("mini", &LoadOptions::default()).unwrap()).clone()
}

/// A drawing of the gallery.
pub fn drawing(name: &str) -> &'static [u8] {
    static DRAWINGS: OnceLock<Vec<demo::Drawing>> = OnceLock::new();
    let drawings = DRAWINGS.get_or_init(|| demo::captioned(&["en"]).unwrap());
    drawings.iter().find(|drawing| drawing.name == name).unwrap().bytes
}

pub const APPLE: &str = "1f34e.png";
pub const LEMON: &str = "1f34b.png";

/// A gallery of 240 drawings, indexed once for all tests; nobody writes to it.
pub fn gallery() -> &'static Path {
    static GALLERY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = GALLERY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        demo::unpack(&pictures).unwrap();
        let collection = folder.path().join("gallery.cm");
        let open = Collection::open(&collection, &Mode::write()).unwrap();
        let metadata = Metadata::read(&pictures.join(demo::CAPTIONS)).unwrap();
        let request = ingest::Request { metadata, ..ingest::Request::new(vec![pictures]) };
        ingest::run(&open, &mini(), &request, &ingest::Events::none(), &Default::default()).unwrap();
        drop(open);
        (folder, collection)
    });
    path
}

/// Options of a server with `mini` and nothing else.
pub fn options() -> ServerOptions {
    ServerOptions {
        host: "127.0.0.1".into(),
        port: 0,
        models: vec![("mini".into(), mini())],
        collections: Vec::new(),
        data: None,
        keys: None,
        insecure: false,
        rate_limit: None,
        allow_paths: Vec::new(),
        fetch: None,
        cors_origins: Vec::new(),
        allowed_hosts: Vec::new(),
        max_body: 8_000_000,
        max_inputs: 100,
        timeout: Duration::from_secs(60),
        batch: BatchLimits::default(),
        transport: TransportOptions::default(),
    }
}

/// A running server. It stops when it is dropped.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<usize>>,
    agent: ureq::Agent,
}

impl Running {
    pub fn new(options: ServerOptions) -> Self {
        let server = Server::bind(options).unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let run = move || server.run(async move { drop(stopped.await) }).unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = config.timeout_global(Some(Duration::from_secs(60))).build().new_agent();
        Self { address, stop: Some(stop), thread: Some(std::thread::spawn(run)), agent }
    }

    /// With the gallery, and a folder of its own for new collections.
    pub fn with_gallery() -> (Self, TempDir) {
        let data = tempfile::tempdir().unwrap();
        let options =
            ServerOptions { collections: vec![gallery().into()], data: Some(data.path().into()), ..options() };
        (Self::new(options), data)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks, with headers.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match method {
            "GET" | "HEAD" | "DELETE" if body.is_empty() => self.agent.run(request.body(()).unwrap()),
            _ => self.agent.run(request.body(body).unwrap()),
        }
        .unwrap();
        let headers = response.headers().clone();
        let body = response.body_mut().with_config().limit(100_000_000).read_to_vec().unwrap();
        Answer { status: response.status().as_u16(), headers, body }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Posts a form: names, file names where they are files, contents.
    pub fn form(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (name, file, content) in parts {
            let file = file.map_or_else(String::new, |file| format!("; filename=\"{file}\""));
            body.extend(format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
            body.extend_from_slice(content);
            body.extend(b"\r\n");
        }
        body.extend(b"--edge--\r\n");
        self.ask("POST", path, &[("content-type", "multipart/form-data; boundary=edge")], &body)
    }

    /// Adds files and waits until their job is over.
    pub fn add(&self, collection: &str, files: &[(&str, &[u8])]) -> Value {
        let parts: Vec<_> = files.iter().map(|(name, bytes)| ("file", Some(*name), *bytes)).collect();
        let job = self.form(&format!("/v1/collections/{collection}/items"), &parts).expect(202);
        self.finished(job["id"].as_u64().unwrap())
    }

    /// Waits until a job is over.
    pub fn finished(&self, id: u64) -> Value {
        let start = Instant::now();
        loop {
            let job = self.get(&format!("/v1/jobs/{id}")).expect(200);
            if !matches!(job["state"].as_str().unwrap(), "queued" | "running") {
                return job;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{job}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a collection with one apple and one lemon.
    pub fn fruit(&self, name: &str) {
        self.post("/v1/collections", &json!({ "name": name })).expect(201);
        self.add(name, &[("apple.png", drawing(APPLE)), ("lemon.png", drawing(LEMON))]);
    }

    /// Stops it; returns how many connections were cut.
    pub fn stop(mut self) -> usize {
        self.end()
    }

    fn end(&mut self) -> usize {
        drop(self.stop.take());
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// Its JSON, having checked its status; null where it has no body.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).unwrap() }
    }

    /// The message of an error in our form, having checked status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let error = self.expect(status)["error"].take();
        assert_eq!(error["code"], code, "{error}");
        error["message"].as_str().unwrap().to_string()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}
