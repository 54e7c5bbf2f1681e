//! Addresses that clients give: what of them is understood, what is refused before any name is looked up, and where redirects lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ureq::http::Uri;

use super::fetch::FetchError;

/// Longest address.
const LONGEST: usize = 4096;
/// Longest name that the domain name system has.
const LONGEST_NAME: usize = 253;

/// An `http` or `https` address whose every part has one meaning only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    uri: Uri,
    /// In lower case, without brackets and without the dot at the end of a full name.
    host: String,
    port: u16,
    /// If the host is an IP address.
    literal: Option<IpAddr>,
}

impl Target {
    pub(super) fn parse(address: &str) -> Result<Self, FetchError> {
        if address.len() > LONGEST {
            return bad(format!("the address has {} characters, at most {LONGEST} are allowed", address.len()));
        }
        let uri: Uri =
            address.parse().map_err(|error| FetchError::BadAddress(format!("{address:?} is no address ({error})")))?;
        Self::of(uri)
    }

    pub(super) fn of(uri: Uri) -> Result<Self, FetchError> {
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            Some(other) => return bad(format!("{other:?} isn't fetched from")),
            None => return bad("the address has no scheme".to_string()),
        };
        let Some(authority) = uri.authority() else { return bad("the address has no host".to_string()) };
        // What stands before the `@` looks like a host to people and to some programs.
        if authority.as_str().contains('@') {
            return bad("the address contains a user or password".to_string());
        }
        let written_port =
            authority.as_str().rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let port = match (authority.port_u16(), written_port) {
            (Some(0), _) | (None, Some(_)) => {
                return bad("the address has no port that can be connected to".to_string());
            }
            (Some(port), _) => port,
            (None, None) => default_port,
        };
        let (host, literal) = read_host(authority.host())?;
        Ok(Self { uri, host, port, literal })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn literal(&self) -> Option<IpAddr> {
        self.literal
    }

    /// Whether the host is one of `allowed`, where there is such a list. `.example.com` stands for all names below it.
    pub(super) fn check_host(&self, allowed: Option<&[String]>) -> Result<(), FetchError> {
        let is_it = |entry: &String| {
            let entry = entry.trim_end_matches('.').to_ascii_lowercase();
            if entry.starts_with('.') { self.host.ends_with(&entry) && self.host != entry } else { self.host == entry }
        };
        match allowed {
            Some(allowed) if !allowed.iter().any(is_it) => {
                Err(FetchError::Forbidden(format!("{} isn't among the allowed hosts", self.host)))
            }
            _ => Ok(()),
        }
    }

    /// Where a redirect leads, by RFC 3986, 5.2.
    pub(super) fn redirected(&self, location: Option<&str>) -> Result<Self, FetchError> {
        let Some(location) = location else {
            return Err(FetchError::BadAnswer("a redirect that doesn't say where to".to_string()));
        };
        let (scheme, authority) = (
            self.uri.scheme_str().unwrap_or_default(),
            self.uri.authority().map_or("", |authority| authority.as_str()),
        );
        let path = self.uri.path();
        let location = location.split('#').next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
        let address = if has_scheme(location) {
            return Self::parse(location);
        } else if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        } else if location.is_empty() {
            return Ok(self.clone());
        } else if location.starts_with('?') {
            format!("{path}{location}")
        } else if location.starts_with('/') {
            without_dots(location)
        } else {
            without_dots(&format!("{folder}{location}"))
        };
        Self::parse(&format!("{scheme}://{authority}{address}"))
    }
}

fn bad<T>(reason: String) -> Result<T, FetchError> {
    Err(FetchError::BadAddress(reason))
}

/// The host in one spelling, and its IP address if it is one.
fn read_host(host: &str) -> Result<(String, Option<IpAddr>), FetchError> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match address {
            Some(address) => Ok((address.to_string(), Some(IpAddr::V6(address)))),
            // A zone (`%eth0`) names an interface of this very machine.
            None => bad(format!("{host:?} is no IPv6 address")),
        };
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) || name.split('.').any(str::is_empty)
    {
        return bad(format!("{host:?} is no host name"));
    }
    // The system's resolver reads 2130706433, 0x7f.1 and 0177.0.0.1 as addresses, other programs otherwise. A name never ends in a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match name.parse::<Ipv4Addr>() {
        Ok(address) => Ok((name, Some(IpAddr::V4(address)))),
        Err(_) if is_number => bad(format!("{host:?} is no IPv4 address in its usual form")),
        Err(_) => Ok((name, None)),
    }
}

/// Whether a reference begins with a scheme and a colon.
fn has_scheme(reference: &str) -> bool {
    let Some((scheme, _)) = reference.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// A path (with whatever query follows) without `.` and `..`.
fn without_dots(reference: &str) -> String {
    let end = reference.find('?').unwrap_or(reference.len());
    let (path, query) = reference.split_at(end);
    let mut kept: Vec<&str> = Vec::new();
    let mut pieces = path.split('/').skip(1).peekable();
    while let Some(piece) = pieces.next() {
        let is_dots = matches!(piece, "." | "..");
        if piece == ".." {
            kept.pop();
        }
        if !is_dots {
            kept.push(piece);
        } else if pieces.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (address, host, port, literal) in [
            ("http://Example.COM/a?b#c", "example.com", 80, None),
            ("https://example.com.", "example.com", 443, None),
            ("https://a_b.example:8443/", "a_b.example", 8443, None),
            ("http://192.0.2.7:81/x", "192.0.2.7", 81, Some("192.0.2.7")),
            ("http://192.0.2.7./x", "192.0.2.7", 80, Some("192.0.2.7")),
            ("http://[2001:DB8::1]/x", "2001:db8::1", 80, Some("2001:db8::1")),
            ("http://[::ffff:127.0.0.1]:90/x", "::ffff:127.0.0.1", 90, Some("::ffff:127.0.0.1")),
            ("http://0x7f.example/", "0x7f.example", 80, None),
        ] {
            let target = Target::parse(address).unwrap_or_else(|error| panic!("{address}: {error}"));
            assert_eq!((target.host(), target.port()), (host, port), "{address}");
            assert_eq!(target.literal(), literal.map(|literal| literal.parse().expect("address")), "{address}");
        }
    }

    #[test]
    fn addresses_with_two_meanings_are_refused() {
        for address in [
            "",
            "example.com",
            "/a",
            "//example.com/a",
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://example.com/",
            "data:image/png;base64,AA",
            "javascript:1",
            "http://",
            "http:///a",
            "http://user@example.com/",
            "http://user:password@example.com/",
            "http://example.com@127.0.0.1/",
            "http://:80/",
            "http://example.com:/",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:x/",
            "http://exa mple.com/",
            "http://example.com/a b",
            "http://example.com/\r\nx: y",
            "http://ex%61mple.com/",
            "http://example..com/",
            "http://.com/",
            "http://\u{ff11}27.0.0.1/",
            "http://bücher.example/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://0177.0.0.1/",
            "http://127.0.0.01/",
            "http://127.0.0.0x1/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
            "http://0x/",
            "http://[::1",
            "http://[::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[127.0.0.1]/",
            "http://[]/",
        ] {
            let refused = Target::parse(address);
            assert!(matches!(refused, Err(FetchError::BadAddress(_))), "{address:?}: {refused:?}");
        }
        let long = format!("http://example.com/{}", "a".repeat(LONGEST));
        assert!(matches!(Target::parse(&long), Err(FetchError::BadAddress(_))));
    }

    #[test]
    fn redirects_lead_where_the_standard_says() {
        let base = Target::parse("http://example.com:81/a/b/c?d").expect("valid");
        for (location, expected) in [
            ("https://other.example/x", "https://other.example/x"),
            ("//other.example/x", "http://other.example/x"),
            ("/x?y#z", "http://example.com:81/x?y"),
            ("x", "http://example.com:81/a/b/x"),
            ("./x", "http://example.com:81/a/b/x"),
            ("../x?a/../b", "http://example.com:81/a/x?a/../b"),
            ("../../../x", "http://example.com:81/x"),
            ("..", "http://example.com:81/a/"),
            ("/x/./y/../z/", "http://example.com:81/x/z/"),
            ("?q", "http://example.com:81/a/b/c?q"),
            ("", "http://example.com:81/a/b/c?d"),
            ("x:y", ""),
            ("file:///etc/passwd", ""),
            ("http://user@example.com/", ""),
        ] {
            match base.redirected(Some(location)) {
                Ok(target) => assert_eq!(target.uri().to_string(), expected, "{location:?}"),
                Err(error) => {
                    assert!(expected.is_empty() && matches!(error, FetchError::BadAddress(_)), "{location:?}: {error}")
                }
            }
        }
        assert!(matches!(base.redirected(None), Err(FetchError::BadAnswer(_))));
    }

    #[test]
    fn hosts_are_compared_as_names() {
        let allows = |entry: &str, address: &str| {
            Target::parse(address).expect("valid").check_host(Some(&[entry.to_string()])).is_ok()
        };
        assert!(allows("example.com", "http://EXAMPLE.com./x"));
        assert!(allows("Example.com", "http://example.com:99/x"));
        assert!(!allows("example.com", "http://www.example.com/x"));
        assert!(!allows("example.com", "http://badexample.com/x"));
        assert!(!allows("example.com", "http://example.com.evil.example/x"));
        assert!(allows(".example.com", "http://www.example.com/x"));
        assert!(!allows(".example.com", "http://example.com/x"));
        assert!(!allows(".example.com", "http://badexample.com/x"));
        assert!(allows("192.0.2.7", "http://192.0.2.7/x"));
        assert!(Target::parse("http://any.example/").expect("valid").check_host(None).is_ok());
        assert!(Target::parse("http://any.example/").expect("valid").check_host(Some(&[])).is_err());
    }
}
