//! Ingestion and search with the built-in model and real pictures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossmodal_engine::ingest::{Events, Report, Request};
use crossmodal_engine::metadata::Metadata;
use crossmodal_engine::{
    CancelToken, Collection, Embedder, ErrorKind, Input, ListRequest, LoadOptions, Mode, Query, SearchOptions,
    classify::Classifier, demo, embed_each, ingest, load, read_input, similarity,
};

struct Place {
    dir: tempfile::TempDir,
    model: Arc<dyn Embedder>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        demo::unpack(&dir.path().join("gallery")).unwrap();
        Self { dir, model: load("mini", &LoadOptions::default()).unwrap() }
    }

    fn pictures(&self) -> PathBuf {
        self.dir.path().join("gallery")
    }

    fn picture(&self, name: &str) -> PathBuf {
        self.pictures().canonicalize().unwrap().join(name)
    }

    fn collection(&self) -> Collection {
        Collection::open(&self.dir.path().join("collection"), &Mode::write()).unwrap()
    }

    fn request(&self) -> Request {
        Request::new(vec![self.pictures()])
    }

    fn index(&self, collection: &Collection, request: &Request) -> Report {
        ingest::run(collection, &self.model, request, &Events::none(), &CancelToken::new()).unwrap()
    }
}

fn counts(report: &Report) -> (usize, usize, usize, usize, usize) {
    let progress = &report.progress;
    (progress.embedded, progress.reused, progress.unchanged, progress.skipped, report.pruned)
}

#[test]
fn a_second_run_embeds_nothing_and_changes_are_followed() {
    let place = Place::new();
    let collection = place.collection();
    let mut request = place.request();
    assert_eq!(counts(&place.index(&collection, &request)), (240, 0, 0, 0, 0));
    assert_eq!(counts(&place.index(&collection, &request)), (0, 0, 240, 0, 0));
    // A rename and a copy take the vector from the collection; so does a file that became another known picture.
    std::fs::rename(place.picture("1f34e.png"), place.picture("apple.png")).unwrap();
    std::fs::copy(place.picture("1f34b.png"), place.picture("lemon-copy.png")).unwrap();
    std::fs::copy(place.picture("1f436.png"), place.picture("1f600.png")).unwrap();
    request.prune = true;
    assert_eq!(counts(&place.index(&collection, &request)), (0, 3, 238, 0, 1));
    assert_eq!(counts(&place.index(&collection, &request)), (0, 0, 241, 0, 0));
    // A file with new content is embedded again.
    let mut bytes = std::fs::read(place.picture("1f34b.png")).unwrap();
    bytes.extend_from_slice(b"trailing bytes that a decoder passes over");
    std::fs::write(place.picture("1f34b.png"), bytes).unwrap();
    assert_eq!(counts(&place.index(&collection, &request)), (1, 0, 240, 0, 0));
    assert_eq!(collection.info().unwrap().items, 241);
    assert!(collection.verify().unwrap().is_clean());
    let hits = collection.search(place.model.as_ref(), &Query::text("red apple"), &SearchOptions::default()).unwrap();
    assert_eq!(hits[0].hit.item.id, place.picture("apple.png").to_str().unwrap());
    assert!(hits.windows(2).all(|pair| pair[0].hit.score >= pair[1].hit.score));
}

#[test]
fn copies_within_one_run_are_embedded_once() {
    let place = Place::new();
    let folder = place.dir.path().join("copies");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..40 {
        std::fs::copy(place.picture("1f34e.png"), folder.join(format!("{number}.png"))).unwrap();
    }
    std::fs::copy(place.picture("1f436.png"), folder.join("dog.png")).unwrap();
    for number in 0..5 {
        std::fs::write(folder.join(format!("broken{number}.png")), b"\x89PNG\r\n\x1a\nno more").unwrap();
    }
    let collection = place.collection();
    let report = place.index(&collection, &Request::new(vec![folder]));
    let (embedded, reused, unchanged, skipped, _) = counts(&report);
    assert_eq!((embedded + reused, unchanged, skipped), (41, 0, 5));
    // A commit may fall between looking up and embedding, but copies are never embedded one by one.
    assert!(embedded <= 4, "{embedded} of 41 were embedded");
    assert_eq!(collection.info().unwrap().items, 41);
}

#[test]
fn damaged_files_are_listed_and_the_rest_goes_on() {
    let place = Place::new();
    let whole = std::fs::read(place.picture("1f34e.png")).unwrap();
    std::fs::write(place.picture("empty.png"), b"").unwrap();
    std::fs::write(place.picture("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(place.picture("text.jpg"), b"this is no picture").unwrap();
    std::fs::write(place.picture("really-a-png.jpg"), &whole).unwrap();
    let collection = place.collection();
    let report = place.index(&collection, &place.request());
    let skipped: Vec<_> =
        report.skipped.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap().to_string()).collect();
    assert_eq!(skipped, ["cut.png", "empty.png", "text.jpg"]);
    assert!(report.skipped[0].reason.contains("PNG"), "{}", report.skipped[0].reason);
    assert!(report.skipped[1].reason.contains("empty"), "{}", report.skipped[1].reason);
    assert!(report.skipped[2].reason.contains("not a picture"), "{}", report.skipped[2].reason);
    assert_eq!(collection.info().unwrap().items, 241);
    // A file that becomes unreadable keeps what the collection has of it, even when pruning.
    std::fs::write(place.picture("1f436.png"), b"").unwrap();
    let mut request = place.request();
    request.prune = true;
    let report = place.index(&collection, &request);
    assert_eq!((report.progress.skipped, report.pruned), (4, 0));
    assert_eq!(collection.info().unwrap().items, 241);
}

#[test]
fn metadata_is_kept_updated_and_survives_a_run_without_it() {
    let place = Place::new();
    let collection = place.collection();
    let mut request = place.request();
    request.metadata = Metadata::read(&place.picture("captions.csv")).unwrap();
    place.index(&collection, &request);
    let caption = || {
        let id = collection.resolve_item("1f34e.png").unwrap();
        let items = collection.list(&ListRequest::default()).unwrap();
        items.into_iter().find(|stored| stored.item.id == id).unwrap().item.metadata["en"].clone()
    };
    assert_eq!(caption(), "red apple");
    place.index(&collection, &place.request());
    assert_eq!(caption(), "red apple");
    let path = place.dir.path().join("new.jsonl");
    std::fs::write(&path, "{\"file\": \"1f34e.png\", \"en\": \"Braeburn\"}").unwrap();
    request.metadata = Metadata::read(&path).unwrap();
    assert_eq!(counts(&place.index(&collection, &request)), (0, 0, 240, 0, 0));
    assert_eq!(caption(), "Braeburn");
}

#[test]
fn cancelling_keeps_what_is_done_and_a_second_run_finishes() {
    let place = Place::new();
    let collection = place.collection();
    let cancel = CancelToken::new();
    let events = {
        let cancel = cancel.clone();
        Events::to(move |progress| {
            if progress.done > 0 {
                cancel.cancel();
            }
        })
    };
    let mut request = place.request();
    request.batch_size = 4;
    let report = ingest::run(&collection, &place.model, &request, &events, &cancel).unwrap();
    assert!(report.cancelled);
    let kept = collection.info().unwrap().items as usize;
    assert!(kept >= report.progress.embedded, "{kept} kept, {} embedded", report.progress.embedded);
    let report = place.index(&collection, &place.request());
    assert_eq!((report.progress.unchanged, report.progress.embedded), (kept, 240 - kept));
    assert_eq!(collection.info().unwrap().items, 240);
}

#[test]
fn another_space_is_refused_by_name() {
    let place = Place::new();
    let collection = place.collection();
    place.index(&collection, &Request::new(vec![place.picture("1f34e.png")]));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf-clip/modern-gelu");
    let options = LoadOptions { cache_dir: Some(place.dir.path().join("cache")), ..LoadOptions::default() };
    let other = load(golden.to_str().unwrap(), &options).unwrap();
    let request = place.request();
    let error = ingest::run(&collection, &other, &request, &Events::none(), &CancelToken::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
    assert!(error.to_string().contains("mini") && error.to_string().contains("modern-gelu"), "{error}");
    let error = collection.search(other.as_ref(), &Query::text("x"), &SearchOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SpaceMismatch);
}

#[test]
fn a_collection_remembers_where_its_model_is() {
    let place = Place::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/hf-clip/modern-gelu");
    // A detour, so that the name isn't the canonical path.
    let detour = golden.join("../modern-gelu");
    let options = LoadOptions { cache_dir: Some(place.dir.path().join("cache")), ..LoadOptions::default() };
    let model = load(detour.to_str().unwrap(), &options).unwrap();
    let collection = place.collection();
    collection.adopt(model.as_ref()).unwrap();
    let remembered = collection.model_name().unwrap().unwrap();
    assert_eq!(remembered, golden.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(load(&remembered, &options).unwrap().space().unwrap(), model.space().unwrap());
}

#[test]
fn queries_by_words_pictures_and_items() {
    let place = Place::new();
    let collection = place.collection();
    place.index(&collection, &place.request());
    let model = place.model.as_ref();
    let dog = place.picture("1f436.png");
    let by_picture =
        collection.search(model, &Query::image(std::fs::read(&dog).unwrap()), &SearchOptions::default()).unwrap();
    assert_eq!(by_picture[0].hit.item.id, dog.to_str().unwrap());
    assert!((by_picture[0].hit.score - 1.0).abs() < 1e-5);
    let like = collection.search(model, &Query::like(dog.to_str().unwrap()), &SearchOptions::default()).unwrap();
    assert_eq!(like.len(), 10);
    assert_eq!(like[0].hit.item.id, by_picture[1].hit.item.id);
    let error = collection.search(model, &Query::text("  "), &SearchOptions::default()).unwrap_err();
    assert!(error.to_string().contains("the query is empty"), "{error}");
    let error = collection.search(model, &Query::like("nothing"), &SearchOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let best = SearchOptions { min_score: Some(0.99), ..SearchOptions::default() };
    assert!(collection.search(model, &Query::text("red apple"), &best).unwrap().is_empty());
}

#[test]
fn classification_and_similarity_agree_with_embeddings() {
    let place = Place::new();
    let model = place.model.as_ref();
    let picture = read_input(&place.picture("1f34e.png")).unwrap();
    let words = ["red apple", "lemon", "dog face"];
    let texts: Vec<Input> = words.iter().map(|word| Input::text(*word)).collect();
    let compared = similarity(model, std::slice::from_ref(&picture), &texts).unwrap();
    let probabilities = compared.probabilities.unwrap().remove(0);
    assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    let labels: Vec<String> = words.iter().map(|word| word.to_string()).collect();
    let embedding = model.embed(std::slice::from_ref(&picture)).unwrap().remove(0);
    let predictions = Classifier::new(model, &labels, &[]).unwrap().classify(&embedding);
    assert_eq!(predictions[0].label, "red apple");
    assert!((predictions[0].probability - probabilities[0]).abs() < 1e-5);
    let templates = ["a photo of a {}".to_string(), "{}".to_string()];
    assert_eq!(Classifier::new(model, &labels, &templates).unwrap().classify(&embedding).len(), 3);
    for (labels, templates, expected) in [
        (vec![], vec![], "no labels"),
        (vec!["a".to_string(), " ".to_string()], vec![], "empty"),
        (vec!["a".to_string(), "a".to_string()], vec![], "given twice"),
        (vec!["a".to_string()], vec!["no place".to_string()], "{}"),
    ] {
        let error = Classifier::new(model, &labels, &templates).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn embedding_one_by_one_keeps_order_and_survives_bad_inputs() {
    let place = Place::new();
    let inputs = vec![
        Ok(Input::text("dog")),
        read_input(&place.picture("missing.png")),
        Ok(Input::image(b"no picture at all".to_vec())),
        read_input(&place.picture("1f34e.png")),
    ];
    let mut seen = Vec::new();
    let each = |place, result: crossmodal_engine::Result<_>| {
        seen.push((place, result.is_ok()));
        Ok(())
    };
    embed_each(place.model.as_ref(), inputs, 2, &CancelToken::new(), each).unwrap();
    assert_eq!(seen, [(0, true), (1, false), (2, false), (3, true)]);
}

#[cfg(unix)]
#[test]
fn pruning_forgets_only_what_is_surely_gone() {
    let place = Place::new();
    let (root, away) = (place.dir.path().join("root"), place.dir.path().join("disk"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&away).unwrap();
    std::fs::copy(place.picture("1f34e.png"), away.join("apple.png")).unwrap();
    std::fs::copy(place.picture("1f436.png"), root.join("dog.png")).unwrap();
    std::fs::copy(place.picture("1f34b.png"), root.join("lemon.png")).unwrap();
    std::os::unix::fs::symlink(&away, root.join("link")).unwrap();
    let collection = place.collection();
    let mut request = Request::new(vec![root.clone()]);
    request.prune = true;
    assert_eq!(counts(&place.index(&collection, &request)), (3, 0, 0, 0, 0));
    // The disk behind the link is unmounted, a file is deleted.
    std::fs::rename(&away, place.dir.path().join("unmounted")).unwrap();
    std::fs::remove_file(root.join("dog.png")).unwrap();
    let report = place.index(&collection, &request);
    assert_eq!((report.pruned, report.skipped.len()), (1, 1), "{:?}", report.skipped);
    assert_eq!(collection.info().unwrap().items, 2);
    // The link itself is deleted: now what it led to is gone.
    std::fs::remove_file(root.join("link")).unwrap();
    assert_eq!(place.index(&collection, &request).pruned, 1);
}

#[cfg(unix)]
#[test]
fn names_that_look_alike_as_text_are_different_items() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let folder = place.dir.path().join("odd");
    std::fs::create_dir(&folder).unwrap();
    for name in [&b"caf\xe9.png"[..], b"caf\\xE9.png", b"caf\\x5CxE9.png"] {
        let name = std::ffi::OsString::from_vec(name.to_vec());
        std::fs::copy(place.picture("1f34e.png"), folder.join(name)).unwrap();
    }
    let collection = place.collection();
    place.index(&collection, &Request::new(vec![folder.clone()]));
    assert_eq!(collection.info().unwrap().items, 3);
    assert_eq!(place.index(&collection, &Request::new(vec![folder])).progress.unchanged, 3);
}

#[test]
fn the_end_of_an_id_names_an_item_letter_for_letter() {
    let place = Place::new();
    let collection = place.collection();
    let folder = place.dir.path().join("named");
    std::fs::create_dir(&folder).unwrap();
    for name in ["a_b.png", "axb.png", "A_B.png", "100%.png"] {
        std::fs::copy(place.picture("1f34e.png"), folder.join(name)).unwrap();
    }
    place.index(&collection, &Request::new(vec![folder]));
    for name in ["a_b.png", "axb.png", "A_B.png", "100%.png", "named/a_b.png"] {
        let id = collection.resolve_item(name).unwrap();
        assert!(id.ends_with(&format!("/{name}")), "{name} is not {id}");
    }
    for name in ["_.png", "%", "a%b.png", "b.png", r"a\_b.png"] {
        assert!(collection.resolve_item(name).unwrap_err().to_string().contains("no item"), "{name}");
    }
}

#[test]
fn other_fields_survive_until_the_content_changes() {
    use crossmodal_store::{Field, Metric, SpaceRef, VectorRecord, VectorStore};
    let place = Place::new();
    let collection = place.collection();
    let path = place.picture("1f34e.png");
    let request = Request::new(vec![path.clone()]);
    place.index(&collection, &request);
    let id = collection.resolve_item("1f34e.png").unwrap();
    let space = SpaceRef { id: "0".repeat(32), model: "other".into() };
    let store = collection.store();
    let field = Field { name: "second".into(), space: space.clone(), dimension: 2, metric: Metric::Cosine };
    store.ensure_field(&field).unwrap();
    let second = VectorRecord {
        field: "second".into(),
        space,
        part: 0,
        modality: "image".into(),
        span: None,
        precision: "fp32".into(),
        cache_key: None,
        vector: vec![0.6, 0.8],
    };
    store.put_vectors(&[(id.clone(), vec![second])]).unwrap();
    let fields = || store.vectors(&id).unwrap().into_iter().map(|vector| vector.field).collect::<Vec<_>>();
    // Other preprocessing means another vector of the same content.
    let options = LoadOptions {
        prep: crossmodal_engine::media::PrepOverrides {
            pass_order: Some(crossmodal_engine::media::PassOrder::Pillow12),
            ..Default::default()
        },
        ..LoadOptions::default()
    };
    let other_rules = load("mini", &options).unwrap();
    let report = ingest::run(&collection, &other_rules, &request, &Events::none(), &CancelToken::new()).unwrap();
    assert_eq!(report.progress.embedded, 1);
    assert_eq!(fields(), ["default", "second"]);
    std::fs::copy(place.picture("1f436.png"), &path).unwrap();
    place.index(&collection, &request);
    assert_eq!(fields(), ["default"]);
    assert!(collection.verify().unwrap().is_clean());
}

#[test]
fn metadata_about_files_that_are_not_there_is_reported() {
    let place = Place::new();
    let path = place.dir.path().join("m.csv");
    std::fs::write(&path, "file,caption\n1f34e.png,apple\nnope.png,nothing\n").unwrap();
    let mut request = Request::new(vec![place.picture("1f34e.png")]);
    request.metadata = Metadata::read(&path).unwrap();
    assert_eq!(place.index(&place.collection(), &request).unmatched_metadata, ["nope.png"]);
}
