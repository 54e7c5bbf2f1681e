//! Blocks compiled for inference in `f32` on a processor: weights packed, everything that can be fused into the kernels fused.
//!
//! A [`PackedBlock`] computes what the [`TransformerBlock`](crate::TransformerBlock) of the same parameters does, over rows of any
//! mix of sequences instead of a padded batch, and nothing that isn't asked for: the last block only the rows that are pooled.

use std::ops::Range;

use crossmodal_kernels::activation::Nonlinearity;
use crossmodal_kernels::attention::{Attention, Sequence};
use crossmodal_kernels::product::{Finish, PackedLinear, Product};
use crossmodal_kernels::team::Crew;
use crossmodal_kernels::{Matrix, Norm};

/// Parameters of a block, packed.
#[derive(Debug)]
pub struct PackedBlock {
    /// Norm ahead of the attention.
    pub norm1: Norm,
    /// Queries, keys and values from `[width]`, in that order. Queries are already divided by the square root of the head's width.
    pub qkv: PackedLinear,
    /// The attention's output, with the gain of its branch.
    pub out: PackedLinear,
    /// Norm ahead of the MLP.
    pub norm2: Norm,
    /// From the width to the hidden width.
    pub fc1: PackedLinear,
    /// The non-linearity of the MLP.
    pub nonlinearity: Nonlinearity,
    /// Back to the width, with the gain of its branch.
    pub fc2: PackedLinear,
    /// Number of attention heads.
    pub heads: usize,
}

/// The gain on the outputs of a packed query, key and value projection that divides queries by the square root of the head's
/// width.
pub fn query_gain(width: usize, heads: usize) -> Vec<f32> {
    let scale = ((width / heads) as f32).powf(-0.5);
    [vec![scale; width], vec![1.0; 2 * width]].concat()
}

/// Memory that blocks work in, kept from call to call.
#[derive(Debug, Default)]
pub struct Workspace {
    packed: Matrix,
    queries: Matrix,
    mixed: Matrix,
    hidden: Matrix,
}

/// A row that stands for its sequence, and the rows it attends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooled {
    /// The row.
    pub row: usize,
    /// Rows of the beginning that it shares with others.
    pub prefix: Vec<u32>,
    /// Rows that follow.
    pub keys: Range<usize>,
}

impl PackedBlock {
    fn width(&self) -> usize {
        self.norm1.width()
    }

    /// Applies the block to all rows of `x` `[rows, width]` in place.
    ///
    /// # Panics
    /// When shapes don't fit, or sequences don't lie within the rows.
    pub fn forward(
        &self,
        crew: Crew<'_>,
        x: &mut Matrix,
        sequences: &[Sequence],
        causal: bool,
        workspace: &mut Workspace,
    ) {
        let Workspace { packed, mixed, .. } = workspace;
        Product::of(&self.qkv).after(&self.norm1).run(crew, x, packed);
        mixed.reshape(x.rows(), self.width());
        let (queries, keys) = ((&*packed, 0), (&*packed, self.width()));
        self.attention(queries, keys, sequences, causal).run(crew, mixed);
        self.rest(crew, x, workspace);
    }

    /// Applies the block to the pooled rows alone: `out` `[pooled, width]` becomes what these rows of the whole result would be. Keys
    /// and values are taken from all rows of `x`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_pooled(
        &self,
        crew: Crew<'_>,
        x: &Matrix,
        pooled: &[Pooled],
        out: &mut Matrix,
        workspace: &mut Workspace,
    ) {
        let width = self.width();
        let Workspace { packed, queries, mixed, .. } = workspace;
        Product::of(&self.qkv).after(&self.norm1).only(width..3 * width).run(crew, x, packed);
        gather(x, pooled, out);
        Product::of(&self.qkv).after(&self.norm1).only(0..width).run(crew, out, queries);
        let sequence = |(at, pooled): (usize, &Pooled)| Sequence {
            queries: at..at + 1,
            prefix: pooled.prefix.clone(),
            keys: pooled.keys.clone(),
        };
        let sequences: Vec<_> = pooled.iter().enumerate().map(sequence).collect();
        mixed.reshape(pooled.len(), width);
        self.attention((&*queries, 0), (&*packed, 0), &sequences, false).run(crew, mixed);
        self.rest(crew, out, workspace);
    }

    fn attention<'a>(
        &self,
        queries: (&'a Matrix, usize),
        keys: (&'a Matrix, usize),
        sequences: &'a [Sequence],
        causal: bool,
    ) -> Attention<'a> {
        Attention { heads: self.heads, head_width: self.width() / self.heads, queries, keys, sequences, causal }
    }

    /// What follows the mixing of values.
    fn rest(&self, crew: Crew<'_>, x: &mut Matrix, workspace: &mut Workspace) {
        let Workspace { mixed, hidden, .. } = workspace;
        Product::of(&self.out).then(Finish::Add).run(crew, mixed, x);
        Product::of(&self.fc1).after(&self.norm2).then(Finish::Activate(self.nonlinearity)).run(crew, x, hidden);
        Product::of(&self.fc2).then(Finish::Add).run(crew, hidden, x);
    }
}

/// Copies the pooled rows.
fn gather(x: &Matrix, pooled: &[Pooled], out: &mut Matrix) {
    out.reshape(pooled.len(), x.width());
    for (at, pooled) in pooled.iter().enumerate() {
        out.row_mut(at).copy_from_slice(x.row(pooled.row));
    }
}

/// Hears what the blocks made: the number of blocks that are through, and the rows.
pub type Observer<'a> = &'a mut dyn FnMut(usize, &Matrix);

/// Runs blocks over `x` `[rows, width]`, the last one only on the pooled rows, which end up in `out` `[pooled, width]`.
///
/// # Panics
/// When shapes don't fit, or sequences don't lie within the rows.
#[expect(clippy::too_many_arguments, reason = "operands of one computation, each of another kind")]
pub fn run_blocks(
    crew: Crew<'_>,
    blocks: &[PackedBlock],
    x: &mut Matrix,
    sequences: &[Sequence],
    causal: bool,
    pooled: &[Pooled],
    out: &mut Matrix,
    workspace: &mut Workspace,
    mut observer: Option<Observer<'_>>,
) {
    let Some((last, others)) = blocks.split_last() else {
        gather(x, pooled, out);
        return;
    };
    for (number, block) in others.iter().enumerate() {
        block.forward(crew, x, sequences, causal, workspace);
        if let Some(observer) = &mut observer {
            observer(number + 1, x);
        }
    }
    last.forward_pooled(crew, x, pooled, out, workspace);
}
