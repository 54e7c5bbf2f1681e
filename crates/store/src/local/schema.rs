//! The database: its tables, its version, and how connections to it are opened.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::item_tables;
use super::layout::Layout;
use crate::StoreError;

/// "XMCL": marks a database as a collection.
const APPLICATION_ID: i64 = 0x584d_434c;
/// The format that this program writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: i64 = 2;
/// The first format with indexes for filters and full text. Older collections get them when they are opened for writing.
pub(super) const ITEM_TABLES_VERSION: i64 = 2;
/// Pages of the write-ahead log, of 4 KiB, before they are copied into the database.
const CHECKPOINT_PAGES: i64 = 4_000;
/// Memory for pages of the database that the writer may take.
const WRITER_CACHE_KIB: i64 = 64 << 10;
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// `vectors` names each row of each vector file once. A live row has an item; a dead one has none and the number of
/// the change at which it died, and stays until compaction as a cache. `checksum` is NULL for rows known to be lost.
const SCHEMA: &str = "
CREATE TABLE collection (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    change INTEGER NOT NULL
) STRICT;
INSERT INTO collection VALUES (1, 0);
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fields (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    space_id TEXT NOT NULL,
    model TEXT NOT NULL,
    dimension INTEGER NOT NULL CHECK (dimension > 0),
    metric TEXT NOT NULL,
    generation INTEGER NOT NULL,
    rows INTEGER NOT NULL CHECK (rows >= 0),
    multiple INTEGER NOT NULL
) STRICT;
CREATE TABLE items (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    uri TEXT,
    size INTEGER,
    modified_ns INTEGER,
    content_hash BLOB,
    modality TEXT NOT NULL,
    metadata TEXT NOT NULL,
    changed INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX items_by_uri ON items (uri) WHERE uri IS NOT NULL;
CREATE TABLE vectors (
    field INTEGER NOT NULL REFERENCES fields (key),
    row INTEGER NOT NULL CHECK (row >= 0),
    item INTEGER REFERENCES items (key),
    part INTEGER NOT NULL,
    modality TEXT NOT NULL,
    span TEXT,
    precision TEXT NOT NULL,
    cache_key BLOB,
    checksum INTEGER,
    died INTEGER,
    PRIMARY KEY (field, row),
    CHECK ((item IS NULL) = (died IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX vectors_by_item ON vectors (item, field, part, modality) WHERE item IS NOT NULL;
CREATE INDEX vectors_by_cache_key ON vectors (cache_key) WHERE cache_key IS NOT NULL;
CREATE INDEX vectors_dead ON vectors (field, died) WHERE died IS NOT NULL;
";

/// For filters; the table's other columns have indexes already, or are attributes.
const FILTER_INDEXES: &str = "CREATE INDEX items_by_modality ON items (modality);";

/// What a path holds.
pub(super) enum Content {
    /// Nothing, or a collection whose creation was cut off.
    Nothing,
    /// A collection.
    Collection,
}

/// Looks what a folder holds, without writing anything into it.
pub(super) fn inspect(layout: &Layout) -> Result<Content, StoreError> {
    let folder = layout.folder();
    let foreign = |reason: &str| StoreError::NotACollection { path: folder.to_path_buf(), reason: reason.to_owned() };
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(foreign("a part of the path is a file"));
        }
        Err(error) => return Err(StoreError::io(folder, error)),
        Ok(metadata) if !metadata.is_dir() => return Err(foreign("it is a file, not a folder")),
        Ok(_) => {}
    }
    // Looked for before the database: while nobody writes, a log that isn't there has been moved into it.
    let has_log = layout.write_ahead_log().exists();
    match fs::metadata(layout.database()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries = fs::read_dir(folder).map_err(|error| StoreError::io(folder, error))?;
            let mut names = entries.flatten().map(|entry| entry.file_name());
            match names.find(|name| !Layout::is_own_name(name)) {
                Some(name) => Err(foreign(&format!("it holds {name:?} and no {}", super::DATABASE_NAME))),
                None => Ok(Content::Nothing),
            }
        }
        Err(error) => Err(StoreError::io(&layout.database(), error)),
        Ok(metadata) if metadata.len() == 0 && !has_log => Ok(Content::Nothing),
        Ok(_) => inspect_database(layout),
    }
}

fn inspect_database(layout: &Layout) -> Result<Content, StoreError> {
    let connection = open_reader(layout)?;
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (id, version) = (number("PRAGMA application_id")?, version(&connection)?);
    let path = layout.folder().to_path_buf();
    if id == APPLICATION_ID && version > FORMAT_VERSION {
        return Err(StoreError::NewerVersion { path, found: version, supported: FORMAT_VERSION });
    }
    if id == APPLICATION_ID {
        return Ok(Content::Collection);
    }
    if id == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(Content::Nothing);
    }
    let reason = format!("{} is a database of another program (application id {id})", super::DATABASE_NAME);
    Err(StoreError::NotACollection { path, reason })
}

/// Opens a connection for writing, which creates the database where it is missing. The caller holds the writer lock.
pub(super) fn open_writer(layout: &Layout, create: bool) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = Connection::open_with_flags(layout.database(), flags)?;
    configure(&connection)?;
    if connection.is_readonly("main")? {
        let reason = "the database file can't be written".to_owned();
        return Err(StoreError::ReadOnly { path: layout.folder().to_path_buf(), reason });
    }
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // Indexes in the order of values are written all over; their pages are found again in memory.
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    // Pages that many batches change are copied into the database once.
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // A log that grew in a large batch is cut again.
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    if create {
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute_batch(FILTER_INDEXES)?;
        item_tables::create_tables(&transaction)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
        transaction.commit()?;
    } else if version(&connection)? < ITEM_TABLES_VERSION {
        // One transaction: cut off, it has not begun.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(FILTER_INDEXES)?;
        item_tables::rebuild(&transaction)?;
        transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// The format version of the state that `connection` sees.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))
}

/// Opens a connection for reading, also in a folder that can't be written.
pub(super) fn open_reader(layout: &Layout) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = layout.database();
    match open_and_read(&path, flags) {
        Err(error) if is_unwritable(&error) => {}
        result => return Ok(result?),
    }
    // A database with a write-ahead log needs a shared-memory file beside it. Where none can be made, nobody can be
    // writing through this path, and without a log the database file alone is complete.
    let log = fs::metadata(layout.write_ahead_log()).map_or(0, |metadata| metadata.len());
    if log > 0 {
        let reason = "the folder can't be written and holds an unfinished write-ahead log (a writer is running or was \
                      cut off); open the collection once where it can be written";
        return Err(StoreError::ReadOnly { path: layout.folder().to_path_buf(), reason: reason.to_owned() });
    }
    let uri = format!("file:{}?immutable=1", percent_encode(&path));
    Ok(open_and_read(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI)?)
}

fn open_and_read(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection)?;
    // Plans don't look at parameters. Where they may, a kept statement with parameters is compiled anew for each run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // SQLite opens its files at the first statement that reads.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    // A collection may come from somebody else: its schema must not run functions with side effects.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// A path inside a `file:` address.
fn percent_encode(path: &Path) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~:\\".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().map(|&b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
