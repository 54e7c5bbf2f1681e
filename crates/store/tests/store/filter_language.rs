//! Filters as people and programs write them: what is read, what is written back, and what errors say.

use crossmodal_store::{Comparison, Filter, FilterPath, FilterSyntaxError, FilterValue};
use serde_json::{Value, json};

use crate::sample::Random;

fn metadata(keys: &[&str]) -> FilterPath {
    FilterPath::Metadata(keys.iter().map(|key| (*key).to_owned()).collect())
}

fn equals(key: &str, value: impl Into<FilterValue>) -> Filter {
    Filter::equals(metadata(&[key]), value)
}

fn like(path: FilterPath, pattern: &str) -> Filter {
    Filter::Like { path, pattern: pattern.to_owned() }
}

fn within(key: &str, values: Vec<FilterValue>) -> Filter {
    Filter::In { path: metadata(&[key]), values }
}

fn exists(path: FilterPath) -> Filter {
    Filter::Exists { path }
}

#[test]
fn texts_become_filters() {
    use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let year = || metadata(&["year"]);
    let modality = || Filter::equals(FilterPath::Modality, "image");
    let day = 1_714_521_600_000_000_000;
    let next_day = day + 86_400_000_000_000;
    let modified = |op, value: i64| Filter::compare(FilterPath::Modified, op, value);
    let cases = [
        ("modality = image", modality()),
        ("  modality='image'\n", modality()),
        ("year >= 2020", Filter::compare(year(), GreaterOrEqual, 2020)),
        ("year>=2020", Filter::compare(year(), GreaterOrEqual, 2020)),
        ("year<-5", Filter::compare(year(), Less, -5)),
        ("year <= 1.5e3", Filter::compare(year(), LessOrEqual, 1500.0)),
        ("year <> .5", Filter::compare(year(), NotEqual, 0.5)),
        ("year != 99999999999999999999", Filter::compare(year(), NotEqual, 1e20)),
        ("year == '2020'", equals("year", "2020")),
        ("year = 2020-05", equals("year", "2020-05")),
        ("year = inf", equals("year", "inf")),
        ("a = TRUE and b = 'true'", Filter::And(vec![equals("a", true), equals("b", "true")])),
        ("a = b or a = c", Filter::Or(vec![equals("a", "b"), equals("a", "c")])),
        (
            "a=1 or b=2 AND not c=3 And (d=4 oR e=5)",
            Filter::Or(vec![
                equals("a", 1),
                Filter::And(vec![
                    equals("b", 2),
                    equals("c", 3).negated(),
                    Filter::Or(vec![equals("d", 4), equals("e", 5)]),
                ]),
            ]),
        ),
        ("tag in (a, 'b c', 3, true)", within("tag", vec!["a".into(), "b c".into(), 3.into(), true.into()])),
        ("tag not in ()", within("tag", vec![]).negated()),
        ("not not tag in (a)", within("tag", vec!["a".into()]).negated().negated()),
        ("path like '%/cats/%'", like(FilterPath::Uri, "%/cats/%")),
        ("name not like IMG%", like(FilterPath::Name, "IMG%").negated()),
        ("exists camera.model", exists(metadata(&["camera", "model"]))),
        ("camera.model exists", exists(metadata(&["camera", "model"]))),
        ("\"odd key\".'it''s' = \"say \"\"hi\"\"\"", Filter::equals(metadata(&["odd key", "it's"]), "say \"hi\"")),
        ("'and' = 'and'", equals("and", "and")),
        (
            "metadata.size > 5 and size > 5",
            Filter::And(vec![
                Filter::compare(metadata(&["size"]), Greater, 5),
                Filter::compare(FilterPath::Size, Greater, 5),
            ]),
        ),
        ("size < 1.5kB", Filter::compare(FilterPath::Size, Less, 1500)),
        ("size < '2 MiB'", Filter::compare(FilterPath::Size, Less, 2 << 20)),
        ("id = 123", Filter::equals(FilterPath::Id, "123")),
        ("uri = /a/b.jpg", Filter::equals(FilterPath::Uri, "/a/b.jpg")),
        ("modified < 2024-05-01", modified(Less, day)),
        ("modified <= 2024-05-01", modified(Less, next_day)),
        ("modified > '2024-05-01'", modified(GreaterOrEqual, next_day)),
        ("modified = 2024-05-01", Filter::And(vec![modified(GreaterOrEqual, day), modified(Less, next_day)])),
        ("modified >= 2024-05-01T00:00Z", modified(GreaterOrEqual, day)),
        ("modified >= 17", modified(GreaterOrEqual, 17)),
        ("modified in (2024-05-01)", Filter::And(vec![modified(GreaterOrEqual, day), modified(Less, next_day)])),
        ("true", Filter::And(vec![])),
        ("not false", Filter::Or(vec![]).negated()),
        ("größe = groß", equals("größe", "groß")),
        ("{\"a\": 1}", equals("a", 1)),
    ];
    for (text, expected) in cases {
        assert_eq!(Filter::parse(text), Ok(expected), "{text}");
    }
}

#[test]
fn json_becomes_filters() {
    let year = || metadata(&["year"]);
    let compare = |op, value: i64| Filter::compare(year(), op, value);
    let cases = [
        (json!({}), Filter::And(vec![])),
        (json!({"year": 2020}), compare(Comparison::Equal, 2020)),
        (
            json!({"year": {"$gte": 2020, "$lt": 2024}}),
            Filter::And(vec![compare(Comparison::GreaterOrEqual, 2020), compare(Comparison::Less, 2024)]),
        ),
        (json!({"year": {"$eq": 1}}), compare(Comparison::Equal, 1)),
        (json!({"year": {"$ne": 1}}), compare(Comparison::NotEqual, 1)),
        (json!({"year": {"$gt": 1}}), compare(Comparison::Greater, 1)),
        (json!({"year": {"$lte": 1}}), compare(Comparison::LessOrEqual, 1)),
        (json!({"year": {"$not": {"$lte": 1}}}), compare(Comparison::LessOrEqual, 1).negated()),
        (json!({"year": null}), exists(year()).negated()),
        (json!({"year": {"$exists": true}}), exists(year())),
        (json!({"year": {"$exists": false}}), exists(year()).negated()),
        (json!({"tag": {"$in": ["a", true, 2.5]}}), within("tag", vec!["a".into(), true.into(), 2.5.into()])),
        (json!({"tag": {"$nin": []}}), within("tag", vec![]).negated()),
        (json!({"path": {"$like": "%x"}}), like(FilterPath::Uri, "%x")),
        (
            json!({"$or": [{"a": "1"}, {"$not": {"b.c": 1}}]}),
            Filter::Or(vec![equals("a", "1"), Filter::equals(metadata(&["b", "c"]), 1).negated()]),
        ),
        (
            json!({"modality": "image", "$and": []}),
            Filter::And(vec![Filter::equals(FilterPath::Modality, "image"), Filter::And(vec![])]),
        ),
        (json!({"odd key.it's": 1}), Filter::equals(metadata(&["odd key", "it's"]), 1)),
        (json!({"\"$gt\".\"a.b\"": 1}), Filter::equals(metadata(&["$gt", "a.b"]), 1)),
        (json!({"modified": {"$lt": "2024-05-01"}}), Filter::parse("modified < 2024-05-01").unwrap()),
    ];
    for (value, expected) in cases {
        assert_eq!(Filter::from_json(&value), Ok(expected.clone()), "{value}");
        assert_eq!(Filter::parse(&value.to_string()), Ok(expected), "{value}");
    }
}

#[test]
fn errors_point_at_the_place() {
    // The text, the place that is marked, and a part of the message.
    let cases = [
        ("", "", "expected a field"),
        ("year >= and tag = a", "and", "expected a value, found the word \"and\""),
        ("year >=", "", "expected a value, found the end"),
        ("year 2020", "2020", "expected a comparison"),
        ("year = 2020 tag = a", "tag", "expected \"and\", \"or\" or the end, found \"tag\""),
        ("(a = 1 or b = 2", "", "or \")\", found the end"),
        ("a = 1)", ")", "found \")\""),
        ("a in b", "b", "\"(\" and a list"),
        ("a in (b c)", "c", "\",\" or \")\""),
        ("a not = 3", "=", "\"in\" or \"like\""),
        ("a = 'b", "'", "closing '"),
        ("größe ! 5", "!", "expected a comparison"),
        ("a..b = 1", "a..b", "empty"),
        ("\"a\"\"b\" = 1", "\"a\"\"b\"", "quotes"),
        ("size > big", "big", "number of bytes"),
        ("modified > yesterday", "yesterday", "a date such as 2024-05-01"),
        ("x like 'a\\'", "'a\\'", "ends with a \\"),
        ("= 3", "=", "expected a field"),
        ("not", "", "expected a field"),
        ("{\"a\": }", "}", "no JSON"),
    ];
    for (text, place, part) in cases {
        let error = Filter::parse(text).unwrap_err();
        let message = error.to_string();
        let FilterSyntaxError::Text { start, end, .. } = error else { panic!("{text}: {message}") };
        assert!(
            text[start..].starts_with(place) && (text[start..end] == *place || end == start),
            "{text}: {start}, {end}"
        );
        assert!(message.contains(part), "{text}: {message}");
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{message}");
        assert_eq!(
            lines[2].find('^').map(|at| lines[2][..at].chars().count()),
            Some(2 + text[..start].chars().count())
        );
    }
    let far = format!("{} and year >> 3", vec!["tag = 'a long one'"; 20].join(" and "));
    let message = Filter::parse(&far).unwrap_err().to_string();
    let (line, marks) = (message.lines().nth(1).unwrap(), message.lines().nth(2).unwrap());
    assert!(line.chars().count() < 90 && line.contains("year >> 3"), "{message}");
    assert_eq!(line.chars().nth(marks.find('^').unwrap()), Some('>'), "{message}");
}

#[test]
fn errors_in_json_name_the_pointer() {
    let cases = [
        (json!([]), "expected an object"),
        (json!({"year": {"$gte": [1]}}), "at /year/$gte: expected a text, a number or a truth value, found an array"),
        (json!({"year": [1]}), "at /year: expected a value or an object of operators"),
        (json!({"year": {}}), "at /year: expected $eq"),
        (json!({"year": {"month": 3}}), "at /year/month: expected $eq"),
        (json!({"$or": [{"a": 1}, {"b": {"$in": [1, {}]}}]}), "at /$or/1/b/$in/1: "),
        (json!({"$nor": []}), "at /$nor: expected a field"),
        (json!({"$and": {}}), "at /$and: expected an array of filters, found an object"),
        (json!({"a/b~c": {"$exists": "yes"}}), "at /a~1b~0c/$exists: expected true or false"),
        (json!({"a\nb": 1}), "control characters"),
        (json!({"size": {"$lt": "big"}}), "at /size/$lt: expected a number of bytes"),
    ];
    for (value, part) in cases {
        let message = Filter::from_json(&value).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_is_too_deep_or_too_long_is_refused() {
    let deep = |open: &str, n: usize, close: &str| format!("{}a = 1{}", open.repeat(n), close.repeat(n));
    for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")")] {
        assert!(Filter::parse(&deep(open, 20, close)).is_ok());
        for n in [60, 10_000] {
            let message = Filter::parse(&deep(open, n, close)).unwrap_err().to_string();
            assert!(message.contains("nested deeper than 48"), "{message}");
        }
    }
    let nested = (0..45).fold("a = 1".to_owned(), |inner, _| format!("(b = 2 or c = 3 and {inner})"));
    assert!(Filter::parse(&nested).is_ok());
    let wide = |n: usize| vec!["a = 1"; n].join(" or ");
    assert!(Filter::parse(&wide(4000)).is_ok());
    assert!(Filter::parse(&wide(6000)).unwrap_err().to_string().contains("more than 5000 conditions"));
    assert!(Filter::parse(&"a ".repeat(1 << 20)).unwrap_err().to_string().contains("at most 1048576"));
    let json = (0..120).fold(json!({"a": 1}), |inner, _| json!({ "$not": inner }));
    assert!(Filter::from_json(&json).unwrap_err().to_string().contains("nested deeper than 100"));
    assert!(Filter::parse(&"{\"$not\":".repeat(100_000)).is_err());
}

/// Texts of all kinds of characters.
fn random_text(random: &mut Random) -> String {
    let pieces = ["a", "b", "Z", "9", ".", " ", "'", "\"", "and", "é", "猫", "%", "\\", "(", "-", "\n", "$", "like"];
    (0..random.below(5)).map(|_| pieces[random.below(pieces.len() as u64) as usize]).collect()
}

fn random_path(random: &mut Random) -> FilterPath {
    match random.below(10) {
        0 => FilterPath::Id,
        1 => FilterPath::Modality,
        2 => FilterPath::Uri,
        3 => FilterPath::Name,
        4 => FilterPath::Size,
        5 => FilterPath::Modified,
        _ => {
            let odd = ["size", "metadata", "id", "and", "exists", "true", "", "a.b", "x y"];
            let key = |random: &mut Random| match random.below(3) {
                0 => odd[random.below(odd.len() as u64) as usize].to_owned(),
                1 => "year".to_owned(),
                _ => random_text(random).replace(['"', '\\', '\n'], "_"),
            };
            FilterPath::Metadata((0..1 + random.below(3)).map(|_| key(random)).collect())
        }
    }
}

/// A value of the kind that the path has.
fn random_value(random: &mut Random, path: &FilterPath) -> FilterValue {
    let kind = match path {
        FilterPath::Metadata(_) => random.below(4),
        FilterPath::Size | FilterPath::Modified => random.below(2),
        _ => 2,
    };
    match kind {
        0 => FilterValue::Integer(random.next() as i64 >> random.below(64)),
        1 => match f64::from_bits(random.next()) {
            number if number.is_finite() => FilterValue::Number(number),
            _ => FilterValue::Number(-2.0),
        },
        2 => FilterValue::Text(random_text(random)),
        _ => FilterValue::Bool(random.below(2) == 0),
    }
}

fn random_filter(random: &mut Random, depth: u64) -> Filter {
    const OPERATORS: [Comparison; 6] = [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ];
    let path = random_path(random);
    match random.below(if depth == 0 { 4 } else { 8 }) {
        0 | 1 => {
            let (op, value) = (OPERATORS[random.below(6) as usize], random_value(random, &path));
            Filter::Compare { path, op, value }
        }
        2 => {
            let values = (0..random.below(4)).map(|_| random_value(random, &path)).collect();
            Filter::In { path, values }
        }
        3 if random.below(2) == 0 => Filter::Exists { path },
        3 => like(path, &random_text(random).replace('\\', "%")),
        4 | 5 => random_filter(random, depth - 1).negated(),
        kind => {
            // A combination of one part is written as the part.
            let count = [0, 2, 3][random.below(3) as usize];
            let parts = (0..count).map(|_| random_filter(random, depth - 1)).collect();
            if kind == 6 { Filter::And(parts) } else { Filter::Or(parts) }
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut random = Random::new(31);
    for _ in 0..5000 {
        let filter = random_filter(&mut random, 4);
        let text = filter.to_string();
        assert_eq!(Filter::parse(&text), Ok(filter), "{text}");
    }
}

#[test]
fn mutated_texts_are_read_or_refused() {
    let mut random = Random::new(32);
    let pieces =
        ["(", ")", "'", "\"", "and", "not ", ",", "<=", "\u{0}", "é", "{", "}", ".", "1e9", "in", " ", "$in", "\\"];
    let json = r#"{"year": {"$gte": 2020}, "tag": {"$in": ["a", "é"]}, "$or": [{"size": {"$lt": 5}}, {"x.y": null}]}"#;
    let (mut read, mut refused) = (0, 0);
    for round in 0..20_000 {
        let mut text = if round % 4 == 0 { json.to_owned() } else { random_filter(&mut random, 3).to_string() };
        for _ in 0..1 + random.below(4) {
            let at = (0..=random.below(text.len() as u64 + 1) as usize).rev().find(|at| text.is_char_boundary(*at));
            let at = at.unwrap_or(0);
            match random.below(3) {
                0 => text.insert_str(at, pieces[random.below(pieces.len() as u64) as usize]),
                1 => text.truncate(at),
                _ if at < text.len() => drop(text.remove(at)),
                _ => {}
            }
        }
        match Filter::parse(&text) {
            Ok(filter) => {
                assert!(!filter.to_string().is_empty());
                read += 1;
            }
            Err(error) => {
                let message = error.to_string();
                match error {
                    FilterSyntaxError::Text { start, end, text: own, .. } => {
                        assert!(own == text && start <= end && end <= text.len(), "{text:?}");
                        assert!(text.is_char_boundary(start) && text.is_char_boundary(end), "{text:?}");
                        assert!(message.contains('^'), "{message}");
                    }
                    FilterSyntaxError::Json { pointer, .. } => {
                        let value: Value = serde_json::from_str(&text).unwrap();
                        assert!(value.pointer(&pointer).is_some(), "{text:?}: {pointer:?}");
                    }
                    other => panic!("{other}"),
                }
                refused += 1;
            }
        }
    }
    assert!(read > 1000 && refused > 1000, "{read} {refused}");
}
