//! An index of any kind, and which kind suits.

use std::io::{self, Write};

use crate::{
    AnnIndex, BuildControl, CodedRows, Container, Graph, GraphOptions, IndexError, IndexInfo, IndexKind, Ivf,
    IvfOptions, Neighbor, RowCodes, SearchOptions, Vectors,
};

/// An index of one of the kinds, with each kind's usual options.
#[derive(Debug)]
pub enum AnyIndex {
    /// Compressed rows, all of which are scanned.
    Flat(CodedRows),
    /// A graph of near neighbours.
    Graph(Graph),
    /// Cells around centres.
    Ivf(Ivf),
}

impl AnyIndex {
    /// Builds an index over all rows.
    ///
    /// # Errors
    /// Too many rows or dimensions for the kind, `Cancelled`.
    pub fn build(kind: IndexKind, vectors: Vectors<'_>, control: &BuildControl<'_>) -> Result<Self, IndexError> {
        let BuildControl { threads, progress, cancelled } = *control;
        on_threads(threads, || match kind {
            IndexKind::Flat => CodedRows::build(vectors, RowCodes::Int8, control).map(Self::Flat),
            IndexKind::Graph => {
                let options = GraphOptions { threads, ..GraphOptions::default() };
                Graph::build(vectors, &options, progress, cancelled).map(Self::Graph)
            }
            IndexKind::Ivf => Ivf::build(vectors, &IvfOptions::default(), progress, cancelled).map(Self::Ivf),
        })
    }

    /// An index over all of `vectors`, the first of which are the rows that this one covers. This one stays as it is.
    ///
    /// # Errors
    /// As [`build`](Self::build); rows of another shape, or fewer than it covers; damage that is found on the way.
    pub fn extend(&self, vectors: Vectors<'_>, control: &BuildControl<'_>) -> Result<Self, IndexError> {
        let BuildControl { threads, progress, cancelled } = *control;
        on_threads(threads, || match self {
            Self::Flat(index) => index.extend(vectors, control).map(Self::Flat),
            Self::Graph(index) => {
                let options = GraphOptions { threads, ..GraphOptions::default() };
                index.extend(vectors, &options, progress, cancelled).map(Self::Graph)
            }
            Self::Ivf(index) => index.extend(vectors, progress, cancelled).map(Self::Ivf),
        })
    }

    /// Opens a saved index of whichever kind it is. Nothing is read but what tells its shape.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn open(container: Container) -> Result<Self, IndexError> {
        match container.stamp().kind {
            IndexKind::Flat => CodedRows::open(container).map(Self::Flat),
            IndexKind::Graph => Graph::open(container).map(Self::Graph),
            IndexKind::Ivf => Ivf::open(container).map(Self::Ivf),
        }
    }

    /// Writes it as a [`Container`]; `tag` is the caller's name for the rows.
    ///
    /// # Errors
    /// Those of `out`; `InvalidData` or another when this is mapped from a damaged file.
    pub fn write<W: Write>(&self, out: W, tag: [u8; 16]) -> io::Result<W> {
        match self {
            Self::Flat(index) => index.write(out, tag),
            Self::Graph(index) => index.write(out, tag),
            Self::Ivf(index) => index.write(out, tag),
        }
    }

    fn index(&self) -> &dyn AnnIndex {
        match self {
            Self::Flat(index) => index,
            Self::Graph(index) => index,
            Self::Ivf(index) => index,
        }
    }
}

impl AnnIndex for AnyIndex {
    fn info(&self) -> IndexInfo {
        self.index().info()
    }

    fn search(
        &self,
        vectors: Vectors<'_>,
        queries: &[&[f32]],
        options: &SearchOptions<'_>,
    ) -> Result<Vec<Vec<Neighbor>>, IndexError> {
        self.index().search(vectors, queries, options)
    }

    fn check(&self) -> Result<(), IndexError> {
        self.index().check()
    }
}

/// Runs `work` on so many threads; 0 is the current pool.
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    if threads == 0 {
        return work();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        // The system has no more threads; those there are will do.
        Err(_) => work(),
    }
}
