//! The real server on loopback, with the built-in model and real collections, asked over real sockets.

mod abuse;
mod access;
mod collections;
mod dialects;
mod errors;
mod jobs;
mod models;
mod service;
mod support;
