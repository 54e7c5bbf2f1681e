//! `preprocessor_config.json` as transformers 5's Pillow image processors of CLIP read it.

use std::path::Path;

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, Resize,
};
use serde_json::Value;

use super::fields::Fields;
use crate::error::{Error, Result};

/// Mean and standard deviation of the pictures CLIP was trained on.
pub(super) const OPENAI_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// See [`OPENAI_MEAN`].
pub(super) const OPENAI_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

const INERT: &[&str] = &[
    "_processor_class",
    "_valid_processor_keys",
    "auto_map",
    "data_format",
    "default_to_square",
    "device",
    "disable_grouping",
    "do_flip_channel_order",
    "feature_extractor_type",
    "image_processor_type",
    "input_data_format",
    "processor_class",
    "return_tensors",
    "use_fast",
];

/// Reads the file, or takes CLIP's defaults for pictures of `image_size` (height, width) where there is none.
pub(super) fn read(file: Option<(&Path, &[u8])>, image_size: (usize, usize)) -> Result<ImagePrep> {
    let path = file.map_or(Path::new("preprocessor_config.json"), |(path, _)| path);
    let mut fields = match file {
        Some((path, bytes)) => Fields::parse(path, bytes)?,
        None => Fields::parse(path, b"{}")?,
    };
    // Newer processors nest the image processor within processor_config.json.
    if let Some(nested) = fields.nested("image_processor")? {
        fields = nested;
    }
    let default = image_size.0.min(image_size.1) as u32;
    let resize = resize(&mut fields, default)?;
    let crop = crop(&mut fields, default)?;
    let filter = filter(&mut fields)?;
    let rescale = fields.or("do_rescale", true, "true or false")?;
    let factor = fields.positive("rescale_factor", 1.0 / 255.0)?;
    let normalise = fields.or("do_normalize", true, "true or false")?;
    let mean = fields.or("image_mean", OPENAI_MEAN, "three numbers")?;
    let std = fields.or("image_std", OPENAI_STD, "three numbers")?;
    if std.iter().any(|value| *value == 0.0 || !value.is_finite()) {
        return Err(fields.error("image_std", format!("{std:?}"), "three numbers other than 0"));
    }
    fields.only("do_convert_rgb", &Value::Bool(true))?;
    fields.only("do_pad", &Value::Bool(false))?;
    fields.only("use_square_size", &Value::Bool(false))?;
    fields.finish(INERT)?;
    let prep = ImagePrep {
        resize,
        filter,
        crop,
        colour_order: ColourOrder::BeforeResize,
        alpha: AlphaRule::OverWhite,
        orientation: OrientationRule::Exif,
        pass_order: PassOrder::default(),
        decode: DecodeMode::default(),
        rescale: rescale.then_some(factor),
        normalise: normalise.then_some((mean, std)),
        limits: DecodeLimits::default(),
    };
    check_size(path, &prep, image_size)?;
    Ok(prep)
}

fn resize(fields: &mut Fields, default: u32) -> Result<Resize> {
    let expected = "a number, {\"shortest_edge\": n} or {\"height\": h, \"width\": w}";
    let size: Option<Value> = fields.optional("size", expected)?;
    let wrong = |fields: &Fields, value: &Value| fields.error("size", value, expected);
    let resize = match &size {
        None => Resize::ShortestEdge { edge: default },
        Some(value) => match (edge(value), value.as_object()) {
            (Some(edge), _) => Resize::ShortestEdge { edge },
            (None, Some(sides)) => {
                let side = |name: &str| sides.get(name).and_then(edge);
                match (side("shortest_edge"), side("height"), side("width"), sides.len()) {
                    (Some(edge), None, None, 1) => Resize::ShortestEdge { edge },
                    (None, Some(height), Some(width), 2) => Resize::Squash { width, height },
                    _ => return Err(wrong(fields, value)),
                }
            }
            _ => return Err(wrong(fields, value)),
        },
    };
    Ok(if fields.or("do_resize", true, "true or false")? { resize } else { Resize::None })
}

fn crop(fields: &mut Fields, default: u32) -> Result<Option<CenterCrop>> {
    let expected = "a number or {\"height\": h, \"width\": w}";
    let size: Option<Value> = fields.optional("crop_size", expected)?;
    let (height, width) = match &size {
        None => (default, default),
        Some(value) => match edge(value) {
            Some(edge) => (edge, edge),
            None => {
                let side = |name: &str| value.get(name).and_then(edge);
                let sides = side("height").zip(side("width"));
                sides.ok_or_else(|| fields.error("crop_size", value, expected))?
            }
        },
    };
    let crop = CenterCrop { width, height, rounding: CropRounding::Floor };
    Ok(fields.or("do_center_crop", true, "true or false")?.then_some(crop))
}

/// A side in pixels, bounded so that a damaged file can't ask for a huge picture.
fn edge(value: &Value) -> Option<u32> {
    value.as_u64().filter(|edge| (1..=16384).contains(edge)).map(|edge| edge as u32)
}

fn filter(fields: &mut Fields) -> Result<Filter> {
    let expected = "0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)";
    match fields.or("resample", 3u32, expected)? {
        0 => Ok(Filter::Nearest),
        1 => Ok(Filter::Lanczos),
        2 => Ok(Filter::Bilinear),
        3 => Ok(Filter::Bicubic),
        other => Err(fields.error("resample", other, expected)),
    }
}

/// The prepared size must be the one the tower was built for.
fn check_size(path: &Path, prep: &ImagePrep, (height, width): (usize, usize)) -> Result<()> {
    let made = match (prep.crop, prep.resize) {
        (Some(crop), _) => (crop.height, crop.width),
        (None, Resize::Squash { width, height }) => (height, width),
        _ => {
            let reason = "neither crop nor a fixed size: pictures of every shape would reach the model";
            return Err(Error::malformed(path, reason));
        }
    };
    if (made.0 as usize, made.1 as usize) == (height, width) {
        return Ok(());
    }
    let found = format!("{}x{} (height x width)", made.0, made.1);
    let expected = format!("the vision tower's {height}x{width}");
    Err(Error::Config { path: path.to_path_buf(), field: "crop_size".into(), value: found, expected })
}
