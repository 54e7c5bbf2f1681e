//! The first frame of a GIF as Pillow shows it: palette indices on a canvas of the transparent index, or of index 0.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Frame, MemoryLimit};

use super::packed::full_palette;
use crate::picture::Transparency;
use crate::{DecodeLimits, ImageFormat, Picture, PixelMode, Result};

const FORMAT: ImageFormat = ImageFormat::Gif;

/// Decodes the first frame.
pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.allow_unknown_blocks(true);
    if let Some(memory) = NonZeroU64::new(limits.memory() as u64) {
        options.set_memory_limit(MemoryLimit::Bytes(memory));
    }
    let mut decoder = options.read_info(bytes).map_err(|error| FORMAT.malformed(error))?;
    let global = decoder.global_palette().map(<[u8]>::to_vec);
    let canvas = (u32::from(decoder.width()), u32::from(decoder.height()));
    let announced = decoder
        .next_frame_info()
        .map_err(|error| FORMAT.malformed(error))?
        .ok_or_else(|| FORMAT.malformed("it holds no frame"))?;
    // A frame that sticks out of the canvas makes it larger.
    let right = u32::from(announced.left) + u32::from(announced.width);
    let bottom = u32::from(announced.top) + u32::from(announced.height);
    let size = (canvas.0.max(right), canvas.1.max(bottom));
    limits.check_pixels(size.0, size.1)?;
    let mut frame = announced.clone();
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(|error| FORMAT.malformed(error))?;
    frame.buffer = indices.into();
    Ok(place(&frame, global.as_deref(), size))
}

fn place(frame: &Frame<'_>, global: Option<&[u8]>, (width, height): (u32, u32)) -> Picture {
    let stride = width as usize;
    let mut data = vec![frame.transparent.unwrap_or(0); stride * height as usize];
    let (left, frame_width) = (usize::from(frame.left), usize::from(frame.width));
    if frame_width > 0 {
        let rows = data.chunks_exact_mut(stride).skip(frame.top.into());
        for (row, source) in rows.zip(frame.buffer.chunks_exact(frame_width)) {
            row[left..left + frame_width].copy_from_slice(source);
        }
    }
    let palette = frame.palette.as_deref().or(global).filter(|palette| !is_grey_ramp(palette));
    let mode = if palette.is_some() { PixelMode::Palette } else { PixelMode::Grey };
    let mut picture = Picture::new(width, height, mode, data);
    if let Some(palette) = palette {
        picture.palette = full_palette(palette.as_chunks::<3>().0.iter().copied());
        picture.transparency = frame.transparent.map(Transparency::Index);
    } else {
        picture.transparency = frame.transparent.map(|level| Transparency::Level(level.into()));
    }
    picture
}

/// Whether every entry is the grey of its own index, in which case Pillow drops the palette.
fn is_grey_ramp(palette: &[u8]) -> bool {
    palette.as_chunks::<3>().0.iter().enumerate().all(|(index, colour)| colour.iter().all(|c| usize::from(*c) == index))
}
