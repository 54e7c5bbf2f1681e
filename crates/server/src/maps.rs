//! Two-dimensional maps of collections, computed in the background and kept until the collection changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossmodal_engine::CancelToken;
use crossmodal_engine::projection::{self, Projection, ProjectionOptions};

use crate::collections::ServedCollection;
use crate::error::{ApiError, ApiResult, Code};

/// Maps that are kept.
const KEPT: usize = 16;
/// Maps that are computed at a time.
const AT_ONCE: usize = 2;

/// A map, or how far it is.
#[derive(Debug, Clone)]
pub enum MapState {
    /// It is there.
    Ready(Arc<Projection>),
    /// So much of it is done, 0 to 1.
    Computing(f32),
}

#[derive(Debug)]
enum Entry {
    Ready { change: u64, map: Arc<Projection> },
    Computing(Arc<AtomicU32>),
    Failed(ApiError),
}

/// All maps, by collection and number of items.
#[derive(Debug, Default)]
pub struct Maps {
    known: Mutex<HashMap<(u64, usize), Entry>>,
    cancel: CancelToken,
}

impl Maps {
    /// The map of a collection's present state with so many items at most; begins to compute it where it is missing or out of date.
    ///
    /// # Errors
    /// What kept the map from being computed, once; too many being computed.
    pub fn get(self: &Arc<Self>, collection: &Arc<ServedCollection>, limit: usize) -> ApiResult<MapState> {
        let change = collection.reader.info()?.change;
        let key = (collection.number, limit);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&key) {
            Some(Entry::Ready { change: of, map }) if *of == change => return Ok(MapState::Ready(map.clone())),
            Some(Entry::Computing(done)) => {
                return Ok(MapState::Computing(f32::from_bits(done.load(Ordering::Relaxed))));
            }
            Some(Entry::Failed(_)) => {
                if let Some(Entry::Failed(error)) = known.remove(&key) {
                    return Err(error);
                }
            }
            Some(Entry::Ready { .. }) | None => {}
        }
        if known.values().filter(|entry| matches!(entry, Entry::Computing(_))).count() >= AT_ONCE {
            let error = ApiError::new(Code::Overloaded, "other maps are being computed");
            return Err(error.after(std::time::Duration::from_secs(3)));
        }
        if known.len() >= KEPT {
            known.retain(|_, entry| matches!(entry, Entry::Computing(_)));
        }
        let done = Arc::new(AtomicU32::new(0));
        let (maps, collection, progress) = (self.clone(), collection.clone(), done.clone());
        let compute = move || maps.compute(&collection, limit, &progress);
        std::thread::Builder::new().name("map".into()).spawn(compute).map_err(ApiError::internal)?;
        known.insert(key, Entry::Computing(done));
        Ok(MapState::Computing(0.0))
    }

    fn compute(&self, collection: &ServedCollection, limit: usize, done: &AtomicU32) {
        let options = ProjectionOptions { limit, ..ProjectionOptions::default() };
        let mut progress = |share: f32| done.store(share.to_bits(), Ordering::Relaxed);
        let work = || projection::project(&collection.reader, &options, &mut progress, &self.cancel);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let entry = match result {
            Ok(Ok(map)) => Entry::Ready { change: map.change, map: Arc::new(map) },
            Ok(Err(error)) => Entry::Failed(error.into()),
            Err(_) => Entry::Failed(ApiError::internal("computing a map panicked")),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((collection.number, limit), entry);
    }

    /// Stops computing.
    pub fn close(&self) {
        self.cancel.cancel();
    }
}
