//! A graph in a container: which sections it has, and what is checked when it is opened.

use std::io::Write;

use super::quantiser::Quantiser;
use super::walk::View;
use super::{Arrays, Graph, Shape, Storage};
use crate::{Container, ContainerWriter, IndexError, IndexKind, Metric, Stamp};

/// The version of the sections below.
const VERSION: u32 = 1;
/// Numbers in the section of parameters.
const PARAMETERS: usize = 8;

impl Graph {
    /// Writes the graph as a container; `tag` is the caller's name for the rows.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write<W: Write>(&self, out: W, tag: [u8; 16]) -> std::io::Result<W> {
        let (shape, arrays) = (self.shape, self.arrays());
        let stamp = Stamp {
            kind: IndexKind::Graph,
            version: VERSION,
            dimension: self.quantiser.centre().len(),
            metric: self.metric,
            rows: arrays.node_of.len() as u64,
            tag,
        };
        let numbers: [u32; PARAMETERS] = [
            shape.nodes as u32,
            shape.pivots as u32,
            shape.degree as u32,
            shape.build_effort as u32,
            shape.default_effort as u32,
            self.quantiser.scale().to_bits(),
            self.quantiser.radius().to_bits(),
            0,
        ];
        let mut writer = ContainerWriter::new(out, &stamp)?;
        writer.section("numbers", bytemuck::cast_slice(&numbers))?;
        writer.section("centre", bytemuck::cast_slice(self.quantiser.centre()))?;
        writer.section("pivots", bytemuck::cast_slice(arrays.view.pivots))?;
        writer.section("entries", bytemuck::cast_slice(arrays.view.pivot_codes))?;
        writer.section("starts", bytemuck::cast_slice(arrays.starts))?;
        writer.section("rows", bytemuck::cast_slice(arrays.rows))?;
        writer.section("nodes", bytemuck::cast_slice(arrays.node_of))?;
        writer.section("heights", bytemuck::cast_slice(arrays.view.heights))?;
        writer.section("links", bytemuck::cast_slice(arrays.view.links))?;
        writer.section("codes", bytemuck::cast_slice(arrays.view.codes))?;
        writer.finish()
    }

    /// A graph in a container. Nothing is copied or read but the header; what is in the sections is not trusted.
    ///
    /// # Errors
    /// `Damaged` when the container is not of a graph or its sections have not the lengths that they tell.
    pub fn open(container: Container) -> Result<Self, IndexError> {
        let stamp = *container.stamp();
        if (stamp.kind, stamp.version) != (IndexKind::Graph, VERSION) {
            let reason = format!("it is a {} of version {}, expected a graph of {VERSION}", stamp.kind, stamp.version);
            return Err(IndexError::Damaged { reason });
        }
        let numbers: &[u32] = container.numbers("numbers", PARAMETERS)?;
        let shape = Shape {
            rows: stamp.rows as usize,
            nodes: numbers[0] as usize,
            pivots: numbers[1] as usize,
            degree: numbers[2] as usize,
            build_effort: numbers[3] as usize,
            default_effort: numbers[4] as usize,
        };
        let (scale, radius) = (f32::from_bits(numbers[5]), f32::from_bits(numbers[6]));
        shape.check(stamp.dimension)?;
        let quantiser = Quantiser::restore(stamp.metric, container.numbers("centre", stamp.dimension)?, scale, radius)?;
        sections(&container, shape, quantiser.length(), stamp.metric)?;
        Ok(Self { metric: stamp.metric, shape, quantiser, storage: Storage::File(container) })
    }
}

/// The arrays in a container.
pub(super) fn sections(
    container: &Container,
    shape: Shape,
    length: usize,
    metric: Metric,
) -> Result<Arrays<'_>, IndexError> {
    let heights = if metric == Metric::InnerProduct { shape.nodes } else { 0 };
    Ok(Arrays {
        view: View {
            nodes: shape.nodes,
            length,
            degree: shape.degree,
            codes: container.numbers("codes", shape.nodes * length)?,
            heights: container.numbers("heights", heights)?,
            links: container.numbers("links", shape.nodes * shape.degree)?,
            pivots: container.numbers("pivots", shape.pivots)?,
            pivot_codes: container.numbers("entries", shape.pivots * length)?,
        },
        starts: container.numbers("starts", shape.nodes + 1)?,
        rows: container.numbers("rows", shape.rows)?,
        node_of: container.numbers("nodes", shape.rows)?,
    })
}
