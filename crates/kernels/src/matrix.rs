//! Row-major matrices of `f32` with padded rows, and row pointers that several threads may write through.

use std::marker::PhantomData;
use std::ops::Range;

use crate::buffer::Buffer;

/// Floats in a cache line.
const LINE: usize = 16;

/// A row-major matrix whose rows start on cache lines. Rows of power-of-two widths would all fall on the same few lines of
/// the first-level cache, so that each row is followed by a line of padding.
#[derive(Debug)]
pub struct Matrix {
    data: Buffer<f32>,
    rows: usize,
    width: usize,
}

impl Default for Matrix {
    fn default() -> Self {
        Self { data: Buffer::zeroed(0), rows: 0, width: 0 }
    }
}

/// Distance between the starts of two rows.
fn stride(width: usize) -> usize {
    width.next_multiple_of(LINE) + LINE
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeroed(rows: usize, width: usize) -> Self {
        Self { data: Buffer::zeroed(rows * stride(width)), rows, width }
    }

    /// A matrix of these elements in row-major order.
    ///
    /// # Panics
    /// When `values` isn't a multiple of `width` long.
    pub fn from_rows(values: &[f32], width: usize) -> Self {
        assert!(values.len().is_multiple_of(width.max(1)), "{} values don't make rows of {width}", values.len());
        let mut matrix = Self::zeroed(values.len() / width.max(1), width);
        for (at, row) in values.chunks_exact(width.max(1)).enumerate() {
            matrix.row_mut(at).copy_from_slice(row);
        }
        matrix
    }

    /// Makes this `rows` x `width`, keeping the memory where it suffices. What the elements are afterwards isn't specified.
    pub fn reshape(&mut self, rows: usize, width: usize) {
        let needed = rows * stride(width);
        if self.data.len() < needed {
            self.data = Buffer::zeroed(needed);
        }
        (self.rows, self.width) = (rows, width);
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Distance between the starts of two rows, in elements.
    pub fn stride(&self) -> usize {
        stride(self.width)
    }

    /// One row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, at: usize) -> &[f32] {
        assert!(at < self.rows, "row {at} of {}", self.rows);
        &self.data[at * self.stride()..][..self.width]
    }

    /// One row, to be written.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row_mut(&mut self, at: usize) -> &mut [f32] {
        assert!(at < self.rows, "row {at} of {}", self.rows);
        let stride = self.stride();
        &mut self.data[at * stride..][..self.width]
    }

    /// All elements in row-major order, without the padding.
    pub fn to_vec(&self) -> Vec<f32> {
        (0..self.rows).flat_map(|at| self.row(at)).copied().collect()
    }

    /// The rows as something that several threads may write to.
    pub(crate) fn shared(&mut self) -> SharedRows<'_> {
        let stride = self.stride();
        SharedRows { start: self.data.as_mut_ptr(), rows: self.rows, width: self.width, stride, life: PhantomData }
    }

    /// Pointer to the first element of a row that exists; rows follow each other at [`stride`](Self::stride).
    pub(crate) fn pointer(&self, row: usize) -> *const f32 {
        debug_assert!(row < self.rows);
        self.row(row).as_ptr()
    }
}

/// The rows of a matrix that is borrowed mutably, to be written by several threads, each its own cells.
#[derive(Clone, Copy)]
pub(crate) struct SharedRows<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through the unsafe methods below, whose callers write disjoint cells.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    /// A slice as rows of `width` elements that follow each other. What is left over belongs to no row.
    pub(crate) fn of(data: &'a mut [f32], width: usize) -> Self {
        let rows = data.len() / width.max(1);
        Self { start: data.as_mut_ptr(), rows, width, stride: width, life: PhantomData }
    }

    /// Some rows of a slice, which follow each other without padding.
    ///
    /// # Safety
    /// While the slice lives, nobody else reads or writes these rows.
    ///
    /// # Panics
    /// When there are no such rows, or they have padding.
    pub(crate) unsafe fn rows(self, rows: Range<usize>) -> &'a mut [f32] {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of {}", self.rows);
        assert!(self.stride == self.width, "rows are apart");
        // SAFETY: the rows are inside the slice, which is borrowed mutably for 'a; exclusiveness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(rows.start * self.stride), rows.len() * self.stride) }
    }

    /// Pointer to the start of a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub(crate) fn pointer(self, row: usize) -> *mut f32 {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row is inside the matrix.
        unsafe { self.start.add(row * self.stride) }
    }

    /// Some columns of a row.
    ///
    /// # Safety
    /// While the slice lives, nobody else reads or writes these cells.
    ///
    /// # Panics
    /// When there are no such row or columns.
    pub(crate) unsafe fn cells(self, row: usize, columns: Range<usize>) -> &'a mut [f32] {
        assert!(columns.start <= columns.end && columns.end <= self.width, "columns {columns:?} of {}", self.width);
        // SAFETY: the cells are inside the matrix, which is borrowed mutably for 'a; exclusiveness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(row).add(columns.start), columns.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_apart() {
        let values: Vec<f32> = (0..7 * 33).map(|i| i as f32).collect();
        let mut matrix = Matrix::from_rows(&values, 33);
        assert_eq!((matrix.rows(), matrix.width()), (7, 33));
        assert_eq!(matrix.to_vec(), values);
        matrix.row_mut(3).fill(-1.0);
        assert!(matrix.row(2).iter().chain(matrix.row(4)).all(|x| *x >= 0.0));
        matrix.reshape(2, 5);
        assert_eq!(matrix.to_vec().len(), 10);
        matrix.reshape(0, 0);
        assert!(matrix.to_vec().is_empty());
    }
}
