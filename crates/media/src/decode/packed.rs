//! Samples of 1, 2 and 4 bits, packed into bytes with the first one in the high bits.

/// Unpacks rows of `width` samples of `bits` bits, each row starting at a new byte after `stride` bytes, and maps each
/// sample. `bits` is 1, 2, 4 or 8. `None` if there are too few bytes.
pub(super) fn unpack(
    data: &[u8],
    (width, height): (u32, u32),
    bits: u8,
    stride: usize,
    map: impl Fn(u8) -> u8,
) -> Option<Vec<u8>> {
    let (width, height) = (width as usize, height as usize);
    let per_byte = 8 / usize::from(bits);
    let mask = ((1u16 << bits) - 1) as u8;
    let mut samples = Vec::with_capacity(width * height);
    for y in 0..height {
        let row = data.get(y * stride..)?.get(..width.div_ceil(per_byte))?;
        samples.extend((0..width).map(|x| {
            let shift = 8 - bits as usize * (x % per_byte + 1);
            map(row[x / per_byte] >> shift & mask)
        }));
    }
    Some(samples)
}

/// Bytes of a row whose samples are packed without padding between pixels.
pub(super) fn packed_stride(width: u32, bits_per_pixel: usize) -> usize {
    (width as usize * bits_per_pixel).div_ceil(8)
}

/// Factor that stretches a sample of `bits` bits to 0..=255.
pub(super) fn stretch(bits: u8) -> u8 {
    match bits {
        1 => 255,
        2 => 85,
        4 => 17,
        _ => 1,
    }
}

/// 256 colours from `colours`; what is missing is black, as in Pillow.
pub(super) fn full_palette(colours: impl IntoIterator<Item = [u8; 3]>) -> Vec<[u8; 3]> {
    let mut palette = vec![[0; 3]; 256];
    for (entry, colour) in palette.iter_mut().zip(colours) {
        *entry = colour;
    }
    palette
}

/// The high bytes of 16-bit samples stored high byte first.
pub(super) fn high_bytes(data: &[u8]) -> Vec<u8> {
    data.as_chunks::<2>().0.iter().map(|[high, _]| *high).collect()
}

/// Drops or repeats the bytes of each pixel of `N` bytes.
pub(super) fn map_pixels<const N: usize, const M: usize>(data: &[u8], map: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    data.as_chunks::<N>().0.iter().flat_map(|pixel| map(*pixel)).collect()
}
