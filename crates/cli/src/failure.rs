//! How a command ends: exit codes, and errors as one line that names the culprit, with a hint where one helps.

use crossmodal_engine::{Error, ErrorKind};

use crate::output::{Output, PipeClosed, Style, complain};

/// How a command ended that didn't fail as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Fine,
    /// Something failed, and was told already.
    Failed,
    /// `index --strict` passed something over.
    Incomplete,
    /// Ctrl-C.
    Interrupted,
}

impl Outcome {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Failed => 1,
            Self::Incomplete => 3,
            Self::Interrupted => 130,
        }
    }
}

/// Arguments that parse but make no sense together: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Tells what went wrong and returns the exit code.
pub fn report(error: &anyhow::Error, output: &Output) -> u8 {
    if error.is::<PipeClosed>() {
        return 0;
    }
    let engine = error.downcast_ref::<Error>();
    if engine.is_some_and(|error| error.kind() == ErrorKind::Cancelled) {
        output.error("interrupted");
        return Outcome::Interrupted.code();
    }
    output.error(&message(error));
    if let Some(hint) = engine.and_then(hint) {
        complain(&format!("{} {hint}", output.note_paint.style(Style::Cyan, "hint:")));
    }
    if error.is::<Usage>() { 2 } else { Outcome::Failed.code() }
}

/// The chain of causes as one line. A cause that the message before it spells out already isn't repeated.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The message of an error about `subject`, which it names exactly once.
pub fn about(subject: &str, error: Error) -> String {
    let text = message(&anyhow::Error::new(error));
    if text.contains(subject) { text } else { format!("{subject}: {text}") }
}

fn hint(error: &Error) -> Option<String> {
    use crossmodal_engine::StoreError;
    match error {
        Error::Store(StoreError::NoCollection { path }) => {
            Some(format!("make it with `crossmodal index PICTURES --collection {}`", path.display()))
        }
        Error::Store(StoreError::Locked { .. }) => Some("--wait waits for the other writer".into()),
        Error::Store(StoreError::SpaceMismatch { existing, .. }) => {
            Some(format!("use the collection's own model (--model {:?}), or another collection", existing.model))
        }
        Error::Store(StoreError::Damaged { .. }) => Some(
            "`crossmodal collection verify` names what is affected; `crossmodal index --repair` over the same files restores it"
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_joined_but_not_repeated() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::Io { path: "a.png".into(), source: cause };
        assert_eq!(message(&anyhow::Error::new(error)), "a.png: disk on fire");
        let error = anyhow::Error::new(std::io::Error::other("full")).context("out.npy");
        assert_eq!(message(&error), "out.npy: full");
    }

    #[test]
    fn the_subject_is_named_once() {
        assert_eq!(about("a.png", Error::Invalid("truncated".into())), "a.png: truncated");
        assert_eq!(about("a.png", Error::Invalid("a.png: a folder".into())), "a.png: a folder");
    }
}
