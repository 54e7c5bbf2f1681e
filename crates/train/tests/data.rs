//! Data sets to batches: the same whatever the threads, from any position, with what can't be read left out.

mod support;

use std::path::Path;
use std::sync::Arc;

use crossmodal_train::data::augment::{
    Affine, Augmentation, Background, Blur, ColourJitter, Erase, FlatFill, LineArt, Noise, RandomResizedCrop,
};
use crossmodal_train::data::{CaptionChoice, Columns, DataSet, Distinct, Inputs, Loader, LoaderOptions};
use crossmodal_train::{Batch, BatchSource, Position, Side};
use support::{archive, drawings, folder, mini, open};

/// Everything in a batch.
type Content = (Vec<String>, Vec<Vec<u32>>, Vec<Vec<u32>>, Vec<Vec<u32>>, Vec<u64>, Vec<u64>, Option<Vec<u32>>, usize);

fn side(side: &Side) -> Vec<Vec<u32>> {
    match side {
        Side::Pictures(pictures) => {
            pictures.iter().map(|picture| picture.data.iter().map(|value| u32::from(*value)).collect()).collect()
        }
        Side::Pixels(_) => panic!("pictures are normalised by the model"),
        Side::Tokens(texts) => texts.clone(),
    }
}

fn content(batch: &Batch) -> Content {
    let negatives = batch.negatives.as_ref().map(side).unwrap_or_default();
    let (keys, left, right) = (batch.keys.clone(), side(&batch.left), side(&batch.right));
    let contents = (batch.left_content.clone(), batch.right_content.clone());
    (keys, left, right, negatives, contents.0, contents.1, batch.concepts.clone(), batch.skipped.len())
}

/// The batches of so many passes, `None` at the end of each.
fn passes(loader: &mut Loader, count: usize) -> Vec<Option<Content>> {
    let mut found = Vec::new();
    let mut ended = 0;
    while ended < count {
        let batch = loader.next_batch().unwrap();
        ended += usize::from(batch.is_none());
        found.push(batch.as_ref().map(content));
    }
    found
}

fn strong() -> Augmentation {
    Augmentation {
        crop: Some(RandomResizedCrop { scale: (0.6, 1.0), ..RandomResizedCrop::default() }),
        mirror: 0.5,
        affine: Some(Affine { probability: 0.8, rotate: 20.0, shift: 0.1, shear: 10.0, zoom: (0.8, 1.2) }),
        line_art: Some(LineArt { probability: 0.1, ..LineArt::default() }),
        background: Some(Background::default()),
        flat_fill: Some(FlatFill { probability: 0.2, ..FlatFill::default() }),
        colour: Some(ColourJitter { probability: 0.8, brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1 }),
        grey: 0.1,
        blur: Some(Blur { probability: 0.3, ..Blur::default() }),
        noise: Some(Noise { probability: 0.3, ..Noise::default() }),
        erase: Some(Erase { probability: 0.2, ..Erase::default() }),
        ..Augmentation::default()
    }
}

fn options(workers: usize) -> LoaderOptions {
    LoaderOptions {
        batch_size: 7,
        seed: 11,
        workers,
        templates: vec!["{}".into(), "a picture of {}".into()],
        augmentation: Some(strong()),
        hard_negatives: true,
        shuffle_buffer: 10,
        ..LoaderOptions::default()
    }
}

/// The same drawings as a table, as shards and as files with captions; one of them is broken.
fn forms() -> (tempfile::TempDir, [DataSet; 3]) {
    let drawings = drawings(40);
    let mut files = Vec::new();
    let mut rows = String::from("image,caption,concept\n");
    let mut shards = vec![Vec::new(); 3];
    for (number, drawing) in drawings.into_iter().enumerate() {
        let bytes = if number == 5 { b"broken".to_vec() } else { drawing.bytes };
        for caption in &drawing.captions {
            rows.push_str(&format!("../beside/{},{caption:?},c{}\n", drawing.name, number / 2));
        }
        let stem = drawing.name.trim_end_matches(".png").to_owned();
        let text = drawing.captions.join("\n").into_bytes();
        shards[number % 3].extend([(format!("{stem}.png"), bytes.clone()), (format!("{stem}.txt"), text.clone())]);
        files.extend([(format!("beside/{stem}.png"), bytes), (format!("beside/{stem}.txt"), text)]);
    }
    files.push(("table/pairs.csv".into(), rows.into_bytes()));
    files.extend(shards.iter().enumerate().map(|(number, members)| (format!("shards/{number}.tar"), archive(members))));
    let folder = folder(&files);
    let data = ["table", "shards", "beside"].map(|name| open(&folder.path().join(name)));
    (folder, data)
}

#[test]
fn threads_change_nothing() {
    let ((_folder, forms), inputs) = (forms(), Inputs::of(&mini()));
    for data in &forms {
        let with = |workers: usize| {
            let options = LoaderOptions { prefetch: workers, length_window: 2, ..options(workers) };
            passes(&mut Loader::new(data, inputs.clone(), &options).unwrap(), 2)
        };
        let one = with(1);
        assert_eq!(one.len(), 12, "{}", data.kind());
        assert_ne!(one[..6], one[6..], "{}: both passes are the same", data.kind());
        for workers in [2, 5] {
            assert!(with(workers) == one, "{} with {workers} threads", data.kind());
        }
        let other = LoaderOptions { seed: 12, ..options(2) };
        assert!(passes(&mut Loader::new(data, inputs.clone(), &other).unwrap(), 2) != one);
    }
}

#[test]
fn every_position_can_be_gone_to() {
    let ((_folder, forms), inputs) = (forms(), Inputs::of(&mini()));
    for data in &forms {
        let mut loader = Loader::new(data, inputs.clone(), &options(2)).unwrap();
        let (mut positions, mut whole) = (vec![loader.position()], Vec::new());
        while positions.len() < 14 {
            whole.push(loader.next_batch().unwrap().as_ref().map(content));
            positions.push(loader.position());
        }
        assert_eq!((positions[5], positions[6]), (Position { epoch: 0, batch: 5 }, Position { epoch: 1, batch: 0 }));
        // Forwards and backwards, by the same loader and by a new one.
        for start in [9, 0, 5, 6, 12, 3] {
            for is_new in [false, true] {
                if is_new {
                    loader = Loader::new(data, inputs.clone(), &options(3)).unwrap();
                }
                loader.seek(positions[start]).unwrap();
                assert_eq!(loader.position(), positions[start]);
                let rest: Vec<_> = (start..13).map(|_| loader.next_batch().unwrap().as_ref().map(content)).collect();
                let expected: Vec<_> = whole[start..].to_vec();
                // What was skipped before a position was told before it.
                let plain = |batches: &[Option<Content>]| {
                    let mut batches = batches.to_vec();
                    if let Some(Some(first)) = batches.first_mut() {
                        first.7 = 0;
                    }
                    batches
                };
                assert!(plain(&rest) == plain(&expected), "{} from {:?}", data.kind(), positions[start]);
            }
        }
        let error = loader.seek(Position { epoch: 0, batch: 7 }).unwrap_err().to_string();
        assert!(error.contains("pass 0 has 5 batches, can't go on after batch 7"), "{error}");
    }
}

#[test]
fn what_cannot_be_read_is_skipped_and_told() {
    let ((_folder, [table, shards, _]), inputs) = (forms(), Inputs::of(&mini()));
    for data in [table, shards] {
        let options = LoaderOptions { keep_last: true, ..options(2) };
        let mut loader = Loader::new(&data, inputs.clone(), &options).unwrap();
        let (mut samples, mut skipped, mut sizes) = (0, Vec::new(), Vec::new());
        while let Some(batch) = loader.next_batch().unwrap() {
            samples += batch.keys.len();
            sizes.push(batch.keys.len());
            assert_eq!((batch.left.len(), batch.right.len()), (batch.keys.len(), batch.keys.len()));
            skipped.extend(batch.skipped);
        }
        sizes.sort_unstable();
        assert!(samples == 39 && sizes[0] >= 4 && sizes[1] >= 5, "{sizes:?}");
        assert_eq!(skipped.len(), 1, "{skipped:?}");
        assert!(skipped[0].1.contains("not a picture in a known format"), "{skipped:?}");
        assert_eq!(loader.batches_per_epoch(), Some(6));
    }
}

#[test]
fn equal_contents_are_marked() {
    let drawings = drawings(3);
    let mut files: Vec<(String, Vec<u8>)> =
        drawings.iter().map(|drawing| (drawing.name.clone(), drawing.bytes.clone())).collect();
    files.push(("copy.png".into(), drawings[0].bytes.clone()));
    let [a, b, c] = [0, 1, 2].map(|place| &drawings[place].name);
    let rows = format!("image,caption\n{a},Red Apple\n{b},red apple\n{c},dog face\ncopy.png,cat\n");
    files.push(("pairs.csv".into(), rows.into_bytes()));
    let folder = folder(&files);
    let options = LoaderOptions { shuffle: false, ..LoaderOptions::default() };
    let mut loader = Loader::new(&open(folder.path()), Inputs::of(&mini()), &options).unwrap();
    let Batch { left_content: left, right_content: right, .. } = loader.next_batch().unwrap().unwrap();
    assert!(left[0] == left[3] && left[0] != left[1] && left[1] != left[2]);
    // mini's tokenizer doesn't see the case.
    assert!(right[0] == right[1] && right[1] != right[2] && right[2] != right[3]);
}

#[test]
fn pictures_without_augmentation_are_the_models_own() {
    let ((_folder, [table, ..]), model) = (forms(), mini());
    let options = LoaderOptions { shuffle: false, batch_size: 4, ..LoaderOptions::default() };
    let batch = Loader::new(&table, Inputs::of(&model), &options).unwrap().next_batch().unwrap().unwrap();
    let Side::Pictures(pictures) = &batch.left else { panic!("expected pictures") };
    let Side::Tokens(texts) = &batch.right else { panic!("expected tokens") };
    for ((picture, tokens), record) in pictures.iter().zip(texts).zip(table.records().unwrap()) {
        let own = model.prep().tensor(&record.left.read().unwrap()).unwrap();
        assert_eq!(model.prep().normalise(picture), own);
        let captions = record.right.iter().map(|right| right.location.text().unwrap());
        let known: Vec<Vec<u32>> = captions.map(|text| model.tokenizer().encode(text).unwrap().ids).collect();
        assert!(known.contains(tokens));
    }
    assert_eq!(batch.concepts, Some(vec![0, 0, 1, 1]));
    assert!(batch.negatives.is_none());
}

#[test]
fn hard_negatives_have_the_same_words() {
    let ((_folder, [table, ..]), inputs) = (forms(), Inputs::of(&mini()));
    let options = LoaderOptions { hard_negatives: true, batch_size: 40, ..LoaderOptions::default() };
    let batch = Loader::new(&table, inputs, &options).unwrap().next_batch().unwrap().unwrap();
    let (Side::Tokens(texts), Some(Side::Tokens(negatives))) = (&batch.right, &batch.negatives) else {
        panic!("expected tokens")
    };
    assert_eq!(texts.len(), negatives.len());
    let others = texts.iter().zip(negatives).filter(|(text, negative)| text != negative).count();
    assert!(others > 20, "{others}");
}

#[test]
fn concepts_differ_within_a_batch_where_asked() {
    let ((_folder, [table, ..]), inputs) = (forms(), Inputs::of(&mini()));
    let options = LoaderOptions {
        distinct: Distinct::Concept,
        captions: CaptionChoice::Every,
        batch_size: 15,
        ..LoaderOptions::default()
    };
    let mut loader = Loader::new(&table, inputs, &options).unwrap();
    let expected = loader.batches_per_epoch();
    let mut count = 0;
    while let Some(batch) = loader.next_batch().unwrap() {
        let mut concepts = batch.concepts.unwrap();
        let size = concepts.len();
        concepts.sort_unstable();
        concepts.dedup();
        assert_eq!(concepts.len(), size);
        count += 1;
    }
    assert_eq!(expected, Some(count));
    assert!(count >= 4);
}

#[test]
fn sides_that_the_model_does_not_take_are_refused() {
    let folder = folder(&[("pairs.csv".into(), b"audio,caption\na.wav,a dog barks\n".to_vec())]);
    let error = Loader::new(&open(folder.path()), Inputs::of(&mini()), &LoaderOptions::default()).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("the left side is audio, but mini takes text and image"), "{error}");
}

#[test]
fn texts_pair_with_texts() {
    let rows = b"query\tdocument\nred apple\tpomme rouge\ndog face\tchien\n".to_vec();
    let folder = folder(&[("pairs.tsv".into(), rows)]);
    let mut loader = Loader::new(&open(folder.path()), Inputs::of(&mini()), &LoaderOptions::default()).unwrap();
    let batch = loader.next_batch().unwrap().unwrap();
    assert!(
        matches!((&batch.left, &batch.right), (Side::Tokens(left), Side::Tokens(right)) if left.len() == 2 && right.len() == 2)
    );
}

#[test]
fn data_of_which_nothing_can_be_read_is_an_error() {
    let folder = folder(&[("pairs.csv".into(), b"image,caption\na.png,red\nb.png,blue\n".to_vec())]);
    let mut loader = Loader::new(&open(folder.path()), Inputs::of(&mini()), &LoaderOptions::default()).unwrap();
    let error = loader.next_batch().unwrap_err().to_string();
    assert!(error.contains("no sample of the whole pass could be read; ") && error.contains(".png"), "{error}");
}

#[test]
fn files_of_img2dataset_are_read_with_their_table() {
    let drawings = drawings(2);
    let table = parquet(&[
        ("000000000", Some("red apple"), "success"),
        ("000000001", Some("gone"), "failed_to_download"),
        ("000000002", Some("dog face"), "success"),
        ("000000003", None, "success"),
        ("000000004", Some("no file"), "success"),
    ]);
    let mut files = vec![("00000.parquet".to_owned(), table)];
    for (key, drawing) in ["000000000", "000000002", "000000003"].iter().zip(drawings.iter().cycle()) {
        files.push((format!("00000/{key}.png"), drawing.bytes.clone()));
    }
    let folder = folder(&files);
    let data = open(folder.path());
    assert_eq!((data.kind(), data.items()), ("img2dataset", Some(2)));
    let reasons: Vec<&str> = data.skipped().listed().iter().map(|(_, reason)| reason.as_str()).collect();
    assert!(reasons[0] == "failed_to_download: no reason given" && reasons[1].contains("no picture"), "{reasons:?}");
    assert_eq!(reasons[2], "nothing is said about it");
    let options = LoaderOptions { shuffle: false, ..LoaderOptions::default() };
    let mut loader = Loader::new(&data, Inputs::of(&mini()), &options).unwrap();
    assert_eq!(loader.next_batch().unwrap().unwrap().keys, ["00000/000000000.png", "00000/000000002.png"]);
    // As a plain table it needs a column of paths.
    let path = folder.path().join("00000.parquet");
    let error = DataSet::open(path.to_str().unwrap(), &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("the table has key, caption, status"), "{error}");
}

/// A Parquet table with the columns that matter of img2dataset's.
fn parquet(rows: &[(&str, Option<&str>, &str)]) -> Vec<u8> {
    use parquet::basic::{LogicalType, Repetition, Type as Physical};
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::{properties::WriterProperties, writer::SerializedFileWriter};
    use parquet::schema::types::Type;
    let column = |name: &str| {
        let kind = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
        let kind = kind.with_logical_type(Some(LogicalType::String)).with_repetition(Repetition::OPTIONAL);
        Arc::new(kind.build().unwrap())
    };
    let fields = ["key", "caption", "status"].map(column).to_vec();
    let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let columns: [Vec<Option<&str>>; 3] = [
        rows.iter().map(|row| Some(row.0)).collect(),
        rows.iter().map(|row| row.1).collect(),
        rows.iter().map(|row| Some(row.2)).collect(),
    ];
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        let values: Vec<ByteArray> = values.into_iter().flatten().map(ByteArray::from).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn relative_paths_start_at_the_table() {
    let (folder, [table, ..]) = forms();
    assert!(table.records().unwrap()[0].left.read().is_ok());
    assert!(!Path::new("beside").exists() && folder.path().join("beside").exists());
}
