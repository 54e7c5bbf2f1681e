//! Embeds in this process what `bench/serve` sends a server, so that both can take turns: orders come as JSON lines on standard input, answers go
//! out as JSON lines.
//!
//! `cargo run --release -p crossmodal-engine --example embed_worker -- MODEL`
//!
//! | order | does | answer |
//! |---|---|---|
//! | `{"texts": "x.json", "batch": 32}` | takes a list of texts | `{"items": n}` |
//! | `{"pictures": "folder", "batch": 32}` | takes the files of a folder, in the order of their names | `{"items": n}` |
//! | `{"seconds": s}` | prepares and encodes batch after batch for so long | `{"items": n, "seconds": s}` |
//! | `{"output": "y.jsonl"}` | embeds every input once and writes unit vectors, one a line | `{"items": n}` |

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead as _, Write as _};
use std::time::Instant;

use crossmodal_engine::{Embedder, Input, LoadOptions, load, read_input};
use serde::Deserialize;
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One line of input.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Order {
    Texts { texts: String, batch: usize },
    Pictures { pictures: String, batch: usize },
    Run { seconds: f64 },
    Output { output: String },
}

struct Worker {
    model: std::sync::Arc<dyn Embedder>,
    batches: Vec<Vec<Input>>,
    /// The batch whose turn it is.
    next: usize,
}

impl Worker {
    fn take(&mut self, inputs: &[Input], batch: usize) -> Outcome<Value> {
        self.batches = inputs.chunks(batch.max(1)).map(<[Input]>::to_vec).collect();
        self.next = 0;
        let first = self.batches.first().ok_or("there are no inputs")?;
        black_box(self.model.embed(first)?);
        Ok(json!({ "items": inputs.len() }))
    }

    fn run(&mut self, seconds: f64) -> Outcome<Value> {
        let (mut items, start) = (0, Instant::now());
        while !self.batches.is_empty() && start.elapsed().as_secs_f64() < seconds {
            let batch = &self.batches[self.next];
            items += black_box(self.model.embed(batch)?).len();
            self.next = (self.next + 1) % self.batches.len();
        }
        Ok(json!({ "items": items, "seconds": start.elapsed().as_secs_f64() }))
    }

    fn output(&self, file: &str) -> Outcome<Value> {
        let mut lines = std::io::BufWriter::new(std::fs::File::create(file)?);
        let mut items = 0;
        for batch in &self.batches {
            for embedding in self.model.embed(batch)? {
                writeln!(lines, "{}", json!(embedding.unit))?;
                items += 1;
            }
        }
        lines.flush()?;
        Ok(json!({ "items": items }))
    }

    fn obey(&mut self, line: &str) -> Outcome<Value> {
        match serde_json::from_str(line)? {
            Order::Texts { texts, batch } => {
                let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts)?)?;
                self.take(&texts.iter().map(Input::text).collect::<Vec<_>>(), batch)
            }
            Order::Pictures { pictures, batch } => {
                let files = std::fs::read_dir(pictures)?.map(|entry| Ok(entry?.path()));
                let mut files = files.collect::<std::io::Result<Vec<_>>>()?;
                files.sort();
                let inputs = files.iter().map(|file| read_input(file)).collect::<Result<Vec<_>, _>>()?;
                self.take(&inputs, batch)
            }
            Order::Run { seconds } => self.run(seconds),
            Order::Output { output } => self.output(&output),
        }
    }
}

fn main() -> Outcome<()> {
    let name = std::env::args().nth(1).ok_or("which model?")?;
    let model = load(&name, &LoadOptions::default())?;
    let mut worker = Worker { model, batches: Vec::new(), next: 0 };
    for line in std::io::stdin().lock().lines() {
        println!("{}", worker.obey(&line?)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
