//! Cutting pictures into patches, as rows of a matrix.

use crate::matrix::SharedRows;
use crate::team::Crew;

/// A batch of pictures, `[batch, channels, height, width]` in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Pictures<'a> {
    /// The pixels.
    pub pixels: &'a [f32],
    /// Number of channels.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Pictures<'_> {
    /// Writes patches of `side` x `side` pixels as rows of `channels * side * side` elements, channel by channel. `wanted` has the patches
    /// of each picture, as many of each, numbered in rows from the top; pixels beyond the last whole patch belong to none.
    ///
    /// # Panics
    /// When shapes don't fit, or there is no such patch.
    pub fn patches(&self, crew: Crew<'_>, side: usize, wanted: &[u32], out: &mut [f32]) {
        let Self { pixels, channels, height, width } = *self;
        let picture = channels * height * width;
        assert!(picture > 0 && side > 0 && pixels.len().is_multiple_of(picture), "{} pixels", pixels.len());
        let (rows, columns) = (height / side, width / side);
        let batch = pixels.len() / picture;
        assert!(wanted.len().is_multiple_of(batch.max(1)), "{} patches of {batch} pictures", wanted.len());
        assert!(wanted.iter().all(|patch| (*patch as usize) < rows * columns), "a patch beyond {rows} x {columns}");
        let (count, size) = (wanted.len() / batch.max(1), channels * side * side);
        assert!(out.len() == wanted.len() * size, "{} elements for {} patches", out.len(), wanted.len());
        let out = SharedRows::of(out, size);
        crew.for_each(batch, |at| {
            let pixels = &pixels[at * picture..][..picture];
            for (number, patch) in wanted[at * count..(at + 1) * count].iter().enumerate() {
                let (top, left) = (*patch as usize / columns * side, *patch as usize % columns * side);
                // SAFETY: each picture has its own rows.
                let out = unsafe { out.cells(at * count + number, 0..size) };
                for (line, out) in out.chunks_exact_mut(side).enumerate() {
                    let from = (line / side * height + top + line % side) * width + left;
                    out.copy_from_slice(&pixels[from..from + side]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::Team;

    #[test]
    fn patches_are_their_pixels() {
        let (batch, channels, height, width, side) = (3, 2, 7, 9, 3);
        let pixels: Vec<f32> = (0..batch * channels * height * width).map(|i| i as f32).collect();
        let wanted = [0, 5, 4, 4, 1, 2];
        let pictures = Pictures { pixels: &pixels, channels, height, width };
        let team = Team::new(2);
        let session = team.session();
        for crew in [Crew::Solo, Crew::Team(&session)] {
            let mut out = vec![-1.0; wanted.len() * channels * side * side];
            pictures.patches(crew, side, &wanted, &mut out);
            let mut expected = Vec::new();
            for (at, patch) in wanted.iter().enumerate() {
                for channel in 0..channels {
                    for y in 0..side {
                        for x in 0..side {
                            let (row, column) = (patch / 3 * 3 + y as u32, patch % 3 * 3 + x as u32);
                            let first = (at / 2 * channels + channel) * height * width;
                            expected.push(pixels[first + row as usize * width + column as usize]);
                        }
                    }
                }
            }
            assert_eq!(out, expected);
        }
    }

    #[test]
    #[should_panic(expected = "a patch beyond 2 x 2")]
    fn patches_that_are_not_there_are_refused() {
        let pixels = [0.0; 16];
        let pictures = Pictures { pixels: &pixels, channels: 1, height: 4, width: 4 };
        pictures.patches(Crew::Solo, 2, &[4], &mut [0.0; 4]);
    }
}
