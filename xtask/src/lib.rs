//! Checks of the workspace itself live in this crate's tests.
