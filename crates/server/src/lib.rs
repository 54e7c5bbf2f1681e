//! The HTTP server: routes, JSON types, the error table, and the web page inside the program.
#![forbid(unsafe_code)]

pub mod safety;
pub mod transport;
