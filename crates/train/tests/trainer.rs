//! The loop on a real data set, the gallery: it learns, stops early, is interrupted and goes on exactly where it was, and names what leads it astray.

use std::path::{Path, PathBuf};

use candle_core::Device;
use crossmodal_media::PixelTensor;
use crossmodal_models::weights::WeightType;
use crossmodal_models::{CancelToken, ClipModel, Embedder, LoadOptions, load_clip};
use crossmodal_train::loss::{AffinityMimicking, Duplicates, InfoNce, SigLip, WeightedSum};
use crossmodal_train::model::{Model, PatchDropping, Selection, Start, Trained};
use crossmodal_train::optimiser::{Decay, OptimiserRules, Schedule, WarmUp};
use crossmodal_train::report::{Answer, Example};
use crossmodal_train::teacher::TeacherModel;
use crossmodal_train::trainer::{Event, Parts, RunFolder, Trainer, TrainerRules, Validate, Validation};
use crossmodal_train::{Batch, BatchSource, Error, Position, Result, Side};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A small model, so that a step takes milliseconds.
const SMALL: &str = "tests/golden/hf-clip/modern-gelu";

fn model(name: &str) -> Model {
    let start = Start::Checkpoint(root().join(name).to_str().unwrap().into());
    Model::open(&start, &Selection::default(), &LoadOptions::default(), &Device::Cpu).unwrap()
}

/// The first pictures of the gallery with their English captions, in an order that depends on the pass.
struct Gallery {
    pictures: Vec<PixelTensor>,
    captions: Vec<Vec<u32>>,
    names: Vec<String>,
    batch_size: usize,
    position: Position,
}

impl Gallery {
    fn open(model: &Model, count: usize, batch_size: usize) -> Self {
        let folder = root().join("samples/gallery");
        let table = std::fs::read_to_string(folder.join("captions.csv")).unwrap();
        let mut lines = table.lines();
        let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
        let place = |name: &str| columns.iter().position(|column| *column == name).unwrap();
        let (file, caption) = (place("file"), place("en"));
        let rows: Vec<Vec<&str>> =
            lines.filter(|line| !line.contains('"')).take(count).map(|l| l.split(',').collect()).collect();
        let pixels = |row: &Vec<&str>| {
            let bytes = std::fs::read(folder.join(row[file])).unwrap();
            model.clip().prep().tensor(&bytes).unwrap()
        };
        Self {
            pictures: rows.iter().map(pixels).collect(),
            captions: rows.iter().map(|row| model.clip().tokenizer().encode(row[caption]).unwrap().ids).collect(),
            names: rows.iter().map(|row| row[file].to_string()).collect(),
            batch_size,
            position: Position::default(),
        }
    }
}

impl BatchSource for Gallery {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let all = self.pictures.len();
        let first = self.position.batch as usize * self.batch_size;
        if first + self.batch_size > all {
            self.position = Position { epoch: self.position.epoch + 1, batch: 0 };
            return Ok(None);
        }
        // A stride that is coprime to the number of pictures visits each once.
        let stride = [7, 11, 13, 17][self.position.epoch as usize % 4];
        let chosen: Vec<usize> = (first..first + self.batch_size).map(|at| at * stride % all).collect();
        self.position.batch += 1;
        let content: Vec<u64> = chosen.iter().map(|at| *at as u64).collect();
        let is_first = self.position.batch == 1;
        Ok(Some(Batch {
            keys: chosen.iter().map(|at| self.names[*at].clone()).collect(),
            left: Side::Pixels(chosen.iter().map(|at| self.pictures[*at].clone()).collect()),
            right: Side::Tokens(chosen.iter().map(|at| self.captions[*at].clone()).collect()),
            negatives: None,
            left_content: content.clone(),
            right_content: content,
            concepts: None,
            skipped: is_first.then(|| ("broken.png".to_string(), "no picture".to_string())).into_iter().collect(),
        }))
    }

    fn position(&self) -> Position {
        self.position
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.position = position;
        Ok(())
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        Some((self.pictures.len() / self.batch_size) as u64)
    }
}

/// Recall@1 of the gallery's captions, by the model that was written.
struct Recall {
    gallery: Gallery,
    /// Scores in the place of real ones, for the order in which they come.
    scores: Option<Vec<f64>>,
    times: usize,
}

impl Recall {
    fn of(gallery: Gallery) -> Box<Self> {
        Box::new(Self { gallery, scores: None, times: 0 })
    }
}

fn vectors(model: &ClipModel, gallery: &Gallery) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let cancel = CancelToken::new();
    let unit = |rows: Vec<Vec<f32>>| {
        let unit = |row: Vec<f32>| {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / length).collect()
        };
        rows.into_iter().map(unit).collect::<Vec<Vec<f32>>>()
    };
    let pictures = unit(model.encode_pixels(&gallery.pictures, &cancel).unwrap());
    (pictures, unit(model.encode_tokens(&gallery.captions, &cancel).unwrap()))
}

fn recall(folder: &Path, gallery: &Gallery) -> f64 {
    let model = load_clip(folder.to_str().unwrap(), &LoadOptions::default()).unwrap();
    let (pictures, captions) = vectors(&model, gallery);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let right = captions.iter().enumerate().filter(|(at, caption)| {
        pictures
            .iter()
            .enumerate()
            .all(|(other, picture)| other == *at || dot(caption, picture) < dot(caption, &pictures[*at]))
    });
    right.count() as f64 / captions.len() as f64
}

impl Validate for Recall {
    fn validate(&mut self, model: &Path, cancel: &CancelToken) -> Result<Validation> {
        cancel.check()?;
        let found = recall(model, &self.gallery);
        let score = self.scores.as_ref().map_or(found, |scores| scores[self.times]);
        self.times += 1;
        Ok(Validation { metrics: vec![("recall_at_1".into(), found)], score })
    }

    fn examples(&mut self, _: &Path, _: &CancelToken) -> Result<Vec<Example>> {
        let picture = std::fs::read(root().join("samples/gallery").join(&self.gallery.names[0])).unwrap();
        let answer = Answer { picture, caption: self.gallery.names[0].clone(), score: 0.5, right: true };
        Ok(vec![Example { query: "the first one".into(), answers: vec![answer] }])
    }
}

fn rules(steps: u64) -> TrainerRules {
    TrainerRules {
        steps,
        accumulate: 1,
        piece: None,
        clip: Some(1.0),
        schedule: Schedule { warm_up: 3, counting: WarmUp::OpenClip, steps, decay: Decay::Cosine, floor: 0.0 },
        seed: 5,
        duplicates: Duplicates::Mask,
        patches: None,
        average: None,
        save_every: 1000,
        validate_every: None,
        patience: None,
        dtype: WeightType::F32,
    }
}

/// A run over 24 pictures, 8 at a time.
fn parts(rules: TrainerRules) -> Parts {
    let model = model(SMALL);
    Parts {
        source: Box::new(Gallery::open(&model, 24, 8)),
        model,
        loss: WeightedSum::single(InfoNce),
        optimiser: OptimiserRules::adamw(2e-3, 0.1),
        rules,
        validation: None,
        teacher: None,
        recipe: "the test".into(),
    }
}

fn open(parts: Parts, folder: &Path, resume: bool) -> Result<Trainer> {
    Trainer::open(parts, RunFolder::open(folder)?, resume)
}

fn bytes(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("last/model.safetensors")).unwrap()
}

fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_run_learns_and_leaves_a_model_a_log_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut parts = parts(TrainerRules { validate_every: Some(30), ..rules(60) });
    parts.validation = Some(Recall::of(Gallery::open(&parts.model, 24, 8)));
    let gallery = Gallery::open(&parts.model, 24, 8);
    let mut trainer = open(parts, &out, false).unwrap();
    let (mut losses, mut saved, mut skipped, mut validated) = (Vec::new(), 0, 0, 0);
    let summary = trainer
        .run(&CancelToken::new(), &mut |event| match event {
            Event::Step(report) => losses.push(report.loss),
            Event::Saved { .. } => saved += 1,
            Event::Skipped { key, .. } => skipped += usize::from(key == "broken.png"),
            Event::Validated { .. } => validated += 1,
            Event::Started { steps, .. } => assert_eq!(*steps, 60),
        })
        .unwrap();
    assert_eq!((summary.step, summary.samples, summary.cancelled, summary.stopped_early), (60, 480, false, false));
    assert_eq!((losses.len(), validated, skipped, summary.skipped), (60, 2, 20, 20));
    assert!(losses[59] < 0.5 * losses[0], "{} after {}", losses[59], losses[0]);
    let best = summary.best.unwrap();
    assert!(best.score > 0.6 && saved == 1, "{best:?}");
    // What lies in the folder is the model that was measured.
    assert_eq!(recall(&summary.model, &gallery), best.score);
    let steps = log(&out).into_iter().filter(|entry| entry["event"] == "step").count();
    assert_eq!(steps, 60);
    let page = std::fs::read_to_string(&summary.report).unwrap();
    assert!(page.contains("recall_at_1") && page.contains("the first one") && page.contains("data:image/png;base64,"));
    drop(trainer);
    let message = open(self::parts(rules(60)), &out, false).unwrap_err().to_string();
    assert!(message.contains("holds a run already") && message.contains("--resume"), "{message}");
}

/// Begins a run and continues it: asked to stop after step 3, lost without saving after step 10, and lost again after step 18.
fn interrupt(cut: &Path, parts: impl Fn() -> Parts) {
    for (stop, saves) in [(3, true), (10, false), (18, false)] {
        let mut trainer = open(parts(), cut, true).unwrap();
        let cancel = CancelToken::new();
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trainer.run(&cancel, &mut |event| {
                if let Event::Step(report) = event
                    && report.step == stop
                {
                    assert!(saves, "lost here, as a killed process is");
                    cancel.cancel();
                }
            })
        }));
        assert_eq!(run.is_ok(), saves);
        if let Ok(summary) = run {
            assert!(summary.unwrap().cancelled);
        }
    }
}

#[test]
fn a_run_that_is_interrupted_continues_bit_exactly() {
    let everything = || TrainerRules {
        accumulate: 2,
        piece: Some(3),
        patches: Some(PatchDropping { least: 0.4, most: 0.8, until: 0.7 }),
        average: Some(0.9),
        save_every: 4,
        validate_every: Some(6),
        ..rules(20)
    };
    let parts = || {
        let mut parts = parts(everything());
        parts.validation = Some(Recall::of(Gallery::open(&parts.model, 24, 8)));
        parts
    };
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    open(parts(), &whole, false).unwrap().run(&CancelToken::new(), &mut |_| ()).unwrap();
    let cut = folder.path().join("cut");
    interrupt(&cut, parts);
    let summary = open(parts(), &cut, true).unwrap().run(&CancelToken::new(), &mut |_| ()).unwrap();
    assert_eq!(summary.step, 20);
    assert!(bytes(&whole) == bytes(&cut), "the weights differ");
    let state = |folder: &Path| candle_core::safetensors::load(folder.join("state.safetensors"), &Device::Cpu).unwrap();
    let (a, b) = (state(&whole), state(&cut));
    assert_eq!(a.len(), b.len());
    for name in a.keys() {
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&a[name]), values(&b[name]), "{name}");
    }
    // Each step is in the log once, with the same numbers.
    let steps = |folder: &Path| -> Vec<(u64, f64)> {
        let log = log(folder).into_iter().filter(|entry| entry["event"] == "step");
        log.map(|entry| (entry["step"].as_u64().unwrap(), entry["loss"].as_f64().unwrap())).collect()
    };
    assert_eq!(steps(&whole), steps(&cut));
    // A finished run has nothing left to do.
    let mut made = 0;
    open(parts(), &cut, true)
        .unwrap()
        .run(&CancelToken::new(), &mut |event| made += usize::from(matches!(event, Event::Step(_))))
        .unwrap();
    assert_eq!(made, 0);
    assert!(bytes(&whole) == bytes(&cut));
    let other = Parts { recipe: "another test".into(), ..parts() };
    let message = open(other, &cut, true).unwrap_err().to_string();
    assert!(message.contains("`the test`") && message.contains("`another test`"), "{message}");
}

#[test]
fn it_stops_when_nothing_gets_better() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(TrainerRules { validate_every: Some(2), patience: Some(2), ..rules(40) });
    let mut recall = Recall::of(Gallery::open(&parts.model, 24, 8));
    recall.scores = Some(vec![0.1, 0.3, 0.2, 0.3, 0.9]);
    parts.validation = Some(recall);
    let mut trainer = open(parts, &folder.path().join("run"), false).unwrap();
    let summary = trainer.run(&CancelToken::new(), &mut |_| ()).unwrap();
    assert!(summary.stopped_early && summary.step == 8, "{summary:?}");
    let best = summary.best.unwrap();
    assert_eq!((best.score, best.step), (0.3, 4));
}

/// The gallery with a picture that isn't finite in the second batch.
struct Poisoned(Gallery);

impl BatchSource for Poisoned {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let mut batch = self.0.next_batch()?;
        if let Some(Batch { left: Side::Pixels(pictures), .. }) = &mut batch
            && self.0.position.batch == 2
        {
            pictures[3].data[17] = f32::NAN;
        }
        Ok(batch)
    }

    fn position(&self) -> Position {
        self.0.position()
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.0.seek(position)
    }

    fn batches_per_epoch(&self) -> Option<u64> {
        self.0.batches_per_epoch()
    }
}

#[test]
fn a_loss_that_is_no_number_stops_it_and_names_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut parts = parts(TrainerRules { save_every: 1, ..rules(40) });
    parts.source = Box::new(Poisoned(Gallery::open(&parts.model, 24, 8)));
    let mut trainer = open(parts, &out, false).unwrap();
    let error = trainer.run(&CancelToken::new(), &mut |_| ()).unwrap_err();
    let Error::Diverged { step, keys, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, keys.len()), (1, 8));
    assert!(error.to_string().contains(&keys[3]), "{error}");
    // The model is what it was after the step before.
    assert!(trainer.model().parameters().iter().all(|parameter| {
        crossmodal_train::gradients::with_values(parameter.var.as_tensor(), |v| v.iter().all(|x| x.is_finite()))
            .unwrap()
    }));
    let entry = log(&out).into_iter().find(|entry| entry["event"] == "diverged").unwrap();
    assert_eq!(entry["keys"].as_array().unwrap().len(), 8);
}

#[test]
fn two_processes_cannot_train_in_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let held = RunFolder::open(folder.path()).unwrap();
    let message = RunFolder::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("another process"), "{message}");
    drop(held);
    RunFolder::open(folder.path()).unwrap();
}

#[test]
fn a_teacher_draws_its_student_nearer() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(rules(60));
    let projections = Selection { trained: Trained::Projections, ..Selection::default() };
    let start = Start::Checkpoint(root().join(SMALL).to_str().unwrap().into());
    parts.model = Model::open(&start, &projections, &LoadOptions::default(), &Device::Cpu).unwrap();
    parts.loss = WeightedSum::single(AffinityMimicking);
    let message = open(Parts { teacher: None, ..self::parts(rules(1)) }, &folder.path().join("none"), false)
        .and_then(|_| {
            let mut lacking = self::parts(rules(1));
            lacking.loss = WeightedSum::single(AffinityMimicking);
            open(lacking, &folder.path().join("lacking"), false)
        })
        .unwrap_err()
        .to_string();
    assert!(message.contains("needs a teacher"), "{message}");
    let own = root().join(SMALL);
    // The teacher is the student before it is disturbed.
    parts.teacher = Some(TeacherModel::load(own.to_str().unwrap(), &LoadOptions::default(), &parts.model).unwrap());
    for parameter in parts.model.parameters().iter().filter(|parameter| parameter.name.contains("projection")) {
        // Noise that is the same in every run.
        let ramp = candle_core::Tensor::arange(0f32, parameter.var.elem_count() as f32, &Device::Cpu).unwrap();
        let noise = ((ramp * 12.9898).unwrap().sin().unwrap() * 0.5).unwrap().reshape(parameter.var.shape()).unwrap();
        parameter.var.set(&(parameter.var.as_tensor() + noise).unwrap().detach()).unwrap();
    }
    let mut losses = Vec::new();
    let mut trainer = open(parts, &folder.path().join("run"), false).unwrap();
    trainer
        .run(&CancelToken::new(), &mut |event| {
            if let Event::Step(report) = event {
                losses.push(report.loss);
            }
        })
        .unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&losses[54..]) < 0.9 * mean(&losses[..3]), "{losses:?}");
    let other = root().join("models/mini");
    let student = model(SMALL);
    let message =
        TeacherModel::load(other.to_str().unwrap(), &LoadOptions::default(), &student).unwrap_err().to_string();
    assert!(message.contains("prepare"), "{message}");
}

#[test]
fn the_sigmoid_loss_gives_a_model_a_bias() {
    let folder = tempfile::tempdir().unwrap();
    let mut parts = parts(rules(30));
    parts.model.add_bias().unwrap();
    parts.model.set_logit_scale(10.0).unwrap();
    parts.loss = WeightedSum::single(SigLip);
    let mut losses = Vec::new();
    let mut trainer = open(parts, &folder.path().join("run"), false).unwrap();
    let summary = trainer
        .run(&CancelToken::new(), &mut |event| {
            if let Event::Step(report) = event {
                losses.push(report.loss);
            }
        })
        .unwrap();
    assert!(losses[29] < losses[0], "{losses:?}");
    let saved = load_clip(summary.model.to_str().unwrap(), &LoadOptions::default()).unwrap();
    assert!(saved.logit_rule().unwrap().is_some());
}
