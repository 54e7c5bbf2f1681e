//! What stands between the network and the engine: keys, rates, and the files and addresses that clients may name.

pub mod addresses;
pub mod fetch;
mod fetch_target;
pub mod keys;
mod keys_file;
pub mod origin;
pub mod paths;
pub mod rate_limit;
