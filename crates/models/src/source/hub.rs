//! Downloads from the hub: listing of a revision, files on demand, resumed where they broke off, checked for their size.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::cache::{RepoCache, create_parent, is_inside, is_plain};
use super::settings::HubSettings;
use crate::error::{Error, Result};
use crate::options::LoadOptions;
use crate::progress::{CancelToken, ModelEvent, ModelEvents};

/// How many requests in a row may bring nothing new before a download is given up.
const ATTEMPTS: u32 = 4;
/// The pause before the second such request; it doubles for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Hops that a request for a file's data may take to its final address.
const MAX_REDIRECTS: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit for a listing.
const MAX_LISTING: u64 = 64 << 20;
const CHUNK: usize = 1 << 20;

/// A revision of a repository.
pub(super) struct Hub {
    settings: HubSettings,
    repo: String,
    revision: String,
    cache: RepoCache,
    agent: Agent,
    events: Option<ModelEvents>,
    cancel: CancelToken,
    listing: OnceLock<Listing>,
}

/// What a revision holds.
#[derive(Debug, Clone)]
struct Listing {
    commit: String,
    files: Vec<String>,
    licence: Option<String>,
    /// Why the hub couldn't be asked, if this is only what the cache holds.
    outage: Option<String>,
}

/// The part of the hub's answer about a revision that is used.
#[derive(Deserialize)]
struct RevisionInfo {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What the hub says about a file before its data is fetched.
struct FileInfo {
    etag: String,
    size: u64,
}

impl Hub {
    pub(super) fn new(settings: &HubSettings, repo: &str, revision: &str, options: &LoadOptions) -> Self {
        Self {
            settings: settings.clone(),
            repo: repo.to_string(),
            revision: revision.to_string(),
            cache: RepoCache::new(&settings.cache, repo),
            agent: agent(settings.silence),
            events: options.events.clone(),
            cancel: options.cancel.clone(),
            listing: OnceLock::new(),
        }
    }

    /// Names of the revision's files; those in the cache if the hub is out of reach or out of order.
    pub(super) fn files(&self) -> Result<&[String]> {
        Ok(&self.listing()?.files)
    }

    /// The licence that the repository declares.
    pub(super) fn licence(&self) -> Option<&str> {
        self.listing.get()?.licence.as_deref()
    }

    pub(super) fn describe(&self) -> String {
        format!("{}/{} at {}", self.settings.endpoint, self.repo, self.revision)
    }

    /// Where a file is or would be.
    pub(super) fn display_path(&self, name: &str) -> PathBuf {
        match self.listing.get() {
            Some(listing) => self.cache.file(&listing.commit, name),
            None => Path::new(&self.repo).join(name),
        }
    }

    /// The error for something that isn't in the cache, if the cache is all that could be asked.
    pub(super) fn incomplete(&self, name: &str, what: &str) -> Option<Error> {
        let outage = self.listing.get()?.outage.as_ref()?;
        let Self { repo, revision, settings, .. } = self;
        let step = if settings.offline { "Unset it" } else { "Go online" };
        Some(Error::Network(format!(
            "{repo}@{revision} isn't completely in {} ({what}), and {outage}. {step} and run `crossmodal model pull {name}`, or give a \
             folder's path",
            settings.cache.display()
        )))
    }

    fn listing(&self) -> Result<&Listing> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let listing = if self.settings.offline {
            self.cached_listing("HF_HUB_OFFLINE is set").ok_or_else(|| self.not_cached())?
        } else {
            match self.ask() {
                Ok(listing) => listing,
                Err(Interrupted::Outage(reason)) => self.cached_listing(&reason).ok_or_else(|| self.broken(&reason))?,
                Err(Interrupted::Final(error)) => return Err(error),
            }
        };
        Ok(self.listing.get_or_init(|| listing))
    }

    fn cached_listing(&self, outage: &str) -> Option<Listing> {
        let commit = self.cache.commit(&self.revision)?;
        let files = self.cache.files(&commit);
        Some(Listing { commit, files, licence: None, outage: Some(outage.to_string()) })
    }

    fn ask(&self) -> std::result::Result<Listing, Interrupted> {
        self.go_on()?;
        let revision = self.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.settings.endpoint, self.repo);
        let unreachable = |error| Interrupted::Outage(self.unreachable(&error));
        let mut response = self.get(&url, None, MAX_REDIRECTS).map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(self.refused(&response, None));
        }
        let body = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec().map_err(unreachable)?;
        let strange = |reason: String| {
            Interrupted::Outage(format!(
                "{url} doesn't answer as a hub does ({reason}); a network's login page or a proxy may be in between"
            ))
        };
        let info: RevisionInfo = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
        if !is_plain(&info.sha) {
            return Err(strange(format!("commit {:?} is not one", info.sha)));
        }
        self.cache.remember(&self.revision, &info.sha)?;
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|name| is_inside(name)).collect();
        let licence = info.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_string);
        Ok(Listing { commit: info.sha, files, licence, outage: None })
    }

    /// The local path of a file, downloaded first if need be.
    pub(super) fn fetch(&self, name: &str) -> Result<PathBuf> {
        let commit = &self.listing()?.commit;
        let path = self.cache.file(commit, name);
        if path.exists() {
            return Ok(path);
        }
        if self.settings.offline {
            return Err(self.not_cached());
        }
        let url = format!("{}/{}/resolve/{commit}/{name}", self.settings.endpoint, self.repo);
        let info = self.file_info(&url, name)?;
        let _lock = self.cache.lock(&info.etag, &self.cancel)?;
        let blob = self.cache.blob(&info.etag);
        if !std::fs::metadata(&blob).is_ok_and(|found| found.len() == info.size) {
            self.download(&url, name, &info, &blob)?;
        }
        self.cache.link(&info.etag, commit, name)
    }

    /// Asks for size and entity tag. Large files answer with a redirect to a storage address, which carries both itself.
    fn file_info(&self, url: &str, name: &str) -> Result<FileInfo> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            self.go_on()?;
            let response = self.head(&url).map_err(|error| self.broken(&self.unreachable(&error)))?;
            if let Some(location) = header(&response, "location").filter(|location| location.starts_with('/')) {
                url = format!("{}{location}", self.settings.endpoint);
                continue;
            }
            if !response.status().is_success() && !response.status().is_redirection() {
                return Err(self.refused(&response, Some(name)).into_error(self));
            }
            let etag = header(&response, "x-linked-etag").or_else(|| header(&response, "etag"));
            let size = header(&response, "x-linked-size").or_else(|| header(&response, "content-length"));
            let etag = etag
                .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_string())
                .filter(|etag| is_plain(etag));
            let size = size.and_then(|size| size.parse().ok());
            return etag.zip(size).map(|(etag, size)| FileInfo { etag, size }).ok_or_else(|| {
                Error::Network(format!("{url}: the answer has no usable ETag and size; is HF_ENDPOINT a hub?"))
            });
        }
        Err(Error::Network(format!("{url}: redirected more than {MAX_REDIRECTS} times")))
    }

    /// Fetches into `<blob>.incomplete`, going on where an earlier attempt ended.
    fn download(&self, url: &str, name: &str, info: &FileInfo, blob: &Path) -> Result<()> {
        create_parent(blob)?;
        let part = PathBuf::from(format!("{}.incomplete", blob.display()));
        let open = OpenOptions::new().create(true).append(true).open(&part);
        let mut file = open.map_err(|error| Error::io(&part, error))?;
        self.emit(ModelEvent::DownloadStarted { file: name.to_string(), total: info.size });
        let present = length(&file, &part)?.min(info.size);
        self.emit(ModelEvent::DownloadAdvanced { bytes: present });
        self.receive_all(url, name, info, &mut file, &part)?;
        file.sync_all().map_err(|error| Error::io(&part, error))?;
        std::fs::rename(&part, blob).map_err(|error| Error::io(blob, error))?;
        self.emit(ModelEvent::DownloadFinished { file: name.to_string() });
        Ok(())
    }

    /// Asks for what is missing until the file has its size. A long download may break off any number of times as long as it gets on.
    fn receive_all(&self, url: &str, name: &str, info: &FileInfo, file: &mut File, part: &Path) -> Result<()> {
        let mut found = length(file, part)?;
        let (mut furthest, mut fruitless) = (found, 0);
        while found != info.size {
            if fruitless > 0 {
                std::thread::sleep(FIRST_PAUSE * (1 << (fruitless - 1)));
            }
            let outcome = self.receive(url, name, info, file, part);
            found = length(file, part)?;
            let advanced = found > furthest && found <= info.size;
            fruitless = if advanced { 0 } else { fruitless + 1 };
            furthest = furthest.max(found);
            match outcome {
                Err(Interrupted::Final(error)) => return Err(error),
                Err(outage) if fruitless == ATTEMPTS => return Err(outage.into_error(self)),
                Ok(()) if fruitless == ATTEMPTS => {
                    let reason = format!("{name} has {found} bytes after download, expected {}", info.size);
                    return Err(Error::malformed(part, reason));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One request for what is missing, appended to `file`.
    fn receive(
        &self,
        url: &str,
        name: &str,
        info: &FileInfo,
        file: &mut File,
        part: &Path,
    ) -> std::result::Result<(), Interrupted> {
        self.go_on()?;
        let io = |error| Interrupted::Final(Error::io(part, error));
        let unreachable = |error| Interrupted::Outage(self.unreachable(&error));
        let mut start = length(file, part)?;
        if start > info.size {
            file.set_len(0).map_err(io)?;
            start = 0;
        }
        let response = self.get(url, (start > 0).then_some(start), MAX_REDIRECTS).map_err(unreachable)?;
        let goes_on = response.status() == 206
            && header(&response, "content-range").is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        if !response.status().is_success() && response.status() != 416 {
            return Err(self.refused(&response, Some(name)));
        }
        if !goes_on {
            let whole = response.status() == 200;
            if whole {
                self.check_length(&response, name, info.size)?;
            }
            file.set_len(0).map_err(io)?;
            if !whole {
                return Ok(());
            }
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            self.go_on()?;
            let count = reader.read(&mut buffer).map_err(|error| unreachable(error.into()))?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..count]).map_err(io)?;
            self.emit(ModelEvent::DownloadAdvanced { bytes: count as u64 });
        }
    }

    /// Keeps something else than the file, such as a network's login page, from taking the place of what has arrived.
    fn check_length(
        &self,
        response: &Response<Body>,
        name: &str,
        expected: u64,
    ) -> std::result::Result<(), Interrupted> {
        let announced = header(response, "content-length").and_then(|length| length.parse::<u64>().ok());
        match announced.filter(|announced| *announced != expected) {
            None => Ok(()),
            Some(announced) => Err(Interrupted::Outage(format!(
                "{} offers {announced} bytes of {name}, expected {expected}; a network's login page or a proxy may be in between",
                self.settings.endpoint
            ))),
        }
    }

    fn get(&self, url: &str, from: Option<u64>, redirects: u32) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url).config().max_redirects(redirects).build();
        if let Some(token) = &self.settings.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call()
    }

    fn head(&self, url: &str) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.head(url).config().max_redirects(0).build();
        if let Some(token) = &self.settings.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call()
    }

    /// Fails once the work is no longer wanted.
    fn go_on(&self) -> Result<()> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn emit(&self, event: ModelEvent) {
        if let Some(events) = &self.events {
            events(event);
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> String {
        format!("{} can't be reached ({error})", self.settings.endpoint)
    }

    /// What to do about an outage.
    fn broken(&self, reason: &str) -> Error {
        let Self { repo, settings, .. } = self;
        Error::Network(format!(
            "{repo}: {reason}. Try again later, set HF_ENDPOINT to a mirror, or download the files elsewhere and give the folder's path, \
             or use the built-in model `mini`; with HF_HUB_OFFLINE=1 only files already in {} are used",
            settings.cache.display()
        ))
    }

    fn not_cached(&self) -> Error {
        let Self { repo, revision, settings, .. } = self;
        Error::Network(format!(
            "{repo}@{revision} isn't (completely) in {} and HF_HUB_OFFLINE is set: unset it to download, or give a folder's path",
            settings.cache.display()
        ))
    }

    fn refused(&self, response: &Response<Body>, file: Option<&str>) -> Interrupted {
        let Self { repo, revision, settings, .. } = self;
        let endpoint = &settings.endpoint;
        let what = file.map_or_else(|| format!("{repo}@{revision}"), |file| format!("{repo}@{revision}, {file}"));
        let said = header(response, "x-error-message").map_or_else(String::new, |message| format!(": {message}"));
        let token = if settings.token.is_some() { "the token in use (HF_TOKEN) lacks access" } else { "set HF_TOKEN" };
        Interrupted::Final(match response.status().as_u16() {
            401 => Error::Network(format!(
                "{what}: no access (401{said}). Check the name; if the repository is private or gated, {token}, and accept its licence at \
                 {endpoint}/{repo}"
            )),
            403 => Error::Network(format!(
                "{what}: access refused (403{said}). {token}, and accept the licence at {endpoint}/{repo}"
            )),
            404 => Error::NotFound(format!("{what}: not found at {endpoint} (404{said})")),
            status if is_outage(status) => {
                return Interrupted::Outage(format!("{endpoint} answered {status}{said}"));
            }
            status => {
                Error::Network(format!("{what}: {endpoint} answered {status}{said}; check HF_ENDPOINT and the name"))
            }
        })
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("repo", &self.repo).field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Why the hub gave no answer that can be used.
enum Interrupted {
    /// The connection or the server is at fault, in words: another attempt or the cache may help.
    Outage(String),
    /// They won't.
    Final(Error),
}

impl Interrupted {
    fn into_error(self, hub: &Hub) -> Error {
        match self {
            Self::Outage(reason) => hub.broken(&reason),
            Self::Final(error) => error,
        }
    }
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Whether a status says that the server or something before it is out of order, rather than what it thinks of the request.
fn is_outage(status: u16) -> bool {
    // Redirects are followed, so one that is left leads nowhere. 407 is a proxy's, 408 and 429 ask for another attempt.
    !(400..500).contains(&status) || matches!(status, 407 | 408 | 429)
}

fn agent(silence: Duration) -> Agent {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects_will_error(false)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        // Starts anew with each read, so it ends a stalled transfer and never a long one.
        .timeout_per_read(Some(silence))
        .user_agent(concat!("crossmodal/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_string)
}

fn length(file: &File, path: &Path) -> Result<u64> {
    file.metadata().map(|metadata| metadata.len()).map_err(|error| Error::io(path, error))
}
