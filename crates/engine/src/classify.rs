//! Zero-shot classification: a class is the mean of its prompts' embeddings.

use crossmodal_models::{Embedder, Embedding, Input};

use crate::error::{Error, Result};
use crate::similarity::{dot, probabilities};

/// Prompts that are embedded together.
const PROMPTS: usize = 1 << 14;

/// A label and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The label.
    pub label: String,
    /// Its probability, as the model defines it: over the labels for a softmax, on its own for a sigmoid.
    pub probability: f32,
}

/// A zero-shot classifier: labels with one unit vector each.
#[derive(Debug, Clone)]
pub struct Classifier {
    labels: Vec<String>,
    vectors: Vec<Vec<f32>>,
    scale: f32,
    bias: f32,
    rule: crossmodal_models::ProbabilityRule,
}

impl Classifier {
    /// Embeds every label in every template (`{}` stands for the label). The unit vectors of a label's prompts are averaged
    /// and normalised again, as CLIP does. No template means the label itself.
    ///
    /// # Errors
    /// No label, an empty or repeated one, a template without `{}`, or a model that doesn't define probabilities.
    pub fn new(model: &dyn Embedder, labels: &[String], templates: &[String]) -> Result<Self> {
        check(labels, templates)?;
        let rule = model.logit_rule()?;
        let rule = rule.ok_or_else(|| {
            Error::Invalid(format!("{} doesn't define probabilities between pictures and texts", model.info().name))
        })?;
        let bare = ["{}".to_string()];
        let templates = if templates.is_empty() { &bare } else { templates };
        let mut vectors = Vec::with_capacity(labels.len());
        // Many labels together: the model computes what prompts of one template begin with only once.
        for labels in labels.chunks((PROMPTS / templates.len()).max(1)) {
            let prompt = |label: &String| {
                templates.iter().map(|template| Input::text(template.replace("{}", label))).collect::<Vec<_>>()
            };
            let embedded = model.embed(&labels.iter().flat_map(prompt).collect::<Vec<_>>())?;
            for prompts in embedded.chunks(templates.len()) {
                vectors.push(mean(prompts)?);
            }
        }
        Ok(Self { labels: labels.to_vec(), vectors, scale: rule.scale, bias: rule.bias, rule: rule.probability })
    }

    /// Probabilities of all labels for an embedded picture, best first; equal ones in the labels' order.
    pub fn classify(&self, picture: &Embedding) -> Vec<Prediction> {
        let logits: Vec<f32> =
            self.vectors.iter().map(|vector| dot(&picture.unit, vector) * self.scale + self.bias).collect();
        let probabilities = probabilities(&logits, self.rule);
        let labelled = self.labels.iter().zip(probabilities);
        let mut predictions: Vec<_> =
            labelled.map(|(label, probability)| Prediction { label: label.clone(), probability }).collect();
        predictions.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        predictions
    }
}

fn check(labels: &[String], templates: &[String]) -> Result<()> {
    if labels.is_empty() {
        return Err(Error::Invalid("no labels to choose from".into()));
    }
    if labels.iter().any(|label| label.trim().is_empty()) {
        return Err(Error::Invalid("one of the labels is empty".into()));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(label) = labels.iter().find(|label| !seen.insert(label.as_str())) {
        return Err(Error::Invalid(format!("label {label:?} is given twice")));
    }
    if let Some(template) = templates.iter().find(|template| !template.contains("{}")) {
        return Err(Error::Invalid(format!("template {template:?} has no {{}} where the label goes")));
    }
    Ok(())
}

/// The unit vector of the mean of unit vectors.
fn mean(prompts: &[Embedding]) -> Result<Vec<f32>> {
    let mut sum = vec![0f32; prompts.first().map_or(0, |prompt| prompt.unit.len())];
    for prompt in prompts {
        sum.iter_mut().zip(&prompt.unit).for_each(|(sum, value)| *sum += value);
    }
    Ok(Embedding::from_native(sum)?.unit)
}
