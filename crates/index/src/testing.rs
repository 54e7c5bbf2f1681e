//! What tests of indexes share.

use crossmodal_kernels::MappedFile;

use crate::{Container, IndexError};

/// Repeatable values in -1..1.
pub(crate) fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The container that these bytes are, in a mapped file.
pub(crate) fn container(bytes: &[u8]) -> Result<Container, IndexError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    std::fs::write(&path, bytes).unwrap();
    Container::open(MappedFile::open(&path).unwrap())
}
