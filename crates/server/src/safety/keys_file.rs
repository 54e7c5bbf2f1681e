//! The keys file: its lines, who may write it, and reading it again when it changes.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::keys::{Identity, Key, Scopes, check_name};

/// How often the file is looked at, at most: so long may a revoked key still work.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file changed so recently when it was read may change again without a new time, clocks of file systems being coarse.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Largest keys file.
const LARGEST: u64 = 1 << 20;

/// Why a keys file isn't accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysFileError {
    /// The file can't be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The keys file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may write the file, and so give themselves a key.
    #[error("{}: can be written by others than its owner (mode {mode:03o}), expected e.g. 600: run `chmod go-w` on it", path.display())]
    Writable {
        /// The keys file.
        path: PathBuf,
        /// The permission bits found.
        mode: u32,
    },
    /// The file is no keys file.
    #[error("{}: {reason}", path.display())]
    File {
        /// The keys file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A line that is no key.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The keys file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },
}

/// A keys file and what it held when it was last read.
pub(super) struct KeysFile {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    keys: Arc<[Key]>,
    looked: Instant,
    /// Of the file that was read; none if it can't be trusted to show the next change.
    stamp: Option<Stamp>,
    /// The last thing that was logged about the file, so that it isn't logged every second.
    complaint: String,
}

/// What tells two states of a file apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    #[cfg(unix)]
    inode: u64,
    #[cfg(unix)]
    mode: u32,
    /// When anything of the file changed, in seconds and nanoseconds. Unlike the time of modification nobody can set it.
    #[cfg(unix)]
    changed: (i64, i64),
}

impl KeysFile {
    /// Reads the file, all of whose lines must be right.
    pub(super) fn open(path: &Path) -> Result<Self, KeysFileError> {
        let (text, stamp) = read(path)?;
        let (keys, mut faults) = parse(path, &text);
        if !faults.is_empty() {
            return Err(faults.swap_remove(0));
        }
        let loaded = Loaded { keys: keys.into(), looked: Instant::now(), stamp, complaint: String::new() };
        Ok(Self { path: path.to_path_buf(), loaded: Mutex::new(loaded) })
    }

    /// The keys of the file as it is now.
    pub(super) fn keys(&self) -> Arc<[Key]> {
        self.keys_at(Instant::now())
    }

    fn keys_at(&self, now: Instant) -> Arc<[Key]> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(loaded.looked) >= LOOK_EVERY {
            loaded.looked = now;
            self.look(&mut loaded);
        }
        Arc::clone(&loaded.keys)
    }

    /// Reads the file again if it isn't the one that was read. A line that is wrong costs its own key only, so that a slip of the pen neither locks everyone out
    /// nor keeps a removed key alive. A file that is gone or that others can write gives no keys: what can't be trusted opens nothing.
    fn look(&self, loaded: &mut Loaded) {
        let present = std::fs::metadata(&self.path).ok().and_then(|metadata| Stamp::of(&metadata));
        if present.is_some() && present == loaded.stamp {
            return;
        }
        let (keys, faults) = match read(&self.path) {
            Ok((text, stamp)) => {
                loaded.stamp = stamp;
                parse(&self.path, &text)
            }
            Err(error) => {
                loaded.stamp = None;
                (Vec::new(), vec![error])
            }
        };
        let complaint = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if complaint != loaded.complaint {
            if complaint.is_empty() {
                tracing::info!(file = %self.path.display(), keys = keys.len(), "the keys file is in order again");
            } else {
                tracing::error!(keys = keys.len(), "keys that can't be used: {complaint}");
            }
            loaded.complaint = complaint;
        } else if keys.len() != loaded.keys.len() {
            tracing::info!(file = %self.path.display(), keys = keys.len(), "the keys file was read again");
        }
        loaded.keys = keys.into();
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Some(Self {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            #[cfg(unix)]
            inode: metadata.ino(),
            #[cfg(unix)]
            mode: metadata.mode(),
            #[cfg(unix)]
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether a change from now on is sure to show.
    fn is_settled(&self) -> bool {
        let old = |time: SystemTime| time.elapsed().is_ok_and(|age| age >= SETTLED_AFTER);
        #[cfg(unix)]
        let changed = u64::try_from(self.changed.0)
            .is_ok_and(|seconds| old(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)));
        #[cfg(not(unix))]
        let changed = old(self.modified);
        changed
    }
}

/// The file's text. Rights and time are those of the very file that is read, not of whatever has its name a moment later.
fn read(path: &Path) -> Result<(String, Option<Stamp>), KeysFileError> {
    let io = |source| KeysFileError::Io { path: path.to_path_buf(), source };
    let fault = |reason: String| KeysFileError::File { path: path.to_path_buf(), reason };
    // Opening a pipe waits for a writer, so the kind is looked at first.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(fault("is no regular file".to_string()));
    }
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    check_mode(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fault(format!("has more than {LARGEST} bytes, which no keys file has")));
    }
    let text = String::from_utf8(bytes).map_err(|error| fault(format!("is not UTF-8 text ({error})")))?;
    Ok((text, Stamp::of(&metadata).filter(Stamp::is_settled)))
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &Metadata) -> Result<(), KeysFileError> {
    use std::os::unix::fs::MetadataExt;
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 == 0 { Ok(()) } else { Err(KeysFileError::Writable { path: path.to_path_buf(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &Metadata) -> Result<(), KeysFileError> {
    Ok(())
}

/// The keys of all lines that are right, and what is wrong with the others.
fn parse(path: &Path, text: &str) -> (Vec<Key>, Vec<KeysFileError>) {
    let (mut keys, mut faults) = (Vec::<Key>::new(), Vec::new());
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match parse_line(content, &keys) {
            Ok(key) => keys.push(key),
            Err(reason) => faults.push(KeysFileError::Line { path: path.to_path_buf(), line, reason }),
        }
    }
    (keys, faults)
}

fn parse_line(content: &str, before: &[Key]) -> Result<Key, String> {
    let fields: Vec<&str> = content.split_whitespace().collect();
    let [name, scopes, hex] = fields[..] else {
        return Err(format!("has {} fields, expected 3: `name scopes blake3-hex`", fields.len()));
    };
    check_name(name).map_err(|error| error.to_string())?;
    let scopes: Scopes = scopes.parse().map_err(|error: super::keys::ScopesError| error.to_string())?;
    // The text itself may be a key that was put here by mistake, so it isn't repeated.
    let hash = blake3::Hash::from_hex(hex).map_err(|_| {
        format!(
            "the third field has {} characters, expected the 64 hexadecimal digits of the key's BLAKE3 hash",
            hex.len()
        )
    })?;
    if before.iter().any(|key| *key.identity.name == *name) {
        return Err(format!("a second key named {name:?}, expected a name for each"));
    }
    if before.iter().any(|key| key.hash == hash) {
        return Err(format!("the key {name:?} is the same as one before it"));
    }
    Ok(Key { hash, identity: Identity { name: name.into(), scopes } })
}

#[cfg(test)]
mod tests {
    use super::super::keys::{KeyError, Keys};
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("temporary folder"))
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("keys")
        }

        fn write(&self, text: &str) -> PathBuf {
            std::fs::write(self.path(), text).expect("written");
            self.set_mode(0o600);
            self.path()
        }

        #[cfg(unix)]
        fn set_mode(&self, mode: u32) {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(mode)).expect("mode set");
        }

        #[cfg(not(unix))]
        fn set_mode(&self, _: u32) {}
    }

    fn names(keys: &[Key]) -> Vec<&str> {
        keys.iter().map(|key| &*key.identity.name).collect()
    }

    fn lines(names: &[&str]) -> String {
        names.iter().map(|name| Keys::new_key(name, Scopes::READ).expect("randomness").line + "\n").collect()
    }

    #[test]
    fn keys_of_a_file_are_known_with_their_scopes() {
        let folder = Folder::new();
        let reader = Keys::new_key("reader", Scopes::READ).expect("randomness");
        let writer = Keys::new_key("writer.2", Scopes::ALL).expect("randomness");
        let text = format!("# who may come in\n\n{}   # the web page\r\n\t{}\n", reader.line, writer.line);
        let keys = Keys::from_file(&folder.write(&text)).expect("a good file");
        assert_eq!(keys.len(), 2);
        let identity = keys.check(Some(format!("Bearer {}", reader.secret).as_bytes()), None).expect("known");
        assert_eq!((&*identity.name, identity.scopes), ("reader", Scopes::READ));
        let identity = keys.check(None, Some(writer.secret.as_bytes())).expect("known");
        assert_eq!((&*identity.name, identity.scopes), ("writer.2", Scopes::ALL));
        let both = keys.with_plain("environment", "0123456789abcdef", Scopes::WRITE).expect("a free name");
        assert_eq!(both.check(None, Some(b"0123456789abcdef")).map(|identity| identity.scopes), Ok(Scopes::WRITE));
        assert!(both.check(None, Some(reader.secret.as_bytes())).is_ok());
        assert!(both.with_plain("reader", "0123456789abcdeg", Scopes::WRITE).is_err());
    }

    #[test]
    fn faults_name_file_line_and_what_was_expected() {
        let folder = Folder::new();
        let good = lines(&["good"]);
        let hash = &good.trim().rsplit(' ').next().expect("hash");
        let cases = [
            ("name read\n".to_string(), "line 2: has 2 fields, expected 3"),
            (format!("bad/name read {hash}\n"), "line 2: key name \"bad/name\", expected 1 to 64"),
            (
                format!("name readwrite {hash}\n"),
                "line 2: scopes \"readwrite\", expected `read`, `write` or `read,write`",
            ),
            (
                "name read cm_0123\n".to_string(),
                "line 2: the third field has 7 characters, expected the 64 hexadecimal digits",
            ),
            (format!("other read {hash}\n"), "line 2: the key \"other\" is the same as one before it"),
            (lines(&["good"]), "line 2: a second key named \"good\""),
        ];
        for (second, expected) in cases {
            let path = folder.write(&format!("{good}{second}"));
            let message = Keys::from_file(&path).expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains(&path.display().to_string()), "{message}");
            assert!(!message.contains("cm_0123"), "{message}");
        }
        assert!(matches!(Keys::from_file(&folder.0.path().join("none")), Err(KeysFileError::Io { .. })));
        assert!(matches!(Keys::from_file(folder.0.path()), Err(KeysFileError::File { .. })));
        std::fs::write(folder.path(), [0xff, 0xfe]).expect("written");
        assert!(Keys::from_file(&folder.path()).expect_err("no text").to_string().contains("UTF-8"));
        std::fs::write(folder.path(), vec![b'#'; LARGEST as usize + 1]).expect("written");
        assert!(Keys::from_file(&folder.path()).expect_err("too large").to_string().contains("more than"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = Folder::new();
        folder.write(&lines(&["one"]));
        for mode in [0o620, 0o602, 0o666] {
            folder.set_mode(mode);
            let message = Keys::from_file(&folder.path()).expect_err("writable").to_string();
            assert!(message.contains(&format!("mode {mode:o}")) && message.contains("chmod"), "{message}");
        }
        for mode in [0o400, 0o600, 0o644] {
            folder.set_mode(mode);
            assert!(Keys::from_file(&folder.path()).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn changes_of_the_file_take_effect_and_faults_keep_no_removed_key_alive() {
        let folder = Folder::new();
        let (first, second, third) = (lines(&["first"]), lines(&["second"]), lines(&["third"]));
        let file = KeysFile::open(&folder.write(&format!("{first}{second}"))).expect("a good file");
        let mut now = Instant::now();
        let mut after = |text: Option<&str>| {
            match text {
                Some(text) => drop(folder.write(text)),
                None => std::fs::remove_file(folder.path()).expect("removed"),
            }
            now += LOOK_EVERY;
            file.keys_at(now)
        };
        assert_eq!(names(&after(Some(&second))), ["second"]);
        // As long as before, and most likely within one tick of the file system's clock.
        assert_eq!(names(&after(Some(&lines(&["fourth"])))), ["fourth"]);
        assert_eq!(names(&after(Some(&format!("{first}second read broken\n{third}")))), ["first", "third"]);
        assert!(after(None).is_empty());
        assert_eq!(names(&after(Some(&second))), ["second"]);
    }

    #[test]
    fn a_file_that_rests_is_read_once() {
        let folder = Folder::new();
        let path = folder.write(&lines(&["one"]));
        let file = KeysFile::open(&path).expect("a good file");
        assert!(
            file.loaded.lock().expect("lock").stamp.is_none(),
            "a file just written isn't trusted to show its next change"
        );
        std::thread::sleep(SETTLED_AFTER + Duration::from_millis(1100));
        let first = file.keys_at(Instant::now() + LOOK_EVERY);
        let second = file.keys_at(Instant::now() + 3 * LOOK_EVERY);
        assert!(Arc::ptr_eq(&first, &second));
        assert!(file.loaded.lock().expect("lock").stamp.is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_now_gives_no_keys_until_mended() {
        let folder = Folder::new();
        let key = Keys::new_key("one", Scopes::READ).expect("randomness");
        let keys = Keys::from_file(&folder.write(&key.line)).expect("a good file");
        let check = || keys.check(None, Some(key.secret.as_bytes())).map(|identity| identity.name);
        assert!(check().is_ok());
        folder.set_mode(0o666);
        std::thread::sleep(LOOK_EVERY + Duration::from_millis(50));
        assert_eq!(check(), Err(KeyError::Unknown));
        folder.set_mode(0o600);
        std::thread::sleep(LOOK_EVERY + Duration::from_millis(50));
        assert!(check().is_ok());
    }
}
