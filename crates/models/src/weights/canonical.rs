//! One set of tensor names and layouts for all checkpoint layouts.
//!
//! A layout is a list of [`Recipe`]s from its own tensor names to the canonical ones. Models load, and space ids are
//! hashed, through this view alone, so that copies of one checkpoint in different layouts can't differ.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Device, Tensor};
use crossmodal_kernels::product::Int8Weights;

use super::Checkpoint;
use crate::error::{Error, Result};

/// How a canonical tensor is made from a checkpoint's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// The tensor of this name.
    Copy(String),
    /// The transpose of the matrix of this name.
    Transpose(String),
    /// Tensors stacked along the first dimension.
    Stack(Vec<String>),
}

impl Recipe {
    fn sources(&self) -> &[String] {
        match self {
            Self::Copy(name) | Self::Transpose(name) => std::slice::from_ref(name),
            Self::Stack(names) => names,
        }
    }
}

/// What a canonical tensor is made from and what shape it must have.
#[derive(Debug, Clone, Default)]
pub struct Recipes {
    entries: BTreeMap<String, (Recipe, Vec<usize>)>,
}

impl Recipes {
    /// Adds a tensor.
    pub fn add(&mut self, canonical: impl Into<String>, recipe: Recipe, shape: &[usize]) {
        self.entries.insert(canonical.into(), (recipe, shape.to_vec()));
    }

    /// The canonical names with their shapes, in alphabetical order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.entries.iter().map(|(name, (_, shape))| (name.as_str(), shape.as_slice()))
    }

    /// The layout's own tensors, those of one canonical tensor after the other. `shape` gives the shapes that canonical tensors have, which may be others than expected
    /// where positions are resized; `own_shape` the shape of one of the layout's, where that is known: scalars are stored as such or as vectors of one.
    pub fn sources(
        &self,
        shape: impl Fn(&str) -> Vec<usize>,
        own_shape: impl Fn(&str) -> Option<Vec<usize>>,
    ) -> Vec<SourceTensor> {
        let mut sources = Vec::new();
        for (canonical, (recipe, _)) in &self.entries {
            let shape = shape(canonical);
            let mut add = |name: &str, shape: Vec<usize>, form| {
                sources.push(SourceTensor { name: name.to_string(), shape, canonical: canonical.clone(), form });
            };
            match recipe {
                Recipe::Copy(name) => {
                    let single = |shape: &[usize]| shape.iter().product::<usize>() == 1;
                    let own = own_shape(name).filter(|own| single(own) && single(&shape));
                    add(name, own.unwrap_or(shape), Form::Whole);
                }
                Recipe::Transpose(name) => add(name, shape.into_iter().rev().collect(), Form::Transposed),
                Recipe::Stack(names) => {
                    let mut part = shape.clone();
                    part[0] /= names.len();
                    for (number, name) in names.iter().enumerate() {
                        add(name, part.clone(), Form::Part { number, of: names.len() });
                    }
                }
            }
        }
        sources
    }

    /// Number of parameters of all tensors whose canonical name starts with `prefix`.
    pub fn parameters(&self, prefix: &str) -> u64 {
        let matching = self.entries.iter().filter(|(name, _)| name.starts_with(prefix));
        matching.map(|(_, (_, shape))| shape.iter().map(|size| *size as u64).product::<u64>()).sum()
    }
}

/// A tensor of a layout, as a part of a canonical one.
#[derive(Debug, Clone)]
pub struct SourceTensor {
    /// Its name in the layout.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The canonical tensor that it is a part of.
    pub canonical: String,
    form: Form,
}

/// How a layout's tensor comes from a canonical one.
#[derive(Debug, Clone, Copy)]
enum Form {
    Whole,
    Transposed,
    Part { number: usize, of: usize },
}

impl SourceTensor {
    /// Its elements in row-major order, from those of the canonical tensor.
    pub fn values(&self, canonical: &[f32]) -> Vec<f32> {
        match self.form {
            Form::Whole => canonical.to_vec(),
            Form::Part { number, of } => {
                let size = canonical.len() / of;
                canonical[number * size..(number + 1) * size].to_vec()
            }
            Form::Transposed => {
                // The canonical tensor has these rows as columns.
                let (rows, columns) = (self.shape[0], self.shape[1]);
                (0..canonical.len()).map(|flat| canonical[flat % columns * rows + flat / columns]).collect()
            }
        }
    }
}

/// A checkpoint seen through canonical names.
#[derive(Debug)]
pub struct CanonicalWeights {
    checkpoint: Checkpoint,
    recipes: Recipes,
}

impl CanonicalWeights {
    /// Checks that the checkpoint holds every tensor the recipes need, in the right shape, and nothing else that looks
    /// like a parameter. `ignorable` says which leftover names are harmless buffers; `free` which canonical tensors may
    /// have another number of rows than expected (position embeddings that will be resized).
    ///
    /// # Errors
    /// A tensor that is missing, of the wrong shape, or unknown; the message names it.
    pub fn new(
        checkpoint: Checkpoint,
        recipes: Recipes,
        ignorable: impl Fn(&str) -> bool,
        free: &[&str],
    ) -> Result<Self> {
        let mut used = BTreeSet::new();
        for (canonical, (recipe, shape)) in &recipes.entries {
            let rows_free = free.contains(&canonical.as_str());
            check_shapes(&checkpoint, recipe, shape, rows_free)?;
            used.extend(recipe.sources().iter().map(String::as_str));
        }
        let extra = |name: &&str| !used.contains(name) && !checkpoint.is_scale(name) && !ignorable(name);
        let unknown = checkpoint.names().filter(extra).min();
        if let Some(name) = unknown {
            let reason = "is not part of the architecture that the configuration describes";
            return Err(Error::tensor(checkpoint.path(), name, reason));
        }
        Ok(Self { checkpoint, recipes })
    }

    /// The files behind this view.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What canonical tensors are made from.
    pub fn recipes(&self) -> &Recipes {
        &self.recipes
    }

    /// The canonical names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.recipes.entries.keys().map(String::as_str)
    }

    /// The shape of a canonical tensor as the checkpoint holds it, which for positions may differ from the configuration's; empty where there is no such tensor.
    pub fn shape(&self, canonical: &str) -> Vec<usize> {
        let Some((recipe, shape)) = self.recipes.entries.get(canonical) else { return Vec::new() };
        match recipe {
            Recipe::Copy(name) => self.checkpoint.shape(name).map_or_else(|| shape.clone(), <[usize]>::to_vec),
            Recipe::Transpose(_) | Recipe::Stack(_) => shape.clone(),
        }
    }

    /// Whether there is a canonical tensor of this name.
    pub fn contains(&self, canonical: &str) -> bool {
        self.recipes.entries.contains_key(canonical)
    }

    /// Number of parameters of all tensors whose canonical name starts with `prefix`.
    pub fn parameters(&self, prefix: &str) -> u64 {
        self.recipes.parameters(prefix)
    }

    /// Decodes a canonical tensor to `f32`: its shape and its elements in row-major order.
    ///
    /// # Errors
    /// A tensor that isn't in the recipes, or can't be decoded.
    pub fn values(&self, canonical: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let Some((recipe, _)) = self.recipes.entries.get(canonical) else {
            return Err(Error::tensor(self.checkpoint.path(), canonical, "is not part of this model"));
        };
        match recipe {
            Recipe::Copy(name) => self.checkpoint.load(name),
            Recipe::Transpose(name) => {
                let (shape, values) = self.checkpoint.load(name)?;
                let (rows, columns) = (shape[0], shape[1]);
                let cell = |flat: usize| values[flat % rows * columns + flat / rows];
                Ok((vec![columns, rows], (0..rows * columns).map(cell).collect()))
            }
            Recipe::Stack(names) => {
                let mut all = Vec::new();
                let mut stacked = Vec::new();
                for name in names {
                    let (shape, values) = self.checkpoint.load(name)?;
                    if stacked.is_empty() {
                        stacked = shape;
                    } else {
                        stacked[0] += shape[0];
                    }
                    all.extend(values);
                }
                Ok((stacked, all))
            }
        }
    }

    /// Whether any matrix is quantised.
    pub fn is_quantised(&self) -> bool {
        self.checkpoint.names().any(|name| self.checkpoint.is_scale(name))
    }

    /// The integers of a canonical matrix, where the checkpoint holds it quantised by rows; `None` otherwise.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn int8(&self, canonical: &str) -> Result<Option<Int8Weights>> {
        let Some((recipe, _)) = self.recipes.entries.get(canonical) else {
            return Err(Error::tensor(self.checkpoint.path(), canonical, "is not part of this model"));
        };
        match recipe {
            Recipe::Copy(name) => self.checkpoint.int8(name),
            // Its rows are columns here, and have no scale of their own.
            Recipe::Transpose(_) => Ok(None),
            Recipe::Stack(names) => {
                let mut all = Int8Weights { values: Vec::new(), scales: Vec::new() };
                for name in names {
                    let Some(part) = self.checkpoint.int8(name)? else { return Ok(None) };
                    all.values.extend(part.values);
                    all.scales.extend(part.scales);
                }
                Ok(Some(all))
            }
        }
    }

    /// The tensors of the checkpoint that a canonical matrix consists of row by row: those that can be quantised by rows. Empty where
    /// its rows aren't those of the checkpoint's.
    pub fn row_sources(&self, canonical: &str) -> &[String] {
        match self.recipes.entries.get(canonical) {
            Some((recipe @ (Recipe::Copy(_) | Recipe::Stack(_)), shape)) if shape.len() == 2 => recipe.sources(),
            _ => &[],
        }
    }

    /// Names of the checkpoint's own tensors that canonical ones are made from, in alphabetical order.
    pub fn sources(&self) -> BTreeSet<&str> {
        self.recipes.entries.values().flat_map(|(recipe, _)| recipe.sources()).map(String::as_str).collect()
    }

    /// Decodes one row of a canonical matrix.
    ///
    /// # Errors
    /// As [`values`](Self::values), and a row that doesn't exist or is of another length than `row`.
    pub fn row(&self, canonical: &str, at: usize, row: &mut [f32]) -> Result<()> {
        if let Some((Recipe::Copy(name), _)) = self.recipes.entries.get(canonical)
            && self.checkpoint.load_row(name, at, row)?.is_some()
        {
            return Ok(());
        }
        let (_, values) = self.values(canonical)?;
        match values.get(at * row.len()..(at + 1) * row.len()) {
            Some(found) => row.copy_from_slice(found),
            None => return Err(Error::tensor(self.checkpoint.path(), canonical, format!("has no row {at}"))),
        }
        Ok(())
    }

    /// Decodes a canonical tensor.
    ///
    /// # Errors
    /// As [`values`](Self::values).
    pub fn tensor(&self, canonical: &str, device: &Device) -> Result<Tensor> {
        let (shape, values) = self.values(canonical)?;
        Ok(Tensor::from_vec(values, shape, device)?)
    }
}

fn check_shapes(checkpoint: &Checkpoint, recipe: &Recipe, shape: &[usize], rows_free: bool) -> Result<()> {
    let parts = recipe.sources().len();
    for name in recipe.sources() {
        let Some(found) = checkpoint.shape(name) else {
            return Err(Error::tensor(checkpoint.path(), name, "is missing"));
        };
        let mut expected = shape.to_vec();
        match recipe {
            Recipe::Copy(_) => {}
            Recipe::Transpose(_) => expected.reverse(),
            Recipe::Stack(_) => expected[0] /= parts,
        }
        let scalar = expected.is_empty() && found == [1] || expected == [1] && found.is_empty();
        let rows = rows_free && found.len() == expected.len() && found.get(1..) == expected.get(1..);
        if found != expected && !scalar && !rows {
            return Err(Error::tensor(checkpoint.path(), name, format!("has shape {found:?}, expected {expected:?}")));
        }
    }
    Ok(())
}
