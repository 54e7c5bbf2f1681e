//! Data sets of the gallery's drawings in every form, and the built-in model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crossmodal_models::{ClipModel, LoadOptions, load_clip};
use crossmodal_train::data::{Columns, DataSet, RightColumn};

/// A drawing of the gallery.
pub struct Drawing {
    pub name: String,
    pub captions: Vec<String>,
    pub bytes: Vec<u8>,
}

pub fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/gallery")
}

/// The first drawings with their English and French names.
pub fn drawings(count: usize) -> Vec<Drawing> {
    let columns = Columns { right: ["en", "fr"].map(RightColumn::named).to_vec(), ..Columns::default() };
    let data = DataSet::open(gallery().join("captions.csv").to_str().unwrap(), &columns).unwrap();
    let records = data.records().unwrap().iter().take(count);
    let drawing = |record: &Arc<crossmodal_train::data::Record>| Drawing {
        name: record.key.to_string(),
        captions: record.right.iter().map(|right| right.location.text().unwrap().to_string()).collect(),
        bytes: record.left.read().unwrap(),
    };
    records.map(drawing).collect()
}

/// Writes files into a new folder.
pub fn folder(files: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// A tar archive.
pub fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

pub fn open(path: &Path) -> DataSet {
    DataSet::open(path.to_str().unwrap(), &Columns::default()).unwrap()
}

/// The built-in model, loaded once for all tests of a program.
pub fn mini() -> Arc<ClipModel> {
    static MINI: OnceLock<Arc<ClipModel>> = OnceLock::new();
    MINI.get_or_init(|| Arc::new(load_clip("mini", &LoadOptions::default()).unwrap())).clone()
}
