//! The graph index: each node is linked to near and diverse others, and a search walks along links towards the query.
//!
//! Nodes are rows' codes of seven bits a value (`quantiser`); rows of one code share a node (`nodes`), so that thousands of equal
//! rows cost no more than one. There is one layer (DiskANN's; Subramanya et al., 2019): walks begin at the nearest of some pivots, which are compared
//! one after the other, and nodes near the same pivot lie together in memory, where the walk will stay (`walk`). What is found by codes is
//! scored exactly by the rows themselves, and selections of few rows are scanned instead (`search`). Nodes are linked in batches on
//! several threads, always with the same result (`build`). The arrays are flat and lie in memory or in a mapped file (`file`).
//!
//! For inner products the codes have one more dimension, fitted to the longest row known when the graph was built. Rows that are added later and
//! are longer are taken as if they weren't, and are found less surely; lengths that differ by orders of magnitude make codes coarse.

mod build;
mod calibrate;
mod file;
mod nodes;
mod pool;
mod quantiser;
mod search;
#[cfg(test)]
mod tests;
mod walk;

use crossmodal_kernels::{Buffer, codes};

use crate::{AnnIndex, Container, IndexError, IndexInfo, IndexKind, Metric, Neighbor, SearchOptions, Vectors};
use build::{Linker, Watch};
use nodes::Nodes;
use quantiser::Quantiser;
use walk::View;

/// How a graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphOptions {
    /// Most links of a node, 4 to 256: more find more at the same effort, and take memory and time.
    pub degree: usize,
    /// Candidates for links, 8 to 4,096: more make better links and take time.
    pub build_effort: usize,
    /// Threads; as many as there are processors where 0.
    pub threads: usize,
}

impl Default for GraphOptions {
    fn default() -> Self {
        Self { degree: 48, build_effort: 96, threads: 0 }
    }
}

impl GraphOptions {
    fn check(&self) -> Result<(), IndexError> {
        if !(4..=256).contains(&self.degree) {
            return Err(IndexError::Option { option: "degree", found: self.degree, expected: "4 to 256" });
        }
        if !(8..=4096).contains(&self.build_effort) {
            return Err(IndexError::Option { option: "build_effort", found: self.build_effort, expected: "8 to 4096" });
        }
        Ok(())
    }
}

/// A graph over the first rows of a matrix. Searching it takes no locks.
#[derive(Debug)]
pub struct Graph {
    metric: Metric,
    shape: Shape,
    quantiser: Quantiser,
    storage: Storage,
}

/// Sizes of the arrays and what they were made with.
#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    nodes: usize,
    pivots: usize,
    degree: usize,
    build_effort: usize,
    default_effort: usize,
}

impl Shape {
    /// Limits that arithmetic relies on.
    fn check(&self, dimension: usize) -> Result<(), IndexError> {
        check_size(dimension, self.rows as u64)?;
        if self.nodes > self.rows || self.pivots > self.nodes || !(4..=256).contains(&self.degree) {
            let reason =
                format!("{} rows, {} nodes, {} pivots, degree {}", self.rows, self.nodes, self.pivots, self.degree);
            return Err(IndexError::Damaged { reason });
        }
        Ok(())
    }
}

fn check_size(dimension: usize, rows: u64) -> Result<(), IndexError> {
    if codes::length(dimension) > codes::MAX_LENGTH {
        return Err(IndexError::Option {
            option: "dimension",
            found: dimension,
            expected: "at most 131072 in a graph",
        });
    }
    if rows >= 1 << 31 {
        return Err(IndexError::Option {
            option: "rows",
            found: rows as usize,
            expected: "fewer than 2^31 in a graph",
        });
    }
    Ok(())
}

/// Where the arrays lie.
#[derive(Debug)]
enum Storage {
    Memory { nodes: Nodes, links: Buffer<u32> },
    File(Container),
}

/// A graph's arrays.
#[derive(Debug, Clone, Copy)]
struct Arrays<'a> {
    view: View<'a>,
    /// The rows of node `i` are `rows[starts[i]..starts[i + 1]]`.
    starts: &'a [u32],
    rows: &'a [u32],
    /// The node of each row.
    node_of: &'a [u32],
}

impl Graph {
    /// Builds a graph over all rows. The result is the same for any number of threads. The default effort is the one that found 98.5 % of the ten
    /// nearest neighbours of sampled rows. `progress` is told nodes done and all of them, `cancel` is
    /// asked every few thousand rows.
    ///
    /// # Errors
    /// Options out of range, too many rows or dimensions, `Cancelled`.
    pub fn build(
        vectors: Vectors<'_>,
        options: &GraphOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
        cancel: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, IndexError> {
        options.check()?;
        check_size(vectors.dimension(), vectors.rows())?;
        on_threads(options.threads, || {
            let quantiser = Quantiser::train(vectors);
            Self::link(vectors, quantiser, options, None, Watch { progress, cancel })
        })
    }

    /// A graph over all of `vectors`, whose first rows are those that this one covers: the others are added to a copy. Where that more than
    /// doubles the rows, a new graph is built. Degree and default effort stay those of this one.
    ///
    /// # Errors
    /// As [`Graph::build`]; rows of another shape than this graph was built over, or fewer.
    pub fn extend(
        &self,
        vectors: Vectors<'_>,
        options: &GraphOptions,
        progress: &(dyn Fn(u64, u64) + Sync),
        cancel: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, IndexError> {
        options.check()?;
        self.check_rows(vectors)?;
        check_size(vectors.dimension(), vectors.rows())?;
        if vectors.rows() > 2 * self.shape.rows as u64 {
            return Self::build(vectors, options, progress, cancel);
        }
        let options = GraphOptions { degree: self.shape.degree, ..*options };
        on_threads(options.threads, || {
            Self::link(vectors, self.quantiser.clone(), &options, Some(self), Watch { progress, cancel })
        })
    }

    fn link(
        vectors: Vectors<'_>,
        quantiser: Quantiser,
        options: &GraphOptions,
        old: Option<&Self>,
        watch: Watch<'_>,
    ) -> Result<Self, IndexError> {
        let old_arrays = old.map(Self::arrays);
        let (linked, old_nodes, old_pivots) =
            old_arrays.map_or((&[][..], 0, 0), |old| (old.view.links, old.view.nodes, old.view.pivots.len()));
        let nodes = match vectors.rows() {
            0 => Nodes::none(),
            _ => nodes::arrange(&quantiser, vectors, old_arrays.as_ref(), watch)?,
        };
        let mut linker =
            Linker::new(&nodes, linked, old_pivots, quantiser.length(), options.degree, options.build_effort);
        linker.link(old_nodes, watch)?;
        let links = linker.finish();
        let mut shape = Shape {
            rows: vectors.rows() as usize,
            nodes: nodes.starts.len() - 1,
            pivots: nodes.pivots.len(),
            degree: options.degree,
            build_effort: options.build_effort,
            default_effort: 0,
        };
        let view = memory_view(shape, quantiser.length(), &nodes, &links);
        let code_of = |node: u32| {
            quantiser.encode_query(vectors.row(u64::from(nodes.rows[nodes.starts[node as usize] as usize])))
        };
        shape.default_effort =
            old.map_or_else(|| calibrate::default_effort(view, code_of), |old| old.shape.default_effort);
        Ok(Self { metric: vectors.metric(), shape, quantiser, storage: Storage::Memory { nodes, links } })
    }

    fn arrays(&self) -> Arrays<'_> {
        let (shape, length) = (self.shape, self.quantiser.length());
        match &self.storage {
            Storage::Memory { nodes, links } => Arrays {
                view: memory_view(shape, length, nodes, links),
                starts: &nodes.starts,
                rows: &nodes.rows,
                node_of: &nodes.node_of,
            },
            // Lengths were checked when it was opened.
            Storage::File(container) => file::sections(container, shape, length, self.metric).unwrap_or(Arrays::NONE),
        }
    }

    fn check_rows(&self, vectors: Vectors<'_>) -> Result<(), IndexError> {
        let (dimension, rows) = (self.quantiser.centre().len(), self.shape.rows as u64);
        if vectors.dimension() != dimension || vectors.metric() != self.metric || vectors.rows() < rows {
            let reason = format!(
                "it has {rows} rows of {dimension} values under {}, these are {} of {} under {}",
                self.metric,
                vectors.rows(),
                vectors.dimension(),
                vectors.metric()
            );
            return Err(IndexError::OtherRows { reason });
        }
        Ok(())
    }
}

/// Arrays in memory.
fn memory_view<'a>(shape: Shape, length: usize, nodes: &'a Nodes, links: &'a [u32]) -> View<'a> {
    View {
        nodes: shape.nodes,
        length,
        degree: shape.degree,
        codes: &nodes.codes,
        heights: &nodes.heights,
        links,
        pivots: &nodes.pivots,
        pivot_codes: &nodes.pivot_codes,
    }
}

impl Arrays<'_> {
    const NONE: Self = Self {
        view: View {
            nodes: 0,
            length: 64,
            degree: 4,
            codes: &[],
            heights: &[],
            links: &[],
            pivots: &[],
            pivot_codes: &[],
        },
        starts: &[],
        rows: &[],
        node_of: &[],
    };
}

impl AnnIndex for Graph {
    fn info(&self) -> IndexInfo {
        let arrays = self.arrays();
        let view = arrays.view;
        let bytes = size_of_val(view.codes)
            + size_of_val(view.links)
            + size_of_val(view.heights)
            + size_of_val(view.pivot_codes)
            + 4 * (view.pivots.len() + arrays.starts.len() + arrays.rows.len() + arrays.node_of.len());
        IndexInfo {
            kind: IndexKind::Graph,
            rows: self.shape.rows as u64,
            bytes: bytes as u64,
            default_effort: self.shape.default_effort,
            parameters: format!("degree {}, build effort {}, 7-bit codes", self.shape.degree, self.shape.build_effort),
        }
    }

    fn search(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        search::search(self, vectors, queries, options)
    }

    fn check(&self) -> Result<(), IndexError> {
        match &self.storage {
            Storage::Memory { .. } => Ok(()),
            Storage::File(container) => container.check(),
        }
    }
}

/// Runs something on so many threads of its own, or on the current ones where the system gives none.
fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(run),
        Err(_) => run(),
    }
}
