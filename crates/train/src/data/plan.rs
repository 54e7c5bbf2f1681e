//! Which samples stand in which batch: decided by seed and pass alone, without reading any content.
//!
//! A pass walks the samples in random order (held ones in full, shards through a buffer), chooses what is said of each, sorts by length within windows
//! where asked for, and fills batches whose items all differ. A sample that doesn't fit into the batch under way waits for the next.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::augment::Augmentation;
use super::open::{DataSet, Walk};
use super::random::Random;
use super::record::Record;
use super::shards::Walked;
use super::template::check_templates;
use crate::error::{Error, Result};

/// Batches that are filled at the same time, when items repeat.
const MOST_OPEN: usize = 64;

// What a generator is for, so that no two decisions share one.
const ORDER: u64 = 1;
const BUFFER: u64 = 2;
const CHOICE: u64 = 3;
const WINDOW: u64 = 4;
const OFTEN: u64 = 6;
pub(super) const CONTENT: u64 = 5;

/// Which of an item's right sides a pass takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptionChoice {
    /// One at random, by the weights of their columns: a pass takes every item once.
    #[default]
    Random,
    /// Every one: a pass takes every pair once.
    Every,
}

/// What is different in all samples of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distinct {
    /// Items.
    #[default]
    Item,
    /// Concepts, where items have one.
    Concept,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderOptions {
    /// Samples of a batch. One with samples that can't be read is smaller.
    pub batch_size: usize,
    /// Decides on everything random.
    pub seed: u64,
    /// Threads that read and prepare; 0 means one per core. Changes nothing but speed.
    pub workers: usize,
    /// Batches that are prepared ahead. Changes nothing but speed and memory.
    pub prefetch: usize,
    /// Whether the order is random.
    pub shuffle: bool,
    /// Samples of shards among which the next one is drawn.
    pub shuffle_buffer: usize,
    /// Which right sides are taken.
    pub captions: CaptionChoice,
    /// What differs within a batch.
    pub distinct: Distinct,
    /// Batches of a window whose samples are sorted by the length of their captions, so that a batch has captions of like lengths; 1 doesn't sort.
    pub length_window: usize,
    /// Templates around captions, one drawn at random for each; none leaves them as they are.
    pub templates: Vec<String>,
    /// What becomes of pictures before the model's own preparation; `None` prepares them as the model does.
    pub augmentation: Option<Augmentation>,
    /// Whether each caption comes with a hard negative: itself with its content words in another order.
    pub hard_negatives: bool,
    /// Whether the batches at the end of a pass that aren't full are kept. One batch is kept in any case.
    pub keep_last: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 32,
            seed: 0,
            workers: 0,
            prefetch: 2,
            shuffle: true,
            shuffle_buffer: 10_000,
            captions: CaptionChoice::default(),
            distinct: Distinct::default(),
            length_window: 1,
            templates: Vec::new(),
            augmentation: None,
            hard_negatives: false,
            keep_last: false,
        }
    }
}

impl LoaderOptions {
    /// Checks every field.
    ///
    /// # Errors
    /// A field out of range, by its name.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("batch_size", self.batch_size, 1 << 20),
            ("prefetch", self.prefetch, 1024),
            ("shuffle_buffer", self.shuffle_buffer, 1 << 24),
            ("length_window", self.length_window, 1 << 16),
        ];
        for (field, value, most) in counts {
            if value == 0 || value > most {
                return Err(Error::Invalid(format!("{field} is {value}, expected 1 to {most}")));
            }
        }
        if self.workers > 1024 {
            return Err(Error::Invalid(format!("workers is {}, expected at most 1024", self.workers)));
        }
        check_templates(&self.templates)?;
        self.augmentation.as_ref().map_or(Ok(()), Augmentation::check)
    }
}

/// A sample of a batch: an item and which of its right sides.
#[derive(Debug, Clone)]
pub(super) struct PlannedSample {
    pub(super) record: Arc<Record>,
    /// Places in the record's right sides: several texts of one column are joined.
    pub(super) right: Vec<u16>,
    /// The generator for everything that becomes of its content.
    pub(super) random: Random,
}

impl PlannedSample {
    /// Bytes of its captions.
    fn length(&self) -> usize {
        let text = |place: &u16| self.record.right[usize::from(*place)].location.text().map_or(0, |text| text.len());
        self.right.iter().map(text).sum()
    }
}

/// A batch before anything is read.
#[derive(Debug, Default)]
pub(super) struct PlannedBatch {
    pub(super) samples: Vec<PlannedSample>,
    /// What the walk left out before this batch was full.
    pub(super) skipped: Vec<(String, String)>,
}

/// A sample at hand.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Place of its record.
    record: u32,
    /// Place of the record's right side, where every pair is taken.
    right: Option<u16>,
    /// How often this pass takes the record besides.
    copy: u16,
}

/// The order of one pass.
enum Order {
    /// Samples at hand.
    Held { data: DataSet, order: std::vec::IntoIter<Held> },
    /// Shards, through a buffer.
    Buffered { walk: Walk, buffer: Vec<Arc<Record>>, size: usize, random: Random },
    /// As it comes.
    Plain(Walk),
}

/// What comes next in a pass.
enum Next {
    Sample(Arc<Record>, Option<u16>, u16),
    Skipped(String, String),
}

impl Order {
    fn new(data: &DataSet, options: &LoaderOptions, pass: u64) -> Self {
        let mut random = Random::about(&[options.seed, ORDER, pass]);
        match data.records() {
            Some(records) => {
                let mut order: Vec<Held> = Vec::with_capacity(records.len());
                for (record, place) in records.iter().zip(0..) {
                    for copy in 0..times(record, options.seed, pass) {
                        let held = |right| Held { record: place, right, copy };
                        match options.captions {
                            CaptionChoice::Random => order.push(held(None)),
                            CaptionChoice::Every => {
                                order.extend((0..record.right.len()).map(|right| held(Some(right as u16))));
                            }
                        }
                    }
                }
                if options.shuffle {
                    random.shuffle(&mut order);
                }
                Self::Held { data: data.clone(), order: order.into_iter() }
            }
            None if !options.shuffle => Self::Plain(data.walk()),
            None => {
                let walk = data.walk_shards(&mut random).unwrap_or_else(|| data.walk());
                let random = Random::about(&[options.seed, BUFFER, pass]);
                Self::Buffered { walk, buffer: Vec::new(), size: options.shuffle_buffer, random }
            }
        }
    }

    fn next(&mut self) -> Option<Next> {
        match self {
            Self::Held { data, order } => {
                let held = order.next()?;
                let record = data.records()?.get(held.record as usize)?;
                Some(Next::Sample(record.clone(), held.right, held.copy))
            }
            Self::Plain(walk) => Some(match walk.next()? {
                Walked::Record(record) => Next::Sample(record, None, 0),
                Walked::Skipped(key, reason) => Next::Skipped(key, reason),
            }),
            Self::Buffered { walk, buffer, size, random } => {
                while buffer.len() < *size {
                    match walk.next() {
                        Some(Walked::Record(record)) => buffer.push(record),
                        Some(Walked::Skipped(key, reason)) => return Some(Next::Skipped(key, reason)),
                        None => break,
                    }
                }
                if buffer.is_empty() {
                    return None;
                }
                let drawn = random.below(buffer.len());
                Some(Next::Sample(buffer.swap_remove(drawn), None, 0))
            }
        }
    }
}

/// How often a pass takes a record: its weight, rounded up as often as what is beyond the whole number says.
fn times(record: &Record, seed: u64, pass: u64) -> u16 {
    let whole = record.weight.floor();
    let rest = record.weight - whole;
    let more = rest > 0.0 && Random::about(&[seed, OFTEN, pass, record.identity]).chance(rest);
    whole as u16 + u16::from(more)
}

/// A batch that is being filled.
#[derive(Default)]
struct OpenBatch {
    seen: HashSet<u64>,
    samples: Vec<PlannedSample>,
}

/// The batches of one pass.
pub(super) struct Plan {
    data: DataSet,
    options: Arc<LoaderOptions>,
    pass: u64,
    order: Order,
    window: u64,
    open: VecDeque<OpenBatch>,
    ready: VecDeque<Vec<PlannedSample>>,
    skipped: Vec<(String, String)>,
    emitted: u64,
    is_over: bool,
}

impl Plan {
    /// The plan of a pass.
    pub(super) fn new(data: &DataSet, options: &Arc<LoaderOptions>, pass: u64) -> Self {
        Self {
            data: data.clone(),
            options: options.clone(),
            pass,
            order: Order::new(data, options, pass),
            window: 0,
            open: VecDeque::new(),
            ready: VecDeque::new(),
            skipped: Vec::new(),
            emitted: 0,
            is_over: false,
        }
    }

    /// The next batch; `None` at the end of the pass.
    pub(super) fn next(&mut self) -> Option<PlannedBatch> {
        while self.ready.is_empty() && !self.is_over {
            self.fill();
        }
        let samples = self.ready.pop_front()?;
        self.emitted += 1;
        Some(PlannedBatch { samples, skipped: std::mem::take(&mut self.skipped) })
    }

    /// Which pass this is.
    pub(super) fn pass(&self) -> u64 {
        self.pass
    }

    /// What was left out after the last batch.
    pub(super) fn left_out(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.skipped)
    }

    /// Takes one window of samples and fills batches with them.
    fn fill(&mut self) {
        let (window, pass, seed) = (self.options.length_window, self.pass, self.options.seed);
        let size = if window > 1 { window * self.options.batch_size } else { 1 };
        let mut samples = Vec::with_capacity(size);
        while samples.len() < size {
            match self.order.next() {
                Some(Next::Sample(record, right, copy)) => samples.push(self.choose(record, right, copy)),
                Some(Next::Skipped(key, reason)) => self.skipped.push((key, reason)),
                None => {
                    self.is_over = true;
                    break;
                }
            }
        }
        if window > 1 {
            // Stable: equal lengths keep their random order.
            samples.sort_by_key(PlannedSample::length);
        }
        let before = self.ready.len();
        samples.into_iter().for_each(|sample| self.place(sample));
        if self.is_over {
            self.close();
        }
        if window > 1 && self.options.shuffle {
            let mut random = Random::about(&[seed, WINDOW, pass, self.window]);
            random.shuffle(&mut self.ready.make_contiguous()[before..]);
        }
        self.window += 1;
    }

    /// Puts a sample into the first batch under way that doesn't have its item yet.
    fn place(&mut self, sample: PlannedSample) {
        let number = match (self.options.distinct, sample.record.concept) {
            (Distinct::Concept, Some(concept)) => u64::from(concept),
            (Distinct::Concept | Distinct::Item, _) => sample.record.identity,
        };
        let free = self.open.iter().position(|open| !open.seen.contains(&number));
        let place = match free {
            Some(place) => place,
            None if self.open.len() < MOST_OPEN => {
                self.open.push_back(OpenBatch::default());
                self.open.len() - 1
            }
            None => {
                let size = self.options.batch_size;
                let reason = format!("occurs too often for batches of {size} different items; left out of this pass");
                self.skipped.push((sample.record.key.to_string(), reason));
                return;
            }
        };
        let open = &mut self.open[place];
        open.seen.insert(number);
        open.samples.push(sample);
        if open.samples.len() == self.options.batch_size
            && let Some(full) = self.open.remove(place)
        {
            self.ready.push_back(full.samples);
        }
    }

    /// The end of a pass.
    fn close(&mut self) {
        let keep_one = self.emitted == 0 && self.ready.is_empty();
        let kept = if self.options.keep_last { usize::MAX } else { usize::from(keep_one) };
        let open = std::mem::take(&mut self.open);
        self.ready.extend(open.into_iter().map(|open| open.samples).take(kept));
    }

    /// Chooses what is said of an item, and gives the sample its generator.
    fn choose(&self, record: Arc<Record>, given: Option<u16>, copy: u16) -> PlannedSample {
        let about = |purpose: u64| {
            let right = given.map_or(u64::MAX, u64::from);
            let numbers = [self.options.seed, purpose, self.pass, record.identity, right, u64::from(copy)];
            // Without the copy's number, what is taken once is drawn as if there were no weights.
            Random::about(&numbers[..if copy == 0 { 5 } else { 6 }])
        };
        let right = match given {
            Some(right) => vec![right],
            None => self.draw(&record, &mut about(CHOICE)),
        };
        let random = about(CONTENT);
        PlannedSample { record, right, random }
    }

    /// Draws a column by its weight, and texts of it.
    fn draw(&self, record: &Record, random: &mut Random) -> Vec<u16> {
        let mut by_column: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for (right, place) in record.right.iter().zip(0..) {
            by_column.entry(right.column).or_default().push(place);
        }
        let columns = self.data.right_columns();
        let column = |number: u16| columns.get(usize::from(number));
        let weight = |number: &u16| column(*number).map_or(1.0, |column| column.weight.max(0.0));
        let all: f32 = by_column.keys().map(weight).sum();
        let mut left = random.unit() * all;
        let drawn = by_column.keys().find(|number| {
            left -= weight(number);
            left < 0.0
        });
        // Rounding may leave nothing, and all weights may be 0.
        let Some(number) = drawn.or(by_column.keys().next_back()).copied() else { return Vec::new() };
        let mut places = by_column.remove(&number).unwrap_or_default();
        let join = column(number).map_or(1, |column| column.join.max(1));
        let count = 1 + random.below(join.min(places.len()));
        if places.len() > 1 {
            random.shuffle(&mut places);
        }
        places.truncate(count);
        places
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::{Columns, RightColumn};
    use super::*;

    fn data(rows: &str, columns: &Columns) -> DataSet {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, rows).unwrap();
        DataSet::open(path.to_str().unwrap(), columns).unwrap()
    }

    fn items(count: usize, captions: usize) -> DataSet {
        let rows: String = (0..count)
            .flat_map(|item| {
                (0..captions).map(move |caption| format!("{item}.png,{}{caption},{}\n", "x".repeat(item), item / 2))
            })
            .collect();
        data(&format!("image,caption,concept\n{rows}"), &Columns::default())
    }

    fn options(batch_size: usize) -> LoaderOptions {
        LoaderOptions { batch_size, seed: 5, ..LoaderOptions::default() }
    }

    fn pass(data: &DataSet, options: &LoaderOptions, pass: u64) -> Vec<Vec<(String, Vec<u16>)>> {
        let mut plan = Plan::new(data, &Arc::new(options.clone()), pass);
        let name = |sample: &PlannedSample| (sample.record.key.to_string(), sample.right.clone());
        std::iter::from_fn(|| plan.next()).map(|batch| batch.samples.iter().map(name).collect()).collect()
    }

    #[test]
    fn a_pass_takes_every_item_once_in_another_order_each_time() {
        let (data, options) = (items(20, 3), LoaderOptions { keep_last: true, ..options(6) });
        let (first, second) = (pass(&data, &options, 0), pass(&data, &options, 1));
        assert_eq!(first, pass(&data, &options, 0));
        assert_ne!(first, second);
        for batches in [first, second] {
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 6, 2]);
            let keys: HashSet<String> = batches.into_iter().flatten().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), 20);
        }
        let plain = LoaderOptions { shuffle: false, ..options };
        assert_eq!(pass(&data, &plain, 0)[0][1].0, "1.png");
    }

    #[test]
    fn items_are_taken_as_often_as_their_weights_say() {
        let columns = Columns { weight: Some("often".into()), ..Columns::default() };
        let weights = [0.0, 0.25, 1.0, 2.5];
        let rows: String = (0..400).map(|item| format!("{item}.png,x,{}\n", weights[item % 4])).collect();
        let data = data(&format!("image,caption,often\n{rows}"), &columns);
        let options = LoaderOptions { keep_last: true, ..options(50) };
        let mut counts = [0usize; 4];
        for number in 0..20 {
            let mut plan = Plan::new(&data, &Arc::new(options.clone()), number);
            let mut generators = HashSet::new();
            while let Some(batch) = plan.next() {
                let mut keys = HashSet::new();
                for mut sample in batch.samples {
                    assert!(keys.insert(sample.record.key.clone()), "{} twice in a batch", sample.record.key);
                    assert!(generators.insert(sample.random.next_u64()));
                    counts[sample.record.key.trim_end_matches(".png").parse::<usize>().unwrap() % 4] += 1;
                }
            }
        }
        // 100 items of each weight, 20 passes: 2,000 times the weight, a few deviations of a binomial at most.
        let (seldom, often) = (counts[1], counts[3]);
        assert_eq!((counts[0], counts[2]), (0, 2000));
        assert!((420..580).contains(&seldom) && (4900..5100).contains(&often), "{counts:?}");
    }

    #[test]
    fn incomplete_batches_are_dropped_unless_there_is_no_other() {
        assert_eq!(pass(&items(20, 1), &options(6), 0).len(), 3);
        let only = pass(&items(4, 1), &options(6), 0);
        assert_eq!(only.iter().map(Vec::len).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn every_pair_is_taken_once_and_items_of_a_batch_differ() {
        let options = LoaderOptions { captions: CaptionChoice::Every, keep_last: true, ..options(8) };
        let batches = pass(&items(20, 5), &options, 0);
        for batch in &batches {
            let keys: HashSet<&String> = batch.iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), batch.len());
        }
        let pairs: HashSet<(String, Vec<u16>)> = batches.into_iter().flatten().collect();
        assert_eq!(pairs.len(), 100);
        let concepts = LoaderOptions { distinct: Distinct::Concept, ..options };
        for batch in pass(&items(20, 5), &concepts, 0) {
            let of = |key: &String| key.trim_end_matches(".png").parse::<usize>().unwrap() / 2;
            assert_eq!(batch.iter().map(|(key, _)| of(key)).collect::<HashSet<_>>().len(), batch.len());
        }
    }

    #[test]
    fn an_item_that_occurs_too_often_is_told() {
        let rows: String = (0..200).map(|caption| format!("a.png,{caption}\n")).collect();
        let data = data(&format!("image,caption\n{rows}"), &Columns::default());
        let options = LoaderOptions { captions: CaptionChoice::Every, keep_last: true, ..options(2) };
        let mut plan = Plan::new(&data, &Arc::new(options), 0);
        let first = plan.next().unwrap();
        assert_eq!(first.skipped.len(), 200 - MOST_OPEN);
        assert!(first.skipped[0].1.contains("batches of 2 different items"));
    }

    #[test]
    fn lengths_are_alike_within_a_batch_of_a_window() {
        let spread = |window: usize| {
            let options = LoaderOptions { length_window: window, ..options(10) };
            let batches = pass(&items(200, 1), &options, 0);
            let lengths = |batch: &Vec<(String, Vec<u16>)>| {
                let of = |key: &String| key.trim_end_matches(".png").parse::<usize>().unwrap();
                let lengths: Vec<usize> = batch.iter().map(|(key, _)| of(key)).collect();
                lengths.iter().max().unwrap() - lengths.iter().min().unwrap()
            };
            (batches.len(), batches.iter().map(lengths).sum::<usize>() / batches.len(), batches)
        };
        let ((plain_count, plain, _), (count, sorted, batches)) = (spread(1), spread(10));
        assert_eq!((plain_count, count), (20, 20));
        assert!(sorted * 4 < plain, "{sorted} against {plain}");
        // The batches of a window are shuffled: lengths don't rise from batch to batch.
        let firsts: Vec<usize> =
            batches.iter().map(|batch| batch[0].0.trim_end_matches(".png").parse().unwrap()).collect();
        assert!(firsts[..10].windows(2).any(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn columns_are_drawn_by_weight_and_joined() {
        let right = |name: &str, weight: f32, join: usize| RightColumn { weight, join, ..RightColumn::named(name) };
        let columns = Columns { right: vec![right("en", 3.0, 1), right("words", 1.0, 3)], ..Columns::default() };
        let rows: String = (0..400)
            .map(|item| {
                format!("{{\"image\": \"{item}\", \"en\": \"name\", \"words\": [\"a\", \"b\", \"c\", \"d\"]}}\n")
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        std::fs::write(&path, rows).unwrap();
        let data = DataSet::open(path.to_str().unwrap(), &columns).unwrap();
        let drawn: Vec<Vec<u16>> =
            pass(&data, &options(400), 0).remove(0).into_iter().map(|(_, right)| right).collect();
        let names = drawn.iter().filter(|right| **right == [0]).count();
        assert!((270..330).contains(&names), "{names}");
        let joined: HashSet<usize> = drawn.iter().filter(|right| right[0] != 0).map(Vec::len).collect();
        assert_eq!(joined, HashSet::from([1, 2, 3]));
    }

    #[test]
    fn fields_out_of_range_are_named() {
        let cases = [
            (LoaderOptions { batch_size: 0, ..LoaderOptions::default() }, "batch_size is 0"),
            (LoaderOptions { length_window: 0, ..LoaderOptions::default() }, "length_window is 0"),
            (LoaderOptions { workers: 5000, ..LoaderOptions::default() }, "workers is 5000"),
            (LoaderOptions { templates: vec!["x".into()], ..LoaderOptions::default() }, "has no {}"),
        ];
        for (options, expected) in cases {
            assert!(options.check().unwrap_err().to_string().contains(expected));
        }
        LoaderOptions::default().check().unwrap();
    }
}
