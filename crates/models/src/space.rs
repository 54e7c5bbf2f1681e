//! The identity of a vector space, computed over canonical tensors and preprocessing rather than over file bytes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::weights::CanonicalWeights;

/// The identity of a vector space: a hash over canonical weights, image geometry, vocabulary, pooling and output
/// dimension. Equal ids mean comparable vectors; copies of one checkpoint in different layouts have equal ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpaceId([u8; 16]);

impl SpaceId {
    /// An id from its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({self})")
    }
}

impl FromStr for SpaceId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?} is not a space id, expected 32 hexadecimal digits");
        if text.len() != 32 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// Metadata key of safetensors files under which a derived copy (quantised, converted) carries the id of its origin's weights
/// ([`ClipModel::weights_id`](crate::ClipModel::weights_id)). Rules are still the copy's own: with other preprocessing it
/// is another space.
pub const ORIGIN_KEY: &str = "crossmodal.weights_id";

/// Tensors that turn cosines into probabilities and leave vectors alone.
const NOT_IN_VECTORS: [&str; 2] = ["logit_scale", "logit_bias"];

/// Bumped whenever the way ids are computed changes.
const VERSION: &str = "crossmodal space 1";

/// Computes the id of a model's space from that of its weights. `rules` names everything besides weights that makes vectors
/// what they are.
///
/// # Errors
/// As [`weights_id`].
pub(crate) fn compute(weights: &CanonicalWeights, rules: &str) -> Result<SpaceId> {
    let mut hasher = blake3::Hasher::new();
    part(&mut hasher, VERSION.as_bytes());
    part(&mut hasher, rules.as_bytes());
    part(&mut hasher, weights_id(weights)?.as_bytes());
    Ok(from_hash(&hasher.finalize()))
}

/// The identity of weights: a hash over canonical tensors, or what a derived copy carries of its origin.
///
/// # Errors
/// Tensors that can't be decoded, or an origin that isn't an id.
pub(crate) fn weights_id(weights: &CanonicalWeights) -> Result<SpaceId> {
    if let Some(origin) = weights.checkpoint().metadata(ORIGIN_KEY) {
        let wrong =
            |reason| Error::malformed(weights.checkpoint().path(), format!("metadata `{ORIGIN_KEY}`: {reason}"));
        return origin.parse().map_err(wrong);
    }
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::new();
    for name in weights.names().filter(|name| !NOT_IN_VECTORS.contains(name)) {
        let (shape, values) = weights.values(name)?;
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        part(&mut hasher, name.as_bytes());
        part(&mut hasher, format!("{shape:?}").as_bytes());
        part(&mut hasher, &bytes);
    }
    Ok(from_hash(&hasher.finalize()))
}

/// Adds a part with its length, so that no two sequences of parts look alike.
fn part(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn from_hash(hash: &blake3::Hash) -> SpaceId {
    let mut id = [0; 16];
    id.copy_from_slice(&hash.as_bytes()[..16]);
    SpaceId(id)
}

/// As [`compute`], with the result remembered in `cache` by the files' paths, sizes and times.
///
/// # Errors
/// As [`compute`]. A cache that can't be read or written costs time, never the result.
pub(crate) fn cached(weights: &CanonicalWeights, rules: &str, cache: Option<&Path>) -> Result<SpaceId> {
    let Some(entry) = cache.and_then(|folder| entry_path(weights, rules, folder)) else {
        return compute(weights, rules);
    };
    let known = std::fs::read_to_string(&entry).ok().and_then(|text| text.trim().parse().ok());
    if let Some(id) = known {
        return Ok(id);
    }
    let id = compute(weights, rules)?;
    remember(&entry, id);
    Ok(id)
}

/// The cache file for these weights; `None` where they aren't files.
fn entry_path(weights: &CanonicalWeights, rules: &str, folder: &Path) -> Option<PathBuf> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(VERSION.as_bytes()).update(rules.as_bytes());
    let mut files = 0;
    for path in weights.checkpoint().mapped_paths() {
        let path = path.canonicalize().ok()?;
        let metadata = path.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(&metadata.len().to_le_bytes()).update(&modified.as_nanos().to_le_bytes());
        files += 1;
    }
    (files > 0).then(|| folder.join("spaces").join(hasher.finalize().to_hex().as_str()))
}

/// Writes a cache entry so that a reader sees all of it or nothing.
fn remember(entry: &Path, id: SpaceId) {
    let Some(folder) = entry.parent() else { return };
    let part = entry.with_extension(format!("{}.tmp", std::process::id()));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&part, format!("{id}\n")));
    if written.and_then(|()| std::fs::rename(&part, entry)).is_err() {
        let _ = std::fs::remove_file(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_round_trip_through_text() {
        let id = SpaceId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 250, 251, 252, 253, 255]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "00", "zz0102030405060708090afafbfcfdff", "é00102030405060708090afafbfcfd"] {
            assert!(wrong.parse::<SpaceId>().is_err(), "{wrong}");
        }
    }
}
