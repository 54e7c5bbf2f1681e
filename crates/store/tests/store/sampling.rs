//! Samples of a field: spread evenly, the same every time, living and undamaged vectors only.

use crossmodal_store::{ErrorKind, Metric, VectorStore};

use crate::sample::{entries, field, open_read, open_write, strings};

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
    assert_eq!(open_read(folder.path()).sample("f", 10).unwrap().len(), 9);
}
