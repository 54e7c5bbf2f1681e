//! Curves as SVG.

use std::fmt::Write as _;

/// Size of the drawing and of its margins.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 46.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;
const RIGHT: f64 = 8.0;

/// More points than this on a curve can't be told apart.
const MOST_POINTS: usize = 600;

/// One curve.
pub(super) struct Series {
    /// What it is called.
    pub(super) name: String,
    /// Steps and values.
    pub(super) points: Vec<(f64, f64)>,
}

/// A drawing of curves over steps.
pub(super) struct Chart<'a> {
    pub(super) caption: &'a str,
    pub(super) series: Vec<Series>,
    /// Whether to draw a running mean, with the values themselves faint behind it.
    pub(super) smooth: bool,
}

impl Chart<'_> {
    /// The drawing; `None` where there is nothing to draw.
    pub(super) fn svg(&self) -> Option<String> {
        let frame = Frame::around(self.series.iter().flat_map(|series| &series.points))?;
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">{}", frame.axes());
        for (number, series) in self.series.iter().enumerate() {
            let finite: Vec<(f64, f64)> = series.points.iter().copied().filter(|point| point.1.is_finite()).collect();
            let class = format!("line{}", number % 2);
            let few = finite.len() <= 20;
            if self.smooth && !few {
                svg.push_str(&frame.curve(&finite, "faint", &series.name));
                svg.push_str(&frame.curve(&running_mean(&finite), &class, &series.name));
            } else {
                svg.push_str(&frame.curve(&finite, &class, &series.name));
            }
            for (step, value) in finite.iter().filter(|_| few) {
                let (x, y) = (frame.x(*step), frame.y(*value));
                let _ = write!(svg, "<circle class=\"dot{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>", number % 2);
            }
        }
        svg.push_str("</svg>");
        Some(svg)
    }
}

/// What a drawing reaches over.
struct Frame {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
}

impl Frame {
    /// A frame around all points that are numbers; `None` where there are none.
    fn around<'a>(points: impl Iterator<Item = &'a (f64, f64)> + Clone) -> Option<Self> {
        let points = points.filter(|point| point.1.is_finite());
        let range = |value: fn(&(f64, f64)) -> f64| {
            let start = (f64::INFINITY, f64::NEG_INFINITY);
            points.clone().map(value).fold(start, |(low, high), x| (low.min(x), high.max(x)))
        };
        let ((first, last), (low, high)) = (range(|point| point.0), range(|point| point.1));
        let margin = ((high - low) * 0.05).max(1e-9 * high.abs()).max(1e-12);
        first.is_finite().then_some(Self { first, last, low: low - margin, high: high + margin })
    }

    fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.first) / (self.last - self.first).max(1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)
    }

    /// Lines of equal values with their labels, and the first and the last step.
    fn axes(&self) -> String {
        let mut svg = String::new();
        for at in 0..=3 {
            let value = self.low + (self.high - self.low) * f64::from(at) / 3.0;
            let height = self.y(value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{height:.1}\" y2=\"{height:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 5.0,
                height + 4.0,
                short(value)
            );
        }
        for (step, anchor) in [(self.first, "start"), (self.last, "end")] {
            let (place, below) = (self.x(step), HEIGHT - 6.0);
            let _ = write!(svg, "<text x=\"{place:.1}\" y=\"{below}\" text-anchor=\"{anchor}\">{step:.0}</text>");
        }
        svg
    }

    fn curve(&self, points: &[(f64, f64)], class: &str, name: &str) -> String {
        let mut path = String::new();
        for (step, value) in thinned(points) {
            let _ = write!(path, "{:.1},{:.1} ", self.x(step), self.y(value));
        }
        let name = name.replace(['<', '&', '"'], "");
        format!(
            "<polyline class=\"{class}\" fill=\"none\" stroke-width=\"1.6\" points=\"{path}\"><title>{name}</title></polyline>"
        )
    }
}

/// Every so manyth point, and the last one.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let every = points.len().div_ceil(MOST_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.iter().enumerate().filter(move |(at, _)| at % every == 0 || *at == last).map(|(_, point)| *point)
}

/// The mean of each point with those around it, as many as a fiftieth of all.
fn running_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 50).max(2);
    let mean = |at: usize| {
        let window = &points[at.saturating_sub(reach)..(at + reach + 1).min(points.len())];
        (points[at].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    (0..points.len()).map(mean).collect()
}

/// A number in a few characters.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Option<String> {
        Chart { caption: "c", series: vec![Series { name: "s".into(), points }], smooth: true }.svg()
    }

    #[test]
    fn curves_stay_within_the_drawing_and_leave_out_what_is_no_number() {
        assert!(chart(Vec::new()).is_none() && chart(vec![(1.0, f64::NAN)]).is_none());
        let many: Vec<(f64, f64)> = (0..5000).map(|step| (f64::from(step), f64::from(step % 97))).collect();
        let svg = chart(many).unwrap();
        let numbers = svg.split("points=\"").skip(1).map(|part| part.split('"').next().unwrap());
        for curve in numbers {
            let pairs: Vec<&str> = curve.split_whitespace().collect();
            assert!(pairs.len() <= MOST_POINTS + 2);
            for pair in pairs {
                let (x, y) = pair.split_once(',').unwrap();
                assert!((LEFT..=WIDTH).contains(&x.parse().unwrap()) && (TOP..=HEIGHT).contains(&y.parse().unwrap()));
            }
        }
        assert!(chart(vec![(5.0, 2.0)]).unwrap().contains("circle"), "a single value is a dot");
        assert!(!chart(vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 2.5)]).unwrap().contains("NaN"));
    }
}
