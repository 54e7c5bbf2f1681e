//! The full check of a collection, against its own checksums.

use std::path::{Path, PathBuf};

use crossmodal_index::AnnIndex;
use rusqlite::Connection;

use super::derived;
use super::layout::{self, Layout};
use super::rows::{
    FieldRow, ITEM_COLUMNS, VECTOR_COLUMN_COUNT, VECTOR_COLUMNS, VectorRow, item_checksum, load_fields, read_item,
    read_vector,
};
use super::schema;
use super::vector_file::{MappedVectors, too_short};
use super::verify_items;
use crate::{Problem, ProblemKind, StoreError, VerifyReport};

/// Checks everything in the state that `connection`'s transaction sees.
pub(super) fn verify(layout: &Layout, connection: &Connection) -> Result<VerifyReport, StoreError> {
    let mut check = Check { layout, connection, report: VerifyReport::default() };
    check.database()?;
    check.items()?;
    for field in load_fields(connection)? {
        check.field(&field)?;
    }
    check.derived()?;
    Ok(check.report)
}

struct Check<'a> {
    layout: &'a Layout,
    connection: &'a Connection,
    report: VerifyReport,
}

impl Check<'_> {
    fn problem(&mut self, kind: ProblemKind, file: &Path, detail: String) -> &mut Problem {
        let problem = Problem { kind, file: file.to_path_buf(), field: None, item: None, detail };
        self.report.problems.push(problem);
        let last = self.report.problems.len() - 1;
        &mut self.report.problems[last]
    }

    fn database_file(&self) -> PathBuf {
        self.layout.folder().join(layout::DATABASE_NAME)
    }

    /// SQLite's own checks, and references that lead nowhere.
    fn database(&mut self) -> Result<(), StoreError> {
        let file = self.database_file();
        let mut statement = self.connection.prepare("PRAGMA integrity_check(100)")?;
        let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for line in lines.into_iter().filter(|line| line != "ok") {
            self.problem(ProblemKind::Database, &file, line);
        }
        let mut statement = self.connection.prepare("PRAGMA foreign_key_check")?;
        let tables = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?)))?;
        for tables in tables.collect::<Result<Vec<_>, _>>()? {
            let detail = format!("a row of {} names a row of {} that does not exist", tables.0, tables.1);
            self.problem(ProblemKind::Dangling, &file, detail);
        }
        Ok(())
    }

    fn items(&mut self) -> Result<(), StoreError> {
        let file = self.database_file();
        let connection = self.connection;
        let sql = format!("SELECT {ITEM_COLUMNS}, i.checksum, i.id FROM items i ORDER BY i.key");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.report.items += 1;
            let sound = read_item(row, 0).and_then(|stored| {
                let metadata: String = row.get(7)?;
                Ok(item_checksum(&stored.item, &metadata) == row.get::<_, i64>(8)?)
            });
            let detail = match sound {
                Ok(true) => continue,
                Ok(false) => "its checksum is not the recorded one".to_owned(),
                Err(error) => error.to_string(),
            };
            let id = row.get::<_, String>(9).unwrap_or_default();
            self.problem(ProblemKind::Checksum, &file, detail).item = Some(id);
        }
        Ok(())
    }

    /// Whether attributes and texts are those that the items give.
    fn derived(&mut self) -> Result<(), StoreError> {
        if schema::version(self.connection)? < schema::ITEM_TABLES_VERSION {
            return Ok(());
        }
        let file = self.database_file();
        let disagreements = match verify_items::compare(self.connection) {
            Ok(disagreements) => disagreements,
            Err(error) => {
                self.problem(ProblemKind::Derived, &file, format!("what is derived can't be read: {error}"));
                return Ok(());
            }
        };
        for (what, ids) in [("attributes", disagreements.attributes), ("texts", disagreements.texts)] {
            if let Some(first) = ids.first() {
                let detail = format!("the {what} of {} items aren't what they give, the first is {first:?}", ids.len());
                self.problem(ProblemKind::Derived, &file, detail);
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldRow) -> Result<(), StoreError> {
        let path = self.layout.vector_file(field.key, field.generation);
        let name = &field.field.name;
        let vectors = match MappedVectors::open(&path, field.header(), field.rows) {
            Ok(vectors) => Some(vectors),
            Err(error) => {
                self.problem(ProblemKind::VectorFile, &path, error.to_string()).field = Some(name.clone());
                None
            }
        };
        if let Some(vectors) = &vectors {
            self.index(field, vectors);
        }
        let present = vectors.as_ref().map_or(0, MappedVectors::rows);
        if vectors.is_some() && present < field.rows {
            let detail = too_short(&path, present, field.rows).to_string();
            self.problem(ProblemKind::VectorFile, &path, detail).field = Some(name.clone());
        }
        let named = self.rows(field, &path, vectors.as_ref())?;
        if named != field.rows {
            let detail = format!("the field counts {} rows, {named} are named", field.rows);
            let file = self.database_file();
            self.problem(ProblemKind::Dangling, &file, detail).field = Some(name.clone());
        }
        Ok(())
    }

    /// The index is derived, so that its damage concerns no item.
    fn index(&mut self, field: &FieldRow, vectors: &MappedVectors) {
        let path = self.layout.index_file(field.key, field.generation);
        if !path.exists() {
            return;
        }
        if let Err(error) = derived::open(&path, field, vectors).and_then(|index| index.check()) {
            let detail = format!("{error}; nothing is lost: it is built again from the vectors");
            self.problem(ProblemKind::Index, &path, detail).field = Some(field.field.name.clone());
        }
    }

    /// Checks every row of a field; returns how many are named.
    fn rows(&mut self, field: &FieldRow, path: &Path, vectors: Option<&MappedVectors>) -> Result<u64, StoreError> {
        let connection = self.connection;
        let sql = format!(
            "SELECT {VECTOR_COLUMNS}, i.id FROM vectors v LEFT JOIN items i ON i.key = v.item WHERE v.field = ?1
             ORDER BY v.row"
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([field.key])?;
        let mut named = 0;
        while let Some(row) = rows.next()? {
            let (vector, item) = match read_vector(row) {
                Ok(vector) => (vector, row.get::<_, Option<String>>(VECTOR_COLUMN_COUNT)?),
                Err(error) => {
                    let file = self.database_file();
                    self.problem(ProblemKind::Database, &file, error.to_string());
                    continue;
                }
            };
            named += 1;
            *(if vector.item.is_some() { &mut self.report.vectors } else { &mut self.report.dead_vectors }) += 1;
            if let Some((kind, detail)) = row_problem(field, &vector, vectors) {
                let problem = self.problem(kind, path, detail);
                problem.field = Some(field.field.name.clone());
                problem.item = item;
            }
        }
        Ok(named)
    }
}

fn row_problem(field: &FieldRow, row: &VectorRow, vectors: Option<&MappedVectors>) -> Option<(ProblemKind, String)> {
    // Dead and known to be lost: that was reported and repaired before.
    if row.checksum.is_none() && row.item.is_none() {
        return None;
    }
    if row.row >= field.rows {
        let detail = format!("row {} is named, the field counts {} rows", row.row, field.rows);
        return Some((ProblemKind::Dangling, detail));
    }
    let Some(values) = vectors.and_then(|vectors| vectors.row(row.row)) else {
        return Some((ProblemKind::MissingRow, format!("row {} is lost", row.row)));
    };
    if !row.matches(values) {
        let detail = format!("the vector in row {} is not what was written", row.row);
        return Some((ProblemKind::Checksum, detail));
    }
    let at = values.iter().position(|value| !value.is_finite())?;
    Some((ProblemKind::NotFinite, format!("the vector in row {} has {} at position {at}", row.row, values[at])))
}

/// The rows of a field whose vectors are damaged or lost.
pub(super) fn lost_rows(
    connection: &Connection,
    field: &FieldRow,
    vectors: Option<&MappedVectors>,
) -> Result<Vec<VectorRow>, StoreError> {
    let sql = format!("SELECT {VECTOR_COLUMNS} FROM vectors v WHERE v.field = ?1 ORDER BY v.row");
    let mut statement = connection.prepare(&sql)?;
    let rows: Vec<_> = statement.query_map([field.key], read_vector)?.collect::<Result<_, _>>()?;
    Ok(rows.into_iter().filter(|row| row_problem(field, row, vectors).is_some()).collect())
}
