//! What a model can be called, and which kind of name a string is.

use std::path::{Path, PathBuf};

use super::builtin;
use crate::config::Layout;
use crate::error::{Error, Result};
use crate::registry::{self, Variant};

/// Endings of weight files.
const WEIGHT_ENDINGS: [&str; 4] = [".safetensors", ".bin", ".pt", ".pth"];

/// A model's name, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelName {
    /// `mini`, the model inside the program.
    Builtin,
    /// A known variant, for example `ViT-B-32/laion2b_s34b_b79k`.
    Variant(&'static Variant),
    /// A local folder in some layout, or a single weight file.
    Path {
        /// The folder or file.
        path: PathBuf,
        /// The layout to use if the folder has several.
        layout: Option<Layout>,
    },
    /// A repository on the hub: `owner/name[@revision]`.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
        /// The layout to use if the repository has several.
        layout: Option<Layout>,
    },
}

impl ModelName {
    /// Understands a name. The first that applies counts:
    ///
    /// 1. `mini` is the built-in model (a folder of that name is `./mini`).
    /// 2. What begins like a path (`.`, `/`, `~`), exists as a file or folder, or ends like a weight file is a path.
    /// 3. Names and aliases of known variants.
    /// 4. `owner/name` or `owner/name@revision` is a repository on the hub.
    ///
    /// `#openclip` or `#hf` after a folder or hub id chooses the layout where there are two; without it, Hugging Face files
    /// win over OpenCLIP's.
    ///
    /// # Errors
    /// A string that is none of these.
    pub fn parse(name: &str) -> Result<Self> {
        if name == builtin::NAME {
            return Ok(Self::Builtin);
        }
        if Path::new(name).exists() && !name.is_empty() {
            return Ok(Self::Path { path: PathBuf::from(name), layout: None });
        }
        let (plain, layout) = split_layout(name)?;
        if is_path(plain) {
            return Ok(Self::Path { path: expand_home(plain), layout });
        }
        if let Some(variant) = registry::find(plain) {
            return Ok(Self::from_variant(variant, layout));
        }
        let (repo, revision) = plain.split_once('@').unwrap_or((plain, "main"));
        if is_repo(repo) && is_revision(revision) {
            return Ok(Self::Hub { repo: repo.to_string(), revision: revision.to_string(), layout });
        }
        // An architecture alone is how other tools name models; here it takes the weights' name too.
        let tagged = registry::all().iter().filter(|variant| variant.architecture.eq_ignore_ascii_case(plain));
        let tagged: Vec<String> = tagged.map(registry::Variant::full_name).collect();
        if !tagged.is_empty() {
            let choices = tagged.join(", ");
            return Err(Error::NotFound(format!("{name:?} names an architecture; its weights are {choices}")));
        }
        Err(Error::NotFound(format!(
            "{name:?} names no model: expected `mini`, a known variant such as `ViT-B-32/openai`, a folder or weight file, or a \
             repository `owner/name[@revision]`; `crossmodal model list` shows the known ones"
        )))
    }

    /// The name of a repository that [`parse`](Self::parse) takes for exactly this one.
    pub(super) fn of_repo(repo: &str, revision: &str, layout: Option<Layout>) -> String {
        // Without a revision, these would be a weight file and a known variant.
        let taken = ends_like_weights(repo) || registry::find(repo).is_some();
        let revision = if revision == "main" && !taken { String::new() } else { format!("@{revision}") };
        format!("{repo}{revision}{}", suffix(layout))
    }

    /// The name of a local folder or file, the same from any working folder.
    pub(super) fn of_path(path: &Path, layout: Option<Layout>) -> String {
        format!("{}{}", path.display(), suffix(layout))
    }

    fn from_variant(variant: &'static Variant, layout: Option<Layout>) -> Self {
        match (&variant.hub_id, layout) {
            (None, _) => Self::Builtin,
            (Some(_), None) => Self::Variant(variant),
            (Some(repo), Some(_)) => Self::Hub { repo: repo.clone(), revision: "main".to_string(), layout },
        }
    }
}

fn split_layout(name: &str) -> Result<(&str, Option<Layout>)> {
    match name.rsplit_once('#') {
        None => Ok((name, None)),
        // A `#` in the name of a folder further up.
        Some((_, rest)) if rest.contains(['/', '\\']) => Ok((name, None)),
        Some((plain, "openclip")) => Ok((plain, Some(Layout::OpenClip))),
        Some((plain, "hf")) => Ok((plain, Some(Layout::HuggingFace))),
        Some((_, layout)) => {
            Err(Error::NotFound(format!("{name:?}: unknown layout {layout:?}, expected openclip or hf")))
        }
    }
}

fn suffix(layout: Option<Layout>) -> &'static str {
    match layout {
        None => "",
        Some(Layout::OpenClip) => "#openclip",
        Some(Layout::HuggingFace) => "#hf",
    }
}

fn ends_like_weights(name: &str) -> bool {
    WEIGHT_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

fn is_path(name: &str) -> bool {
    name.starts_with(['.', '/', '~', '\\'])
        || Path::new(name).is_absolute()
        || Path::new(name).exists()
        || ends_like_weights(name)
}

fn expand_home(name: &str) -> PathBuf {
    match (name.strip_prefix('~'), std::env::home_dir()) {
        (Some(""), Some(home)) => home,
        (Some(rest), Some(home)) if rest.starts_with(['/', '\\']) => home.join(&rest[1..]),
        _ => PathBuf::from(name),
    }
}

fn is_repo(repo: &str) -> bool {
    let is_part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty()
            && part.len() <= 96
            && part.chars().all(allowed)
            && part != "."
            && part != ".."
            && !part.contains("--")
    };
    repo.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    revision.len() <= 200 && revision.chars().all(allowed) && revision.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repo: &str, revision: &str, layout: Option<Layout>) -> ModelName {
        ModelName::Hub { repo: repo.to_string(), revision: revision.to_string(), layout }
    }

    #[test]
    fn kinds_of_names() {
        let path = |path: &str| ModelName::Path { path: PathBuf::from(path), layout: None };
        let open_clip = |path: &str| ModelName::Path { path: PathBuf::from(path), layout: Some(Layout::OpenClip) };
        let cases = [
            ("mini", ModelName::Builtin),
            ("./mini", path("./mini")),
            ("/models/x", path("/models/x")),
            ("nowhere/ViT-B-32.pt", path("nowhere/ViT-B-32.pt")),
            ("src", path("src")),
            ("/models/x#openclip", open_clip("/models/x")),
            ("/models/x@v1.pt#openclip", open_clip("/models/x@v1.pt")),
            ("/a#b/x#openclip", open_clip("/a#b/x")),
            ("/a#b/x", path("/a#b/x")),
            ("openai/clip-vit-base-patch32", hub("openai/clip-vit-base-patch32", "main", None)),
            ("laion/x@v1/a", hub("laion/x", "v1/a", None)),
            ("laion/x@refs/pr/3#openclip", hub("laion/x", "refs/pr/3", Some(Layout::OpenClip))),
            ("laion/x#hf", hub("laion/x", "main", Some(Layout::HuggingFace))),
        ];
        for (name, expected) in cases {
            assert_eq!(ModelName::parse(name).unwrap(), expected, "{name}");
        }
        assert!(matches!(ModelName::parse("ViT-B-32/openai").unwrap(), ModelName::Variant(_)));
    }

    #[test]
    fn names_of_repositories_lead_back() {
        for repo in ["team/model", "team/weights.pt", "ViT-B-32/openai"] {
            for revision in ["main", "v1/a", "refs/pr/3"] {
                for layout in [None, Some(Layout::OpenClip), Some(Layout::HuggingFace)] {
                    let name = ModelName::of_repo(repo, revision, layout);
                    assert_eq!(ModelName::parse(&name).unwrap(), hub(repo, revision, layout), "{name}");
                }
            }
        }
        assert_eq!(ModelName::of_repo("team/model", "main", None), "team/model");
    }

    #[test]
    fn names_that_lead_nowhere() {
        for name in ["", "nothing", "a/b/c", "a/..", "../../x#nope", "a/b@../c", "a/b@", "a/b#gguf", "a b/c"] {
            assert!(ModelName::parse(name).is_err(), "{name:?}");
        }
    }
}
