//! Search over compressed rows: an estimate for every row by its codes, exact scores for the best of them.
//!
//! One query reads every row once, so that its speed is that of memory: with one byte a value it is read four times as fast. Where the
//! rows themselves are compared with several queries at a time, or with few rows, codes are no faster and aren't used.

use std::io::{self, Write};

use crossmodal_kernels::scan::{self, Int8Query};
use crossmodal_kernels::{Buffer, distance};
use rayon::prelude::*;

use crate::candidates::{self, Candidates};
use crate::{
    AnnIndex, BuildControl, Container, ContainerWriter, FlatIndex, IndexError, IndexInfo, IndexKind, Metric, Neighbor,
    SearchOptions, Stamp, Vectors,
};

/// Version of the format.
const VERSION: u32 = 1;
/// Rows of one piece of work.
const CHUNK_ROWS: usize = 512;
/// Rows that are compressed between two looks at whether to go on.
const STEP_ROWS: usize = 16_384;
/// Queries from which rows are compared with all of them at once.
const BATCH: usize = 8;
/// Candidates of a search that says nothing, for each result and at least.
const CANDIDATES: (usize, usize) = (4, 100);

/// How rows are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowCodes {
    /// One byte a value.
    Int8,
    /// Half precision, two bytes a value.
    Half,
}

impl RowCodes {
    const ALL: [Self; 2] = [Self::Int8, Self::Half];

    fn bytes(self) -> usize {
        match self {
            Self::Int8 => 1,
            Self::Half => 2,
        }
    }
}

/// Compressed copies of the first rows of a matrix.
#[derive(Debug)]
pub struct CodedRows {
    dimension: usize,
    metric: Metric,
    rows: u64,
    codes: RowCodes,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// Codes; each row's scale; for the Euclidean metric, its squared length.
    Owned {
        codes: Buffer<i8>,
        scales: Vec<f32>,
        squares: Vec<f32>,
    },
    Mapped(Container),
}

/// Codes, scales and squared lengths of some rows.
#[derive(Clone, Copy)]
struct Part<'a> {
    codes: &'a [u8],
    scales: &'a [f32],
    squares: &'a [f32],
}

/// A query in the form that codes are compared with.
struct CodedQuery {
    integers: Option<Int8Query>,
    values: Vec<f32>,
}

impl CodedRows {
    /// Compresses all rows.
    ///
    /// # Errors
    /// Those of [`extend`](Self::extend).
    pub fn build(vectors: Vectors<'_>, codes: RowCodes, control: &BuildControl<'_>) -> Result<Self, IndexError> {
        let data = Data::Owned { codes: Buffer::zeroed(0), scales: Vec::new(), squares: Vec::new() };
        let (dimension, metric) = (vectors.dimension(), vectors.metric());
        Self { dimension, metric, rows: 0, codes, data }.extend(vectors, control)
    }

    /// Codes of all rows, those that are covered already taken over from this.
    ///
    /// # Errors
    /// Rows of another shape, fewer than are covered, or more than 2^32; `Damaged`; `Cancelled`.
    pub fn extend(&self, vectors: Vectors<'_>, control: &BuildControl<'_>) -> Result<Self, IndexError> {
        candidates::covered(vectors, self.dimension, self.metric, self.rows, &SearchOptions::default().selection)?;
        let rows = vectors.rows() as usize;
        if u32::try_from(rows).is_err() {
            return Err(IndexError::Option { option: "rows", found: rows, expected: "at most 4294967295" });
        }
        let old = self.part()?;
        let row_bytes = self.dimension * self.codes.bytes();
        let mut codes = Buffer::<i8>::zeroed(rows * row_bytes);
        let (mut scales, mut squares) = (old.scales.to_vec(), old.squares.to_vec());
        let (known, new) = codes.split_at_mut(old.codes.len());
        known.copy_from_slice(bytemuck::cast_slice(old.codes));
        let values = &vectors.values()[self.rows as usize * self.dimension..];
        let encode = |(codes, row): (&mut [i8], &[f32])| {
            let scale = match self.codes {
                RowCodes::Int8 => scan::quantise(row, codes),
                RowCodes::Half => scan::halve(row, bytemuck::cast_slice_mut(codes)),
            };
            (scale, distance::dot(row, row))
        };
        let steps = new.chunks_mut(STEP_ROWS * row_bytes).zip(values.chunks(STEP_ROWS * self.dimension));
        for (codes, values) in steps {
            if (control.cancelled)() {
                return Err(IndexError::Cancelled);
            }
            let coded = codes.par_chunks_exact_mut(row_bytes).zip(values.par_chunks_exact(self.dimension));
            let factors: Vec<(f32, f32)> = coded.with_min_len(CHUNK_ROWS).map(encode).collect();
            scales.extend(factors.iter().map(|(scale, _)| scale));
            if self.metric == Metric::Euclidean {
                squares.extend(factors.iter().map(|(_, square)| square));
            }
            (control.progress)(scales.len() as u64, rows as u64);
        }
        let data = Data::Owned { codes, scales, squares };
        Ok(Self { dimension: self.dimension, metric: self.metric, rows: rows as u64, codes: self.codes, data })
    }

    /// Writes the codes as a container of the kind `flat`.
    ///
    /// # Errors
    /// Those of `out`; `InvalidData` when this is mapped from a damaged file.
    pub fn write<W: Write>(&self, out: W, tag: [u8; 16]) -> io::Result<W> {
        let Self { dimension, metric, rows, .. } = *self;
        let part = self.part().map_err(io::Error::other)?;
        let stamp = Stamp { kind: IndexKind::Flat, version: VERSION, dimension, metric, rows, tag };
        let mut writer = ContainerWriter::new(out, &stamp)?;
        writer.section("form", &(self.codes.bytes() as u32).to_le_bytes())?;
        writer.section("codes", part.codes)?;
        writer.section("scales", bytemuck::cast_slice(part.scales))?;
        writer.section("squares", bytemuck::cast_slice(part.squares))?;
        writer.finish()
    }

    /// Codes in a mapped file. Nothing is read but the table.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open(container: Container) -> Result<Self, IndexError> {
        let Stamp { kind, version, dimension, metric, rows, .. } = *container.stamp();
        if (kind, version) != (IndexKind::Flat, VERSION) || dimension == 0 || u32::try_from(rows).is_err() {
            let reason =
                format!("it is of kind {kind}, version {version}, {rows} x {dimension}, not flat, version {VERSION}");
            return Err(IndexError::Damaged { reason });
        }
        let form = container.numbers::<u32>("form", 1)?[0];
        let codes = RowCodes::ALL.into_iter().find(|codes| codes.bytes() as u32 == form);
        let codes = codes.ok_or_else(|| IndexError::Damaged { reason: format!("it has {form} bytes a value") })?;
        let opened = Self { dimension, metric, rows, codes, data: Data::Mapped(container) };
        opened.part()?;
        Ok(opened)
    }

    /// All codes.
    fn part(&self) -> Result<Part<'_>, IndexError> {
        let rows = self.rows as usize;
        match &self.data {
            Data::Owned { codes, scales, squares } => Ok(Part { codes: bytemuck::cast_slice(codes), scales, squares }),
            Data::Mapped(container) => Ok(Part {
                codes: container.numbers("codes", rows.saturating_mul(self.dimension * self.codes.bytes()))?,
                scales: container.numbers("scales", rows)?,
                squares: container.numbers("squares", if self.metric == Metric::Euclidean { rows } else { 0 })?,
            }),
        }
    }

    /// The candidates of one query among the selected rows.
    fn candidates(&self, part: Part<'_>, query: &[f32], keep: usize, options: &SearchOptions<'_>) -> Candidates {
        let integers = (self.codes == RowCodes::Int8).then(|| Int8Query::new(query));
        let query = CodedQuery { integers, values: query.to_vec() };
        let chunk_bytes = CHUNK_ROWS * self.dimension * self.codes.bytes();
        let scan = |(mut candidates, mut estimates): (Candidates, Vec<f32>), (number, codes): (usize, &[u8])| {
            let first = number * CHUNK_ROWS;
            let rows = first..part.scales.len().min(first + CHUNK_ROWS);
            estimates.resize(rows.len(), 0.0);
            let squares = part.squares.get(rows.clone()).unwrap_or_default();
            query.estimate(Part { codes, scales: &part.scales[rows], squares }, &mut estimates);
            // Eight at a time: nearly all are below the floor.
            for (eight, estimates) in estimates.chunks(8).enumerate() {
                let floor = candidates.floor();
                if estimates.iter().fold(false, |any, estimate| any | (*estimate >= floor)) {
                    for (row, estimate) in ((first + eight * 8) as u64..).zip(estimates) {
                        if options.selection.allowed.is_none_or(|allowed| allowed.contains(row)) {
                            candidates.push(*estimate, row);
                        }
                    }
                }
            }
            (candidates, estimates)
        };
        let chunks = part.codes.par_chunks(chunk_bytes).enumerate();
        let parts = chunks.fold(|| (Candidates::new(keep), Vec::new()), scan).map(|(candidates, _)| candidates);
        parts.reduce(
            || Candidates::new(keep),
            |mut one, other| {
                one.merge(other);
                one
            },
        )
    }
}

impl CodedQuery {
    /// Estimates by which rows can be ranked: inner products, or those less half the squared length of the row.
    fn estimate(&self, part: Part<'_>, out: &mut [f32]) {
        match &self.integers {
            Some(query) => scan::scan_int8(bytemuck::cast_slice(part.codes), part.scales, query, out),
            None => scan::scan_half(bytemuck::cast_slice(part.codes), part.scales, &self.values, out),
        }
        out.iter_mut().zip(part.squares).for_each(|(estimate, square)| *estimate -= square / 2.0);
    }
}

impl AnnIndex for CodedRows {
    fn info(&self) -> IndexInfo {
        let factors = if self.metric == Metric::Euclidean { 8 } else { 4 };
        let codes = match self.codes {
            RowCodes::Int8 => "int8",
            RowCodes::Half => "half-precision",
        };
        IndexInfo {
            kind: IndexKind::Flat,
            rows: self.rows,
            bytes: self.rows * (self.dimension * self.codes.bytes() + factors) as u64,
            default_effort: CANDIDATES.1,
            parameters: format!("{codes} codes"),
        }
    }

    /// The effort is the number of candidates that are scored exactly.
    fn search(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        let SearchOptions { k, effort, selection } = *options;
        let vectors = candidates::covered(vectors, self.dimension, self.metric, self.rows, &selection)?;
        let prepared = vectors.prepare(queries)?;
        let exact = FlatIndex::new(self.dimension, self.metric, &[vectors.values()])?;
        let keep = effort.unwrap_or(CANDIDATES.1).max(k.saturating_mul(CANDIDATES.0));
        let selected = selection.allowed.map_or(self.rows, |allowed| allowed.count_before(self.rows));
        // Rows of four bytes a value, as many as codes could be read in the same time.
        let few = selected <= (self.rows / (4 / self.codes.bytes() as u64)).max(keep as u64);
        if queries.len() >= BATCH || few {
            return exact.search(queries, k, selection);
        }
        let part = self.part()?;
        let search = |(prepared, query): (&Vec<f32>, &&[f32])| {
            let mut rows: Vec<u32> =
                self.candidates(part, prepared, keep, options).rows().map(|row| row as u32).collect();
            let found = candidates::collect(k, &selection, |top| candidates::offer(top, vectors, prepared, &mut rows));
            // Too few groups among the candidates, or rows that have no estimate.
            if found.len() < k { exact.search(&[query], k, selection).map(|mut all| all.remove(0)) } else { Ok(found) }
        };
        prepared.iter().zip(queries).map(search).collect()
    }

    fn check(&self) -> Result<(), IndexError> {
        match &self.data {
            Data::Owned { .. } => Ok(()),
            Data::Mapped(container) => container.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, values};
    use crate::{RowSet, Selection};

    const DIMENSION: usize = 48;

    fn rows(metric: Metric, count: usize) -> Vec<f32> {
        let mut rows = values(3, count * DIMENSION);
        for (number, row) in rows.chunks_exact_mut(DIMENSION).enumerate() {
            let scale = [1.0, 1e-3, 20.0][number % 3];
            row.iter_mut().for_each(|x| *x *= scale);
            if metric == Metric::Cosine {
                distance::normalize(row);
            }
        }
        rows
    }

    fn exact(vectors: Vectors<'_>, queries: &[&[f32]], options: &SearchOptions<'_>) -> Vec<Vec<Neighbor>> {
        let index = FlatIndex::new(DIMENSION, vectors.metric(), &[vectors.values()]).unwrap();
        index.search(queries, options.k, options.selection).unwrap()
    }

    #[test]
    fn equal_exact_search() {
        for metric in Metric::ALL {
            for codes in RowCodes::ALL {
                let (rows, control) = (rows(metric, 4000), BuildControl::default());
                let vectors = Vectors::new(DIMENSION, metric, &rows).unwrap();
                let built =
                    CodedRows::build(vectors.prefix(1500), codes, &control).unwrap().extend(vectors, &control).unwrap();
                let opened = CodedRows::open(testing::container(&built.write(Vec::new(), [1; 16]).unwrap()).unwrap());
                let opened = opened.unwrap();
                opened.check().unwrap();
                assert_eq!((opened.info(), opened.info().rows), (built.info(), 4000));
                let mut most = RowSet::all(4000);
                (0..4000).step_by(3).for_each(|row| most.remove(row));
                let few = RowSet::all(70);
                let groups: Vec<i64> = (0..4000).map(|row| row / 11).collect();
                let one_group: Vec<i64> = (0..4000).map(|row| i64::from(row < 20) * row).collect();
                for allowed in [None, Some(&most), Some(&few)] {
                    for groups in [None, Some(&groups[..]), Some(&one_group[..])] {
                        let options = SearchOptions { k: 10, effort: None, selection: Selection { allowed, groups } };
                        for query in 0..20 {
                            let query = values(100 + query, DIMENSION);
                            let expected = exact(vectors, &[&query], &options);
                            for index in [&built, &opened] {
                                assert_eq!(
                                    index.search(vectors, &[&query], &options).unwrap(),
                                    expected,
                                    "{metric} {codes:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn building_is_watched_and_called_off() {
        let values = values(1, 40_000 * 3);
        let vectors = Vectors::new(3, Metric::InnerProduct, &values).unwrap();
        let seen = std::sync::Mutex::new(Vec::new());
        let control = BuildControl {
            progress: &|done, all| seen.lock().unwrap().push((done, all)),
            cancelled: &|| seen.lock().unwrap().len() == 2,
            ..BuildControl::default()
        };
        assert_eq!(CodedRows::build(vectors, RowCodes::Int8, &control).unwrap_err(), IndexError::Cancelled);
        assert_eq!(*seen.lock().unwrap(), [(16_384, 40_000), (32_768, 40_000)]);
    }

    #[test]
    fn few_rows_and_many_queries_work() {
        for count in [0, 1, 5, 700] {
            let rows = rows(Metric::Cosine, count);
            let vectors = Vectors::new(DIMENSION, Metric::Cosine, &rows).unwrap();
            let index = CodedRows::build(vectors, RowCodes::Int8, &BuildControl::default()).unwrap();
            let queries: Vec<Vec<f32>> = (0..30).map(|query| values(100 + query, DIMENSION)).collect();
            let queries: Vec<&[f32]> = queries.iter().map(Vec::as_slice).collect();
            for number in [1, 3, 30] {
                let options = SearchOptions { k: 3, ..Default::default() };
                let expected = exact(vectors, &queries[..number], &options);
                assert_eq!(index.search(vectors, &queries[..number], &options).unwrap(), expected);
            }
        }
    }

    #[test]
    fn damage_and_other_rows_are_refused() {
        let rows = rows(Metric::Euclidean, 300);
        let vectors = Vectors::new(DIMENSION, Metric::Euclidean, &rows).unwrap();
        let whole = CodedRows::build(vectors, RowCodes::Int8, &BuildControl::default())
            .unwrap()
            .write(Vec::new(), [1; 16])
            .unwrap();
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        for at in used.iter().step_by(97) {
            let mut bytes = whole.clone();
            bytes[*at] ^= 0x81;
            let opened = testing::container(&bytes).and_then(CodedRows::open);
            let Ok(index) = opened else { continue };
            assert!(index.check().is_err(), "byte {at}");
            let found = index.search(vectors, &[&[1.0; DIMENSION]], &SearchOptions { k: 5, ..Default::default() });
            assert!(found.unwrap()[0].iter().all(|neighbor| neighbor.row < 300));
        }
        let index = CodedRows::open(testing::container(&whole).unwrap()).unwrap();
        let options = SearchOptions { k: 5, ..Default::default() };
        let fewer = index.search(vectors.prefix(299), &[&[1.0; DIMENSION]], &options);
        assert!(matches!(fewer, Err(IndexError::OtherRows { .. })));
        assert!(matches!(
            index.extend(vectors.prefix(299), &BuildControl::default()),
            Err(IndexError::OtherRows { .. })
        ));
    }
}
