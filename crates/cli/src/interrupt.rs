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
