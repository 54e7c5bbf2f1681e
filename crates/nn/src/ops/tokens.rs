//! The first tensors of a tower: patches with a class token and positions, and embedded texts.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Error, Layout, Result, Shape, Tensor};

use super::gradients::returned;
use super::{Values, elements, on_processor};

/// Puts the class token ahead of the patches of each picture and adds positions: from `patches` `[batch, count, width]`, `class` of `width`
/// elements and `positions` `[1 + grid, width]`, `[batch, 1 + count, width]`. Where patches were dropped, `kept` `[batch][count]` says which
/// of the grid each is; otherwise all are there, in order.
///
/// # Errors
/// Shapes that don't fit, or a patch beyond the grid.
pub fn assemble_tokens(patches: &Tensor, class: &Tensor, positions: &Tensor, kept: Option<&[u32]>) -> Result<Tensor> {
    let (batch, count, width) = patches.dims3()?;
    let (places, same) = positions.dims2()?;
    if class.elem_count() != width || same != width || places == 0 {
        let (class, positions) = (class.shape(), positions.shape());
        return Err(
            Error::Msg(format!("class token {class:?} and positions {positions:?} for a width of {width}")).bt()
        );
    }
    let places: Vec<u32> = match kept {
        None if places == 1 + count => (0..batch).flat_map(|_| 0..count as u32).collect(),
        None => return Err(Error::Msg(format!("{count} patches for {places} positions, expected one less")).bt()),
        Some(kept) if kept.len() != batch * count => {
            return Err(Error::Msg(format!("{} kept patches, expected {batch} x {count}", kept.len())).bt());
        }
        Some(kept) => match kept.iter().find(|patch| **patch as usize + 1 >= places) {
            Some(patch) => return Err(Error::Msg(format!("patch {patch} of {}", places - 1)).bt()),
            None => kept.to_vec(),
        },
    };
    if on_processor([patches, class, positions]) && count > 0 && width > 0 {
        let op = Assemble { places, count, width };
        return patches.contiguous()?.apply_op3(&class.contiguous()?, &positions.contiguous()?, op);
    }
    let class = class.reshape((1, 1, width))?.broadcast_as((batch, 1, width))?;
    let places = Tensor::from_vec(places, batch * count, patches.device())?.to_dtype(DType::U32)?;
    let grid = positions.narrow(0, 1, positions.dim(0)? - 1)?.index_select(&places, 0)?;
    let first = class.broadcast_add(&positions.narrow(0, 0, 1)?)?;
    Tensor::cat(&[&first, &(patches + grid.reshape((batch, count, width))?)?], 1)
}

struct Assemble {
    /// Place in the grid of each patch.
    places: Vec<u32>,
    count: usize,
    width: usize,
}

impl CustomOp3 for Assemble {
    fn name(&self) -> &'static str {
        "class token, patches and positions"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        class: &CpuStorage,
        cl: &Layout,
        positions: &CpuStorage,
        pl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, class, positions) = (elements(x, xl)?, elements(class, cl)?, elements(positions, pl)?);
        let Self { places, count, width } = self;
        let batch = places.len() / count;
        let mut out = Vec::with_capacity(batch * (count + 1) * width);
        for (x, places) in x.chunks_exact(count * width).zip(places.chunks_exact(*count)) {
            out.extend(class.iter().zip(positions).map(|(x, position)| x + position));
            for (x, place) in x.chunks_exact(*width).zip(places) {
                let position = &positions[(*place as usize + 1) * width..][..*width];
                out.extend(x.iter().zip(position).map(|(x, position)| x + position));
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, count + 1, *width))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        class: &Tensor,
        positions: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Self { places, count, width } = self;
        let dy = dy.contiguous()?;
        let dy = Values::of(&dy)?;
        let mut dx = x.track_op().then(|| Vec::with_capacity(x.elem_count()));
        let mut d_class = vec![0.0; *width];
        let mut d_positions = positions.track_op().then(|| vec![0.0; positions.elem_count()]);
        for (dy, places) in dy.chunks_exact((count + 1) * width).zip(places.chunks_exact(*count)) {
            let (first, patches) = dy.split_at(*width);
            add(&mut d_class, first);
            if let Some(dx) = &mut dx {
                dx.extend_from_slice(patches);
            }
            if let Some(sums) = &mut d_positions {
                add(&mut sums[..*width], first);
                for (dy, place) in patches.chunks_exact(*width).zip(places) {
                    add(&mut sums[(*place as usize + 1) * width..][..*width], dy);
                }
            }
        }
        let dx = dx.map(|dx| returned(x, dx)).transpose()?.flatten();
        let d_class = if class.track_op() { returned(class, d_class)? } else { None };
        let d_positions = d_positions.map(|sums| returned(positions, sums)).transpose()?.flatten();
        Ok((dx, d_class, d_positions))
    }
}

fn add(sums: &mut [f32], values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// Embeds texts: from `table` `[vocabulary, width]`, `positions` `[context, width]` and `ids`, rows of equal length, `[batch, tokens, width]`.
///
/// # Errors
/// Rows of unequal length or longer than the context, or an id beyond the vocabulary.
pub fn embed_tokens(table: &Tensor, positions: &Tensor, ids: &[Vec<u32>]) -> Result<Tensor> {
    let ((vocabulary, width), (context, same)) = (table.dims2()?, positions.dims2()?);
    let tokens = ids.first().map_or(0, Vec::len);
    if width != same {
        return Err(Error::Msg(format!("embeddings of {width} elements and positions of {same}")).bt());
    }
    if let Some(row) = ids.iter().find(|row| row.len() != tokens) {
        return Err(Error::Msg(format!("texts of {tokens} and {} tokens in one batch", row.len())).bt());
    }
    if tokens > context {
        return Err(Error::Msg(format!("a text of {tokens} tokens, the context holds {context}")).bt());
    }
    if let Some(id) = ids.iter().flatten().find(|id| **id as usize >= vocabulary) {
        return Err(Error::Msg(format!("token id {id} of a vocabulary of {vocabulary}")).bt());
    }
    let flat: Vec<u32> = ids.concat();
    if on_processor([table, positions]) && width > 0 && tokens > 0 {
        return table.contiguous()?.apply_op2(&positions.contiguous()?, Embed { ids: flat, tokens, width });
    }
    let flat = Tensor::from_vec(flat, ids.len() * tokens, table.device())?;
    let rows = table.index_select(&flat, 0)?.reshape((ids.len(), tokens, width))?;
    rows.broadcast_add(&positions.narrow(0, 0, tokens)?)
}

struct Embed {
    ids: Vec<u32>,
    tokens: usize,
    width: usize,
}

impl CustomOp2 for Embed {
    fn name(&self) -> &'static str {
        "embedded tokens"
    }

    fn cpu_fwd(
        &self,
        table: &CpuStorage,
        tl: &Layout,
        positions: &CpuStorage,
        pl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (table, positions) = (elements(table, tl)?, elements(positions, pl)?);
        let Self { ids, tokens, width } = self;
        let mut out = Vec::with_capacity(ids.len() * width);
        for (at, id) in ids.iter().enumerate() {
            let position = &positions[at % tokens * width..][..*width];
            out.extend(table[*id as usize * width..][..*width].iter().zip(position).map(|(x, position)| x + position));
        }
        Ok((CpuStorage::F32(out), Shape::from((ids.len() / tokens, *tokens, *width))))
    }

    fn bwd(
        &self,
        table: &Tensor,
        positions: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        let dy = Values::of(&dy)?;
        let mut d_table = table.track_op().then(|| vec![0.0; table.elem_count()]);
        let mut d_positions = positions.track_op().then(|| vec![0.0; positions.elem_count()]);
        for (at, (id, dy)) in self.ids.iter().zip(dy.chunks_exact(self.width)).enumerate() {
            if let Some(sums) = &mut d_table {
                add(&mut sums[*id as usize * self.width..][..self.width], dy);
            }
            if let Some(sums) = &mut d_positions {
                add(&mut sums[at % self.tokens * self.width..][..self.width], dy);
            }
        }
        let d_table = d_table.map(|sums| returned(table, sums)).transpose()?.flatten();
        let d_positions = d_positions.map(|sums| returned(positions, sums)).transpose()?.flatten();
        Ok((d_table, d_positions))
    }
}
