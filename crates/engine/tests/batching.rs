//! One owner of a model: many threads share its forward passes, with the real built-in model.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossmodal_engine::batching::{BatchLimits, BatchObserver, Batcher, Priority};
use crossmodal_engine::{CancelToken, Embedder, ErrorKind, Input, LoadOptions, Modality, demo};

fn mini() -> Arc<dyn Embedder> {
    crossmodal_engine::load("mini", &LoadOptions::default()).unwrap()
}

/// Writes down every batch, and holds the owner after each one until told to go on, where it has a gate.
#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<(Modality, usize)>>,
    gate: Mutex<Option<Receiver<()>>>,
}

impl Recorder {
    fn gated() -> (Arc<Self>, Sender<()>) {
        let (sender, receiver) = channel();
        (Arc::new(Self { gate: Mutex::new(Some(receiver)), ..Self::default() }), sender)
    }

    fn batches(&self) -> Vec<(Modality, usize)> {
        self.batches.lock().unwrap().clone()
    }

    fn until(&self, batches: usize) {
        let start = Instant::now();
        while self.batches().len() < batches {
            assert!(start.elapsed() < Duration::from_secs(60), "waited too long for {batches} batches");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl BatchObserver for Recorder {
    fn encoded(&self, modality: Modality, inputs: usize, _time: Duration) {
        self.batches.lock().unwrap().push((modality, inputs));
        if let Some(gate) = &*self.gate.lock().unwrap() {
            // An error means that the test is over.
            let _ = gate.recv();
        }
    }
}

fn text(number: usize) -> Input {
    Input::text(format!("drawing number {number} of a boat"))
}

/// Waits until the owner is held after a first batch, then lets `queue` queue things behind it.
fn held(batcher: &Batcher, recorder: &Recorder) -> std::thread::JoinHandle<()> {
    let embedder = batcher.embedder(Priority::Interactive);
    let first = std::thread::spawn(move || {
        embedder.embed(&[Input::text("first")]).unwrap();
    });
    recorder.until(1);
    first
}

#[test]
fn many_threads_get_what_the_model_itself_gives() {
    let model = mini();
    let recorder = Arc::new(Recorder::default());
    let batcher = Arc::new(Batcher::observed(model.clone(), BatchLimits::default(), recorder.clone()));
    let pictures: Vec<Input> = demo::captioned(&["en"]).unwrap()[..8].iter().map(|d| Input::image(d.bytes)).collect();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let (batcher, model, pictures) = (&batcher, &model, &pictures);
            scope.spawn(move || {
                for round in 0..5 {
                    let mut inputs = vec![text(thread * 10 + round), pictures[(thread + round) % 8].clone()];
                    inputs.extend((0..round).map(text));
                    let admission = batcher.admit(inputs.len()).unwrap();
                    assert_eq!(admission.embedder().embed(&inputs).unwrap(), model.embed(&inputs).unwrap());
                }
            });
        }
    });
    assert_eq!(batcher.waiting(), 0);
    let inputs: usize = recorder.batches().iter().map(|(_, inputs)| inputs).sum();
    assert_eq!(inputs, 12 * (5 * 2 + (1 + 2 + 3 + 4)));
}

#[test]
fn what_waits_is_computed_together_within_the_budget() {
    let (recorder, go) = Recorder::gated();
    let limits = BatchLimits { inputs: 6, ..BatchLimits::default() };
    let batcher = Batcher::observed(mini(), limits, recorder.clone());
    let first = held(&batcher, &recorder);
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            let embedder = batcher.embedder(Priority::Interactive);
            let prepared = embedder.prepare(&text(number)).unwrap();
            std::thread::spawn(move || embedder.encode(vec![prepared], &CancelToken::new()).unwrap())
        })
        .collect();
    // All of them are in the queue before the owner goes on.
    std::thread::sleep(Duration::from_millis(300));
    drop(go);
    waiting.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    first.join().unwrap();
    assert_eq!(recorder.batches(), [(Modality::Text, 1), (Modality::Text, 6), (Modality::Text, 2)]);
}

#[test]
fn interactive_requests_pass_background_work() {
    let (recorder, go) = Recorder::gated();
    let batcher = Batcher::observed(mini(), BatchLimits::default(), recorder.clone());
    let first = held(&batcher, &recorder);
    let background = batcher.embedder(Priority::Background);
    let work = std::thread::spawn(move || background.embed(&(0..20).map(text).collect::<Vec<_>>()).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    let picture = Input::image(demo::captioned(&["en"]).unwrap()[0].bytes);
    let interactive = batcher.embedder(Priority::Interactive);
    let urgent = std::thread::spawn(move || interactive.embed(&[picture]).unwrap());
    std::thread::sleep(Duration::from_millis(200));
    drop(go);
    urgent.join().unwrap();
    assert_eq!(work.join().unwrap().len(), 20);
    first.join().unwrap();
    assert_eq!(recorder.batches(), [(Modality::Text, 1), (Modality::Image, 1), (Modality::Text, 20)]);
}

#[test]
fn what_nobody_waits_for_is_not_computed() {
    let (recorder, go) = Recorder::gated();
    let batcher = Batcher::observed(mini(), BatchLimits::default(), recorder.clone());
    let first = held(&batcher, &recorder);
    let admission = batcher.admit(3).unwrap();
    let embedder = admission.embedder();
    let given_up = std::thread::spawn(move || embedder.embed(&[text(1), text(2), text(3)]));
    std::thread::sleep(Duration::from_millis(200));
    admission.cancel();
    drop(go);
    let error = crossmodal_engine::Error::from(given_up.join().unwrap().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    first.join().unwrap();
    drop(admission);
    assert_eq!((recorder.batches().len(), batcher.waiting()), (1, 0));
}

#[test]
fn a_full_house_is_said_to_be_full() {
    let batcher = Batcher::new(mini(), BatchLimits { admitted: 10, ..BatchLimits::default() });
    let admission = batcher.admit(8).unwrap();
    let overloaded = batcher.admit(3).unwrap_err();
    assert_eq!((overloaded.waiting, overloaded.limit), (8, 10));
    assert!(overloaded.retry_after >= Duration::from_secs(1));
    let second = batcher.admit(2).unwrap();
    drop(admission);
    assert!(batcher.admit(8).is_ok());
    drop(second);
    // One request may be larger than the limit when nothing else waits.
    assert!(batcher.admit(100).is_ok());
    assert_eq!(batcher.waiting(), 0);
}

#[test]
fn closing_answers_those_who_wait() {
    let (recorder, go) = Recorder::gated();
    let batcher = Batcher::observed(mini(), BatchLimits::default(), recorder.clone());
    let first = held(&batcher, &recorder);
    let embedder = batcher.embedder(Priority::Interactive);
    let later = batcher.embedder(Priority::Interactive);
    let waiting = std::thread::spawn(move || embedder.embed(&[text(1)]));
    std::thread::sleep(Duration::from_millis(200));
    let closing = std::thread::spawn(move || drop(batcher));
    std::thread::sleep(Duration::from_millis(100));
    drop(go);
    closing.join().unwrap();
    first.join().unwrap();
    for result in [waiting.join().unwrap(), later.embed(&[text(2)])] {
        assert_eq!(crossmodal_engine::Error::from(result.unwrap_err()).kind(), ErrorKind::Cancelled);
    }
}
