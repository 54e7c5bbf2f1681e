//! The real binary, run as a user runs it, in folders of its own and without a network.

mod bad_input;
mod collections;
mod damage;
mod demo;
mod embeddings;
mod evaluation;
mod exchange;
mod help;
mod indexing;
mod interruption;
mod models;
mod quantized;
mod searching;
mod serving;
mod support;
mod training;
mod upkeep;
