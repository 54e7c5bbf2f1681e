//! Resizing learned position embeddings to another number of positions, as the references do.

use candle_core::{Device, Result, Tensor};

/// How a grid of position embeddings is resized. The two references differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GridResize {
    /// Bicubic, a = -0.75, not antialiased, edge taps repeated (Hugging Face).
    Bicubic,
    /// Bicubic, a = -0.5, antialiased, taps outside dropped (OpenCLIP).
    BicubicAntialiased,
}

/// Resizes positions `[1 + old rows * old columns, width]`, the first of them a class token's that is kept, from the grid
/// `old` to the grid `new` (both rows, columns).
///
/// # Errors
/// A number of positions other than `1 + old.0 * old.1`.
pub fn resize_grid_positions(
    positions: &Tensor,
    old: (usize, usize),
    new: (usize, usize),
    method: GridResize,
) -> Result<Tensor> {
    let width = positions.dims2()?.1;
    let class = positions.narrow(0, 0, 1)?;
    let grid = positions.narrow(0, 1, old.0 * old.1)?;
    let rows = taps(old.0, new.0, method);
    let columns = taps(old.1, new.1, method);
    let device = positions.device();
    let grid = mix(&rows, old.0, device)?.matmul(&grid.reshape((old.0, old.1 * width))?)?;
    let grid = grid.reshape((new.0, old.1, width))?.transpose(0, 1)?.reshape((old.1, new.0 * width))?;
    let grid = mix(&columns, old.1, device)?.matmul(&grid)?;
    let grid = grid.reshape((new.1, new.0, width))?.transpose(0, 1)?.reshape((new.0 * new.1, width))?;
    Tensor::cat(&[&class, &grid], 0)
}

/// Resizes positions `[old, width]` to `[new, width]` by linear interpolation between centres (OpenCLIP's text towers).
///
/// # Errors
/// Positions that aren't two-dimensional.
pub fn resize_sequence_positions(positions: &Tensor, new: usize) -> Result<Tensor> {
    let old = positions.dims2()?.0;
    let scale = old as f64 / new as f64;
    let taps: Vec<Vec<(usize, f64)>> = (0..new)
        .map(|i| {
            let source = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
            let low = (source as usize).min(old - 1);
            let share = source - low as f64;
            vec![(low, 1.0 - share), ((low + 1).min(old - 1), share)]
        })
        .collect();
    mix(&taps, old, positions.device())?.matmul(positions)
}

/// For each output position, the input positions it mixes and their weights.
fn taps(old: usize, new: usize, method: GridResize) -> Vec<Vec<(usize, f64)>> {
    let scale = old as f64 / new as f64;
    (0..new)
        .map(|i| match method {
            GridResize::Bicubic => {
                let source = (i as f64 + 0.5) * scale - 0.5;
                let base = source.floor();
                let tap = |k: i64| {
                    let at = (base as i64 + k).clamp(0, old as i64 - 1) as usize;
                    (at, cubic(source - base - k as f64, -0.75))
                };
                (-1..=2).map(tap).collect()
            }
            GridResize::BicubicAntialiased => {
                let stretch = scale.max(1.0);
                let centre = (i as f64 + 0.5) * scale;
                let low = (centre - 2.0 * stretch + 0.5).max(0.0) as usize;
                let high = ((centre + 2.0 * stretch + 0.5) as usize).min(old);
                let weight = |k: usize| cubic((k as f64 - centre + 0.5) / stretch, -0.5);
                let total: f64 = (low..high).map(weight).sum();
                (low..high).map(|k| (k, weight(k) / total)).collect()
            }
        })
        .collect()
}

/// The cubic convolution kernel with parameter `a`.
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// The matrix `[outputs, inputs]` of these taps; taps on one input add up.
fn mix(taps: &[Vec<(usize, f64)>], inputs: usize, device: &Device) -> Result<Tensor> {
    let mut matrix = vec![0f32; taps.len() * inputs];
    for (row, taps) in taps.iter().enumerate() {
        for &(input, weight) in taps {
            matrix[row * inputs + input] += weight as f32;
        }
    }
    Tensor::from_vec(matrix, (taps.len(), inputs), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(rows: usize, columns: usize) -> Tensor {
        let mut values = vec![9.0f32];
        values.extend((0..rows * columns).map(|i| ((i * 7 + 3) % 11) as f32 - 4.0));
        Tensor::from_vec(values, (1 + rows * columns, 1), &Device::Cpu).unwrap()
    }

    fn resized(method: GridResize, old: (usize, usize), new: (usize, usize)) -> Vec<f32> {
        let tensor = resize_grid_positions(&ramp(old.0, old.1), old, new, method).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn same_size_is_the_identity() {
        for method in [GridResize::Bicubic, GridResize::BicubicAntialiased] {
            let expected: Vec<f32> = ramp(3, 4).flatten_all().unwrap().to_vec1().unwrap();
            for (found, expected) in resized(method, (3, 4), (3, 4)).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6);
            }
        }
    }

    // Expected values: torch.nn.functional.interpolate of PyTorch 2.15, align_corners=False.
    #[test]
    fn values_match_the_reference() {
        type Case = (GridResize, (usize, usize), (usize, usize), &'static [f32]);
        let cases: [Case; 4] = [
            (GridResize::Bicubic, (4, 5), (2, 3), &[0.20139, 2.8125, -0.381946, 2.844908, 1.6875, 0.530093]),
            (
                GridResize::BicubicAntialiased,
                (4, 5),
                (2, 3),
                &[0.670757, 2.165097, -0.278194, 1.890083, 1.505093, 0.353719],
            ),
            (
                GridResize::Bicubic,
                (3, 4),
                (5, 7),
                &[
                    -2.375288, 1.41502, 6.203837, 5.70925, 2.005947, -1.099192, -3.077638, 1.416942, 2.913609,
                    4.485035, 2.180748, -0.532702, 0.032115, 0.79317, 5.396868, 3.883019, 1.413631, -2.03125,
                    -2.784255, 1.368805,
                ],
            ),
            (
                GridResize::BicubicAntialiased,
                (3, 4),
                (5, 7),
                &[
                    -2.073976, 1.065029, 6.145816, 5.168632, 2.035834, -1.14658, -2.835994, 1.079129, 2.448876,
                    4.465956, 2.398321, -0.144531, 0.050885, 0.356182, 5.317308, 3.94451, 1.303944, -1.6875, -2.806035,
                    1.732905,
                ],
            ),
        ];
        for (method, old, new, expected) in cases {
            let found = resized(method, old, new);
            assert_eq!(found[0], 9.0);
            for (found, expected) in found[1..].iter().zip(expected) {
                assert!((found - expected).abs() < 5e-6, "{method:?} {old:?} {new:?}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn the_sequence_is_interpolated_between_centres() {
        let positions = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu).unwrap();
        let found: Vec<f32> =
            resize_sequence_positions(&positions, 2).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(found, [0.5, 2.5]);
        let found: Vec<f32> =
            resize_sequence_positions(&positions, 8).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(found, [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
    }
}
