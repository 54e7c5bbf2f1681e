//! Bytes to pixels: decoding under limits, resizing and cropping equal to Pillow's, bit for bit.
//!
//! Knows no tensors and no models: a model hands over a plain [`ImagePrep`].

#![forbid(unsafe_code)]

mod bytes;
mod coefficients;
mod convolve;
mod decode;
mod error;
mod format;
mod orientation;
mod picture;
mod pipeline;
mod prep;
mod resize;
mod spare;
mod thumbnail;

pub use decode::{decode, decode_oriented, decode_rgb, orientation};
pub use error::{Error, ErrorKind, Result};
pub use format::{ImageFormat, dimensions, sniff};
pub use picture::{Picture, PixelMode, Transparency};
pub use pipeline::Opened;
pub use prep::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, PixelTensor, PrepOverrides, Resize, RgbPixels,
};
pub use resize::{Region, resize};
pub use thumbnail::thumbnail;
