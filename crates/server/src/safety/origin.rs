//! Pages of other sites: which may use the server, and how those that may not are kept from it.
//!
//! A browser sends simple requests of any page to any address, a server on this machine included, and a site can give its own name the
//! address 127.0.0.1 to get around the rules for origins. So a request that says where it comes from must come from here or from a site
//! that was named, and a server without keys on this machine answers to its own names only.

use axum::http::header::{HOST, HeaderMap, ORIGIN};

/// Names of this machine.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Which pages may use the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Other sites, as `https://example.org`.
    allowed: Vec<String>,
    any: bool,
    /// The names it answers to; none: any.
    hosts: Option<Vec<String>>,
}

impl Origins {
    /// Sites that may use it, `*` for all; and, for a server that only this machine reaches and that asks for no key, names it has besides
    /// `localhost` and its addresses.
    ///
    /// # Errors
    /// Something that is no origin.
    pub fn new(allowed: &[String], hosts: Option<&[String]>) -> Result<Self, String> {
        let any = allowed.iter().any(|origin| origin == "*");
        let allowed: Vec<String> =
            allowed.iter().filter(|origin| *origin != "*").map(|origin| origin.to_ascii_lowercase()).collect();
        for origin in &allowed {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if authority.is_none_or(|authority| authority.is_empty() || authority.contains('/')) {
                return Err(format!("{origin:?} is no origin, expected https://example.org or *"));
            }
        }
        let hosts = hosts.map(|hosts| {
            LOCAL
                .iter()
                .map(|name| (*name).to_string())
                .chain(hosts.iter().map(|host| host.to_ascii_lowercase()))
                .collect()
        });
        Ok(Self { allowed, any, hosts })
    }

    /// Sites that may use it besides its own page.
    pub fn allowed(&self) -> &[String] {
        &self.allowed
    }

    /// Whether every site may.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Refuses a request from a page that may not.
    ///
    /// # Errors
    /// Why.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), String> {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        if let Some(hosts) = &self.hosts {
            let name = without_port(&host);
            if !name.is_empty() && !hosts.iter().any(|known| known == name) {
                return Err(format!("this server doesn't answer to the name {name:?} (--allow-host)"));
            }
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("null").to_ascii_lowercase();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(|o| o == host);
        if own || self.any || self.allowed.contains(&origin) {
            return Ok(());
        }
        Err(format!("pages of {origin} may not use this server (--cors-origin)"))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        origin.map(|origin| headers.insert(ORIGIN, origin.parse().unwrap()));
        headers
    }

    #[test]
    fn pages_of_other_sites_are_kept_out() {
        let local = Origins::new(&["https://friend.example".into()], Some(&[])).unwrap();
        for (host, origin, fine) in [
            ("localhost:8000", None, true),
            ("127.0.0.1:8000", Some("http://127.0.0.1:8000"), true),
            ("[::1]:8000", Some("http://[::1]:8000"), true),
            ("[::1]", None, true),
            ("LOCALHOST:8000", Some("http://localhost:8000"), true),
            ("localhost:8000", Some("https://friend.example"), true),
            ("localhost:8000", Some("http://localhost:3000"), false),
            ("localhost:8000", Some("https://foe.example"), false),
            ("localhost:8000", Some("null"), false),
            ("foe.example:8000", None, false),
            ("foe.example:8000", Some("http://foe.example:8000"), false),
            ("127.0.0.1.foe.example", None, false),
        ] {
            assert_eq!(local.check(&headers(host, origin)).is_ok(), fine, "{host} {origin:?}");
        }
        let wide = Origins::new(&[], None).unwrap();
        assert!(wide.check(&headers("pictures.example", Some("https://pictures.example"))).is_ok());
        assert!(wide.check(&headers("pictures.example", Some("https://foe.example"))).is_err());
        assert!(Origins::new(&["*".into()], None).unwrap().check(&headers("a", Some("https://b"))).is_ok());
    }

    #[test]
    fn origins_are_checked_when_the_server_starts() {
        assert!(Origins::new(&["example.org".into()], None).is_err());
        assert!(Origins::new(&["https://example.org/".into()], None).is_err());
    }
}
