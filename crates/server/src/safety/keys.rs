//! API keys: who a request comes from and what it may do. Only hashes of keys are kept, in a file that is read again when it changes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::keys_file::{KeysFile, KeysFileError};

/// How generated keys begin, so that people and secret scanners know them when they see them.
const PREFIX: &str = "cm_";
/// Bytes of randomness in a generated key: 256 bits, 43 characters in base64.
const SECRET_BYTES: usize = 32;
/// Fewest characters of a key that somebody chose.
const SHORTEST_PLAIN: usize = 16;
/// Longest key that is looked at. Bounds the work an unknown client can cause.
const LONGEST: usize = 512;
/// Longest name of a key.
const LONGEST_NAME: usize = 64;

/// What a key may do. The two don't include each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes {
    /// Embedding, searching, listing: whatever changes nothing.
    pub read: bool,
    /// Adding and removing items and collections.
    pub write: bool,
}

impl Scopes {
    /// Reading only.
    pub const READ: Self = Self { read: true, write: false };
    /// Writing only.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Reading and writing.
    pub const ALL: Self = Self { read: true, write: true };
}

/// Text that isn't a list of scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scopes {0:?}, expected `read`, `write` or `read,write`")]
pub struct ScopesError(pub String);

impl FromStr for Scopes {
    type Err = ScopesError;

    fn from_str(text: &str) -> Result<Self, ScopesError> {
        match text {
            "read" => Ok(Self::READ),
            "write" => Ok(Self::WRITE),
            "read,write" | "write,read" => Ok(Self::ALL),
            _ => Err(ScopesError(text.to_string())),
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.write) {
            (true, true) => "read,write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => "none",
        })
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's name.
    pub name: Arc<str>,
    /// What the key may do.
    pub scopes: Scopes,
}

/// Why a request's key isn't accepted. The messages are safe to send to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The request carries none.
    #[error("no API key: send `Authorization: Bearer KEY` or `X-Api-Key: KEY`")]
    Missing,
    /// The header isn't one that can carry a key.
    #[error(
        "the API key can't be read: expected `Authorization: Bearer KEY` or `X-Api-Key: KEY`, the key in visible ASCII characters"
    )]
    Malformed,
    /// No key of the server is this one.
    #[error("unknown API key")]
    Unknown,
}

/// Why a key can't be made or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewKeyError {
    /// A name that can't stand in a keys file.
    #[error("key name {0:?}, expected 1 to {LONGEST_NAME} letters, digits, `.`, `_` or `-`")]
    Name(String),
    /// A name that another key has already.
    #[error("two keys are named {0:?}")]
    Duplicate(String),
    /// A key that is too easily guessed or that no header can carry.
    #[error("the key {name:?} has {found}, expected {SHORTEST_PLAIN} to {LONGEST} visible ASCII characters")]
    Secret {
        /// The key's name.
        name: String,
        /// What is wrong with it, without the key itself.
        found: String,
    },
    /// A key without any scope can do nothing.
    #[error("the key {0:?} has no scopes, expected `read`, `write` or `read,write`")]
    Scopes(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Randomness(getrandom::Error),
}

/// One key: its hash, and what it stands for.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) hash: blake3::Hash,
    pub(super) identity: Identity,
}

/// A new key: the only time that its secret is seen.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// What the client sends.
    pub secret: String,
    /// The line for the keys file, without line end.
    pub line: String,
}

/// The keys of a server.
#[derive(Default)]
pub struct Keys {
    plain: Vec<Key>,
    file: Option<KeysFile>,
}

impl Keys {
    /// No keys: every check fails, so a server without keys doesn't check.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a keys file, one key a line: `name scopes blake3-hex`. Later changes of the file take effect within a second.
    ///
    /// # Errors
    /// The file can't be read, can be written by others, or has a line that is no key; the message names file and line.
    pub fn from_file(path: &Path) -> Result<Self, KeysFileError> {
        Ok(Self { plain: Vec::new(), file: Some(KeysFile::open(path)?) })
    }

    /// Adds a key that is known in the clear, such as one from an environment variable. Only its hash is kept.
    ///
    /// # Errors
    /// Names that are taken or have strange characters; keys of less than 16 or more than 512 characters or with others than visible ASCII.
    pub fn with_plain(mut self, name: &str, secret: &str, scopes: Scopes) -> Result<Self, NewKeyError> {
        check_name(name)?;
        check_scopes(name, scopes)?;
        let found = |found: String| Err(NewKeyError::Secret { name: name.to_string(), found });
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return found("other characters".to_string());
        }
        if !(SHORTEST_PLAIN..=LONGEST).contains(&secret.len()) {
            return found(format!("{} characters", secret.len()));
        }
        let in_file = self.file.as_ref().is_some_and(|file| file.keys().iter().any(|key| *key.identity.name == *name));
        if in_file || self.plain.iter().any(|key| *key.identity.name == *name) {
            return Err(NewKeyError::Duplicate(name.to_string()));
        }
        self.plain.push(Key { hash: hash(secret.as_bytes()), identity: Identity { name: name.into(), scopes } });
        Ok(self)
    }

    /// Makes a key from the system's randomness, and its line for a keys file.
    ///
    /// # Errors
    /// Names with strange characters, no scopes, a system without randomness.
    pub fn new_key(name: &str, scopes: Scopes) -> Result<NewKey, NewKeyError> {
        check_name(name)?;
        check_scopes(name, scopes)?;
        let mut random = [0; SECRET_BYTES];
        getrandom::fill(&mut random).map_err(NewKeyError::Randomness)?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let line = format!("{name} {scopes} {}", hash(secret.as_bytes()).to_hex());
        Ok(NewKey { secret, line })
    }

    /// How many keys there are now.
    pub fn len(&self) -> usize {
        self.plain.len() + self.file.as_ref().map_or(0, |file| file.keys().len())
    }

    /// Whether there are no keys now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose key a request carries, given its `Authorization` and `X-Api-Key` headers. A bearer token goes first; an `Authorization` of another scheme,
    /// which may be a proxy's, is overlooked where there is an `X-Api-Key`.
    ///
    /// The time taken doesn't depend on which key it is nor on how much of it is right: the hash of what was sent is compared with all hashes.
    ///
    /// # Errors
    /// No key, one that can't be read, one that isn't known.
    pub fn check(&self, authorization: Option<&[u8]>, x_api_key: Option<&[u8]>) -> Result<Identity, KeyError> {
        let secret = presented(authorization, x_api_key)?;
        if secret.is_empty() || secret.len() > LONGEST || !secret.iter().all(u8::is_ascii_graphic) {
            return Err(KeyError::Malformed);
        }
        let from_file = self.file.as_ref().map(KeysFile::keys);
        let keys = self.plain.iter().chain(from_file.iter().flat_map(|keys| keys.iter()));
        matching(keys, &hash(secret)).cloned().ok_or(KeyError::Unknown)
    }
}

impl fmt::Debug for Keys {
    // Hashes of keys that people chose could be guessed from, so they stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("count", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").finish_non_exhaustive()
    }
}

/// The hash that stands for a key. The keys are random, so a fast hash is as good as a slow one.
fn hash(secret: &[u8]) -> blake3::Hash {
    blake3::hash(secret)
}

/// The key that matches, after a look at all of them: an early end would tell by its time how far the search came.
fn matching<'a>(keys: impl Iterator<Item = &'a Key>, presented: &blake3::Hash) -> Option<&'a Identity> {
    let mut found = u64::MAX;
    let mut identities = Vec::new();
    for (index, key) in (0_u64..).zip(keys) {
        let equal = key.hash.as_bytes().ct_eq(presented.as_bytes());
        found.conditional_assign(&index, equal);
        identities.push(&key.identity);
    }
    usize::try_from(found).ok().and_then(|index| identities.get(index).copied())
}

/// The key among the headers that can carry one.
fn presented<'a>(authorization: Option<&'a [u8]>, x_api_key: Option<&'a [u8]>) -> Result<&'a [u8], KeyError> {
    match (authorization.map(bearer), x_api_key) {
        (Some(Some(token)), _) => Ok(token),
        (_, Some(key)) => Ok(key.trim_ascii()),
        (Some(None), None) => Err(KeyError::Malformed),
        (None, None) => Err(KeyError::Missing),
    }
}

/// The token of a header value `Bearer TOKEN`; the scheme's case doesn't matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked("bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && token.first().is_none_or(|byte| *byte == b' '))
        .then(|| token.trim_ascii())
}

pub(super) fn check_name(name: &str) -> Result<(), NewKeyError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let valid = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed);
    if valid { Ok(()) } else { Err(NewKeyError::Name(name.to_string())) }
}

fn check_scopes(name: &str, scopes: Scopes) -> Result<(), NewKeyError> {
    if scopes.read || scopes.write { Ok(()) } else { Err(NewKeyError::Scopes(name.to_string())) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn bearer_of(secret: &str) -> Vec<u8> {
        format!("Bearer {secret}").into_bytes()
    }

    fn plain(names: &[&str]) -> Keys {
        names.iter().fold(Keys::new(), |keys, name| {
            keys.with_plain(name, &format!("secret-of-{name}-0123456789"), Scopes::READ).expect("valid key")
        })
    }

    #[test]
    fn a_new_key_has_the_documented_form_and_its_line_opens_the_door() {
        let made = Keys::new_key("phone", Scopes::ALL).expect("randomness");
        assert_eq!(made.secret.len(), 46);
        assert!(made.secret.starts_with("cm_"));
        assert!(made.secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')));
        let fields: Vec<&str> = made.line.split(' ').collect();
        assert_eq!(fields[..2], ["phone", "read,write"]);
        assert_eq!(fields[2], blake3::hash(made.secret.as_bytes()).to_hex().as_str());
        assert!(!made.line.contains(&made.secret[3..]));
        assert_ne!(made.secret, Keys::new_key("phone", Scopes::ALL).expect("randomness").secret);
        let shown = format!("{made:?}");
        assert!(!shown.contains(&made.secret) && !shown.contains(fields[2]));
    }

    #[test]
    fn the_key_may_come_in_either_header() {
        let keys = plain(&["one", "two"]);
        let secret = b"secret-of-two-0123456789".as_slice();
        let expected = Ok(Identity { name: "two".into(), scopes: Scopes::READ });
        for scheme in ["Bearer ", "bearer ", "BEARER   "] {
            let value = [scheme.as_bytes(), secret].concat();
            assert_eq!(keys.check(Some(&value), None), expected, "{scheme:?}");
        }
        assert_eq!(keys.check(None, Some(secret)), expected);
        assert_eq!(keys.check(Some(b"Basic dXNlcjpwYXNz"), Some(secret)), expected);
    }

    #[test]
    fn what_is_no_key_is_told_apart_from_a_wrong_one() {
        let keys = plain(&["one"]);
        assert_eq!(keys.check(None, None), Err(KeyError::Missing));
        for value in
            [&b"Basic dXNlcjpwYXNz"[..], b"Bearer", b"Bearer  ", b"", b"Bearerx", b"Bearer a b", b"Bearer \xff\xfe"]
        {
            assert_eq!(keys.check(Some(value), None), Err(KeyError::Malformed), "{value:?}");
        }
        assert_eq!(keys.check(None, Some(b"")), Err(KeyError::Malformed));
        assert_eq!(keys.check(None, Some(&[b'a'; LONGEST + 1])), Err(KeyError::Malformed));
        assert_eq!(keys.check(None, Some(b"secret-of-one-012345678")), Err(KeyError::Unknown));
        assert_eq!(keys.check(Some(&bearer_of("secret-of-one-0123456789x")), None), Err(KeyError::Unknown));
        assert_eq!(Keys::new().check(None, Some(b"secret-of-one-0123456789")), Err(KeyError::Unknown));
    }

    #[test]
    fn every_key_is_compared_wherever_the_match_is() {
        let names = ["a", "b", "c", "d", "e"];
        let keys = plain(&names);
        for (name, secret) in names
            .map(|name| (Some(name), format!("secret-of-{name}-0123456789")))
            .into_iter()
            .chain([(None, "nobody's".into())])
        {
            let compared = Cell::new(0);
            let counted = keys.plain.iter().inspect(|_| compared.set(compared.get() + 1));
            let found = matching(counted, &hash(secret.as_bytes()));
            assert_eq!(found.map(|identity| &*identity.name), name);
            assert_eq!(compared.get(), names.len(), "for {name:?}");
        }
    }

    #[test]
    fn weak_keys_and_strange_names_are_refused_without_showing_the_key() {
        let add = |name: &str, secret: &str| Keys::new().with_plain(name, secret, Scopes::READ);
        assert!(add("a", "0123456789abcdef").is_ok());
        for (name, secret) in
            [("a", "0123456789abcde"), ("a", "with a space 0123456789"), ("a", "ümlaut-0123456789-abc")]
        {
            let message = add(name, secret).expect_err(secret).to_string();
            assert!(message.contains("expected 16 to 512 visible ASCII") && !message.contains(secret), "{message}");
        }
        for name in ["", "a b", "a#b", "ä", &"x".repeat(65)] {
            assert!(matches!(add(name, "0123456789abcdef"), Err(NewKeyError::Name(_))), "{name:?}");
            assert!(matches!(Keys::new_key(name, Scopes::ALL), Err(NewKeyError::Name(_))), "{name:?}");
        }
        let none = Scopes { read: false, write: false };
        assert!(matches!(Keys::new_key("a", none), Err(NewKeyError::Scopes(_))));
        let twice = plain(&["a"]).with_plain("a", "0123456789abcdef", Scopes::ALL);
        assert!(matches!(twice, Err(NewKeyError::Duplicate(name)) if name == "a"));
    }
}
