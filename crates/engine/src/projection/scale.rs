//! Places to a square, so that a few far ones don't squeeze all others into a spot.

/// The share of the extent that everything but what is far off gets.
const INNER: f32 = 0.95;
/// Which part of the points, per side and direction, has no say about the middle.
const TRIMMED: f64 = 0.05;
/// What is farther from the middle than this many times nine tenths of the points is far off.
const FAR: f32 = 2.0;

/// Moves and scales places, both directions alike, into -1..=1. What is far off keeps its direction from the middle, but is drawn in to between
/// [`INNER`] and 1, in the order of its distance. Places without any extent all become the middle.
pub(super) fn to_square(places: &[[f32; 2]]) -> Vec<[f32; 2]> {
    let middle = [0, 1].map(|axis| {
        let values = sorted(places.iter().map(|place| place[axis]));
        let (low, high) = (quantile(&values, TRIMMED), quantile(&values, 1.0 - TRIMMED));
        low + (high - low) / 2.0
    });
    let moved = |place: &[f32; 2]| [place[0] - middle[0], place[1] - middle[1]];
    let reaches = sorted(places.iter().map(|place| reach(moved(place))));
    let Some(most) = reaches.last().copied().filter(|most| *most > 0.0) else {
        return vec![[0.0; 2]; places.len()];
    };
    let nine_tenths = quantile(&reaches, 0.9);
    let inner = if nine_tenths > 0.0 { most.min(FAR * nine_tenths) } else { most };
    let place = |place: &[f32; 2]| {
        let place = moved(place);
        let from = reach(place);
        let to = if from <= inner { from / inner * INNER } else { drawn_in((from - inner) / inner) };
        place.map(|value| if from > 0.0 { (value / from * to).clamp(-1.0, 1.0) } else { 0.0 })
    };
    places.iter().map(place).collect()
}

/// Where something lies that is `excess` times the inner part beyond its border: goes on as steeply as inside, and never reaches 1.
fn drawn_in(excess: f32) -> f32 {
    let rest = 1.0 - INNER;
    let steps = excess * INNER / rest;
    INNER + rest * steps / (1.0 + steps)
}

fn reach(place: [f32; 2]) -> f32 {
    place[0].abs().max(place[1].abs())
}

fn sorted(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values
}

/// The value that a part of the sorted values doesn't exceed; 0 of none.
fn quantile(sorted: &[f32], part: f64) -> f32 {
    let at = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_places_keep_their_shape() {
        let places: Vec<[f32; 2]> = (0..100).map(|at| [5.0 + (at % 10) as f32, (at / 10) as f32 * 0.5]).collect();
        let scaled = to_square(&places);
        let unit = scaled[1][0] - scaled[0][0];
        for (at, place) in scaled.iter().enumerate() {
            let expected = [scaled[0][0] + unit * (at % 10) as f32, scaled[0][1] + unit * 0.5 * (at / 10) as f32];
            assert!((place[0] - expected[0]).abs() < 1e-5 && (place[1] - expected[1]).abs() < 1e-5, "{at}");
        }
        assert!((scaled[0][0] + INNER).abs() < 1e-5 && (scaled[99][0] - INNER).abs() < 1e-5);
    }

    #[test]
    fn outliers_squeeze_nobody() {
        let mut places: Vec<[f32; 2]> = (0..100).map(|at| [(at % 10) as f32, (at / 10) as f32]).collect();
        let extent = |places: &[[f32; 2]]| {
            let scaled = to_square(places);
            assert!(scaled.iter().flatten().all(|value| value.abs() <= 1.0));
            scaled[99][0] - scaled[0][0]
        };
        let before = extent(&places);
        places.extend([[1e6, 5.0], [1e7, 5.0], [3.0, -4e5]]);
        assert!(extent(&places) > 0.45 * before);
        let scaled = to_square(&places);
        assert!(scaled[100][0] > INNER && scaled[100][0] <= scaled[101][0] && scaled[102][1] < -INNER);
    }

    #[test]
    fn nothing_one_and_equal_places_are_finite() {
        assert!(to_square(&[]).is_empty());
        assert_eq!(to_square(&[[7.0, -3.0]]), [[0.0, 0.0]]);
        assert_eq!(to_square(&[[7.0, -3.0]; 30]), [[0.0, 0.0]; 30]);
        assert_eq!(to_square(&[[1.0, 2.0], [3.0, 2.0]]), [[-INNER, 0.0], [INNER, 0.0]]);
        let mut most_equal = vec![[2.0, 2.0]; 50];
        most_equal.push([4.0, 1.0]);
        let scaled = to_square(&most_equal);
        assert_eq!((scaled[0], scaled[50]), ([0.0, 0.0], [INNER, -0.5 * INNER]));
    }
}
