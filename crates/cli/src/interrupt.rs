//! Ctrl-C: the first one asks the work to stop, the second one ends the program.

use crossmodal_engine::CancelToken;

use crate::failure::Outcome;
use crate::output::complain;

/// A token that Ctrl-C (or a request to terminate) raises.
///
/// # Errors
/// A system that refuses the handler.
pub fn token() -> anyhow::Result<CancelToken> {
    let token = CancelToken::new();
    let raised = token.clone();
    ctrlc::set_handler(move || {
        if raised.is_cancelled() {
            std::process::exit(i32::from(Outcome::Interrupted.code()));
        }
        complain("\ninterrupted: finishing what is under way (Ctrl-C again ends at once)");
        raised.cancel();
    })?;
    Ok(token)
}

/// As [`token`], for work that keeps nothing half-done and may be waiting for input that never comes: if it hasn't ended a
/// moment after the first Ctrl-C, the program does.
///
/// # Errors
/// A system that refuses the handler.
pub fn impatient_token() -> anyhow::Result<CancelToken> {
    let token = CancelToken::new();
    let raised = token.clone();
    ctrlc::set_handler(move || {
        raised.cancel();
        // The handler has a thread of its own.
        std::thread::sleep(std::time::Duration::from_secs(2));
        std::process::exit(i32::from(Outcome::Interrupted.code()));
    })?;
    Ok(token)
}
