//! Recipes: every field is checked, and what they ask for is what runs.

use std::path::{Path, PathBuf};

use crossmodal_models::{CancelToken, LoadOptions};
use crossmodal_train::assemble::{assemble, device};
use crossmodal_train::model::{Products, Selection, Tower, Trained};
use crossmodal_train::recipe::Recipe;
use crossmodal_train::trainer::{RunFolder, Trainer};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A recipe in a folder of its own.
fn read(folder: &Path, text: &str) -> crossmodal_train::Result<Recipe> {
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    Recipe::read(&path)
}

#[test]
fn recipes_of_the_repository_are_read() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("recipes")).unwrap() {
        let path = entry.unwrap().path();
        let recipe = Recipe::read(&path).and_then(|recipe| recipe.check().map(|()| recipe));
        let recipe = recipe.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if let Some(folder) = &recipe.model.architecture {
            assert!(Path::new(folder).join("config.json").is_file(), "{}: {folder}", path.display());
        }
        count += 1;
    }
    assert!(count > 0);
}

fn whole(output: &Path) -> String {
    let (root, output) = (root().display().to_string(), output.display().to_string());
    format!(
        r#"
[model]
from = "{root}/tests/golden/hf-clip/modern-gelu"
trained = "lora"
lock = "image"
logit_scale = 20.0
[model.lora]
rank = 4
targets = ["q", "k", "v", "fc1"]
[data]
path = "{root}/samples/gallery/captions.csv"
[data.columns]
left = "file"
right = [{{ name = "en", weight = 2.0, templates = ["a drawing of {{}}"] }}, {{ name = "fr" }}]
[data.split]
share = 0.1
[data.batches]
batch_size = 16
length_window = 4
[data.batches.augmentation]
mirror = 0.5
[[loss]]
name = "negclip"
[[loss]]
name = "siglip"
weight = 0.1
widths = [8, 16]
[optimiser]
learning_rate = 0.001
weight_decay = 0.01
factors = {{ "text.blocks.0." = 0.5 }}
warm_up = 0.1
[optimiser.muon]
learning_rate = 0.01
[run]
output = "{output}"
epochs = 2
accumulate = 2
piece = 8
seed = 3
duplicates = "positive"
patches = {{ least = 0.3, most = 0.5, until = 0.8 }}
average = 0.99
dtype = "f16"
device = "cpu"
"#
    )
}

#[test]
fn a_recipe_runs_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let recipe = read(folder.path(), &whole(&out)).unwrap();
    let Selection {
        trained: Trained::LowRank(lora),
        lock: Some(Tower::Image),
        temperature: true,
        products: Products::F32,
    } = recipe.selection()
    else {
        panic!("{:?}", recipe.selection());
    };
    assert_eq!((lora.rank, lora.targets.len()), (4, 4));
    let parts = assemble(&recipe, &LoadOptions::default()).unwrap();
    assert_eq!(parts.rules.schedule.warm_up, (0.1 * parts.rules.steps as f64).round() as u64);
    assert_eq!(parts.rules.validate_every, Some(parts.rules.steps / 2));
    assert!((parts.model.logit_scale().unwrap() - 20.0).abs() < 1e-4);
    let text = parts.recipe.clone();
    let mut trainer = Trainer::open(parts, RunFolder::open(&out).unwrap(), false).unwrap();
    let summary = trainer.run(&CancelToken::new(), &mut |_| ()).unwrap();
    assert!(summary.step > 5 && summary.best.is_some(), "{summary:?}");
    let size = std::fs::metadata(summary.model.join("model.safetensors")).unwrap().len();
    let source = std::fs::metadata(root().join("tests/golden/hf-clip/modern-gelu/model.safetensors")).unwrap().len();
    assert!(size < source * 6 / 10, "half precision: {size} of {source}");
    let page = std::fs::read_to_string(&summary.report).unwrap();
    assert!(page.contains("What the model finds") && page.contains("text_to_image_recall_at_1"));
    // The same recipe is the same text whatever the folder and the device, and another one is another.
    let moved = read(folder.path(), &whole(&folder.path().join("elsewhere"))).unwrap();
    assert_eq!(assemble(&moved, &LoadOptions::default()).unwrap().recipe, text);
    let changed = read(folder.path(), &whole(&out).replace("seed = 3", "seed = 4")).unwrap();
    assert_ne!(assemble(&changed, &LoadOptions::default()).unwrap().recipe, text);
}

#[test]
fn wrong_fields_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = whole(&folder.path().join("run"));
    let cases = [
        ("learning_rate = 0.001", "learning_rat = 0.001", "did you mean `learning_rate`?"),
        ("[optimiser]", "[optimizer]", "did you mean `optimiser`?"),
        ("name = \"negclip\"", "name = \"negclp\"", "did you mean `negclip`?"),
        ("mirror = 0.5", "miror = 0.5", "did you mean `mirror`?"),
        ("mirror = 0.5", "mirror = 1.5", "mirror"),
        ("rank = 4", "rank = 0", "lora.rank is 0"),
        ("\"fc1\"]", "\"fc3\"]", "\"fc3\""),
        ("lock = \"image\"", "lock = \"picture\"", "picture"),
        ("trained = \"lora\"", "trained = \"all\"", "model.lora"),
        ("logit_scale = 20.0", "logit_scale = 1000.0", "model.logit_scale is 1000"),
        ("batch_size = 16", "batch_size = 0", "batch_size"),
        ("share = 0.1", "share = 1.5", "1.5"),
        ("weight = 0.1", "weight = -0.1", "weight -0.1"),
        ("weight = 0.1", "tau = 0.1", "siglip: has no setting tau"),
        ("epochs = 2", "epochs = 0", "run.epochs is 0"),
        ("average = 0.99", "average = 1.0", "run.average is 1"),
        ("least = 0.3", "least = 0.6", "run.patches.least"),
        ("warm_up = 0.1", "warm_up = \"long\"", "line"),
        ("dtype = \"f16\"", "dtype = \"f166\"", "did you mean `f16`?"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        let message = read(folder.path(), &good.replacen(from, to, 1));
        let message = message.and_then(|recipe| recipe.loss().map(drop)).unwrap_err().to_string();
        assert!(message.contains(expected), "{to}: {message}");
    }
    let message = read(folder.path(), "[model]\nfrom = \"mini\"\narchitecture = \"x\"\n").unwrap_err().to_string();
    assert!(message.contains("only one") && message.contains("recipe.toml"), "{message}");
    let message = read(folder.path(), "[model]\nfrom = \"mini\"\nnonsense").unwrap_err().to_string();
    assert!(message.contains("recipe.toml: line 3"), "{message}");
}

#[test]
fn paths_are_relative_to_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("base")).unwrap();
    let text = "[model]\nfrom = \"base\"\nteacher = \"mini\"\n[data]\npath = \"d.csv\"\nvalidation = \"/v.csv\"\n[run]\noutput = \"out\"\n";
    let recipe = read(folder.path(), text).unwrap();
    let within = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    assert_eq!(recipe.model.from, Some(within("base")));
    assert_eq!(recipe.model.teacher.as_deref(), Some("mini"));
    assert_eq!(recipe.data.path, within("d.csv"));
    assert_eq!(recipe.data.validation.as_deref(), Some("/v.csv"));
    assert_eq!(recipe.run.output, Some(within("out")));
}

#[test]
fn what_does_not_fit_together_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let good = whole(&folder.path().join("run"));
    let message = |from: &str, to: &str| {
        let recipe = read(folder.path(), &good.replacen(from, to, 1)).unwrap();
        assemble(&recipe, &LoadOptions::default()).unwrap_err().to_string()
    };
    assert!(message("name = \"negclip\"", "name = \"affinity-mimicking\"").contains("model.teacher"));
    assert!(message("lock = \"image\"", "teacher = \"mini\"").contains("none of the losses"));
    assert!(message("name = \"negclip\"", "name = \"concepts\"").contains("concept"));
    assert!(message("captions.csv", "nothing.csv").contains("nothing.csv"));
    assert!(message("device = \"cpu\"", "device = \"gpu\"").contains("expected auto, cpu or cuda:N"));
    let half = message("device = \"cpu\"", "device = \"cpu\"\nproducts = \"bf16\"");
    assert!(half.contains("run.products: bf16 is for graphics processors"), "{half}");
    if !cfg!(feature = "cuda") {
        assert!(device("cuda:0").unwrap_err().to_string().contains("built without CUDA"));
    }
    assert!(device("auto").is_ok());
}
