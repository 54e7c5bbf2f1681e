//! Samples of a field: spread evenly, the same every time, living and undamaged vectors only.

use crossmodal_store::{ErrorKind, Metric, VectorRecord, VectorStore};

use crate::sample::{entries, field, open_read, open_write, record, strings};

#[test]
fn samples_are_spread_over_what_lives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_write(folder.path());
    store.ensure_field(&field("f", 3, Metric::InnerProduct)).unwrap();
    assert!(store.sample("f", 10).unwrap().is_empty());
    let written = entries("f", 3, 0..100);
    store.upsert(&written).unwrap();
    let all = store.sample("f", 1000).unwrap();
    assert_eq!(all.len(), 100);
    assert!(all.iter().zip(&written).all(|(vector, item)| vector.vector == item.vectors[0].vector));
    assert_eq!((all[0].modality.as_str(), all[0].part, all[0].field.as_str()), ("image", 0, "f"));
    store.remove(&strings(&["item-0", "item-1", "item-2", "item-3"])).unwrap();
    let some = store.sample("f", 4).unwrap();
    let expected: Vec<_> = [4, 28, 52, 76].iter().map(|place| written[*place].vectors[0].vector.clone()).collect();
    assert_eq!(some.iter().map(|vector| vector.vector.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(open_read(folder.path()).sample("f", 4).unwrap(), some);
    assert!(store.sample("f", 0).unwrap().is_empty());
    assert_eq!(store.sample("g", 4).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn items_are_sampled_by_one_vector_each() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_write(folder.path());
    store.ensure_field(&field("f", 3, Metric::InnerProduct)).unwrap();
    store.ensure_field(&field("g", 3, Metric::InnerProduct)).unwrap();
    let mut written = entries("f", 3, 0..100);
    // Written in the other order, so that the row of the first part is the last one.
    let later = |part: u32| VectorRecord { part, ..record("f", vec![part as f32; 3]) };
    written[7].vectors = vec![later(2), later(1), VectorRecord { modality: "text".into(), ..later(0) }];
    written[9].vectors = vec![record("g", vec![1.0; 3])];
    store.upsert(&written).unwrap();
    store.remove(&strings(&["item-0", "item-1", "item-2", "item-3"])).unwrap();
    let snapshot = store.snapshot().unwrap();
    store.remove(&strings(&["item-50"])).unwrap();
    let all = snapshot.sample_items("f", 1000).unwrap();
    assert_eq!((all.items, all.vectors.len()), (95, 95));
    assert!(all.vectors.is_sorted_by(|a, b| a.item < b.item));
    assert_eq!((all.vectors[3].modality.as_str(), all.vectors[3].values), ("text", &[0.0; 3][..]));
    assert_eq!(all.vectors[4].values, written[8].vectors[0].vector);
    assert_eq!(all.vectors[5].values, written[10].vectors[0].vector);
    let some = snapshot.sample_items("f", 5).unwrap();
    let expected: Vec<_> = [0, 19, 38, 57, 76].iter().map(|place| all.vectors[*place].clone()).collect();
    assert_eq!((some.items, some.vectors), (95, expected));
    assert_eq!(store.snapshot().unwrap().sample_items("f", 1000).unwrap().items, 94);
    assert_eq!(snapshot.sample_items("h", 4).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn damaged_vectors_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open_write(folder.path());
        store.ensure_field(&field("f", 3, Metric::InnerProduct)).unwrap();
        store.upsert(&entries("f", 3, 0..10)).unwrap();
    }
    let file = std::fs::read_dir(folder.path().join("vectors")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 0x40;
    std::fs::write(&file, bytes).unwrap();
    let store = open_read(folder.path());
    assert_eq!(store.sample("f", 10).unwrap().len(), 9);
    let snapshot = store.snapshot().unwrap();
    let items = snapshot.sample_items("f", 10).unwrap();
    assert_eq!((items.items, items.vectors.len()), (10, 9));
}
