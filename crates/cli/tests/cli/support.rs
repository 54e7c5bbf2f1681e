//! One place that runs the binary and makes its inputs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A small real checkpoint of another space than mini's.
pub fn other_model() -> PathBuf {
    golden("hf-clip/legacy-quick-gelu")
}

/// A folder of golden data.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name).canonicalize().unwrap()
}

/// A picture of the gallery.
pub fn drawing(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/gallery").join(name)
}

/// What a run of the binary said.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The same, having checked the exit code and that nothing panicked.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// Standard output as lines of JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A home folder of its own for the binary.
pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path within; relative ones on the command line start here too.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// The binary with a clean environment.
    pub fn command(&self) -> Command {
        self.prepare(Command::new(env!("CARGO_BIN_EXE_crossmodal")))
    }

    /// Gives any command that environment.
    pub fn prepare(&self, mut command: Command) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CROSSMODAL_") || name.to_string_lossy().starts_with("HF_") {
                command.env_remove(name);
            }
        }
        let home = self.folder.path();
        command
            .current_dir(home)
            .env("HOME", home)
            .env("HF_HOME", home.join("hub"))
            .env("XDG_CACHE_HOME", home.join("cache"));
        command.env("CROSSMODAL_CACHE", home.join("cache/crossmodal")).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs a command line, split at spaces.
    pub fn run(&self, line: &str) -> Run {
        self.run_arguments(line.split_whitespace())
    }

    pub fn run_arguments<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run {
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap().into()
    }

    /// Runs a command line with text on standard input.
    pub fn run_with_input(&self, line: &str, input: &str) -> Run {
        let mut command = self.command();
        command.args(line.split_whitespace()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    /// Copies pictures of the gallery into a folder.
    pub fn drawings(&self, folder: &str, names: &[&str]) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        for name in names {
            std::fs::copy(drawing(name), self.path(folder).join(name)).unwrap();
        }
    }

    /// Makes small pictures, all different.
    pub fn noise(&self, folder: &str, count: u32) {
        std::fs::create_dir_all(self.path(folder)).unwrap();
        for number in 0..count {
            std::fs::write(self.path(folder).join(format!("{number:05}.bmp")), noise(number, 16)).unwrap();
        }
    }
}

/// A square picture of pseudo-random pixels as an uncompressed BMP; `side` must be a multiple of 4.
pub fn noise(seed: u32, side: u32) -> Vec<u8> {
    let size = side * side * 3;
    let mut bytes = b"BM".to_vec();
    for word in [54 + size, 0, 54, 40, side, side, 1 | 24 << 16, 0, size, 2835, 2835, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let mut state = u64::from(seed) * 2 + 1;
    for _ in 0..size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    bytes
}

/// Copies a flat folder.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Rewrites the header of a safetensors file, and its data.
pub fn edit_safetensors(path: &Path, edit: impl FnOnce(&mut serde_json::Map<String, Value>, &mut [u8])) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    edit(&mut header, &mut data);
    let mut text = serde_json::to_string(&header).unwrap();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let whole = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat();
    std::fs::write(path, whole).unwrap();
}

/// Where a tensor's data begins.
pub fn offset(header: &serde_json::Map<String, Value>, tensor: &str) -> usize {
    header[tensor]["data_offsets"][0].as_u64().unwrap() as usize
}

/// Numbers of a JSON array.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Softmax of scaled cosines.
pub fn softmax(cosines: &[f64], scale: f64) -> Vec<f64> {
    let powers: Vec<f64> = cosines.iter().map(|cosine| (cosine * scale).exp()).collect();
    powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect()
}

#[track_caller]
pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }
}
