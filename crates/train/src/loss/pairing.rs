//! Which samples of a batch belong together beyond the pairs themselves: the same picture or the same caption may come twice.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What becomes of pairs `i, j` whose pictures or captions are the same content, so that `j` is no true negative of `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They are negatives of each other like any others, as in the reference implementations.
    Ignore,
    /// They are left out of each other's negatives.
    #[default]
    Mask,
    /// They are positives of each other; a softmax's target is shared out evenly among them.
    Positive,
}

/// Which samples belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    treatment: Duplicates,
    /// For each sample, the others with the same content on either side, in ascending order.
    same: Vec<Vec<usize>>,
}

impl Pairing {
    /// A batch of so many pairs that are all different.
    pub fn distinct(batch: usize) -> Self {
        Self { treatment: Duplicates::Ignore, same: vec![Vec::new(); batch] }
    }

    /// A batch in which equal numbers mark equal content.
    ///
    /// # Errors
    /// Sides of different lengths.
    pub fn of(treatment: Duplicates, left: &[u64], right: &[u64]) -> Result<Self> {
        if left.len() != right.len() {
            let (left, right) = (left.len(), right.len());
            return Err(Error::Invalid(format!("contents of {left} left and {right} right samples, expected as many")));
        }
        let mut same = vec![Vec::new(); left.len()];
        for side in [left, right] {
            let mut groups: HashMap<u64, Vec<usize>> = HashMap::new();
            side.iter().enumerate().for_each(|(at, content)| groups.entry(*content).or_default().push(at));
            for group in groups.values().filter(|group| group.len() > 1) {
                for at in group {
                    same[*at].extend(group.iter().filter(|other| *other != at));
                }
            }
        }
        for others in &mut same {
            others.sort_unstable();
            others.dedup();
        }
        Ok(Self { treatment, same })
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.same.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.same.is_empty()
    }

    /// Whether right sample `right` is an answer to left sample `left`.
    pub fn belong(&self, left: usize, right: usize) -> bool {
        left == right || self.same[left].binary_search(&right).is_ok()
    }

    /// What is to be added to logits `[batch, batch]`: minus infinity at duplicates that are to be masked; `None` where there are none.
    pub(super) fn mask(&self, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        if self.treatment != Duplicates::Mask {
            return Ok(None);
        }
        self.matrix(dtype, device, |_| (0.0, 0.0, f64::NEG_INFINITY))
    }

    /// As [`mask`](Self::mask), also where duplicates are positives: for losses that know one positive only.
    pub(super) fn mask_unless_ignored(&self, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        if self.treatment == Duplicates::Ignore {
            return Ok(None);
        }
        self.matrix(dtype, device, |_| (0.0, 0.0, f64::NEG_INFINITY))
    }

    /// The targets of a softmax over rows `[batch, batch]`, each row of sum 1; `None` where each sample has only its own.
    pub(super) fn targets(&self, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        if self.treatment != Duplicates::Positive {
            return Ok(None);
        }
        self.matrix(dtype, device, |others| {
            let share = 1.0 / (1 + others) as f64;
            (0.0, share, share)
        })
    }

    /// The signs of the sigmoid loss `[batch, batch]`: 1 for what belongs together, -1 for what doesn't, 0 for what is masked.
    pub(super) fn signs(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let duplicate = match self.treatment {
            Duplicates::Ignore => -1.0,
            Duplicates::Mask => 0.0,
            Duplicates::Positive => 1.0,
        };
        self.dense(dtype, device, |_| (-1.0, 1.0, duplicate))
    }

    fn matrix(
        &self,
        dtype: DType,
        device: &Device,
        values: impl Fn(usize) -> (f64, f64, f64),
    ) -> Result<Option<Tensor>> {
        if self.same.iter().all(Vec::is_empty) {
            return Ok(None);
        }
        self.dense(dtype, device, values).map(Some)
    }

    /// A matrix whose values elsewhere, on the diagonal and at duplicates are given by the number of a row's duplicates.
    fn dense(&self, dtype: DType, device: &Device, values: impl Fn(usize) -> (f64, f64, f64)) -> Result<Tensor> {
        let batch = self.len();
        let mut cells = Vec::with_capacity(batch * batch);
        for (row, others) in self.same.iter().enumerate() {
            let (elsewhere, own, duplicate) = values(others.len());
            cells.resize((row + 1) * batch, elsewhere);
            let cells = &mut cells[row * batch..];
            cells[row] = own;
            others.iter().for_each(|other| cells[*other] = duplicate);
        }
        Ok(Tensor::from_vec(cells, (batch, batch), device)?.to_dtype(dtype)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_on_either_side_belongs_together() {
        let pairing = Pairing::of(Duplicates::Positive, &[7, 8, 7, 9], &[1, 2, 3, 2]).unwrap();
        assert_eq!(pairing.same, [vec![2], vec![3], vec![0], vec![1]]);
        assert!(pairing.belong(0, 2) && pairing.belong(1, 1) && !pairing.belong(0, 1));
        let targets = pairing.targets(DType::F32, &Device::Cpu).unwrap().unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(targets[0], [0.5, 0.0, 0.5, 0.0]);
        assert_eq!(targets[1], [0.0, 0.5, 0.0, 0.5]);
    }

    #[test]
    fn a_batch_without_duplicates_has_nothing_to_mask() {
        let pairing = Pairing::of(Duplicates::Mask, &[1, 2], &[1, 2]).unwrap();
        assert!(pairing.mask(DType::F32, &Device::Cpu).unwrap().is_none());
        let signs = pairing.signs(DType::F32, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(signs, [[1.0, -1.0], [-1.0, 1.0]]);
        assert!(Pairing::of(Duplicates::Mask, &[1, 2], &[1]).is_err());
    }
}
