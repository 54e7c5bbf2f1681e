//! Metrics over scores, ranks and labels, with their intervals. Knows no models and no files.

#![forbid(unsafe_code)]
