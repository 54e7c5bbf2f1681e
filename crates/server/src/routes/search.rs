//! `/v1/collections/{name}/search`: from a request to a page of hits.

use std::time::Instant;

use axum::extract::State as Shared;
use crossmodal_engine::{Filter, GroupBy, Input, Part, Query, Ranking, SearchOptions, relevance};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Errors;
use super::embed::unknown_part;
use crate::collections::ServedCollection;
use crate::error::{ApiError, ApiResult, Code};
use crate::extract::{ApiJson, ApiPath, Body, Form};
use crate::inputs::{self, InputValue};
use crate::items::HitView;
use crate::metrics::Stage;
use crate::state::{Shared as SharedState, State};

/// The most hits of a page.
const MOST_HITS: usize = 1000;
/// The farthest a page may begin.
const FARTHEST: usize = 100_000;
/// The most parts of a query.
const MOST_PARTS: usize = 64;

/// What ranks the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// Nearness of vectors; scores are cosines.
    #[default]
    Vector,
    /// The query's words; scores are BM25.
    Text,
    /// Both; scores only compare within one answer.
    Hybrid,
}

/// A filter: the language of docs/filters.md, or its JSON form.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub enum FilterValue {
    /// As text.
    #[schema(example = "year >= 2020 and tag in (a, b)")]
    Text(String),
    /// As JSON.
    #[schema(value_type = Object)]
    Json(Value),
}

/// Which hits are cut off as likely to be there by chance.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub enum RelevantOnly {
    /// Those below the measured confidence, or none.
    Switch(bool),
    /// Those below this confidence, 0 to 1.
    Confidence(f32),
}

/// A summand of a query: a weight and one subject.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryPart {
    /// The factor on its unit vector; negative to search away from it. 1 where absent.
    pub weight: Option<f32>,
    /// Words.
    pub text: Option<String>,
    /// A picture as a data URI, base64, or (where allowed) an address.
    pub image: Option<String>,
    /// An item of the collection by its key; it is left out of the hits.
    pub item: Option<i64>,
    /// A vector of the collection's space.
    pub vector: Option<Vec<f32>>,
}

/// A search.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Words, or a sum of words and items as in `2:dog + puppy - fruit`.
    pub query: Option<String>,
    /// Further summands.
    pub parts: Vec<QueryPart>,
    /// What ranks; `vector` where absent.
    pub mode: Option<SearchMode>,
    /// In hybrid mode, the share of the vectors' scores against the words', 0 to 1; ranks are fused where absent.
    pub alpha: Option<f32>,
    /// Only items that satisfy it.
    pub filter: Option<FilterValue>,
    /// Number of hits, 1 to 1000; 10 where absent.
    #[schema(minimum = 1, maximum = 1000)]
    pub k: Option<usize>,
    /// Hits passed over at the start, up to 100,000.
    #[schema(maximum = 100000)]
    pub offset: Option<usize>,
    /// Only hits with at least this cosine.
    pub min_score: Option<f32>,
    /// Cut off what is likely to be there by chance.
    pub relevant_only: Option<RelevantOnly>,
    /// Only the best hit of each group: `folder`, `file` or a key of the metadata.
    pub group_by: Option<String>,
    /// Hits that differ from each other: 1 is nearness alone, 0 difference alone.
    pub diversity: Option<f32>,
    /// Whether hits carry their metadata; true where absent.
    pub metadata: Option<bool>,
}

/// The same as a form: the request, and picture files that are added to it.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read part by part")]
pub struct SearchForm {
    /// The rest of the request.
    request: Option<SearchRequest>,
    /// Picture files to search by.
    #[schema(value_type = Vec<String>, format = Binary)]
    image: Vec<Vec<u8>>,
}

/// What was found.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SearchAnswer {
    /// The collection.
    pub collection: String,
    /// The model that embedded the query; none where nothing had to be embedded.
    pub model: Option<String>,
    /// How long it took.
    pub milliseconds: f64,
    /// Items that were searched: all, or those that satisfy the filter. Not counted for searches by vectors alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub searched: Option<u64>,
    /// Best first.
    pub hits: Vec<HitView>,
    /// The offset of the next page, where there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
}

fn options(request: &SearchRequest) -> ApiResult<SearchOptions> {
    let k = request.k.unwrap_or(10);
    if !(1..=MOST_HITS).contains(&k) {
        return Err(ApiError::invalid(format!("field `k` is {k}, expected 1 to {MOST_HITS}")));
    }
    let offset = request.offset.unwrap_or(0);
    if offset > FARTHEST {
        return Err(ApiError::invalid(format!("field `offset` is {offset}, at most {FARTHEST}")));
    }
    let share = |name: &str, value: Option<f32>| match value {
        Some(value) if !(0.0..=1.0).contains(&value) => {
            Err(ApiError::invalid(format!("field `{name}` is {value}, expected 0 to 1")))
        }
        value => Ok(value),
    };
    let mode = request.mode.unwrap_or_default();
    let alpha = share("alpha", request.alpha)?;
    if alpha.is_some() && mode != SearchMode::Hybrid {
        return Err(ApiError::invalid("field `alpha` goes with mode \"hybrid\""));
    }
    let relevant_only = match request.relevant_only {
        None | Some(RelevantOnly::Switch(false)) => None,
        Some(RelevantOnly::Switch(true)) => Some(relevance::RELEVANT),
        Some(RelevantOnly::Confidence(least)) => share("relevant_only", Some(least))?,
    };
    let group_by = request.group_by.as_deref().filter(|name| !name.is_empty());
    let group_by = group_by.map(str::parse::<GroupBy>).transpose();
    Ok(SearchOptions {
        k,
        offset,
        ranking: match mode {
            SearchMode::Vector => Ranking::Vectors,
            SearchMode::Text => Ranking::Words,
            SearchMode::Hybrid => Ranking::Both { vectors: alpha },
        },
        filter: request.filter.as_ref().map(filter).transpose()?.flatten(),
        min_score: request.min_score,
        relevant_only,
        group_by: group_by.map_err(|reason| ApiError::invalid(format!("field `group_by`: {reason}")))?,
        diversity: share("diversity", request.diversity)?,
        ..SearchOptions::default()
    })
}

/// Reads a filter; an empty text is none.
pub(super) fn filter(value: &FilterValue) -> ApiResult<Option<Filter>> {
    let read = match value {
        FilterValue::Text(text) if text.trim().is_empty() => return Ok(None),
        FilterValue::Text(text) => Filter::parse(text).map_err(|error| error.to_string()),
        FilterValue::Json(value) => Filter::from_json(value).map_err(|error| error.to_string()),
    };
    read.map(Some).map_err(|error| ApiError::invalid(format!("field `filter`: {error}")))
}

/// The summands of a query, and whether a model is needed for them.
fn query(
    state: &State,
    collection: &ServedCollection,
    request: &SearchRequest,
    pictures: &[Input],
) -> ApiResult<Query> {
    let mut parts = Vec::new();
    if let Some(words) = request.query.as_deref().filter(|words| !words.trim().is_empty()) {
        parts.extend(Query::parse_text(words)?.parts);
    }
    for (place, part) in request.parts.iter().enumerate() {
        let named =
            |error: ApiError| ApiError { message: format!("field `parts[{place}]`: {}", error.message), ..error };
        parts.push(one_part(state, collection, part).map_err(named)?);
    }
    parts.extend(pictures.iter().map(|picture| Part::input(1.0, picture.clone())));
    if parts.is_empty() {
        return Err(ApiError::invalid("there is nothing to search for: give `query` or `parts`"));
    }
    if parts.len() > MOST_PARTS {
        return Err(ApiError::new(
            Code::TooLarge,
            format!("a query of {} parts, at most {MOST_PARTS} are taken", parts.len()),
        ));
    }
    Ok(Query { parts })
}

fn one_part(state: &State, collection: &ServedCollection, part: &QueryPart) -> ApiResult<Part> {
    let weight = part.weight.unwrap_or(1.0);
    if !weight.is_finite() || weight == 0.0 || weight.abs() > 1000.0 {
        return Err(ApiError::invalid(format!("a weight of {weight}, expected -1000 to 1000 and not 0")));
    }
    match (&part.text, &part.image, part.item, &part.vector) {
        (Some(text), None, None, None) => Ok(Part::input(weight, inputs::text_input(text)?)),
        (None, Some(image), None, None) => {
            let input = InputValue::Image(image.clone()).resolve(state.fetcher.as_ref())?;
            Ok(Part::input(weight, input))
        }
        (None, None, Some(key), None) => {
            let item = collection.reader.item(key)?;
            let item = item.ok_or_else(|| ApiError::not_found(format!("no item {key}")))?;
            Ok(Part::item(weight, item.item.id))
        }
        (None, None, None, Some(vector)) => Ok(Part::vector(weight, vector.clone())),
        _ => Err(ApiError::invalid("expected exactly one of `text`, `image`, `item` and `vector`")),
    }
}

/// Whether something has to be embedded.
fn needs_model(request: &SearchRequest, pictures: usize) -> bool {
    let words = request.query.as_deref().is_some_and(|words| !words.trim().is_empty());
    words || pictures > 0 || request.parts.iter().any(|part| part.text.is_some() || part.image.is_some())
}

fn read_form(form: &Form) -> ApiResult<(SearchRequest, Vec<Input>)> {
    let mut request = SearchRequest::default();
    let mut pictures = Vec::new();
    for part in &form.0 {
        match part.name.as_str() {
            "request" => request = part.json()?,
            "image" => pictures.extend(inputs::of_part(part)?),
            name => return Err(unknown_part(name)),
        }
    }
    Ok((request, pictures))
}

/// Finds items by words, pictures, items, vectors, and sums of them.
#[utoipa::path(
    post, path = "/v1/collections/{name}/search", operation_id = "search", tag = "Collections",
    params(("name" = String, Path, description = "The collection")),
    request_body(content((SearchRequest = "application/json"), (SearchForm = "multipart/form-data"))),
    responses((status = 200, description = "Hits, best first", body = SearchAnswer), Errors)
)]
pub async fn search_route(
    Shared(state): Shared<SharedState>,
    ApiPath(name): ApiPath<String>,
    body: Body<SearchRequest>,
) -> ApiResult<ApiJson<SearchAnswer>> {
    let collection = state.collections.get(&name)?;
    let (request, pictures) = match body {
        Body::Json(request) => (request, Vec::new()),
        Body::Form(form) => read_form(&form)?,
    };
    let start = Instant::now();
    let options = options(&request)?;
    let (k, offset) = (options.k, options.offset);
    let with_metadata = request.metadata.unwrap_or(true);
    let mut model_id = None;
    let (found, searched) = if needs_model(&request, pictures.len()) {
        let served = collection.model(&state.models)?.clone();
        model_id = Some(served.id.clone());
        let inputs = (request.parts.len() + pictures.len()).max(1);
        state
            .run_model(&served, inputs, move |state, model| {
                let query = query(state, &collection, &request, &pictures)?;
                let searching = Instant::now();
                let found = collection.reader.search(model.as_ref(), &query, &options)?;
                state.metrics.stage(Stage::Search, "", searching.elapsed());
                Ok((found, Some(collection.reader.count(options.filter.as_ref())?)))
            })
            .await?
    } else {
        state
            .run_search(move |state| {
                let query = query(state, &collection, &request, &[])?;
                let searching = Instant::now();
                let found = collection.reader.search_vectors(&[query], &options)?.pop().unwrap_or_default();
                state.metrics.stage(Stage::Search, "", searching.elapsed());
                Ok((found, None))
            })
            .await?
    };
    let full = found.len() == k;
    let hits = found.into_iter().enumerate();
    let hits: Vec<HitView> =
        hits.map(|(place, found)| HitView::new(offset + place + 1, found, with_metadata)).collect();
    Ok(ApiJson(SearchAnswer {
        collection: name,
        model: model_id,
        milliseconds: start.elapsed().as_secs_f64() * 1000.0,
        searched,
        next_offset: (full && offset + k <= FARTHEST).then_some(offset + k),
        hits,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(json: &str) -> SearchRequest {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn fields_out_of_range_are_named() {
        for (json, field) in [
            (r#"{"k": 0}"#, "k"),
            (r#"{"k": 1001}"#, "k"),
            (r#"{"offset": 100001}"#, "offset"),
            (r#"{"alpha": 0.5}"#, "alpha"),
            (r#"{"mode": "hybrid", "alpha": 1.5}"#, "alpha"),
            (r#"{"relevant_only": -1}"#, "relevant_only"),
            (r#"{"diversity": 2}"#, "diversity"),
            (r#"{"group_by": "a..b"}"#, "group_by"),
            (r#"{"filter": "year >="}"#, "filter"),
            (r#"{"filter": 42}"#, "filter"),
        ] {
            let error = options(&request(json)).unwrap_err();
            assert!(error.message.contains(&format!("`{field}`")), "{json}: {}", error.message);
        }
        assert!(serde_json::from_str::<SearchRequest>(r#"{"quary": "x"}"#).is_err());
    }

    #[test]
    fn only_vectors_and_items_need_no_model() {
        assert!(!needs_model(&request(r#"{"parts": [{"vector": [1.0]}, {"item": 3}]}"#), 0));
        assert!(needs_model(&request(r#"{"parts": [{"vector": [1.0]}, {"text": "a"}]}"#), 0));
        assert!(needs_model(&request(r#"{"query": "a"}"#), 0));
        assert!(!needs_model(&request(r#"{"query": " "}"#), 0));
        assert!(needs_model(&request("{}"), 1));
    }
}
