//! Rows of a table: token embeddings, and tokens that are picked from a sequence.

use candle_core::{CpuStorage, CustomOp1, DType, Error, Layout, Result, Shape, Tensor};

use super::gradients::returned;
use super::{Values, elements, on_processor};

struct TakeRows {
    rows: Vec<u32>,
    shape: Vec<usize>,
}

/// Rows of `table` `[count, width]`, in the order in which `rows` names them, as a tensor of shape `[...leading, width]`. Rows may be named
/// more than once; the gradient of each adds up.
///
/// # Errors
/// A row that doesn't exist, or leading dimensions for another number of rows.
pub fn take_rows(table: &Tensor, rows: &[u32], leading: &[usize]) -> Result<Tensor> {
    let (count, width) = table.dims2()?;
    if leading.iter().product::<usize>() != rows.len() {
        return Err(Error::Msg(format!("{} rows don't make a tensor of shape {leading:?}", rows.len())).bt());
    }
    if let Some(row) = rows.iter().find(|row| **row as usize >= count) {
        return Err(Error::Msg(format!("row {row} of a table of {count}")).bt());
    }
    let shape: Vec<usize> = leading.iter().copied().chain([width]).collect();
    if on_processor([table]) && width > 0 {
        return table.contiguous()?.apply_op1(TakeRows { rows: rows.to_vec(), shape });
    }
    let rows = Tensor::from_slice(rows, rows.len(), table.device())?.to_dtype(DType::U32)?;
    table.index_select(&rows, 0)?.reshape(shape)
}

/// Some tokens of each sequence: from `x` `[batch, tokens, width]` and `kept` `[batch][count]`, positions in the sequence, `[batch, count,
/// width]`.
///
/// # Errors
/// A position that doesn't exist, or a number of positions that the batch doesn't divide.
pub fn take_tokens(x: &Tensor, kept: &[u32]) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let count = kept.len() / batch.max(1);
    if count * batch != kept.len() {
        return Err(Error::Msg(format!("{} positions for a batch of {batch}", kept.len())).bt());
    }
    if let Some(position) = kept.iter().find(|position| **position as usize >= tokens) {
        return Err(Error::Msg(format!("position {position} in sequences of {tokens} tokens")).bt());
    }
    let rows: Vec<u32> =
        kept.iter().enumerate().map(|(at, position)| (at / count.max(1) * tokens) as u32 + position).collect();
    take_rows(&x.reshape((batch * tokens, width))?, &rows, &[batch, count])
}

impl CustomOp1 for TakeRows {
    fn name(&self) -> &'static str {
        "rows of a table"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.shape().dims2()?.1;
        let table = elements(table, layout)?;
        let mut out = Vec::with_capacity(self.rows.len() * width);
        for row in &self.rows {
            out.extend_from_slice(&table[*row as usize * width..][..width]);
        }
        Ok((CpuStorage::F32(out), Shape::from(self.shape.clone())))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !table.track_op() {
            return Ok(None);
        }
        let width = table.dims2()?.1;
        let dy = dy.contiguous()?;
        let dy = Values::of(&dy)?;
        let mut gradient = vec![0.0; table.elem_count()];
        for (row, dy) in self.rows.iter().zip(dy.chunks_exact(width)) {
            let sums = &mut gradient[*row as usize * width..][..width];
            sums.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
        }
        returned(table, gradient)
    }
}
