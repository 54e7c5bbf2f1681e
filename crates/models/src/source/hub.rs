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
use crate::progress::{ModelEvent, ModelEvents};

/// How often a file is asked for again when the connection breaks.
const ATTEMPTS: usize = 4;
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
    listing: OnceLock<Listing>,
}

/// What a revision holds.
#[derive(Debug, Clone)]
struct Listing {
    commit: String,
    files: Vec<String>,
    licence: Option<String>,
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
    pub(super) fn new(settings: &HubSettings, repo: &str, revision: &str, events: Option<ModelEvents>) -> Self {
        Self {
            settings: settings.clone(),
            repo: repo.to_string(),
            revision: revision.to_string(),
            cache: RepoCache::new(&settings.cache, repo),
            agent: agent(),
            events,
            listing: OnceLock::new(),
        }
    }

    /// Names of the revision's files; those in the cache if the hub is out of reach.
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

    fn listing(&self) -> Result<&Listing> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing);
        }
        let listing =
            if self.settings.offline { self.cached_listing().ok_or_else(|| self.not_cached())? } else { self.ask()? };
        Ok(self.listing.get_or_init(|| listing))
    }

    fn cached_listing(&self) -> Option<Listing> {
        let commit = self.cache.commit(&self.revision)?;
        Some(Listing { files: self.cache.files(&commit), commit, licence: None })
    }

    fn ask(&self) -> Result<Listing> {
        let revision = self.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.settings.endpoint, self.repo);
        let mut response = match self.get(&url, None, MAX_REDIRECTS) {
            Ok(response) => response,
            Err(error) => {
                return self.cached_listing().ok_or_else(|| self.unreachable(&error));
            }
        };
        if !response.status().is_success() {
            return Err(self.refused(&response, None));
        }
        let body = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        let malformed = |reason: String| Error::malformed(Path::new(&url), reason);
        let info: RevisionInfo = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        if !is_plain(&info.sha) {
            return Err(malformed(format!("commit {:?} is not one", info.sha)));
        }
        self.cache.remember(&self.revision, &info.sha)?;
        let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).filter(|name| is_inside(name)).collect();
        let licence = info.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_string);
        Ok(Listing { commit: info.sha, files, licence })
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
        let _lock = self.cache.lock(&info.etag)?;
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
            let response = self.head(&url).map_err(|error| self.unreachable(&error))?;
            if let Some(location) = header(&response, "location").filter(|location| location.starts_with('/')) {
                url = format!("{}{location}", self.settings.endpoint);
                continue;
            }
            if !response.status().is_success() && !response.status().is_redirection() {
                return Err(self.refused(&response, Some(name)));
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
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            if length(&file, &part)? == info.size {
                break;
            }
            match self.receive(url, name, info, &mut file, &part) {
                Ok(()) => failure = None,
                Err(Interrupted::Connection(error)) => failure = Some(self.unreachable(&error)),
                Err(Interrupted::Final(error)) => return Err(error),
            }
        }
        let found = length(&file, &part)?;
        if found != info.size {
            let damaged =
                || Error::malformed(&part, format!("{name} has {found} bytes after download, expected {}", info.size));
            return Err(failure.unwrap_or_else(damaged));
        }
        file.sync_all().map_err(|error| Error::io(&part, error))?;
        std::fs::rename(&part, blob).map_err(|error| Error::io(blob, error))?;
        self.emit(ModelEvent::DownloadFinished { file: name.to_string() });
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
        let io = |error| Interrupted::Final(Error::io(part, error));
        let mut start = length(file, part).map_err(Interrupted::Final)?;
        if start > info.size {
            file.set_len(0).map_err(io)?;
            start = 0;
        }
        let response = self.get(url, (start > 0).then_some(start), MAX_REDIRECTS).map_err(Interrupted::Connection)?;
        let goes_on = response.status() == 206
            && header(&response, "content-range").is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        if !response.status().is_success() && response.status() != 416 {
            return Err(Interrupted::Final(self.refused(&response, Some(name))));
        }
        if start > 0 && !goes_on {
            file.set_len(0).map_err(io)?;
            if response.status() != 200 {
                return Ok(());
            }
        }
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = reader.read(&mut buffer).map_err(|error| Interrupted::Connection(error.into()))?;
            if count == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..count]).map_err(io)?;
            self.emit(ModelEvent::DownloadAdvanced { bytes: count as u64 });
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

    fn emit(&self, event: ModelEvent) {
        if let Some(events) = &self.events {
            events(event);
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Error {
        let Self { repo, settings, .. } = self;
        let endpoint = &settings.endpoint;
        Error::Network(format!(
            "{repo}: {endpoint} can't be reached ({error}). Set HF_ENDPOINT to a mirror, or download the files elsewhere and give the \
             folder's path, or use the built-in model `mini`; with HF_HUB_OFFLINE=1 only files already in {} are used",
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

    fn refused(&self, response: &Response<Body>, file: Option<&str>) -> Error {
        let Self { repo, revision, settings, .. } = self;
        let endpoint = &settings.endpoint;
        let what = file.map_or_else(|| format!("{repo}@{revision}"), |file| format!("{repo}@{revision}, {file}"));
        let said = header(response, "x-error-message").map_or_else(String::new, |message| format!(": {message}"));
        let token = if settings.token.is_some() { "the token in use (HF_TOKEN) lacks access" } else { "set HF_TOKEN" };
        match response.status().as_u16() {
            401 => Error::Network(format!(
                "{what}: no access (401{said}). Check the name; if the repository is private or gated, {token}, and accept its licence at \
                 {endpoint}/{repo}"
            )),
            403 => Error::Network(format!(
                "{what}: access refused (403{said}). {token}, and accept the licence at {endpoint}/{repo}"
            )),
            404 => Error::NotFound(format!("{what}: not found at {endpoint} (404{said})")),
            status => Error::Network(format!("{what}: {endpoint} answered {status}{said}; try again later")),
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("repo", &self.repo).field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// Why a transfer stopped.
enum Interrupted {
    /// Another attempt may help.
    Connection(ureq::Error),
    /// It won't.
    Final(Error),
}

fn agent() -> Agent {
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
