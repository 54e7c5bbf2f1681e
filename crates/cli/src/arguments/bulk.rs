//! Options of `crossmodal search --vectors`: many queries from a file.

use std::path::PathBuf;

use clap::Args;

use super::tasks::batch_size;

/// Queries from a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many queries at once")]
pub struct BulkOptions {
    /// Queries: .npy, f16, f32 or f64, shape (n, dimension)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["words", "image", "like"])]
    pub vectors: Option<PathBuf>,
    /// Write the ids of the hits here (.npy, shape (n, k): integers where all ids are, else text; -1 or empty where there are fewer hits)
    /// and their scores beside, R.scores.npy for R.npy
    #[arg(long, value_name = "FILE", requires = "vectors")]
    pub output: Option<PathBuf>,
    /// Candidates that an approximate index weighs for each query [default: its own rule]
    #[arg(long, value_name = "N", requires = "vectors", conflicts_with = "exact", value_parser = super::tasks::at_least_one)]
    pub effort: Option<usize>,
    /// Compare every vector
    #[arg(long, requires = "vectors")]
    pub exact: bool,
    /// Queries that are searched together
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "vectors", value_parser = batch_size)]
    pub query_batch: usize,
}
