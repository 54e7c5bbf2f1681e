//! Thumbnails of real items: kept within a budget, made once for all who ask, and refused in words where a file isn't what it was.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};

use crossmodal_engine::media::{ImageFormat, dimensions, sniff, thumbnail};
use crossmodal_engine::thumbnails::{MOST_SIDE, Thumbnails};
use crossmodal_engine::{
    CancelToken, Collection, Error, ErrorKind, Item, LoadOptions, Mode, Source, demo, files, ingest,
};
use crossmodal_store::{ListRequest, VectorStore};

/// The gallery, indexed.
struct Place {
    _folder: tempfile::TempDir,
    items: Vec<Item>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("pictures");
        demo::unpack(&pictures).unwrap();
        std::fs::copy(pictures.join("1f34e.png"), pictures.join("copy.png")).unwrap();
        let collection = Collection::open(&folder.path().join("collection"), &Mode::write()).unwrap();
        let model = crossmodal_engine::load("mini", &LoadOptions::default()).unwrap();
        let request = ingest::Request::new(vec![pictures]);
        ingest::run(&collection, &model, &request, &ingest::Events::none(), &CancelToken::new()).unwrap();
        let stored = collection.store().list(&ListRequest::default()).unwrap();
        let mut items: Vec<Item> = stored.into_iter().map(|stored| stored.item).collect();
        items.sort_by(|a, b| a.id.cmp(&b.id));
        Self { _folder: folder, items }
    }

    fn item(&self, name: &str) -> &Item {
        self.items.iter().find(|item| item.id.ends_with(name)).unwrap()
    }
}

fn file_of(item: &Item) -> PathBuf {
    files::path(&item.source.as_ref().unwrap().uri)
}

/// An item that says no more than where its file is.
fn bare(path: &Path) -> Item {
    let mut item = Item::new("bare", "image");
    item.source = Some(Source { uri: files::uri(path), size: None, modified_ns: None });
    item
}

/// A JPEG of waves, photo-like in size.
fn large_jpeg(width: u32, height: u32) -> Vec<u8> {
    let header = [14 + 40, 40, width, height, 1 | 24 << 16, 0, width * height * 3, 0, 0, 0, 0];
    let mut bitmap = b"BM\0\0\0\0\0\0\0\0".to_vec();
    bitmap.extend(header.iter().flat_map(|number: &u32| number.to_le_bytes()));
    for y in 0..height {
        let down = (f64::from(y) / 37.0).sin() * 60.0;
        bitmap.extend((0..width).flat_map(|x| [x / 16, x / 5 + y / 3, down as u32 + 90].map(|value| value as u8)));
    }
    thumbnail(&bitmap, width.max(height)).unwrap()
}

#[test]
fn every_item_has_one_that_is_kept() {
    let place = Place::new();
    let thumbnails = Thumbnails::default();
    for item in &place.items {
        let jpeg = thumbnails.thumbnail(item, 40).unwrap();
        assert_eq!(sniff(&jpeg), Some(ImageFormat::Jpeg));
        let (width, height) = dimensions(&jpeg).unwrap();
        assert_eq!(width.max(height), 40);
        assert_eq!(*jpeg, *thumbnail(&std::fs::read(file_of(item)).unwrap(), 40).unwrap());
        assert!(Arc::ptr_eq(&jpeg, &thumbnails.thumbnail(item, 40).unwrap()));
    }
    // Two files with one content have one thumbnail; another size is another one.
    assert_eq!((place.items.len(), thumbnails.statistics().kept, thumbnails.statistics().made), (241, 240, 240));
    thumbnails.thumbnail(place.item("/copy.png"), 41).unwrap();
    assert_eq!(thumbnails.statistics().made, 241);
}

#[test]
fn the_least_recently_used_go_first_and_memory_is_bounded() {
    let place = Place::new();
    let one = Thumbnails::default();
    one.thumbnail(&place.items[0], 64).unwrap();
    let budget = one.statistics().bytes * 10;
    let thumbnails = Thumbnails::new(budget);
    let favourite = thumbnails.thumbnail(&place.items[0], 64).unwrap();
    for item in &place.items {
        thumbnails.thumbnail(item, 64).unwrap();
        assert!(Arc::ptr_eq(&favourite, &thumbnails.thumbnail(&place.items[0], 64).unwrap()), "{}", item.id);
        assert!(thumbnails.statistics().bytes <= budget);
    }
    let before = thumbnails.statistics();
    assert!((3..60).contains(&before.kept), "{before:?}");
    thumbnails.thumbnail(&place.items[240], 64).unwrap();
    assert_eq!(thumbnails.statistics().made, before.made, "the last one is kept");
    thumbnails.thumbnail(&place.items[1], 64).unwrap();
    assert_eq!(thumbnails.statistics().made, before.made + 1, "the first ones had to go");
    let none = Thumbnails::new(0);
    (0..2).for_each(|_| drop(none.thumbnail(&place.items[0], 64).unwrap()));
    assert_eq!((none.statistics().kept, none.statistics().bytes, none.statistics().made), (0, 0, 2));
}

#[test]
fn those_who_ask_at_once_share_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.jpg");
    std::fs::write(&path, large_jpeg(4000, 3000)).unwrap();
    let broken = folder.path().join("broken.jpg");
    std::fs::write(&broken, &std::fs::read(&path).unwrap()[..5_000]).unwrap();
    let (thumbnails, together) = (Thumbnails::default(), Barrier::new(16));
    let (sound, broken) = (bare(&path), bare(&broken));
    let ask = |number: usize| {
        together.wait();
        let failed = thumbnails.thumbnail(&broken, 200 + number as u32 % 3).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Damaged, "{failed}");
        thumbnails.thumbnail(&sound, 256).unwrap()
    };
    let all: Vec<Arc<[u8]>> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|number| scope.spawn(move || ask(number))).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|jpeg| Arc::ptr_eq(jpeg, &all[0])));
    assert_eq!((dimensions(&all[0]).unwrap(), thumbnails.statistics().made), ((256, 192), 1));
}

#[test]
fn missing_changed_and_damaged_files_are_told_apart() {
    let place = Place::new();
    let thumbnails = Thumbnails::default();
    let refused = |item: &Item| thumbnails.thumbnail(item, 50).unwrap_err();
    let (apple, lemon, dog) = (place.item("/1f34e.png"), place.item("/1f34b.png"), place.item("/1f436.png"));

    std::fs::remove_file(file_of(lemon)).unwrap();
    let error = refused(lemon);
    assert!(matches!(error, Error::NotFound(_)) && error.to_string().contains("1f34b.png"), "{error}");
    assert!(error.to_string().contains("doesn't exist any more"), "{error}");

    std::fs::copy(file_of(apple), file_of(dog)).unwrap();
    let error = refused(dog);
    assert!(matches!(error, Error::Changed { .. }) && error.kind() == ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("1f436.png has changed since it was indexed"), "{error}");

    let mut damaged = std::fs::read(file_of(apple)).unwrap();
    damaged.truncate(damaged.len() / 2);
    std::fs::write(file_of(lemon), damaged).unwrap();
    assert!(matches!(refused(lemon), Error::Changed { .. }));
    let error = refused(&bare(&file_of(lemon)));
    assert!(matches!(error, Error::Picture { .. }) && error.kind() == ErrorKind::Damaged, "{error}");
    assert!(error.to_string().contains("1f34b.png"), "{error}");

    std::fs::write(file_of(lemon), "sour").unwrap();
    assert_eq!(refused(&bare(&file_of(lemon))).kind(), ErrorKind::Unsupported);
    assert_eq!(refused(&bare(file_of(lemon).parent().unwrap())).kind(), ErrorKind::InvalidInput);
    assert_eq!(refused(&Item::new("a text without a file", "text")).kind(), ErrorKind::NotFound);
    for side in [0, MOST_SIDE + 1] {
        assert_eq!(thumbnails.thumbnail(apple, side).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    // What is kept outlives its file, and failures aren't remembered.
    let jpeg = thumbnails.thumbnail(apple, 50).unwrap();
    std::fs::copy(file_of(apple), file_of(lemon)).unwrap();
    assert_eq!(*thumbnails.thumbnail(&bare(&file_of(lemon)), 50).unwrap(), *jpeg);
    std::fs::remove_file(file_of(apple)).unwrap();
    assert!(Arc::ptr_eq(&jpeg, &thumbnails.thumbnail(apple, 50).unwrap()));
}

#[test]
fn a_file_without_a_hash_is_shown_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.jpg");
    let thumbnails = Thumbnails::default();
    let mut item = bare(&path);
    // The hash of an imported vector, which says nothing of the file.
    item.content_hash = Some([7; 32]);
    for size in [(300, 200), (200, 300), (320, 200)] {
        std::fs::write(&path, large_jpeg(size.0, size.1)).unwrap();
        let jpeg = thumbnails.thumbnail(&item, 400).unwrap();
        assert_eq!(dimensions(&jpeg).unwrap(), size, "small pictures aren't enlarged");
        assert!(Arc::ptr_eq(&jpeg, &thumbnails.thumbnail(&item, 400).unwrap()));
    }
    assert_eq!(thumbnails.statistics().made, 3);
}
