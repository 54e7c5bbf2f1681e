//! How the learning rate moves: a linear warm-up, then a half cosine or nothing.

use serde::{Deserialize, Serialize};

/// How the first steps' rates are counted; the reference implementations differ by one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmUp {
    /// `(step + 1) / warm-up`, so that the first step moves (open_clip).
    #[default]
    OpenClip,
    /// `step / warm-up`, so that the first step has rate 0 (transformers).
    Transformers,
}

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Half a cosine wave down to the floor at the last step.
    #[default]
    Cosine,
    /// The same rate to the end.
    Constant,
}

/// The factor on all learning rates by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Steps of the warm-up.
    pub warm_up: u64,
    /// How they are counted.
    pub counting: WarmUp,
    /// Steps in all.
    pub steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// The factor that a cosine ends at, 0 to 1.
    pub floor: f64,
}

impl Schedule {
    /// The factor for this step, the first being 0; beyond the last one it stays what it was.
    pub fn factor(&self, step: u64) -> f64 {
        if step < self.warm_up {
            let done = match self.counting {
                WarmUp::OpenClip => step + 1,
                WarmUp::Transformers => step,
            };
            return done as f64 / self.warm_up as f64;
        }
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Cosine => {
                let all = self.steps.saturating_sub(self.warm_up).max(1) as f64;
                let progress = ((step - self.warm_up) as f64 / all).min(1.0);
                self.floor + (1.0 - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_warm_up_it_starts_at_once_and_ends_at_the_floor() {
        let schedule = Schedule { warm_up: 0, counting: WarmUp::OpenClip, steps: 10, decay: Decay::Cosine, floor: 0.1 };
        assert_eq!(schedule.factor(0), 1.0);
        assert!((schedule.factor(5) - 0.55).abs() < 1e-12);
        assert!((schedule.factor(10) - 0.1).abs() < 1e-12 && (schedule.factor(1000) - 0.1).abs() < 1e-12);
        let constant = Schedule { decay: Decay::Constant, warm_up: 4, ..schedule };
        assert_eq!([0, 1, 3, 4, 9].map(|step| constant.factor(step)), [0.25, 0.5, 1.0, 1.0, 1.0]);
    }
}
