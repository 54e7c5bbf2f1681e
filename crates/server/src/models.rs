//! The models that are served, each with its one owner.

use std::sync::Arc;

use crossmodal_engine::batching::{BatchLimits, Batcher};
use crossmodal_engine::{Embedder, Modality, SpaceId};

use crate::error::{ApiError, ApiResult, Code};
use crate::metrics::Metrics;

/// A model and the names it is asked for by.
#[derive(Debug)]
pub struct ServedModel {
    /// The name shown.
    pub id: String,
    /// Its owner.
    pub batcher: Batcher,
    /// Its vector space.
    pub space: SpaceId,
}

impl ServedModel {
    /// The model, for questions that compute nothing.
    pub fn model(&self) -> &Arc<dyn Embedder> {
        self.batcher.model()
    }

    /// Refuses a modality that it doesn't embed.
    ///
    /// # Errors
    /// Such a modality.
    pub fn check_modality(&self, modality: Modality) -> ApiResult<()> {
        let has = self.model().modalities();
        if has.contains(&modality) {
            return Ok(());
        }
        let has: Vec<&str> = has.iter().map(|modality| modality.as_str()).collect();
        let message = format!("{} embeds {}, not {modality}", self.id, has.join(" and "));
        Err(ApiError::new(Code::InvalidInput, message))
    }
}

/// All of them; the first is the default.
#[derive(Debug)]
pub struct Models(Vec<Arc<ServedModel>>);

impl Models {
    /// Starts an owner for each model, listed by the id it is shown under. Of several with the same id the first counts.
    ///
    /// # Errors
    /// Weights that can't be read.
    pub fn new(
        models: Vec<(String, Arc<dyn Embedder>)>,
        limits: BatchLimits,
        metrics: &Arc<Metrics>,
    ) -> crossmodal_engine::Result<Self> {
        let mut served: Vec<Arc<ServedModel>> = Vec::with_capacity(models.len());
        for (id, model) in models {
            if served.iter().any(|known| known.id == id) {
                continue;
            }
            let space = model.space()?;
            let batcher = Batcher::observed(model, limits, metrics.clone());
            served.push(Arc::new(ServedModel { id, batcher, space }));
        }
        Ok(Self(served))
    }

    /// Every model, the default first.
    pub fn all(&self) -> &[Arc<ServedModel>] {
        &self.0
    }

    /// The model of a name, or the default where there is none.
    ///
    /// # Errors
    /// A model that isn't served.
    pub fn get(&self, name: Option<&str>) -> ApiResult<&Arc<ServedModel>> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return self.0.first().ok_or_else(|| ApiError::not_found("this server has no model"));
        };
        self.find(name).ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|model| model.id.as_str()).collect();
            ApiError::not_found(format!("model {name:?} isn't served here, only {}", known.join(", ")))
        })
    }

    /// The model of an id, a name or a reference.
    pub fn find(&self, name: &str) -> Option<&Arc<ServedModel>> {
        let by_id = self.0.iter().find(|served| served.id == name);
        by_id.or_else(|| {
            self.0.iter().find(|served| {
                let info = served.model().info();
                info.name == name || info.reference == name
            })
        })
    }

    /// A model of a vector space.
    pub fn of_space(&self, space: &str) -> Option<&Arc<ServedModel>> {
        self.0.iter().find(|served| served.space.to_string() == space)
    }
}
