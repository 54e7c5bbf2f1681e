//! Fetching what lies at an address that a client gives, without letting the client reach where the server alone can go.
//!
//! A server inside a network reaches things that its clients don't: metadata services, databases, other machines. So names are resolved here and once,
//! every address must be public, the connection goes to exactly those addresses, and each redirect is judged like the first address.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use super::addresses::refusal;
use super::fetch_target::Target;

/// Most addresses of a name that are tried; as many as the client library holds.
const MOST_ADDRESSES: usize = 16;
/// Lookups that may run at a time. The system's resolver can't be interrupted, so those that nobody waits for any more must stay few.
const MOST_LOOKUPS: usize = 32;
/// Largest head of an answer.
const LARGEST_HEAD: usize = 32 << 10;
/// Room that an announced length is given in advance. The rest must come first.
const MOST_RESERVED: u64 = 1 << 20;

/// What may be fetched.
#[derive(Debug, Clone)]
pub struct FetchRules {
    /// Largest content in bytes.
    pub max_bytes: u64,
    /// Time for everything, redirects included.
    pub timeout: Duration,
    /// Redirects that are followed.
    pub max_redirects: u32,
    /// If given, the only hosts: `example.com` for that name alone, `.example.com` for all names below it. Redirects too have to stay among them.
    pub allow_hosts: Option<Vec<String>>,
    /// Whether addresses that aren't of the public internet are allowed. Whoever may ask then reaches whatever the server reaches.
    pub allow_private: bool,
}

impl Default for FetchRules {
    fn default() -> Self {
        Self {
            max_bytes: 20 << 20,
            timeout: Duration::from_secs(15),
            max_redirects: 3,
            allow_hosts: None,
            allow_private: false,
        }
    }
}

/// What lies at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The content as it came.
    pub bytes: Vec<u8>,
    /// What the server says it is.
    pub content_type: Option<String>,
}

/// Why something can't be fetched. The messages are safe to send to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The rules don't allow it.
    #[error("this address isn't allowed: {0}")]
    Forbidden(String),
    /// Not an `http` or `https` address that makes sense.
    #[error("{0}, expected an address such as https://example.com/picture.jpg")]
    BadAddress(String),
    /// No such name, no connection, or it broke off.
    #[error("the address can't be reached: {0}")]
    Unreachable(String),
    /// An answer that can't be used: another encoding, too many redirects.
    #[error("the address has an answer that can't be used: {0}")]
    BadAnswer(String),
    /// More than may be fetched.
    #[error("what lies at the address has more than {0} bytes, the most allowed")]
    TooLarge(u64),
    /// It took too long, all in all.
    #[error("the address didn't answer completely within {0:?}")]
    Timeout(Duration),
    /// An answer that is neither success nor a redirect.
    #[error("the address answered with status {0}, expected 200")]
    Status(u16),
}

/// Resolves a name, with a port to put into the addresses.
type Lookup = dyn Fn(&str, u16) -> std::io::Result<Vec<SocketAddr>> + Send + Sync;
/// Says why an address may not be connected to.
type Judge = fn(IpAddr) -> Option<&'static str>;

/// Fetches by rules. Blocking; meant to be shared.
pub struct Fetcher {
    rules: FetchRules,
    agent: Agent,
}

impl Fetcher {
    /// A fetcher that asks the system's resolver.
    pub fn new(rules: FetchRules) -> Self {
        let judge: Judge = if rules.allow_private { |_| None } else { refusal };
        Self::with_parts(rules, Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())), judge)
    }

    fn with_parts(rules: FetchRules, lookup: Arc<Lookup>, judge: Judge) -> Self {
        let resolver = CheckedResolver { lookup, judge, running: Arc::default() };
        let agent = Agent::with_parts(config(&rules), DefaultConnector::default(), resolver);
        Self { rules, agent }
    }

    /// Fetches what lies at `address`.
    ///
    /// # Errors
    /// Addresses that aren't allowed, can't be reached, or hold too much.
    pub fn fetch(&self, address: &str) -> Result<Fetched, FetchError> {
        let deadline = Instant::now() + self.rules.timeout;
        let mut target = Target::parse(address)?;
        for _ in 0..=self.rules.max_redirects {
            target.check_host(self.rules.allow_hosts.as_deref())?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FetchError::Timeout(self.rules.timeout));
            }
            let request = self.agent.get(target.uri().clone()).config().timeout_global(Some(left)).build();
            let response = request.call().map_err(|error| self.failure(error))?;
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => target = target.redirected(header(&response, "location"))?,
                200 => return self.receive(response),
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::BadAnswer(format!("redirected more than {} times", self.rules.max_redirects)))
    }

    fn receive(&self, response: Response<Body>) -> Result<Fetched, FetchError> {
        let limit = self.rules.max_bytes;
        // A few bytes can be the compressed form of any number.
        let encoding = header(&response, "content-encoding").unwrap_or("identity");
        if !encoding.trim().eq_ignore_ascii_case("identity") {
            return Err(FetchError::BadAnswer(format!("its encoding is {encoding:?}, although none was asked for")));
        }
        let announced: Option<u64> = header(&response, "content-length").and_then(|length| length.parse().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(FetchError::TooLarge(limit));
        }
        let content_type = header(&response, "content-type").map(str::to_string);
        let reserved = announced.unwrap_or(0).min(MOST_RESERVED);
        let mut bytes = Vec::with_capacity(usize::try_from(reserved).unwrap_or(0));
        let mut reader = response.into_body().into_reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(|error| self.failure(error.into()))?;
        let received = bytes.len() as u64;
        if received > limit {
            return Err(FetchError::TooLarge(limit));
        }
        if let Some(announced) = announced.filter(|announced| *announced != received) {
            return Err(FetchError::Unreachable(format!("it broke off after {received} of {announced} bytes")));
        }
        Ok(Fetched { bytes, content_type })
    }

    fn failure(&self, error: ureq::Error) -> FetchError {
        match error {
            ureq::Error::Other(inner) => match inner.downcast::<FetchError>() {
                Ok(ours) => *ours,
                Err(other) => FetchError::Unreachable(other.to_string()),
            },
            ureq::Error::Timeout(_) => FetchError::Timeout(self.rules.timeout),
            ureq::Error::HostNotFound => FetchError::Unreachable("its name has no address".to_string()),
            ureq::Error::LargeResponseHeader(..) => FetchError::BadAnswer("its head is too large".to_string()),
            other => FetchError::Unreachable(other.to_string()),
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn config(rules: &FetchRules) -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(provider)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        // A proxy from the environment would resolve names itself, behind the rules' back.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        // Each connection is opened to addresses that were just judged.
        .max_idle_connections(0)
        .accept_encoding("identity")
        .timeout_global(Some(rules.timeout))
        .max_response_header_size(LARGEST_HEAD)
        .user_agent(concat!("crossmodal/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Resolves names and refuses those of which any address isn't allowed. The connection goes to the addresses that it returns: nobody resolves again, so a name
/// whose addresses change between two lookups gains nothing.
struct CheckedResolver {
    lookup: Arc<Lookup>,
    judge: Judge,
    running: Arc<AtomicUsize>,
}

impl CheckedResolver {
    fn addresses(&self, uri: &Uri, limit: Duration) -> Result<Vec<SocketAddr>, FetchError> {
        let target = Target::of(uri.clone())?;
        let addresses = match target.literal() {
            Some(address) => vec![SocketAddr::new(address, target.port())],
            None => self.look_up(target.host(), target.port(), limit)?,
        };
        match addresses.iter().find_map(|address| (self.judge)(address.ip())) {
            Some(what) if target.literal().is_some() => Err(FetchError::Forbidden(format!("it is {what}"))),
            // A name's address isn't the client's to know, nor what kind it is.
            Some(_) => Err(FetchError::Forbidden(format!("{} is not on the public internet", target.host()))),
            None => Ok(addresses),
        }
    }

    fn look_up(&self, host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, FetchError> {
        let running = Running::start(&self.running)
            .ok_or_else(|| FetchError::Unreachable("too many names are being looked up".to_string()))?;
        let (send, receive) = mpsc::sync_channel(1);
        let (lookup, name) = (Arc::clone(&self.lookup), host.to_string());
        let looking = std::thread::Builder::new().name("name lookup".to_string()).spawn(move || {
            let _running = running;
            // Nobody receives it if it came too late.
            let _ = send.send(lookup(&name, port));
        });
        looking.map_err(|error| FetchError::Unreachable(error.to_string()))?;
        match receive.recv_timeout(limit) {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(_) => Err(FetchError::Unreachable(format!("{host} has no address"))),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(FetchError::Timeout(limit)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(FetchError::Unreachable("the lookup failed".to_string())),
        }
    }
}

impl Resolver for CheckedResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.addresses(uri, *timeout.after).map_err(|error| match error {
            // Named by its own limit, the whole of the rules, where it is received.
            FetchError::Timeout(_) => ureq::Error::Timeout(timeout.reason),
            other => ureq::Error::Other(Box::new(other)),
        })?;
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

impl fmt::Debug for CheckedResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedResolver").finish_non_exhaustive()
    }
}

/// A lookup that runs, counted until dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn start(count: &Arc<AtomicUsize>) -> Option<Self> {
        let free = |running| (running < MOST_LOOKUPS).then_some(running + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Mutex;

    use super::*;

    /// A real server on a loopback address: a thread that answers each connection by its path.
    struct Site {
        address: SocketAddr,
        heads: Arc<Mutex<Vec<String>>>,
    }

    impl Site {
        fn new(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
            Self::at("127.0.0.1:0", answer)
        }

        fn at(address: &str, answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> Self {
            let listener = TcpListener::bind(address).expect("a free port");
            let (address, heads) = (listener.local_addr().expect("address"), Arc::default());
            let seen: Arc<Mutex<Vec<String>>> = Arc::clone(&heads);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.expect("connection");
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        if stream.read(&mut byte).unwrap_or(0) == 0 {
                            break;
                        }
                        head.push(byte[0]);
                    }
                    let head = String::from_utf8_lossy(&head).to_lowercase();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_string();
                    seen.lock().expect("lock").push(head);
                    answer(&path, &mut stream);
                }
            });
            Self { address, heads }
        }

        /// One that always gives the same answer.
        fn with(answer: String) -> Self {
            Self::new(move |_, stream| send(stream, &answer))
        }

        fn url(&self, path: &str) -> String {
            format!("http://{}{path}", self.address)
        }

        fn hits(&self) -> usize {
            self.heads.lock().expect("lock").len()
        }
    }

    fn send(stream: &mut TcpStream, answer: &str) {
        // A client that has enough may have left.
        let _ = stream.write_all(answer.as_bytes());
    }

    fn ok(head: &str, body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn to(location: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
    }

    fn rules() -> FetchRules {
        FetchRules { max_bytes: 1000, timeout: Duration::from_secs(20), allow_private: true, ..FetchRules::default() }
    }

    /// Permits the one loopback address of `Site::new`, so that what else is refused can be tested from there.
    fn all_but_loopback(address: IpAddr) -> Option<&'static str> {
        if address == IpAddr::V4(Ipv4Addr::LOCALHOST) { None } else { refusal(address) }
    }

    /// Names as they are in a made-up domain name system. Counts the lookups.
    fn names(answers: &'static [(&str, &[&str])], count: &Arc<AtomicUsize>) -> Arc<Lookup> {
        let count = Arc::clone(count);
        Arc::new(move |host, port| {
            count.fetch_add(1, Ordering::SeqCst);
            let found = answers.iter().find(|(name, _)| *name == host);
            let (_, addresses) = found.ok_or_else(|| std::io::Error::other("no such name"))?;
            Ok(addresses.iter().map(|address| SocketAddr::new(address.parse().expect("address"), port)).collect())
        })
    }

    fn is_forbidden(outcome: &Result<Fetched, FetchError>) -> bool {
        matches!(outcome, Err(FetchError::Forbidden(_)))
    }

    #[test]
    fn content_and_type_arrive_if_private_addresses_are_allowed() {
        let site = Site::with(ok("content-type: image/png\r\n", "pixels"));
        let fetched = Fetcher::new(rules()).fetch(&site.url("/a.png?b=c#d")).expect("allowed");
        assert_eq!(fetched, Fetched { bytes: b"pixels".to_vec(), content_type: Some("image/png".to_string()) });
        let head = site.heads.lock().expect("lock")[0].clone();
        assert!(head.starts_with("get /a.png?b=c http/1.1\r\n"), "{head}");
        assert!(
            head.contains("accept-encoding: identity\r\n")
                && !head.contains("cookie")
                && !head.contains("authorization"),
            "{head}"
        );
    }

    #[test]
    fn loopback_is_refused_in_every_spelling_and_nothing_connects() {
        let site = Site::with(ok("", "secret"));
        let fetcher = Fetcher::new(FetchRules { allow_private: false, ..rules() });
        let port = site.address.port();
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "localhost",
            "LOCALHOST.",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
        ] {
            let outcome = fetcher.fetch(&format!("http://{host}:{port}/"));
            assert!(is_forbidden(&outcome), "{host}: {outcome:?}");
        }
        for host in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"] {
            let outcome = fetcher.fetch(&format!("http://{host}:{port}/"));
            assert!(matches!(outcome, Err(FetchError::BadAddress(_))), "{host}: {outcome:?}");
        }
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://192.168.1.1/",
            "https://[fd00:ec2::254]/",
        ] {
            assert!(is_forbidden(&fetcher.fetch(url)), "{url}");
        }
        assert_eq!(site.hits(), 0);
    }

    #[test]
    fn a_name_with_any_private_address_is_refused() {
        let count = Arc::default();
        let lookup = names(
            &[
                ("private.example", &["10.1.2.3"]),
                ("mixed.example", &["93.184.216.34", "127.0.0.1"]),
                ("mapped.example", &["::ffff:10.1.2.3"]),
                ("metadata.example", &["169.254.169.254"]),
                ("nothing.example", &[]),
            ],
            &count,
        );
        let fetcher = Fetcher::with_parts(FetchRules { allow_private: false, ..rules() }, lookup, refusal);
        for host in ["private", "mixed", "mapped", "metadata"] {
            let outcome = fetcher.fetch(&format!("http://{host}.example/"));
            assert!(is_forbidden(&outcome), "{host}: {outcome:?}");
            let message = outcome.expect_err("forbidden").to_string();
            assert!(
                !message.contains("10.1") && !message.contains("169.254") && !message.contains("127.0"),
                "{message}"
            );
        }
        for host in ["nothing", "unknown"] {
            let outcome = fetcher.fetch(&format!("http://{host}.example/"));
            assert!(matches!(outcome, Err(FetchError::Unreachable(_))), "{host}: {outcome:?}");
        }
        assert_eq!(count.load(Ordering::SeqCst), 6);
    }

    #[test]
    fn a_name_is_looked_up_once_and_that_address_is_connected_to() {
        let site = Site::with(ok("", "here"));
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        // The first answer is fine, every later one isn't: a name that is rebound between check and connection.
        let rebinding: Arc<Lookup> = Arc::new(move |_, port| {
            let address = if counted.fetch_add(1, Ordering::SeqCst) == 0 { "127.0.0.1" } else { "127.0.0.2" };
            Ok(vec![SocketAddr::new(address.parse().expect("address"), port)])
        });
        let elsewhere =
            Site::at(&format!("127.0.0.2:{}", site.address.port()), |_, stream| send(stream, &ok("", "elsewhere")));
        let fetcher = Fetcher::with_parts(rules(), rebinding, all_but_loopback);
        let url = format!("http://rebinding.example:{}/", site.address.port());
        assert_eq!(fetcher.fetch(&url).expect("the first answer").bytes, b"here");
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(
            site.heads.lock().expect("lock")[0].contains(&format!("host: rebinding.example:{}", site.address.port()))
        );
        // Nor does a connection that was left open stand in for a check.
        assert!(is_forbidden(&fetcher.fetch(&url)));
        assert_eq!((site.hits(), elsewhere.hits()), (1, 0));
    }

    #[test]
    fn redirects_are_followed_three_times_and_each_is_judged() {
        let site = Site::new(|path, stream| {
            let answer = match path.trim_start_matches('/').parse::<u32>() {
                Ok(0) => ok("", "end"),
                Ok(left) => to(&(left - 1).to_string()),
                Err(_) => to(&path[1..]),
            };
            send(stream, &answer);
        });
        let lookup =
            names(&[("private.example", &["192.168.0.1"]), ("second.example", &["127.0.0.2"])], &Arc::default());
        let fetcher = Fetcher::with_parts(rules(), lookup, all_but_loopback);
        assert_eq!(fetcher.fetch(&site.url("/3")).expect("three are allowed").bytes, b"end");
        assert!(matches!(fetcher.fetch(&site.url("/4")), Err(FetchError::BadAnswer(_))));
        assert_eq!(site.hits(), 8);

        let port = site.address.port();
        let second = Site::at(&format!("127.0.0.2:{port}"), |_, stream| send(stream, &ok("", "secret")));
        let third = Site::at(&format!("[::1]:{port}"), |_, stream| send(stream, &ok("", "secret")));
        for host in ["127.0.0.2", "[::1]", "[::ffff:127.0.0.2]", "second.example", "private.example", "169.254.169.254"]
        {
            for location in [format!("http://{host}:{port}/"), format!("//{host}:{port}/")] {
                let outcome = fetcher.fetch(&site.url(&format!("/{location}")));
                assert!(is_forbidden(&outcome), "{location}: {outcome:?}");
            }
        }
        for location in
            ["file:///etc/passwd", "ftp://127.0.0.1/", "http://user:password@127.0.0.1/", "http://2130706433/"]
        {
            let outcome = fetcher.fetch(&site.url(&format!("/{location}")));
            assert!(matches!(outcome, Err(FetchError::BadAddress(_))), "{location}: {outcome:?}");
        }
        assert_eq!((second.hits(), third.hits()), (0, 0));
    }

    #[test]
    fn only_hosts_of_the_list_are_asked_and_only_they_are_redirected_to() {
        let site = Site::new(|path, stream| {
            let answer = if path == "/out" { to("http://localhost:1/") } else { ok("", "in") };
            send(stream, &answer);
        });
        let fetcher = Fetcher::new(FetchRules { allow_hosts: Some(vec!["127.0.0.1".to_string()]), ..rules() });
        assert_eq!(fetcher.fetch(&site.url("/")).expect("allowed").bytes, b"in");
        assert!(is_forbidden(&fetcher.fetch(&site.url("/out"))));
        assert!(is_forbidden(&fetcher.fetch("http://localhost:1/")));
    }

    #[test]
    fn too_much_is_refused_however_it_comes() {
        let exactly = Site::with(ok("", &"x".repeat(1000)));
        assert_eq!(Fetcher::new(rules()).fetch(&exactly.url("/")).expect("the limit itself").bytes.len(), 1000);
        let announced = Site::with(ok("", &"x".repeat(1001)));
        let chunked = Site::new(|_, stream| {
            send(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        });
        let until_closed = Site::new(|_, stream| {
            send(stream, "HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        for site in [announced, chunked, until_closed] {
            assert_eq!(Fetcher::new(rules()).fetch(&site.url("/")), Err(FetchError::TooLarge(1000)));
        }
        let endless_head = Site::new(|_, stream| {
            send(stream, "HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"x-more: and more\r\n").is_ok() {}
        });
        let outcome = Fetcher::new(rules()).fetch(&endless_head.url("/"));
        assert!(matches!(outcome, Err(FetchError::BadAnswer(_) | FetchError::Unreachable(_))), "{outcome:?}");
    }

    #[test]
    fn compressed_answers_are_refused() {
        for encoding in ["gzip", "br", "deflate, gzip", "zstd", "x-unknown"] {
            let site = Site::with(ok(&format!("content-encoding: {encoding}\r\n"), "x"));
            let outcome = Fetcher::new(rules()).fetch(&site.url("/"));
            assert!(matches!(outcome, Err(FetchError::BadAnswer(_))), "{encoding}: {outcome:?}");
        }
        let site = Site::with(ok("content-encoding: Identity\r\n", "x"));
        assert!(Fetcher::new(rules()).fetch(&site.url("/")).is_ok());
    }

    #[test]
    fn the_whole_takes_no_longer_than_allowed() {
        let limit = Duration::from_millis(400);
        let silent = Site::new(|_, _| std::thread::sleep(Duration::from_secs(30)));
        let dripping = Site::new(|_, stream| {
            send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let dripping_head = Site::new(|_, stream| {
            while stream.write_all(b"H").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let slow_redirects = Site::new(|_, stream| {
            std::thread::sleep(Duration::from_millis(150));
            send(stream, &to("/again"));
        });
        for site in [silent, dripping, slow_redirects] {
            let start = Instant::now();
            let fetcher = Fetcher::new(FetchRules { timeout: limit, ..rules() });
            assert_eq!(fetcher.fetch(&site.url("/")), Err(FetchError::Timeout(limit)));
            assert!(start.elapsed() < limit * 10, "{:?}", start.elapsed());
        }
        let start = Instant::now();
        assert!(Fetcher::new(FetchRules { timeout: limit, ..rules() }).fetch(&dripping_head.url("/")).is_err());
        assert!(start.elapsed() < limit * 10, "{:?}", start.elapsed());
        let slow_lookup: Arc<Lookup> = Arc::new(|_, _| {
            std::thread::sleep(Duration::from_secs(5));
            Ok(Vec::new())
        });
        let fetcher = Fetcher::with_parts(FetchRules { timeout: limit, ..rules() }, slow_lookup, refusal);
        assert_eq!(fetcher.fetch("http://slow.example/"), Err(FetchError::Timeout(limit)));
    }

    #[test]
    fn failures_are_told_apart() {
        let fetch = |answer: &str| Fetcher::new(rules()).fetch(&Site::with(answer.to_string()).url("/"));
        assert_eq!(fetch("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"), Err(FetchError::Status(404)));
        assert_eq!(fetch("HTTP/1.1 206 Partial Content\r\ncontent-length: 1\r\n\r\nx"), Err(FetchError::Status(206)));
        assert!(matches!(fetch("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"), Err(FetchError::BadAnswer(_))));
        assert!(matches!(
            fetch("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"),
            Err(FetchError::Unreachable(_))
        ));
        assert!(matches!(fetch("SSH-2.0-OpenSSH_9.9\r\n"), Err(FetchError::Unreachable(_))));
        assert!(matches!(fetch(""), Err(FetchError::Unreachable(_))));
        let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("address");
        let outcome = Fetcher::new(rules()).fetch(&format!("http://{closed}/"));
        assert!(matches!(outcome, Err(FetchError::Unreachable(_))), "{outcome:?}");
        // TLS is spoken, and a server that doesn't is none.
        let plain = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = plain.local_addr().expect("address");
        std::thread::spawn(move || {
            let (mut stream, _) = plain.accept().expect("connection");
            send(&mut stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        });
        let outcome = Fetcher::new(rules()).fetch(&format!("https://{address}/"));
        assert!(matches!(outcome, Err(FetchError::Unreachable(_))), "{outcome:?}");
    }

    #[test]
    fn lookups_that_hang_stay_few() {
        let running = Arc::default();
        let started: Vec<_> = (0..MOST_LOOKUPS).map(|_| Running::start(&running).expect("room")).collect();
        assert!(Running::start(&running).is_none());
        drop(started);
        assert!(Running::start(&running).is_some());
    }
}
