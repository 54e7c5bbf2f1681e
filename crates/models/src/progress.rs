//! Owned progress events and cancellation tokens, so that a command line, a server or a binding can use them alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that asks long work to stop soon. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    raised: Arc<AtomicBool>,
}

impl CancelToken {
    /// A token that isn't raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that watches this token to stop.
    pub fn cancel(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Fails once the token is raised.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn check(&self) -> crate::Result<()> {
        if self.is_cancelled() { Err(crate::Error::Cancelled) } else { Ok(()) }
    }
}

/// What happens while a model is fetched and loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelEvent {
    /// A file of a hub repository begins to download, or resumes.
    DownloadStarted {
        /// File name within the repository.
        file: String,
        /// Whole size in bytes.
        total: u64,
    },
    /// Bytes of the current file arrived since the last event.
    DownloadAdvanced {
        /// Number of new bytes.
        bytes: u64,
    },
    /// The current file is complete.
    DownloadFinished {
        /// File name within the repository.
        file: String,
    },
}

/// Where [`ModelEvent`]s go. Called from the thread that does the work.
pub type ModelEvents = Arc<dyn Fn(ModelEvent) + Send + Sync>;
