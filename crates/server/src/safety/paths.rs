//! Which files of the server's own disk a client may name.

use std::path::{Component, Path, PathBuf};

/// Why a path isn't accepted. The messages are safe to send to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A path that depends on where the server was started.
    #[error("path {0:?} is relative, expected an absolute path")]
    Relative(PathBuf),
    /// A path that climbs up.
    #[error("path {0:?} contains `..`, expected a path without")]
    Parent(PathBuf),
    /// Outside the allowed folders, whether there is such a file or not.
    #[error("path {0:?} isn't below an allowed folder")]
    NotAllowed(PathBuf),
    /// Inside an allowed folder, but there is no such file.
    #[error("path {0:?} doesn't exist")]
    NotFound(PathBuf),
}

/// A folder that can't be allowed.
#[derive(Debug, thiserror::Error)]
#[error("allowed path {}: {source}", path.display())]
pub struct RootError {
    /// The folder as it was given.
    pub path: PathBuf,
    /// What the system said.
    pub source: std::io::Error,
}

/// Folders (or single files) whose content clients may name.
#[derive(Debug, Clone, Default)]
pub struct AllowedPaths {
    roots: Vec<Root>,
}

#[derive(Debug, Clone)]
struct Root {
    /// As it was given, made absolute.
    given: PathBuf,
    /// Without symbolic links.
    canonical: PathBuf,
}

impl AllowedPaths {
    /// Allows what lies below `roots`, which have to exist. No roots allow nothing.
    ///
    /// # Errors
    /// The first root that doesn't exist or can't be reached.
    pub fn new(roots: Vec<PathBuf>) -> Result<Self, RootError> {
        let roots = roots.into_iter().map(|path| {
            let known =
                std::path::absolute(&path).and_then(|given| Ok(Root { canonical: given.canonicalize()?, given }));
            known.map_err(|source| RootError { path, source })
        });
        Ok(Self { roots: roots.collect::<Result<_, _>>()? })
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The canonical form of `path`, which lies below a root after all symbolic links are followed. Open that form, not `path`. Whoever can write below a
    /// root could still exchange a folder for a link between this check and the opening; clients can't.
    ///
    /// A path that doesn't begin like a root is refused without a look at the disk, so that neither the answer nor its time tells whether it exists. Nor does
    /// the answer for a path that leaves its root through a link.
    ///
    /// # Errors
    /// Relative paths, `..`, paths outside the roots, and paths inside that don't exist.
    pub fn check(&self, path: &Path) -> Result<PathBuf, PathError> {
        let error = |kind: fn(PathBuf) -> PathError| Err(kind(path.to_path_buf()));
        if !path.is_absolute() {
            return error(PathError::Relative);
        }
        if path.components().any(|component| component == Component::ParentDir) {
            return error(PathError::Parent);
        }
        if !self.roots.iter().any(|root| path.starts_with(&root.given) || path.starts_with(&root.canonical)) {
            return error(PathError::NotAllowed);
        }
        match path.canonicalize() {
            Ok(canonical) if self.is_inside(&canonical) => Ok(canonical),
            Ok(_) => error(PathError::NotAllowed),
            Err(_) if self.is_missing_inside(path) => error(PathError::NotFound),
            Err(_) => error(PathError::NotAllowed),
        }
    }

    fn is_inside(&self, canonical: &Path) -> bool {
        self.roots.iter().any(|root| canonical.starts_with(&root.canonical))
    }

    /// Whether the first part of `path` that can't be resolved is missing from a folder inside a root. A part that is there and can't be resolved is a link
    /// to nowhere or in a circle; what is said of it may not depend on what is where it leads.
    fn is_missing_inside(&self, path: &Path) -> bool {
        for ancestor in path.ancestors() {
            if let Ok(canonical) = ancestor.canonicalize() {
                return self.is_inside(&canonical);
            }
            if ancestor.symlink_metadata().is_ok() {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `allowed` and `other` side by side, each with a file `a.png`.
    struct Folders {
        folder: tempfile::TempDir,
        allowed: AllowedPaths,
    }

    impl Folders {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("temporary folder");
            for name in ["allowed", "allowed/inner", "allowed-not", "other"] {
                fs::create_dir(folder.path().join(name)).expect("folder");
                fs::write(folder.path().join(name).join("a.png"), name).expect("file");
            }
            let allowed = AllowedPaths::new(vec![folder.path().join("allowed")]).expect("exists");
            Self { folder, allowed }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn check(&self, name: &str) -> Result<PathBuf, PathError> {
            self.allowed.check(&self.path(name))
        }

        #[cfg(unix)]
        fn link(&self, target: &str, name: &str) {
            std::os::unix::fs::symlink(self.path(target), self.path(name)).expect("link");
        }

        fn not_allowed(&self, name: &str) -> Result<PathBuf, PathError> {
            Err(PathError::NotAllowed(self.path(name)))
        }
    }

    #[test]
    fn what_lies_below_a_root_is_allowed() {
        let folders = Folders::new();
        for name in ["allowed", "allowed/", "allowed/a.png", "allowed/inner/a.png", "allowed//inner/./a.png"] {
            let canonical = folders.path(name).canonicalize().expect("exists");
            assert_eq!(folders.check(name), Ok(canonical), "{name}");
        }
        assert_eq!(folders.check("allowed/none"), Err(PathError::NotFound(folders.path("allowed/none"))));
        let deep = "allowed/none/at/all";
        assert_eq!(folders.check(deep), Err(PathError::NotFound(folders.path(deep))));
        let below_file = "allowed/a.png/x";
        assert_eq!(folders.check(below_file), Err(PathError::NotFound(folders.path(below_file))));
    }

    #[test]
    fn outside_nothing_tells_what_exists() {
        let folders = Folders::new();
        for name in ["other/a.png", "other/none", "none", "", "allowed-not/a.png", "allowed-not/none"] {
            assert_eq!(folders.check(name), folders.not_allowed(name), "{name}");
        }
        for path in ["/", "/etc/passwd", "/no/such/file"] {
            assert_eq!(folders.allowed.check(Path::new(path)), Err(PathError::NotAllowed(path.into())));
        }
        let nothing = AllowedPaths::default();
        assert!(nothing.is_empty());
        assert!(matches!(nothing.check(&folders.path("allowed/a.png")), Err(PathError::NotAllowed(_))));
    }

    #[test]
    fn relative_and_climbing_paths_are_refused_as_such() {
        let folders = Folders::new();
        for path in ["a.png", "./a.png", "allowed/a.png", "", "../a.png", "~/a.png"] {
            assert_eq!(folders.allowed.check(Path::new(path)), Err(PathError::Relative(path.into())), "{path}");
        }
        for name in ["allowed/../other/a.png", "allowed/inner/../a.png", "allowed/..", "allowed/../../etc/passwd"] {
            assert_eq!(folders.check(name), Err(PathError::Parent(folders.path(name))), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn strange_bytes_do_no_harm() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let folders = Folders::new();
        for name in [&b"allowed/a.png\0"[..], b"allowed\0/a.png", b"other/a.png\0", b"\0"] {
            let path = folders.folder.path().join(OsStr::from_bytes(name));
            assert!(folders.allowed.check(&path).is_err(), "{path:?}");
        }
        let strange = folders.path("allowed").join(OsStr::from_bytes(b"\xff\xfe.png"));
        assert_eq!(folders.allowed.check(&strange), Err(PathError::NotFound(strange.clone())));
        fs::write(&strange, "x").expect("file");
        assert_eq!(folders.allowed.check(&strange), Ok(strange.canonicalize().expect("exists")));
        let long = folders.path("allowed").join("x".repeat(10_000));
        assert!(folders.allowed.check(&long).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_out_of_the_root_lead_nowhere_and_tell_nothing() {
        let folders = Folders::new();
        folders.link("other", "allowed/out");
        folders.link("other/a.png", "allowed/picture.png");
        folders.link("other/missing.png", "allowed/dangling.png");
        folders.link("allowed/circle", "allowed/circle");
        fs::create_dir(folders.path("other/deep")).expect("folder");
        folders.link("other/missing.png", "other/deep/dangling");
        for name in [
            "allowed/out",
            "allowed/out/a.png",
            "allowed/out/none",
            "allowed/out/none/deeper",
            "allowed/out/deep/dangling",
            "allowed/out/deep/none",
            "allowed/picture.png",
            "allowed/dangling.png",
            "allowed/circle",
            "allowed/circle/x",
        ] {
            assert_eq!(folders.check(name), folders.not_allowed(name), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_within_the_roots_are_followed() {
        let folders = Folders::new();
        folders.link("allowed/inner", "allowed/again");
        let target = folders.path("allowed/inner/a.png").canonicalize().expect("exists");
        assert_eq!(folders.check("allowed/again/a.png"), Ok(target.clone()));
        // A root that is itself a link may be named by either spelling.
        folders.link("allowed", "alias");
        let by_alias = AllowedPaths::new(vec![folders.path("alias")]).expect("exists");
        assert_eq!(by_alias.check(&folders.path("alias/inner/a.png")), Ok(target.clone()));
        let canonical_root = folders.path("allowed").canonicalize().expect("exists");
        assert_eq!(by_alias.check(&canonical_root.join("inner/a.png")), Ok(target));
        assert!(matches!(by_alias.check(&folders.path("alias/none")), Err(PathError::NotFound(_))));
    }

    #[test]
    fn a_root_that_does_not_exist_is_named() {
        let folders = Folders::new();
        let message =
            AllowedPaths::new(vec![folders.path("allowed"), folders.path("none")]).expect_err("missing").to_string();
        assert!(message.contains("none"), "{message}");
    }
}
