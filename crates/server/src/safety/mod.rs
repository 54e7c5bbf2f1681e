//! What stands between the network and the engine: keys, rates, and the files and addresses that clients may name.

pub mod keys;
mod keys_file;
pub mod origin;
pub mod paths;
pub mod rate_limit;
