//! The vectors of a map: centred, and with their nearest neighbours.

use std::collections::BTreeMap;

use crossmodal_index::{FlatIndex, IndexError, Metric, Selection};
use crossmodal_models::CancelToken;
use crossmodal_store::ItemVector;

use crate::error::{Error, Result};

/// Points whose neighbours are found at once: their vectors are the weights of one matrix product.
const BATCH: usize = 512;
/// Fewer vectors of a modality than this don't tell its mean; they are centred by that of all vectors.
const LEAST_OF_MODALITY: usize = 16;

/// Vectors less the mean of their modality, scaled together so that no square of a distance overflows or vanishes.
pub(super) struct Points {
    dimension: usize,
    /// Row-major.
    values: Vec<f32>,
}

/// The nearest other points of a point, nearest first.
pub(super) type Neighbours = Vec<Near>;

/// Another point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub point: u32,
    /// Euclidean. In the order of cosines where the vectors are of unit length and of one modality.
    pub distance: f32,
}

/// A sum of vectors.
#[derive(Clone)]
struct Sum {
    count: usize,
    values: Vec<f64>,
}

impl Sum {
    fn new(dimension: usize) -> Self {
        Self { count: 0, values: vec![0.0; dimension] }
    }

    fn add(&mut self, vector: &[f32]) {
        self.count += 1;
        self.values.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
    }

    /// The difference between a vector's value and the mean's.
    fn centred(&self, value: f32, at: usize) -> f64 {
        f64::from(value) - self.values[at] / self.count as f64
    }
}

impl Points {
    /// Takes their modality's mean away from vectors of `dimension` values, which leaves distances within a modality as they are.
    pub fn centred(vectors: &[ItemVector<'_>], dimension: usize) -> Self {
        let mut all = Sum::new(dimension);
        let mut of_modality = BTreeMap::<&str, Sum>::new();
        for vector in vectors {
            all.add(vector.values);
            of_modality.entry(&vector.modality).or_insert_with(|| Sum::new(dimension)).add(vector.values);
        }
        let centre = |vector: &ItemVector<'_>| {
            let own = of_modality.get(vector.modality.as_str());
            own.filter(|sum| sum.count >= LEAST_OF_MODALITY).unwrap_or(&all)
        };
        let mut largest = 0f64;
        for vector in vectors {
            let centre = centre(vector);
            let magnitudes = vector.values.iter().enumerate().map(|(at, value)| centre.centred(*value, at).abs());
            largest = magnitudes.fold(largest, f64::max);
        }
        let scale = if largest > 0.0 { 1.0 / largest } else { 0.0 };
        let mut values = Vec::with_capacity(vectors.len() * dimension);
        for vector in vectors {
            let centre = centre(vector);
            let centred = vector.values.iter().enumerate();
            values.extend(centred.map(|(at, value)| (centre.centred(*value, at) * scale) as f32));
        }
        Self { dimension, values }
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Values of a point.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// A point's vector.
    pub fn row(&self, point: usize) -> &[f32] {
        &self.values[point * self.dimension..][..self.dimension]
    }

    /// All vectors, row by row.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimension)
    }

    /// The `k` nearest other points of every point, exactly; equally near ones in their order.
    ///
    /// # Errors
    /// Cancellation.
    pub fn neighbours(&self, k: usize, progress: &mut dyn FnMut(f32), cancel: &CancelToken) -> Result<Vec<Neighbours>> {
        let failed = |error: IndexError| Error::Invalid(format!("the vectors can't be compared: {error}"));
        let index = FlatIndex::new(self.dimension, Metric::Euclidean, &[&self.values]).map_err(failed)?;
        let queries: Vec<&[f32]> = self.rows().collect();
        let mut all = Vec::with_capacity(queries.len());
        for batch in queries.chunks(BATCH) {
            cancel.check()?;
            let found = index.search(batch, k + 1, Selection::default()).map_err(failed)?;
            for found in found {
                let this = all.len() as u64;
                let others = found.iter().filter(|neighbour| neighbour.row != this).take(k);
                let near = |neighbour: &crossmodal_index::Neighbor| Near {
                    point: neighbour.row as u32,
                    distance: -neighbour.score,
                };
                all.push(others.map(near).collect());
            }
            progress(all.len() as f32 / queries.len() as f32);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(modality: &str, values: &'static [f32]) -> ItemVector<'static> {
        ItemVector { item: 0, modality: modality.into(), values }
    }

    #[test]
    fn every_modality_is_centred_unless_it_is_too_small() {
        let mut vectors = Vec::new();
        for _ in 0..20 {
            vectors.extend([vector("image", &[9.0, 1.0]), vector("image", &[11.0, 1.0])]);
            vectors.extend([vector("text", &[-6.0, 0.0]), vector("text", &[-6.0, 4.0])]);
        }
        vectors.push(vector("audio", &[2.0, 5.5]));
        let points = Points::centred(&vectors, 2);
        let row = |point: usize| (points.row(point)[0], points.row(point)[1]);
        let unit = row(1).0;
        assert_eq!((row(0), row(1)), ((-unit, 0.0), (unit, 0.0)));
        assert_eq!((row(2), row(3)), ((0.0, -2.0 * unit), (0.0, 2.0 * unit)));
        assert!(points.rows().flatten().all(|value| value.abs() <= 1.0));
        assert!(row(80).1 > 3.0 * unit && row(80).0.abs() < 0.1 * unit, "{:?}", row(80));
    }

    #[test]
    fn neighbours_are_others_and_nearest_first() {
        let vectors: Vec<ItemVector<'static>> =
            [&[0.0_f32][..], &[1.0], &[3.0], &[3.0], &[3.0], &[7.0]].map(|values| vector("image", values)).to_vec();
        let points = Points::centred(&vectors, 1);
        let found = points.neighbours(2, &mut |_| (), &CancelToken::new()).unwrap();
        let numbers: Vec<Vec<u32>> = found.iter().map(|near| near.iter().map(|near| near.point).collect()).collect();
        assert_eq!(numbers, [[1, 2], [0, 2], [3, 4], [2, 4], [2, 3], [2, 3]]);
        assert_eq!(found[3].iter().map(|near| near.distance).collect::<Vec<_>>(), [0.0, 0.0]);
        assert!((found[1][1].distance / found[1][0].distance - 2.0).abs() < 1e-5);
    }

    #[test]
    fn extreme_magnitudes_neither_overflow_nor_vanish() {
        for values in [&[&[3e38_f32][..], &[-3e38], &[1e38]][..], &[&[3e-42], &[-3e-42], &[1e-42]]] {
            let vectors: Vec<_> = values.iter().map(|values| vector("image", values)).collect();
            let points = Points::centred(&vectors, 1);
            let found = points.neighbours(1, &mut |_| (), &CancelToken::new()).unwrap();
            assert_eq!(found.iter().map(|near| near[0].point).collect::<Vec<_>>(), [2, 2, 0]);
            assert!(found.iter().all(|near| near[0].distance > 0.1 && near[0].distance.is_finite()));
        }
    }
}
