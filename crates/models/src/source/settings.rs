//! Where the hub is and where its files are kept: the environment variables that the Python client heeds.

use std::path::PathBuf;
use std::time::Duration;

/// The hub's public address.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How long a connection may be silent, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const SILENCE: Duration = Duration::from_secs(30);

/// How the hub is reached and where downloads are kept.
#[derive(Clone)]
pub struct HubSettings {
    /// Address without a final slash.
    pub endpoint: String,
    /// The cache folder, shared with the Python client.
    pub cache: PathBuf,
    /// Access token, sent to the endpoint only.
    pub token: Option<String>,
    /// Whether the network is off limits.
    pub offline: bool,
    /// How long a connection may be silent before it counts as broken. Not a limit for a whole download.
    pub silence: Duration,
}

impl HubSettings {
    /// Reads `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME`; `HF_TOKEN`, `HF_TOKEN_PATH` and the token file of the
    /// Python client; `HF_HUB_OFFLINE`; `HF_HUB_DOWNLOAD_TIMEOUT` in seconds; and their older names.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`from_env`](Self::from_env), with the environment given as a function.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let is_on = |name: &str| variable(name).is_some_and(|value| is_true(&value));
        let user = std::env::home_dir().unwrap_or_default().join(".cache");
        let user = variable("XDG_CACHE_HOME").map_or(user, PathBuf::from);
        let home = variable("HF_HOME").map_or_else(|| user.join("huggingface"), PathBuf::from);
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map_or_else(|| home.join("hub"), PathBuf::from);
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let from_file = || {
            let wanted = !is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN");
            wanted.then(|| std::fs::read_to_string(token_file).ok()).flatten()
        };
        let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(from_file);
        let seconds = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.trim().parse::<u64>().ok());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache,
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            // None at all would make every connection count as broken.
            silence: seconds.filter(|seconds| *seconds > 0).map_or(SILENCE, Duration::from_secs),
        }
    }
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "...");
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &token)
            .field("offline", &self.offline)
            .field("silence", &self.silence)
            .finish()
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string());
        HubSettings::from_variables(&find)
    }

    #[test]
    fn heeds_the_python_clients_variables() {
        let plain = settings(&[("HF_HOME", "/h")]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), (DEFAULT_ENDPOINT, false));
        assert_eq!(plain.cache, PathBuf::from("/h/hub"));
        assert_eq!((plain.token, plain.silence), (None, SILENCE));
        let full = settings(&[
            ("XDG_CACHE_HOME", "/x"),
            ("HF_HUB_CACHE", "/c"),
            ("HF_ENDPOINT", "http://127.0.0.1:1/"),
            ("HF_TOKEN", " secret\n"),
            ("HF_HUB_OFFLINE", "yes"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
        ]);
        assert_eq!(full.cache, PathBuf::from("/c"));
        assert_eq!(full.endpoint, "http://127.0.0.1:1");
        assert_eq!(full.token.as_deref(), Some("secret"));
        assert!(full.offline && full.silence == Duration::from_secs(7));
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "0")]).silence, SILENCE);
        assert!(!format!("{full:?}").contains("secret"));
        assert_eq!(settings(&[("XDG_CACHE_HOME", "/x")]).cache, PathBuf::from("/x/huggingface/hub"));
    }
}
