//! Reading the arrays and files that the references wrote.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};

use crossmodal_media::PixelMode;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A folder below `tests/golden` with `golden.json` and `golden.safetensors`.
pub struct Golden {
    folder: PathBuf,
    json: Value,
    arrays: Vec<u8>,
}

impl Golden {
    /// Reads the folder `name` of this repository.
    pub fn open(name: &str) -> Self {
        let mut golden = Self::at(folder(name));
        golden.arrays = golden.file("golden.safetensors");
        golden
    }

    /// Reads a folder without arrays.
    pub fn at(folder: PathBuf) -> Self {
        let mut golden = Self { folder, json: Value::Null, arrays: Vec::new() };
        golden.json = serde_json::from_slice(&golden.file("golden.json")).expect("JSON");
        golden
    }

    /// The whole description.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Name and description of each picture.
    pub fn images(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.json["images"].as_object().expect("images").iter()
    }

    /// Bytes of a file of the folder.
    pub fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn array(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let arrays = SafeTensors::deserialize(&self.arrays).expect("safetensors");
        let view = arrays.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(view.dtype(), dtype, "{name}");
        (view.shape().to_vec(), view.data().to_vec())
    }

    /// Shape and samples of an array of bytes.
    pub fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        self.array(name, Dtype::U8)
    }

    /// Shape and numbers of an array of f32.
    pub fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, data) = self.array(name, Dtype::F32);
        (shape, data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The folder `name` below `tests/golden`.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Pillow's name for a mode.
pub fn pillow_mode(mode: PixelMode) -> &'static str {
    match mode {
        PixelMode::Bilevel => "1",
        PixelMode::Grey => "L",
        PixelMode::GreyAlpha => "LA",
        PixelMode::Palette => "P",
        PixelMode::Grey16 => "I;16",
        PixelMode::Rgb => "RGB",
        PixelMode::Rgba => "RGBA",
        PixelMode::Cmyk => "CMYK",
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
