//! Building and extending index files.
//!
//! Only the process that may write builds, one index at a time, and it doesn't keep others from writing meanwhile: committed rows
//! never change, so that an index over the first of them stays true whatever is added. The new file takes the old one's place
//! by renaming, once it is durable.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crossmodal_index::{AnnIndex, AnyIndex, BuildControl, IndexError, IndexKind, Vectors};
use serde_json::Value;

use super::layout::{Layout, sync_folder};
use super::rows::{FieldRow, load_change, load_field};
use super::view::FieldView;
use super::{LocalStore, Mode, derived};
use crate::{IndexChoice, IndexReport, IndexState, StoreError, VectorStore};

/// Fewer vectors than this are searched exactly: that takes a millisecond, and is exact.
const LEAST_ROWS: u64 = 20_000;
/// Rows behind an index that are searched exactly before it is worth extending: this many, or this share of the covered ones.
const MOST_NEWER_ROWS: u64 = 5_000;
const MOST_NEWER_SHARE: f64 = 0.05;
/// Name of the setting that keeps the choice for a field.
const SETTING: &str = "index";

impl LocalStore {
    /// Which kind of index a field is to have.
    ///
    /// # Errors
    /// Failures of the storage only.
    pub fn index_choice(&self, field: &str) -> Result<IndexChoice, StoreError> {
        let value = self.setting(&setting_name(field))?;
        Ok(value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default())
    }

    /// Remembers which kind of index a field is to have; the next [`build_index`](Self::build_index) follows it.
    ///
    /// # Errors
    /// Failures of the storage only.
    pub fn choose_index(&self, field: &str, choice: IndexChoice) -> Result<(), StoreError> {
        let value = serde_json::to_value(choice).unwrap_or(Value::Null);
        if self.index_choice(field)? == choice {
            return Ok(());
        }
        self.set_setting(&setting_name(field), &value)
    }

    /// Whether a field's index is missing, unusable, of another kind than chosen, or so far behind that extending it is worth it.
    ///
    /// # Errors
    /// `UnknownField` and failures of the storage.
    pub fn index_is_due(&self, field: &str) -> Result<bool, StoreError> {
        let choice = self.index_choice(field)?;
        let (row, view) = self.field_view(field)?;
        let rows = view.vectors.rows();
        let wanted = wanted(choice, &row, rows);
        Ok(match self.indexes.state(&self.layout, &row, &view.vectors) {
            IndexState::Present(info) if Some(info.kind) == wanted => {
                let newer = rows.saturating_sub(info.rows);
                newer > MOST_NEWER_ROWS.max((info.rows as f64 * MOST_NEWER_SHARE) as u64)
            }
            IndexState::Present(_) | IndexState::Unusable { .. } => true,
            IndexState::Missing => wanted.is_some(),
        })
    }

    /// Brings a field's index up to the vectors that are committed now: extends it, or builds it anew where it is missing, unusable, of another
    /// kind than chosen, or `rebuild` is set. With a choice of exact search, the file is removed. Others can read and write meanwhile.
    ///
    /// # Errors
    /// `UnknownField`, `ReadOnly` in a store opened for reading, `Cancelled`, `DiskFull` and other failures of the storage. The earlier index is then still in place.
    pub fn build_index(
        &self,
        field: &str,
        rebuild: bool,
        control: &BuildControl<'_>,
    ) -> Result<IndexReport, StoreError> {
        if self.mode() == Mode::Read {
            let reason = "it was opened for reading".to_owned();
            return Err(StoreError::ReadOnly { path: self.folder().to_path_buf(), reason });
        }
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        self.build_now(field, rebuild, control).map_err(|error| error.in_folder(self.folder()))
    }

    fn build_now(&self, field: &str, rebuild: bool, control: &BuildControl<'_>) -> Result<IndexReport, StoreError> {
        let start = Instant::now();
        let choice = self.index_choice(field)?;
        let (row, view) = self.field_view(field)?;
        let path = self.layout.index_file(row.key, row.generation);
        let replaced = match self.indexes.state(&self.layout, &row, &view.vectors) {
            IndexState::Unusable { reason } => Some(reason),
            _ => None,
        };
        let report = |state, added| IndexReport {
            choice,
            state,
            added,
            seconds: start.elapsed().as_secs_f64(),
            replaced: replaced.clone(),
        };
        let Some(kind) = wanted(choice, &row, view.vectors.rows()) else {
            remove_file(&path)?;
            return Ok(report(IndexState::Missing, 0));
        };
        let old = self.indexes.get(&self.layout, &row, &view.vectors);
        // Large files aren't compared with their checksums when they are opened; damage must not be carried on.
        let old = old.filter(|old| !rebuild && old.info().kind == kind && old.check().is_ok());
        let covered = old.as_ref().map_or(0, |old| old.info().rows);
        if let Some(old) = &old
            && covered == view.vectors.rows()
        {
            return Ok(report(IndexState::Present(old.info()), 0));
        }
        let failed = |error| index_failure(error, &path);
        let vectors = Vectors::new(row.field.dimension, row.field.metric, view.vectors.values()).map_err(failed)?;
        let index = match old {
            Some(old) => old.extend(vectors, control).map_err(failed)?,
            None => AnyIndex::build(kind, vectors, control).map_err(failed)?,
        };
        self.save(&row, &view, &index, &path)?;
        // Mapped from here on, so that the memory of building is given back.
        drop(index);
        let state = self.indexes.state(&self.layout, &row, &view.vectors);
        Ok(report(state, view.vectors.rows() - covered))
    }

    fn save(&self, row: &FieldRow, view: &FieldView, index: &AnyIndex, path: &Path) -> Result<(), StoreError> {
        let part = path.with_extension("index.part");
        let tag = derived::tag(row, &view.vectors, index.info().rows);
        let written = write_durably(&self.layout, index, tag, &part).and_then(|()| {
            fs::rename(&part, path).map_err(|error| StoreError::io(path, error))?;
            sync_folder(&self.layout.indexes())
        });
        if written.is_err() {
            // A part of a file is of no use; failing to remove it is harmless, the next writer does.
            let _ = fs::remove_file(&part);
        }
        written
    }

    fn field_view(&self, field: &str) -> Result<(FieldRow, Arc<FieldView>), StoreError> {
        self.read(|connection| {
            let row = load_field(connection, field)?;
            let view = self.views.get(&self.layout, connection, &row, load_change(connection)?)?;
            Ok((row, view))
        })
    }
}

fn setting_name(field: &str) -> String {
    format!("{SETTING}.{field}")
}

/// The kind that a choice comes to; `None` for exact search.
fn wanted(choice: IndexChoice, field: &FieldRow, rows: u64) -> Option<IndexKind> {
    match choice {
        _ if rows == 0 => None,
        IndexChoice::Exact => None,
        IndexChoice::Flat => Some(IndexKind::Flat),
        IndexChoice::Graph => Some(IndexKind::Graph),
        IndexChoice::Ivf => Some(IndexKind::Ivf),
        IndexChoice::Auto if rows < LEAST_ROWS => None,
        IndexChoice::Auto if graph_bytes(rows, field.field.dimension) * 2 > memory_bytes() => Some(IndexKind::Ivf),
        IndexChoice::Auto => Some(IndexKind::Graph),
    }
}

/// Bytes of a graph: a code a value, and some fifty links a row.
fn graph_bytes(rows: u64, dimension: usize) -> u64 {
    rows.saturating_mul(dimension as u64 + 250)
}

/// Memory of the machine; unlimited where the system doesn't tell.
fn memory_bytes() -> u64 {
    let told = fs::read_to_string("/proc/meminfo").ok();
    let total = told.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:")));
    let kibibytes = total.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.map_or(u64::MAX, |kibibytes| kibibytes * 1024)
}

fn write_durably(layout: &Layout, index: &AnyIndex, tag: [u8; 16], part: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(part, error);
    fs::create_dir_all(layout.indexes()).map_err(failed)?;
    let out = BufWriter::with_capacity(1 << 20, File::create(part).map_err(failed)?);
    let mut out = index.write(out, tag).map_err(failed)?;
    out.flush().map_err(failed)?;
    out.get_ref().sync_data().map_err(failed)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}

fn index_failure(error: IndexError, path: &Path) -> StoreError {
    match error {
        IndexError::Cancelled => StoreError::Cancelled,
        error => StoreError::Damaged { file: path.to_path_buf(), reason: error.to_string() },
    }
}
