//! The local store: a folder with a database and vector files, one writer and many readers across processes.
//!
//! ```text
//! collection.sqlite        items, metadata, settings, fields and their spaces, and a row for every vector; derived from
//!                          the items: their attributes for filters, their texts for full-text search
//! collection.lock          locked by the writer while it lives; holds its process id
//! vectors/<field>-<generation>.f32
//! indexes/<field>-<generation>.index    derived, may be deleted at any time
//! ```
//!
//! The database and the vector files are both the truth. A batch appends its vectors, syncs the files, and then
//! commits the rows that name them, so that a committed row always has its vector. What lies behind the committed
//! rows is the rest of a batch that was cut off: readers never look at it, the next writer cuts it.
//!
//! Readers take no lock. Each answer is computed inside one read transaction, whose state names the files and the
//! number of rows that belong to it.

mod attributes;
mod backup;
mod compact;
mod derived;
mod filter_cache;
mod filter_keys;
mod filter_sql;
mod full_text;
mod indexing;
mod item_tables;
mod item_text;
mod layout;
mod lock;
mod reader;
mod repair;
mod rows;
mod sample;
mod schema;
mod search;
mod searcher;
mod snapshot;
mod vector_file;
mod verify;
mod verify_items;
mod view;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::{
    CacheKey, CachedVector, Capabilities, CollectionInfo, CompactReport, Field, Filter, Hit, Item, ItemVectors,
    ListRequest, ProblemKind, SearchRequest, StoreError, StoredItem, StoredVector, TextHit, TextRequest, VectorRecord,
    VectorStore, VerifyReport, validate,
};

use self::derived::Indexes;
use self::filter_cache::FilterCache;
use self::layout::Layout;
use self::lock::WriterLock;
use self::schema::Content;
use self::view::Views;
use self::writer::Writer;

pub use self::backup::BackupReport;
pub(crate) use self::layout::DATABASE_NAME;
pub use self::searcher::Searcher;
pub use self::snapshot::{FieldMatrix, ItemSample, ItemVector, Snapshot};

/// Connections for reading that are kept open.
const MAX_IDLE_READERS: usize = 16;
/// How often a read begins again because a compaction removed the files of its state. Each compaction takes far longer
/// than opening a file, so that one repetition is nearly always enough.
const MAX_READ_ATTEMPTS: usize = 10;

/// What a store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Any number of readers, also while another process writes; works in a folder that can't be written.
    Read,
    /// Reading and writing; one at a time.
    Write,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// For reading or for writing.
    pub mode: Mode,
    /// How long to wait for another writer to finish; not at all when absent.
    pub wait: Option<Duration>,
    /// Whether a missing collection is created (writing only).
    pub create: bool,
    /// Whether damaged and lost vectors are given up while opening (writing only): they are taken from their items,
    /// and those items lose content hash, source size and modification time, so that an incremental run embeds them
    /// again. See [`LocalStore::repaired_items`].
    pub repair: bool,
}

impl OpenOptions {
    /// Read an existing collection.
    pub fn read() -> Self {
        Self { mode: Mode::Read, wait: None, create: false, repair: false }
    }

    /// Write to a collection, creating it when it is missing; don't wait, don't repair.
    pub fn write() -> Self {
        Self { mode: Mode::Write, wait: None, create: true, repair: false }
    }
}

/// A collection in a folder.
#[derive(Debug)]
pub struct LocalStore {
    layout: Layout,
    views: Views,
    indexes: Indexes,
    /// Held while an index is built, and while files of old generations are removed.
    building: Mutex<()>,
    filters: FilterCache,
    repaired: Vec<String>,
    // Dropped before the writer: the last connection to close tidies the write-ahead log up, and must be able to write.
    readers: Mutex<Vec<Connection>>,
    writer: Option<Mutex<Writer>>,
}

impl LocalStore {
    /// Opens the collection in `folder`.
    ///
    /// For writing, an uncommitted tail of a vector file is cut. A collection whose vector files are damaged can be
    /// opened for reading (what is left can be used) or for writing with `repair`.
    ///
    /// # Errors
    /// `NoCollection`, `NotACollection`, `NewerVersion`, `Locked`, `Damaged`, `ReadOnly` and failures of the storage.
    pub fn open(folder: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let layout = Layout::new(folder);
        let open = || match options.mode {
            Mode::Read => Self::open_for_reading(layout),
            Mode::Write => Self::open_for_writing(layout, options),
        };
        open().map_err(|error| error.in_folder(folder))
    }

    fn open_for_reading(layout: Layout) -> Result<Self, StoreError> {
        match schema::inspect(&layout)? {
            Content::Nothing => Err(StoreError::NoCollection { path: layout.folder().to_path_buf() }),
            Content::Collection => Ok(Self::new(layout, None, Vec::new())),
        }
    }

    fn open_for_writing(layout: Layout, options: &OpenOptions) -> Result<Self, StoreError> {
        if matches!(schema::inspect(&layout)?, Content::Nothing) && !options.create {
            return Err(StoreError::NoCollection { path: layout.folder().to_path_buf() });
        }
        layout.create_folders()?;
        let lock = WriterLock::acquire(&layout, options.wait.unwrap_or_default())?;
        // Looked at again: another writer may have created it while this one waited.
        let missing = matches!(schema::inspect(&layout)?, Content::Nothing);
        let connection = schema::open_writer(&layout, missing)?;
        layout::sync_folder(layout.folder())?;
        let mut writer = Writer::new(connection, layout.clone(), lock);
        let repaired = if options.repair { writer.repair()? } else { Vec::new() };
        writer.open_files()?;
        Ok(Self::new(layout, Some(Mutex::new(writer)), repaired))
    }

    fn new(layout: Layout, writer: Option<Mutex<Writer>>, repaired: Vec<String>) -> Self {
        Self {
            layout,
            views: Views::default(),
            indexes: Indexes::default(),
            building: Mutex::default(),
            filters: FilterCache::default(),
            repaired,
            readers: Mutex::default(),
            writer,
        }
    }

    /// The collection's folder.
    pub fn folder(&self) -> &Path {
        self.layout.folder()
    }

    /// What it was opened for.
    pub fn mode(&self) -> Mode {
        if self.writer.is_some() { Mode::Write } else { Mode::Read }
    }

    /// Ids of the items that lost vectors when it was opened with `repair`, sorted.
    pub fn repaired_items(&self) -> &[String] {
        &self.repaired
    }

    /// Runs `body` in one read transaction.
    fn read<T>(&self, body: impl Fn(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match self.read_once(&body) {
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < MAX_READ_ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => {
                    return result.map_err(|error| missing_is_damage(error).in_folder(self.folder()));
                }
            }
        }
    }

    fn read_once<T>(&self, body: &impl Fn(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with_reader(|connection| {
            // Kept statements: compiling these two for every search takes longer than running them.
            connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
            let value = body(connection)?;
            connection.prepare_cached("ROLLBACK")?.execute([])?;
            Ok(value)
        })
    }

    /// Runs `body` on a connection of its own, which is closed, and its transaction with it, when `body` fails.
    fn with_reader<T>(&self, body: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.layout)?,
        };
        let value = body(&connection)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < MAX_IDLE_READERS {
            readers.push(connection);
        }
        Ok(value)
    }

    fn write<T>(&self, body: impl FnOnce(&mut Writer) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(writer) = &self.writer else {
            let reason = "it was opened for reading".to_owned();
            return Err(StoreError::ReadOnly { path: self.folder().to_path_buf(), reason });
        };
        // After a panic the transaction was rolled back, and the tail is overwritten by the next batch.
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        body(&mut writer).map_err(|error| error.in_folder(self.folder()))
    }

    /// Forgets a field with all of its vectors, for good; the items stay. Returns how many vectors there were.
    ///
    /// # Errors
    /// `UnknownField`, `ReadOnly`, and failures of the storage.
    pub fn drop_field(&self, name: &str) -> Result<u64, StoreError> {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(|writer| writer.drop_field(name))
    }

    /// The number of the last committed change, of this process or of another one. While it stays the same, so does every answer.
    ///
    /// # Errors
    /// Failures of the storage only.
    pub fn change(&self) -> Result<u64, StoreError> {
        // One statement sees one state: it needs no transaction around it.
        let change = self.with_reader(|connection| Ok(rows::load_change(connection)? as u64));
        change.map_err(|error| missing_is_damage(error).in_folder(self.folder()))
    }
}

/// A file that is still missing in a current state is damage.
fn missing_is_damage(error: StoreError) -> StoreError {
    match error {
        StoreError::Io { file, source } if source.kind() == io::ErrorKind::NotFound => {
            StoreError::Damaged { file, reason: "the file is missing".to_owned() }
        }
        error => error,
    }
}

impl VectorStore for LocalStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_batches: true,
            snapshot_reads: true,
            exact_search: true,
            filters: true,
            full_text: true,
            vector_cache: true,
            verify: true,
            compact: true,
            max_dimension: validate::MAX_DIMENSION,
        }
    }

    fn info(&self) -> Result<CollectionInfo, StoreError> {
        self.read(|connection| reader::info(&self.layout, &self.views, &self.indexes, connection))
    }

    fn fields(&self) -> Result<Vec<Field>, StoreError> {
        let fields = self.read(|connection| Ok(rows::load_fields(connection)?))?;
        Ok(fields.into_iter().map(|field| field.field).collect())
    }

    fn ensure_field(&self, field: &Field) -> Result<(), StoreError> {
        // Confirming needs no right to write.
        match self.fields()?.iter().find(|existing| existing.name == field.name) {
            Some(existing) => validate::same_field(existing, field),
            None => self.write(|writer| writer.ensure_field(field)),
        }
    }

    fn upsert(&self, batch: &[ItemVectors]) -> Result<Vec<i64>, StoreError> {
        self.write(|writer| writer.upsert(batch))
    }

    fn put_vectors(&self, batch: &[(String, Vec<VectorRecord>)]) -> Result<(), StoreError> {
        self.write(|writer| writer.put_vectors(batch))
    }

    fn touch(&self, items: &[Item]) -> Result<usize, StoreError> {
        self.write(|writer| writer.touch(items))
    }

    fn remove(&self, ids: &[String]) -> Result<usize, StoreError> {
        self.write(|writer| writer.remove(ids))
    }

    fn get(&self, ids: &[String]) -> Result<Vec<Option<StoredItem>>, StoreError> {
        self.read(|connection| reader::get(connection, ids))
    }

    fn get_by_key(&self, keys: &[i64]) -> Result<Vec<Option<StoredItem>>, StoreError> {
        self.read(|connection| reader::get_by_key(connection, keys))
    }

    fn vectors(&self, id: &str) -> Result<Vec<StoredVector>, StoreError> {
        self.read(|connection| reader::VectorReader::new(&self.layout, &self.views, connection)?.vectors(id))
    }

    fn cached_vectors(&self, keys: &[CacheKey]) -> Result<HashMap<CacheKey, CachedVector>, StoreError> {
        self.read(|connection| reader::VectorReader::new(&self.layout, &self.views, connection)?.cached(keys))
    }

    fn lookup_source(&self, uri: &str) -> Result<Vec<StoredItem>, StoreError> {
        self.read(|connection| reader::lookup_source(connection, uri))
    }

    fn list(&self, request: &ListRequest) -> Result<Vec<StoredItem>, StoreError> {
        self.read(|connection| reader::list(connection, request))
    }

    fn count(&self, filter: Option<&Filter>) -> Result<u64, StoreError> {
        self.read(|connection| reader::count(connection, filter))
    }

    fn search(&self, request: &SearchRequest) -> Result<Vec<Vec<Hit>>, StoreError> {
        self.read(|connection| {
            search::search(&self.layout, &self.views, &self.indexes, &self.filters, connection, request)
        })
    }

    fn sample(&self, field: &str, count: usize) -> Result<Vec<StoredVector>, StoreError> {
        self.read(|connection| sample::sample(&self.layout, &self.views, connection, field, count))
    }

    fn search_text(&self, request: &TextRequest) -> Result<Vec<TextHit>, StoreError> {
        self.read(|connection| full_text::search(connection, request))
    }

    fn setting(&self, name: &str) -> Result<Option<serde_json::Value>, StoreError> {
        self.read(|connection| reader::setting(connection, name))
    }

    fn set_setting(&self, name: &str, value: &serde_json::Value) -> Result<(), StoreError> {
        self.write(|writer| writer.set_setting(name, value))
    }

    fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut attempt = 1;
        loop {
            let before = self.change()?;
            let report = self.read(|connection| verify::verify(&self.layout, connection))?;
            // A file may be gone because a compaction finished meanwhile; then the new state is checked.
            let lacks_file = report.problems.iter().any(|problem| problem.kind == ProblemKind::VectorFile);
            if !lacks_file || attempt == MAX_READ_ATTEMPTS || self.change()? == before {
                return Ok(report);
            }
            attempt += 1;
        }
    }

    fn compact(&self) -> Result<CompactReport, StoreError> {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(Writer::compact)
    }
}
