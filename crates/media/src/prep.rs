//! How a picture becomes a model's input: plain data, filled in from a checkpoint's own configuration.

use std::fmt::Write as _;

/// Interpolation of the resizer. All are antialiased when shrinking, as Pillow's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Nearest neighbour.
    Nearest,
    /// Triangle filter, support 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2.
    Bicubic,
    /// Windowed sinc, support 3.
    Lanczos,
}

/// How the picture is brought to size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resize {
    /// Keep the size.
    None,
    /// The shorter side becomes `edge`, the longer one `int(edge * long / short)`.
    ShortestEdge {
        /// Length of the shorter side in pixels.
        edge: u32,
    },
    /// Scale so that both sides cover `width` x `height`, each side rounded half to even (OpenCLIP's "shortest" for
    /// sizes that aren't square).
    Cover {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Exactly `width` x `height`, whatever the aspect ratio.
    Squash {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// Fit inside `width` x `height`, each side rounded half to even, then pad around the middle with `fill`.
    Longest {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Value of every channel of the padding.
        fill: u8,
    },
}

/// Which pixel a centre crop starts at when the margin is odd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CropRounding {
    /// `floor(margin / 2)`, as Hugging Face does.
    Floor,
    /// `margin / 2` rounded half to even, as torchvision does.
    HalfEven,
}

/// A crop around the middle. A picture smaller than the crop is padded with zeros (black, before normalisation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CenterCrop {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Rule for odd margins.
    pub rounding: CropRounding,
}

/// When the picture becomes RGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColourOrder {
    /// Before resizing (Hugging Face, ImageBind).
    BeforeResize,
    /// After resizing and cropping (OpenCLIP): palettes are resized nearest, alpha premultiplied.
    AfterResize,
}

/// What happens to transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlphaRule {
    /// The alpha channel is dropped, the hidden colours show (OpenCLIP, Pillow's plain RGB conversion).
    Drop,
    /// The picture is laid over white (transformers 5).
    OverWhite,
    /// What transformers 5 does to a file opened with its `load_image`: alpha channels and graded palettes are dropped,
    /// but a single transparent colour or palette entry turns white.
    KeyOverWhite,
}

/// Whether the EXIF orientation is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrientationRule {
    /// Pixels stay as stored.
    Ignore,
    /// The picture is turned upright.
    Exif,
}

/// Order of the resizer's two passes, which changed in Pillow 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PassOrder {
    /// Pillow 13: vertical first on strongly shrinking portraits.
    #[default]
    Pillow13,
    /// Pillow up to 12.3: horizontal first.
    Pillow12,
}

/// Bounds on what is decoded, against decompression bombs and run-away memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeLimits {
    /// Largest encoded size in bytes.
    pub max_bytes: u64,
    /// Largest number of pixels, read from the header before anything is decoded.
    pub max_pixels: u64,
}

impl Default for DecodeLimits {
    /// 256 MiB and 178,956,970 pixels (twice Pillow's warning threshold, where Pillow refuses).
    fn default() -> Self {
        Self { max_bytes: 256 << 20, max_pixels: 178_956_970 }
    }
}

/// Whether a picture is decoded in full before it is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DecodeMode {
    /// Every pixel is decoded, as the references do.
    #[default]
    Exact,
    /// JPEGs that will shrink a lot are decoded to a half, a quarter or an eighth of their sides, as long as both are still
    /// at least twice as long as what they are resized to. Faster; the resized pixels differ a little.
    Fast,
}

/// How a picture becomes a model's input.
#[derive(Debug, Clone, PartialEq)]
pub struct ImagePrep {
    /// How it is brought to size.
    pub resize: Resize,
    /// Interpolation.
    pub filter: Filter,
    /// Crop after resizing.
    pub crop: Option<CenterCrop>,
    /// When it becomes RGB.
    pub colour_order: ColourOrder,
    /// What happens to transparency.
    pub alpha: AlphaRule,
    /// Whether EXIF orientation is applied.
    pub orientation: OrientationRule,
    /// Order of the resizer's passes.
    pub pass_order: PassOrder,
    /// Whether everything is decoded.
    pub decode: DecodeMode,
    /// Factor from bytes to numbers, usually 1/255; `None` leaves 0 to 255.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each channel after rescaling; `None` leaves values as they are.
    pub normalise: Option<([f32; 3], [f32; 3])>,
    /// Bounds on what is decoded.
    pub limits: DecodeLimits,
}

/// Departures from a checkpoint's own preparation, chosen by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrepOverrides {
    /// Another rule for transparency.
    pub alpha: Option<AlphaRule>,
    /// Another rule for EXIF orientation.
    pub orientation: Option<OrientationRule>,
    /// Another order of passes.
    pub pass_order: Option<PassOrder>,
    /// Whether everything is decoded.
    pub decode: Option<DecodeMode>,
    /// Other limits.
    pub limits: Option<DecodeLimits>,
}

impl ImagePrep {
    /// This preparation with the user's departures applied.
    #[must_use]
    pub fn with(mut self, overrides: &PrepOverrides) -> Self {
        let PrepOverrides { alpha, orientation, pass_order, decode, limits } = *overrides;
        self.alpha = alpha.unwrap_or(self.alpha);
        self.orientation = orientation.unwrap_or(self.orientation);
        self.pass_order = pass_order.unwrap_or(self.pass_order);
        self.decode = decode.unwrap_or(self.decode);
        self.limits = limits.unwrap_or(self.limits);
        self
    }

    /// A short string that differs whenever the pixels could: everything but the limits.
    pub fn fingerprint(&self) -> String {
        let Self {
            resize,
            filter,
            crop,
            colour_order,
            alpha,
            orientation,
            pass_order,
            decode,
            rescale,
            normalise,
            limits: _,
        } = self;
        let mut text = String::new();
        let _ = write!(
            text,
            "{resize:?} {filter:?} {crop:?} {colour_order:?} {alpha:?} {orientation:?} {pass_order:?} {rescale:?} {normalise:?}"
        );
        // Collections know the strings that were written before there was a choice.
        if *decode != DecodeMode::Exact {
            let _ = write!(text, " {decode:?}");
        }
        text
    }
}

/// 8-bit RGB pixels in rows from the top, three bytes each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbPixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

/// Rescaled and normalised pixels: three planes (red, green, blue) of `height` rows of `width` numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelTensor {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `3 * height * width` numbers.
    pub data: Vec<f32>,
}
