//! Where models come from: folders, single files, and the hub, played by a small server on this machine that follows the hub's
//! published contract (a test double, not the hub).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossmodal_models::config::Layout;
use crossmodal_models::source::{HubSettings, Located, ModelName, resolve, resolve_with};
use crossmodal_models::weights::WeightBytes;
use crossmodal_models::{CancelToken, ErrorKind, LoadOptions, ModelEvent};
use serde_json::json;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as the double saw it: method, path, headers in lower case.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

/// A stand-in for the hub with one repository, `team/model`.
struct HubDouble {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// How the double misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Status of every answer.
    status: Option<u16>,
    /// Data requests end after this many bytes, the first this many times.
    cut: Option<(usize, usize)>,
    /// Where they end, the connection stays open, silently.
    stalls: bool,
    /// The listing is a page for people, as behind a network's login page.
    page: bool,
    /// Ranges are ignored, as some proxies do.
    ignores_ranges: bool,
    /// The announced size is off by this much.
    wrong_size: usize,
    /// Large files answer HEAD with a redirect that carries size and tag, as the hub's storage does.
    redirects: bool,
}

impl HubDouble {
    /// Serves until the process of the test ends; at most 200 requests.
    fn start(files: &[(&str, Vec<u8>)], faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files: HashMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            let mut cuts = faults.cut.map_or(0, |(_, times)| times);
            let mut silent = Vec::new();
            for stream in listener.incoming().take(200).flatten() {
                let mut reader = BufReader::new(stream);
                if let Some(request) = read_request(&mut reader) {
                    seen.lock().unwrap().push(request.clone());
                    let before = cuts;
                    answer(reader.get_mut(), &request, &files, faults, &mut cuts);
                    silent.extend((faults.stalls && cuts < before).then_some(reader));
                }
            }
        });
        Self { endpoint, requests }
    }

    fn settings(&self, cache: &Path) -> HubSettings {
        settings(&self.endpoint, cache)
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn settings(endpoint: &str, cache: &Path) -> HubSettings {
    HubSettings {
        endpoint: endpoint.to_string(),
        cache: cache.to_path_buf(),
        token: None,
        offline: false,
        silence: Duration::from_secs(20),
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut parts = line.split_whitespace().map(str::to_string);
    let (method, path) = (parts.next()?, parts.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_string()),
            None => {
                return Some(Request { method, path, headers });
            }
        };
    }
}

fn answer(
    stream: &mut TcpStream,
    request: &Request,
    files: &HashMap<String, Vec<u8>>,
    faults: Faults,
    cuts: &mut usize,
) {
    if let Some(status) = faults.status {
        return write_answer(stream, request, status, &[("X-Error-Message", "as the test wants".to_string())], b"");
    }
    if request.path.starts_with("/api/models/team/model/revision/") {
        if faults.page {
            return write_answer(stream, request, 200, &[], b"<!DOCTYPE html><title>Welcome to Hotel Wi-Fi</title>");
        }
        let siblings: Vec<_> = files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "sha": COMMIT, "siblings": siblings, "tags": ["clip", "license:mit"] }).to_string();
        return write_answer(stream, request, 200, &[], body.as_bytes());
    }
    let name = request.path.strip_prefix(&format!("/team/model/resolve/{COMMIT}/"));
    let Some((name, bytes)) = name.and_then(|name| files.get_key_value(name)) else {
        return write_answer(stream, request, 404, &[("X-Error-Message", "Repository not found".to_string())], b"");
    };
    let range = request.headers.get("range").filter(|_| !faults.ignores_ranges);
    let start = range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
    let headers = file_headers(name, bytes, start, faults);
    if request.method == "HEAD" && faults.redirects {
        let storage = ("Location", "http://storage.invalid/blob".to_string());
        return write_answer(stream, request, 302, &[headers, vec![storage]].concat(), b"");
    }
    let (from, mut to) = (start.unwrap_or(0), bytes.len());
    if let Some((length, _)) = faults.cut.filter(|_| request.method == "GET" && *cuts > 0) {
        *cuts -= 1;
        to = to.min(from + length);
    }
    write_head(stream, if start.is_some() { 206 } else { 200 }, &headers, bytes.len() - from);
    if request.method == "GET" {
        let _ = stream.write_all(&bytes[from..to]);
    }
}

/// What the hub says about a file, of which the part from `start` on is sent.
fn file_headers(name: &str, bytes: &[u8], start: Option<usize>, faults: Faults) -> Vec<(&'static str, String)> {
    let tag = format!("\"tag-of-{}\"", name.replace('/', "-"));
    let mut headers = vec![
        ("ETag", tag.clone()),
        ("X-Repo-Commit", COMMIT.to_string()),
        ("X-Linked-Size", (bytes.len() + faults.wrong_size).to_string()),
        ("X-Linked-Etag", tag),
    ];
    if let Some(start) = start {
        headers.push(("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())));
    }
    headers
}

fn write_answer(stream: &mut TcpStream, request: &Request, status: u16, headers: &[(&str, String)], body: &[u8]) {
    write_head(stream, status, headers, body.len());
    if request.method != "HEAD" {
        let _ = stream.write_all(body);
    }
}

/// The connection is closed after each answer.
fn write_head(stream: &mut TcpStream, status: u16, headers: &[(&str, String)], length: usize) {
    let mut head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {length}\r\nConnection: close\r\n");
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
}

fn repository() -> Vec<(&'static str, Vec<u8>)> {
    let weights: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    vec![
        ("config.json", br#"{"model_type": "clip"}"#.to_vec()),
        ("open_clip_config.json", b"{}".to_vec()),
        ("model.safetensors", weights.clone()),
        ("pytorch_model.bin", vec![0; 10]),
        ("open_clip_pytorch_model.bin", weights[..1000].to_vec()),
        ("README.md", b"unused".to_vec()),
    ]
}

fn hub_name(suffix: &str) -> ModelName {
    ModelName::parse(&format!("team/model{suffix}")).unwrap()
}

fn open(name: &ModelName, settings: &HubSettings) -> Located {
    resolve_with(name, &LoadOptions::default(), settings).unwrap()
}

fn path_of(located: &Located, layout: Layout) -> std::path::PathBuf {
    match &located.weights(layout).unwrap()[0].bytes {
        WeightBytes::File(path) => path.clone(),
        WeightBytes::Static(_) | WeightBytes::Owned(_) => panic!("not in a file"),
    }
}

#[test]
fn downloads_only_what_is_read_and_shares_the_cache_layout() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let located = open(&hub_name(""), &hub.settings(cache.path()));
    assert_eq!(located.read("config.json").unwrap().unwrap().as_ref(), br#"{"model_type": "clip"}"#);
    assert_eq!(located.read("tokenizer.json").unwrap(), None);
    let weights = path_of(&located, Layout::HuggingFace);
    assert!(std::fs::read(&weights).unwrap() == repository()[2].1);
    assert_eq!(located.licence().as_deref(), Some("mit"));
    let folder = cache.path().join("models--team--model");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(weights, folder.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert!(folder.join("blobs/tag-of-model.safetensors").is_file());
    let data: Vec<_> =
        hub.requests().into_iter().filter(|request| request.method == "GET").map(|request| request.path).collect();
    assert_eq!(data.len(), 3, "the listing and two files: {data:?}");
}

#[test]
fn layouts_can_be_chosen() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let settings = hub.settings(cache.path());
    let both = open(&hub_name(""), &settings);
    assert!(both.has_weights(Layout::HuggingFace).unwrap() && both.has_weights(Layout::OpenClip).unwrap());
    let open_clip = open(&hub_name("#openclip"), &settings);
    assert!(!open_clip.has_weights(Layout::HuggingFace).unwrap());
    assert_eq!(open_clip.weights(Layout::OpenClip).unwrap()[0].name, "open_clip_pytorch_model.bin");
    let hugging_face = open(&hub_name("#hf"), &settings);
    assert_eq!(hugging_face.read("open_clip_config.json").unwrap(), None);
}

#[test]
fn a_second_load_works_offline() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let settings = hub.settings(cache.path());
    path_of(&open(&hub_name(""), &settings), Layout::HuggingFace);
    let before = hub.requests().len();
    let offline = HubSettings { offline: true, ..settings.clone() };
    let located = open(&hub_name(""), &offline);
    assert_eq!(path_of(&located, Layout::HuggingFace).metadata().unwrap().len(), 3_000_000);
    assert_eq!(located.read("config.json").unwrap(), None, "not fetched before, so not there");
    assert_eq!(hub.requests().len(), before);
    // Out of reach without being told: the cache answers too. A commit works as a revision.
    let unreachable = HubSettings { endpoint: "http://127.0.0.1:1".into(), ..settings };
    assert!(path_of(&open(&hub_name(&format!("@{COMMIT}")), &unreachable), Layout::HuggingFace).is_file());
    let error = open(&hub_name("@other"), &offline).read("config.json").unwrap_err();
    assert!(error.kind() == ErrorKind::Network && error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn broken_transfers_go_on_where_they_ended() {
    let faults = Faults { cut: Some((1_000_000, 2)), ..Faults::default() };
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository()[2..3], faults));
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let options =
        LoadOptions { events: Some(Arc::new(move |event| sink.lock().unwrap().push(event))), ..LoadOptions::default() };
    let located = resolve_with(&hub_name(""), &options, &hub.settings(cache.path())).unwrap();
    assert!(std::fs::read(path_of(&located, Layout::HuggingFace)).unwrap() == repository()[2].1);
    let ranges: Vec<_> = hub.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let events = events.lock().unwrap();
    let total: u64 =
        events.iter().map(|event| if let ModelEvent::DownloadAdvanced { bytes } = event { *bytes } else { 0 }).sum();
    assert_eq!(total, 3_000_000);
    assert_eq!(events[0], ModelEvent::DownloadStarted { file: "model.safetensors".into(), total: 3_000_000 });
    assert_eq!(events.last(), Some(&ModelEvent::DownloadFinished { file: "model.safetensors".into() }));
}

#[test]
fn an_earlier_runs_part_is_used_unless_the_server_ignores_ranges() {
    for ignores_ranges in [false, true] {
        let faults = Faults { ignores_ranges, redirects: true, ..Faults::default() };
        let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), faults));
        let blobs = cache.path().join("models--team--model/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join("tag-of-model.safetensors.incomplete"), &repository()[2].1[..2_000_000]).unwrap();
        let located = open(&hub_name(""), &hub.settings(cache.path()));
        assert!(std::fs::read(path_of(&located, Layout::HuggingFace)).unwrap() == repository()[2].1);
        assert!(
            hub.requests()
                .iter()
                .any(|request| { request.headers.get("range").is_some_and(|range| range == "bytes=2000000-") })
        );
    }
}

#[test]
fn a_hub_that_is_out_of_order_leaves_the_cache() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    path_of(&open(&hub_name(""), &hub.settings(cache.path())), Layout::HuggingFace);
    let broken = |status: Option<u16>, page: bool| Faults { status, page, ..Faults::default() };
    for faults in [broken(Some(500), false), broken(Some(503), false), broken(Some(429), false), broken(None, true)] {
        let hub = HubDouble::start(&repository(), faults);
        let located = open(&hub_name(""), &hub.settings(cache.path()));
        assert!(path_of(&located, Layout::HuggingFace).is_file());
        assert_eq!(hub.requests().len(), 1, "the listing only");
        let empty = tempfile::tempdir().unwrap();
        let error = open(&hub_name(""), &hub.settings(empty.path())).read("config.json").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        let what = faults.status.map_or_else(|| "login page".to_string(), |status| format!("answered {status}"));
        for part in [what.as_str(), "team/model", "Try again later", "HF_ENDPOINT", "`mini`"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    // What the hub itself says about the request counts, even if there is a cache.
    let hub = HubDouble::start(&[], broken(Some(401), false));
    assert_eq!(open(&hub_name(""), &hub.settings(cache.path())).files().unwrap_err().kind(), ErrorKind::Network);
}

#[test]
fn silent_connections_count_as_broken() {
    let faults = Faults { cut: Some((300_000, 6)), stalls: true, ..Faults::default() };
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository()[2..3], faults));
    let settings = HubSettings { silence: Duration::from_millis(200), ..hub.settings(cache.path()) };
    let start = Instant::now();
    // More stalls than fruitless requests are allowed: each brought something.
    assert!(std::fs::read(path_of(&open(&hub_name(""), &settings), Layout::HuggingFace)).unwrap() == repository()[2].1);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let ranges = hub.requests().iter().filter(|request| request.headers.contains_key("range")).count();
    assert_eq!(ranges, 6);
    let faults = Faults { cut: Some((0, 100)), ..faults };
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), faults));
    let settings = HubSettings { silence: Duration::from_millis(200), ..hub.settings(cache.path()) };
    let error = open(&hub_name(""), &settings).read("config.json").unwrap_err();
    assert!(error.kind() == ErrorKind::Network && error.to_string().contains("can't be reached"), "{error}");
}

#[test]
fn a_cancelled_download_keeps_what_arrived() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let settings = hub.settings(cache.path());
    let cancel = CancelToken::new();
    let raise = cancel.clone();
    let events = move |event| {
        if matches!(event, ModelEvent::DownloadAdvanced { bytes } if bytes > 0) {
            raise.cancel();
        }
    };
    let options = LoadOptions { events: Some(Arc::new(events)), cancel, ..LoadOptions::default() };
    let located = resolve_with(&hub_name(""), &options, &settings).unwrap();
    assert_eq!(located.weights(Layout::HuggingFace).unwrap_err().kind(), ErrorKind::Cancelled);
    let blobs = cache.path().join("models--team--model/blobs");
    let arrived = blobs.join("tag-of-model.safetensors.incomplete").metadata().unwrap().len();
    assert!(0 < arrived && arrived < 3_000_000, "{arrived}");
    let before = hub.requests().len();
    assert_eq!(
        resolve_with(&hub_name(""), &options, &settings).unwrap().files().unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(hub.requests().len(), before, "nothing is asked for");
    assert!(std::fs::read(path_of(&open(&hub_name(""), &settings), Layout::HuggingFace)).unwrap() == repository()[2].1);
    let range = hub.requests().last().unwrap().headers.get("range").cloned();
    assert_eq!(range, Some(format!("bytes={arrived}-")));
}

#[test]
fn waiting_for_another_process_can_be_cancelled() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let locks = cache.path().join(".locks/models--team--model");
    std::fs::create_dir_all(&locks).unwrap();
    let other = std::fs::File::create(locks.join("tag-of-config.json.lock")).unwrap();
    other.lock().unwrap();
    let options = LoadOptions::default();
    let cancel = options.cancel.clone();
    let located = resolve_with(&hub_name(""), &options, &hub.settings(cache.path())).unwrap();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        cancel.cancel();
    });
    assert_eq!(located.read("config.json").unwrap_err().kind(), ErrorKind::Cancelled);
    timer.join().unwrap();
}

#[test]
fn a_size_that_does_not_fit_is_detected() {
    let faults = Faults { wrong_size: 5, ..Faults::default() };
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), faults));
    let error = open(&hub_name(""), &hub.settings(cache.path())).read("config.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(error.to_string().contains("expected 27"), "{error}");
    assert!(!cache.path().join("models--team--model/blobs/tag-of-config.json").exists());
}

#[test]
fn the_token_goes_to_the_hub() {
    let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&repository(), Faults::default()));
    let settings = HubSettings { token: Some("hf_secret".into()), ..hub.settings(cache.path()) };
    open(&hub_name(""), &settings).read("config.json").unwrap();
    let requests = hub.requests();
    assert_eq!(requests.len(), 3);
    assert!(
        requests
            .iter()
            .all(|request| { request.headers.get("authorization").is_some_and(|value| value == "Bearer hf_secret") })
    );
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (401, ErrorKind::Network, ["team/model@main", "set HF_TOKEN", "licence"]),
        (403, ErrorKind::Network, ["403", "set HF_TOKEN", "accept the licence"]),
        (404, ErrorKind::NotFound, ["team/model@main", "not found", "as the test wants"]),
        (503, ErrorKind::Network, ["503", "Try again", "team/model"]),
    ];
    for (status, kind, words) in cases {
        let faults = Faults { status: Some(status), ..Faults::default() };
        let (cache, hub) = (tempfile::tempdir().unwrap(), HubDouble::start(&[], faults));
        let error = open(&hub_name(""), &hub.settings(cache.path())).read("config.json").unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
    }
}

#[test]
fn no_network_says_what_to_do() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = open(&hub_name(""), &settings(&endpoint, cache.path())).read("config.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    for word in ["HF_ENDPOINT", "folder", "mini", "HF_HUB_OFFLINE"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn folders_and_single_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("model.safetensors.index.json", br#"{"weight_map": {"a": "part-2", "b": "part-1", "c": "part-2"}}"#);
    write("part-1", b"1");
    write("part-2", b"2");
    let located =
        resolve(&ModelName::parse(folder.path().to_str().unwrap()).unwrap(), &LoadOptions::default()).unwrap();
    let names: Vec<_> = located.weights(Layout::HuggingFace).unwrap().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["part-1", "part-2"]);
    assert!(!located.has_weights(Layout::OpenClip).unwrap());
    let error = located.weights(Layout::OpenClip).unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("open_clip_model.safetensors"),
        "{error}"
    );
    write("model.safetensors.index.json", br#"{"weight_map": {"a": "../secret"}}"#);
    assert_eq!(located.weights(Layout::HuggingFace).unwrap_err().kind(), ErrorKind::Malformed);
    let file = folder.path().join("part-1");
    let single = resolve(&ModelName::parse(file.to_str().unwrap()).unwrap(), &LoadOptions::default()).unwrap();
    assert!(single.is_single_file());
    assert_eq!(path_of(&single, Layout::OpenClip), file);
    assert!(single.read("model.safetensors.index.json").unwrap().is_some(), "its folder supplies configurations");
    let missing = resolve(&ModelName::parse("./no/such/place").unwrap(), &LoadOptions::default());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn references_lead_back_to_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let root = root.to_str().unwrap();
    std::fs::create_dir(folder.path().join("a#b")).unwrap();
    std::fs::write(folder.path().join("epoch_3.pt"), b"").unwrap();
    let name = |path: &str| format!("{root}/{path}");
    let mut cases: Vec<(String, String)> = [
        "mini",
        "ViT-B-32/openai",
        "team/model",
        "team/model#openclip",
        "team/model@v1/a",
        "team/model@refs/pr/3#hf",
        "team/weights.pt@main",
    ]
    .iter()
    .map(|name| (name.to_string(), name.to_string()))
    .collect();
    cases.push(("team/model@main".into(), "team/model".into()));
    cases.push(("vit-b-32/OPENAI".into(), "ViT-B-32/openai".into()));
    for path in ["", "#hf", "a#b", "a#b#openclip", "epoch_3.pt", "epoch_3.pt#openclip"] {
        let plain = if path.starts_with('#') || path.is_empty() { format!("{root}{path}") } else { name(path) };
        cases.push((plain.clone(), plain));
    }
    cases.push((name("a#b/../epoch_3.pt"), name("epoch_3.pt")));
    cases.push(("src".into(), Path::new("src").canonicalize().unwrap().to_str().unwrap().into()));
    for (given, expected) in cases {
        let name = ModelName::parse(&given).unwrap();
        let reference = resolve(&name, &LoadOptions::default()).unwrap().reference();
        assert_eq!(reference, expected, "{given}");
        let again = ModelName::parse(&reference).unwrap();
        match (&name, &again) {
            (ModelName::Path { path, layout }, ModelName::Path { path: other, layout: chosen }) => {
                assert!(other.is_absolute() && path.canonicalize().unwrap() == other.canonicalize().unwrap());
                assert_eq!(layout, chosen);
            }
            _ => assert_eq!(name, again),
        }
        assert_eq!(resolve(&again, &LoadOptions::default()).unwrap().reference(), reference);
    }
}

/// In a hub cache, a weight file is a link to a blob in a folder without configurations.
#[cfg(unix)]
#[test]
fn the_reference_of_a_linked_weight_file_keeps_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("snapshot")).unwrap();
    std::fs::write(root.join("blob"), b"").unwrap();
    std::os::unix::fs::symlink("../blob", root.join("snapshot/model.pt")).unwrap();
    let path = root.join("snapshot/model.pt");
    let name = ModelName::parse(path.to_str().unwrap()).unwrap();
    assert_eq!(resolve(&name, &LoadOptions::default()).unwrap().reference(), path.to_str().unwrap());
}

#[test]
fn the_built_in_model_needs_no_files() {
    let located = resolve(&ModelName::parse("mini").unwrap(), &LoadOptions::default()).unwrap();
    assert!(located.read("config.json").unwrap().is_some());
    let weights = located.weights(Layout::HuggingFace).unwrap();
    assert!(matches!(weights[0].bytes, WeightBytes::Static(bytes) if bytes.len() > 1_000_000));
    assert!(
        !located.has_weights(Layout::OpenClip).unwrap() || located.read("open_clip_config.json").unwrap().is_none()
    );
}

#[test]
fn known_variants_that_are_not_supported_are_refused() {
    let error = resolve(&ModelName::parse("RN50/openai").unwrap(), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

/// Reading stops at the end of the announced body; kept here so that the double itself is checked.
#[test]
fn an_architecture_alone_is_answered_with_its_weights() {
    let message = ModelName::parse("ViT-L-14-336").unwrap_err().to_string();
    assert!(message.contains("ViT-L-14-336/openai"), "{message}");
    let message = ModelName::parse("ViT-Z-99").unwrap_err().to_string();
    assert!(message.contains("names no model") && message.contains("model list"), "{message}");
}

#[test]
fn the_double_speaks_http() {
    let hub = HubDouble::start(&repository(), Faults::default());
    let mut stream = TcpStream::connect(hub.endpoint.trim_start_matches("http://")).unwrap();
    write!(stream, "GET /team/model/resolve/{COMMIT}/README.md HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("X-Repo-Commit") && text.ends_with("unused"), "{text}");
}
