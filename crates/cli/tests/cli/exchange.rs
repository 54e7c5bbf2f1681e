//! `collection import`, `export`, `backup`, `duplicates` and `search --vectors`.

use crate::support::{Home, dot, numbers};

/// An `.npy` file of 32-bit floats.
fn npy(home: &Home, name: &str, rows: &[Vec<f32>]) {
    let columns = rows[0].len();
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {columns}), }}", rows.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&118u16.to_le_bytes());
    bytes.extend_from_slice(format!("{dictionary:<117}\n").as_bytes());
    rows.iter().flatten().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    std::fs::write(home.path(name), bytes).unwrap();
}

/// The data of an `.npy` file with a header of this length.
fn data(home: &Home, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(home.path(name)).unwrap();
    let header = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[10 + header..].to_vec()
}

fn rows(count: usize) -> Vec<Vec<f32>> {
    (0..count).map(|row| (0..5).map(|at| ((row * 13 + at * 7) % 23) as f32 - 11.0).collect()).collect()
}

#[test]
fn vectors_are_imported_and_searched_in_bulk() {
    let home = Home::new();
    let vectors = rows(40);
    npy(&home, "x.npy", &vectors);
    npy(&home, "q.npy", &rows(50)[40..]);
    let import = "collection import --vectors x.npy --metric inner_product --collection c";
    assert_eq!(home.run(&format!("{import} --json")).expect(0).json()["added"], 40);
    let again = home.run(import).expect(0).stdout;
    assert!(again.contains("unchanged") && again.contains("40"), "{again}");
    let info = home.run("collection info c --json").expect(0).json();
    assert_eq!((info["items"].as_u64(), info["fields"][0]["space"].as_str()), (Some(40), Some("external")));
    let run = home.run("search --vectors q.npy -k 3 --output r.npy --collection c --json --threads 1").expect(0).json();
    assert_eq!((run["queries"].as_u64(), run["k"].as_u64()), (Some(10), Some(3)));
    assert!(run["queries_per_second"].as_f64().unwrap() > 0.0);
    let ids: Vec<i64> = data(&home, "r.npy").chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    let scores: Vec<f32> =
        data(&home, "r.scores.npy").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!((ids.len(), scores.len()), (30, 30));
    for (query, (ids, scores)) in rows(50)[40..].iter().zip(ids.chunks(3).zip(scores.chunks(3))) {
        let score = |row: &Vec<f32>| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
        let mut best: Vec<f32> = vectors.iter().map(score).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(scores, &best[..3]);
        assert!(ids.iter().zip(scores).all(|(id, found)| score(&vectors[*id as usize]) == *found));
    }
    assert!(home.run("search --vectors q.npy -k 3 --collection c").expect(0).stdout.contains("queries/s"));
    npy(&home, "w.npy", &[vec![1.0; 3]]);
    let wrong = home.run("search --vectors w.npy --collection c").expect(1).stderr;
    assert!(wrong.contains("w.npy") && wrong.contains("3 dimensions, the collection's have 5"), "{wrong}");
    let other = home.run("collection import --vectors w.npy --metric inner_product --collection c").expect(1).stderr;
    assert!(other.contains("dimension 5, not 3"), "{other}");
    home.run("collection import --vectors none.npy --collection new").expect(1);
    assert!(!home.path("new").exists());
}

#[test]
fn bad_rows_are_named_and_strict_imports_nothing() {
    let home = Home::new();
    let mut vectors = rows(4);
    vectors[2][1] = f32::NAN;
    npy(&home, "x.npy", &vectors);
    let run = home.run("collection import --vectors x.npy --collection c").expect(0).stdout;
    assert!(run.contains("Skipped:") && run.contains("row 2 (id 2) has NaN at position 1"), "{run}");
    let strict = home.run("collection import --vectors x.npy --strict --collection s").expect(1).stderr;
    assert!(strict.contains("row 2") && strict.contains("nothing was imported"), "{strict}");
    assert_eq!(home.run("collection info s --json").expect(0).json()["items"], 0);
}

#[test]
fn exports_and_backups_answer_as_the_original_does() {
    let home = Home::new();
    home.drawings("pics", &["1f34e.png", "1f34b.png", "1f436.png", "1f34c.png"]);
    home.run("index pics --collection c -q").expect(0);
    home.run("collection export e --collection c").expect(0);
    let refused = home.run("collection export e --collection c").expect(1).stderr;
    assert!(refused.contains("--force"), "{refused}");
    home.run("collection export e --collection c --force").expect(0);
    home.run("collection export clip --format clip-retrieval --collection c").expect(0);
    assert_eq!(home.run("collection import e --collection copy --json").expect(0).json()["items"], 4);
    assert_eq!(home.run("collection backup b --collection c --json").expect(0).json()["vectors"], 4);
    home.run("collection backup b --collection c").expect(1);
    let hits =
        |collection: &str| home.run(&format!("search red apple --collection {collection} --json")).expect(0).json();
    let original = hits("c");
    for copy in ["copy", "b"] {
        assert_eq!(hits(copy)["hits"], original["hits"]);
        home.run(&format!("collection verify {copy}")).expect(0);
        // Nothing is to be embedded again.
        let again = home.run(&format!("index pics --collection {copy} --json -q")).expect(0).json();
        assert_eq!((again["unchanged"].as_u64(), again["embedded"].as_u64()), (Some(4), Some(0)));
    }
    let mixed = home.run("collection import clip --collection c").expect(1).stderr;
    assert!(mixed.contains("a collection of their own"), "{mixed}");
    assert_eq!(home.run("collection import clip --collection k --json").expect(0).json()["added"], 4);
    home.run("collection import pics --collection n").expect(1);
    assert!(!home.path("n").exists());
}

#[test]
fn duplicates_are_grouped() {
    let home = Home::new();
    home.drawings("pics", &["1f34e.png", "1f436.png", "1f680.png"]);
    std::fs::copy(home.path("pics/1f436.png"), home.path("pics/copy.png")).unwrap();
    home.run("index pics --collection c -q").expect(0);
    let found = home.run("collection duplicates c --json").expect(0).json();
    assert_eq!((found["items"].as_u64(), found["surplus"].as_u64()), (Some(4), Some(1)));
    let items = found["groups"][0]["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["exact"] == true) && items.len() == 2, "{found}");
    assert_eq!((items[0]["keep"].as_bool(), items[1]["keep"].as_bool()), (Some(true), Some(false)));
    let text = home.run("collection duplicates c").expect(0).stdout;
    assert!(text.contains("copy.png") && text.contains("keep") && text.contains("same"), "{text}");
    let all = home.run("collection duplicates c --threshold 0 --json").expect(0).json();
    let cosines =
        |collection: &str| home.run(&format!("search --like 1f34e.png --collection {collection} --json")).expect(0);
    assert!(cosines("c").json()["hits"].as_array().unwrap().len() == 3);
    assert!(all["groups"][0]["size"].as_u64().unwrap() >= 2);
}

#[test]
fn embeddings_written_by_embed_can_be_imported() {
    let home = Home::new();
    home.run_arguments(["embed", "--text", "red apple", "--text", "dog", "--output", "t.npy"]).expect(0);
    home.run("collection import --vectors t.npy --collection c").expect(0);
    home.run("search --vectors t.npy -k 1 --output r.npy --collection c").expect(0);
    let ids: Vec<i64> = data(&home, "r.npy").chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(ids, [0, 1]);
    let line = &home.run_arguments(["embed", "--text", "dog"]).expect(0).json_lines()[0];
    let vector = numbers(&line["embedding"]);
    assert!((dot(&vector, &vector) - 1.0).abs() < 1e-5);
}

#[test]
fn a_file_that_cannot_be_read_leaves_no_collection_behind() {
    let home = Home::new();
    std::fs::write(home.path("bad.npy"), "nonsense").unwrap();
    let run = home.run("collection import --vectors bad.npy --collection c").expect(1);
    assert!(run.stderr.contains("bad.npy: is no .npy file"), "{}", run.stderr);
    assert!(!home.path("c").exists());
    npy(&home, "good.npy", &rows(2));
    std::fs::write(home.path("bad.jsonl"), "{\"n\": 1}\nnonsense\n").unwrap();
    for (option, part) in
        [("--ids bad.npy", "bad.npy"), ("--metadata bad.jsonl", "bad.jsonl:2"), ("--ids none.npy", "none.npy")]
    {
        let run = home.run(&format!("collection import --vectors good.npy {option} --collection c")).expect(1);
        assert!(run.stderr.contains(part), "{}", run.stderr);
        assert!(!home.path("c").exists(), "{option}");
    }
    home.run("collection import --vectors good.npy --collection c").expect(0);
}
