//! The resizer against a plain, slow statement of Pillow's rules, over awkward sizes, and parts of a result against the
//! whole of it.

use crossmodal_media::{Filter, PassOrder, Picture, PixelMode, Region, resize};

fn kernel(filter: Filter, x: f64) -> f64 {
    let sinc = |x: f64| {
        if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) }
    };
    let x = x.abs();
    match filter {
        Filter::Nearest => panic!("no kernel"),
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic if x < 1.0 => 1.5 * x * x * x - 2.5 * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => -0.5 * x * x * x + 2.5 * x * x - 4.0 * x + 2.0,
        Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
        Filter::Bicubic | Filter::Lanczos => 0.0,
    }
}

fn support(filter: Filter) -> f64 {
    match filter {
        Filter::Nearest => 0.0,
        Filter::Bilinear => 1.0,
        Filter::Bicubic => 2.0,
        Filter::Lanczos => 3.0,
    }
}

/// One line of one channel, with weights rounded to 22 bits and the sum to a byte.
fn line(input: &[u8], to: usize, filter: Filter) -> Vec<u8> {
    if input.len() == to {
        return input.to_vec();
    }
    let scale = input.len() as f64 / to as f64;
    let stretch = scale.max(1.0);
    let output = |position: usize| {
        let centre = (position as f64 + 0.5) * scale;
        let reach = support(filter) * stretch;
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(input.len());
        let weights: Vec<f64> = (start..end).map(|at| kernel(filter, (at as f64 + 0.5 - centre) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        let sum: i64 = (start..end)
            .zip(&weights)
            .map(|(at, weight)| (weight / total * f64::from(1 << 22)).round() as i64 * i64::from(input[at]))
            .sum();
        ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
    };
    (0..to).map(output).collect()
}

fn column(picture: &[Vec<u8>], x: usize) -> Vec<u8> {
    picture.iter().map(|row| row[x]).collect()
}

fn transposed(picture: &[Vec<u8>]) -> Vec<Vec<u8>> {
    (0..picture[0].len()).map(|x| column(picture, x)).collect()
}

/// One channel, as rows.
fn plane(rows: &[Vec<u8>], (width, height): (usize, usize), filter: Filter, order: PassOrder) -> Vec<Vec<u8>> {
    let across = |rows: &[Vec<u8>], to: usize| rows.iter().map(|row| line(row, to, filter)).collect::<Vec<_>>();
    let down = |rows: &[Vec<u8>]| transposed(&across(&transposed(rows), height));
    let (from_width, from_height) = (rows[0].len() as i64, rows.len() as i64);
    let shrinks = (height as i64) < from_height;
    let vertical_first = match order {
        PassOrder::Pillow13 => shrinks && from_height - height as i64 > 2 * (from_width - width as i64),
        PassOrder::Pillow12 => shrinks && from_height > 100 * from_width,
    };
    if vertical_first { across(&down(rows), width) } else { down(&across(rows, width)) }
}

fn noise(width: u32, height: u32, mode: PixelMode) -> Picture {
    let mut state = u64::from(width * 7919 + height) | 1;
    let count = width as usize * height as usize * mode.bytes();
    let data = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Extremes provoke overshoot.
        match state % 4 {
            0 => 0,
            1 => 255,
            _ => (state >> 32) as u8,
        }
    });
    Picture { width, height, mode, data: data.take(count).collect(), palette: Vec::new(), transparency: None }
}

fn channel(picture: &Picture, channel: usize) -> Vec<Vec<u8>> {
    let size = picture.mode.bytes();
    let rows = picture.data.chunks_exact(picture.width as usize * size);
    rows.map(|row| row.iter().skip(channel).step_by(size).copied().collect()).collect()
}

const SIZES: [(u32, u32); 9] = [(1, 1), (2, 1), (1, 7), (3, 5), (16, 16), (17, 40), (65, 9), (3, 400), (130, 131)];
const FILTERS: [Filter; 3] = [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];

#[test]
fn equals_the_plain_statement_of_the_rules() {
    for (width, height) in SIZES {
        for (to_width, to_height) in SIZES {
            for filter in FILTERS {
                for (mode, order) in [(PixelMode::Rgb, PassOrder::Pillow13), (PixelMode::Grey, PassOrder::Pillow12)] {
                    let picture = noise(width, height, mode);
                    let whole = Region::whole(to_width, to_height);
                    let actual = resize(&picture, (to_width, to_height), &whole, filter, order);
                    for index in 0..mode.bytes() {
                        let size = (to_width as usize, to_height as usize);
                        let expected = plane(&channel(&picture, index), size, filter, order);
                        let context = format!("{width}x{height} to {to_width}x{to_height}, {filter:?}, {order:?}");
                        assert_eq!(channel(&actual, index), expected, "{context}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_part_equals_the_same_part_of_the_whole() {
    let modes = [
        PixelMode::Bilevel,
        PixelMode::Grey,
        PixelMode::GreyAlpha,
        PixelMode::Grey16,
        PixelMode::Rgb,
        PixelMode::Rgba,
        PixelMode::Cmyk,
    ];
    for mode in modes {
        for size in [(30, 41), (90, 20), (33, 300)] {
            for filter in [Filter::Nearest, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
                for order in [PassOrder::Pillow12, PassOrder::Pillow13] {
                    let picture = noise(61, 300, mode);
                    let whole = resize(&picture, size, &Region::whole(size.0, size.1), filter, order);
                    let region = Region { x: 3..size.0 - 7, y: 5..size.1 - 4 };
                    let part = resize(&picture, size, &region, filter, order);
                    let expected = resize(&whole, size, &region, filter, order);
                    assert_eq!(part, expected, "{mode:?} {size:?} {filter:?} {order:?}");
                }
            }
        }
    }
}
