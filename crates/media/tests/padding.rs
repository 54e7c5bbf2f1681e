//! Crops larger than the picture, and the two resizes of OpenCLIP that no fixture covers. Expectations follow
//! `torchvision.transforms.functional.center_crop`, transformers' `center_crop` for PIL, and open_clip's
//! `ResizeKeepRatio` and `center_crop_or_pad`.

use crossmodal_media::{
    AlphaRule, CenterCrop, ColourOrder, CropRounding, DecodeLimits, DecodeMode, Filter, ImagePrep, OrientationRule,
    PassOrder, Picture, PixelMode, Resize,
};

fn prep(resize: Resize, crop: Option<CenterCrop>) -> ImagePrep {
    ImagePrep {
        resize,
        filter: Filter::Bicubic,
        crop,
        colour_order: ColourOrder::AfterResize,
        alpha: AlphaRule::Drop,
        orientation: OrientationRule::Ignore,
        pass_order: PassOrder::Pillow13,
        decode: DecodeMode::Exact,
        rescale: None,
        normalise: None,
        limits: DecodeLimits::default(),
    }
}

fn row(mode: PixelMode, data: &[u8]) -> Picture {
    let width = (data.len() / mode.bytes()) as u32;
    let mut palette = Vec::new();
    if mode == PixelMode::Palette {
        palette = (0..=255).map(|index| [255 - index; 3]).collect();
    }
    Picture { width, height: 1, mode, data: data.to_vec(), palette, transparency: None }
}

/// The red channel of the only row.
fn cropped(picture: Picture, width: u32, rounding: CropRounding) -> Vec<u8> {
    let crop = Some(CenterCrop { width, height: 1, rounding });
    let pixels = prep(Resize::None, crop).apply_to(picture).expect("within the limits");
    pixels.data.iter().step_by(3).copied().collect()
}

#[test]
fn odd_padding_goes_right_in_torchvision_and_left_in_transformers() {
    let grey = || row(PixelMode::Grey, &[1, 2, 3]);
    assert_eq!(cropped(grey(), 6, CropRounding::HalfEven), [0, 1, 2, 3, 0, 0]);
    assert_eq!(cropped(grey(), 6, CropRounding::Floor), [0, 0, 1, 2, 3, 0]);
    assert_eq!(cropped(grey(), 5, CropRounding::Floor), [0, 1, 2, 3, 0]);
}

#[test]
fn odd_margins_round_differently() {
    let grey = || row(PixelMode::Grey, &[1, 2, 3, 4, 5]);
    // Margins of 1 and 3: torchvision rounds 0.5 to 0 and 1.5 to 2.
    assert_eq!(cropped(grey(), 4, CropRounding::HalfEven), [1, 2, 3, 4]);
    assert_eq!(cropped(grey(), 2, CropRounding::HalfEven), [3, 4]);
    assert_eq!(cropped(grey(), 2, CropRounding::Floor), [2, 3]);
}

#[test]
fn padding_before_conversion_is_in_the_picture_s_own_terms() {
    // Index 0 shows its colour, and no ink is white.
    assert_eq!(cropped(row(PixelMode::Palette, &[5]), 3, CropRounding::HalfEven), [255, 250, 255]);
    assert_eq!(cropped(row(PixelMode::Cmyk, &[255, 0, 0, 0]), 3, CropRounding::HalfEven), [255, 0, 255]);
}

#[test]
fn longest_pads_around_the_middle_with_the_fill() {
    let fill = 9;
    let resize = Resize::Longest { width: 4, height: 4, fill };
    let pixels = prep(resize, None).apply_to(row(PixelMode::Grey, &[50; 8])).expect("within the limits");
    let red: Vec<u8> = pixels.data.iter().step_by(3).copied().collect();
    // 8x1 becomes 4x1 (half a row rounds to none, and one is the least); one row of padding above, two below.
    assert_eq!(red, [[fill; 4], [50; 4], [fill; 4], [fill; 4]].concat());
}

#[test]
fn sizes_follow_each_reference() {
    assert_eq!(Resize::ShortestEdge { edge: 224 }.target((201, 211)), (224, 235));
    assert_eq!(Resize::ShortestEdge { edge: 64 }.target((3, 500)), (64, 10_666));
    assert_eq!(Resize::Cover { width: 40, height: 13 }.target((33, 40)), (40, 48));
    assert_eq!(Resize::Longest { width: 17, height: 32, fill: 0 }.target((200, 37)), (17, 3));
    assert_eq!(Resize::Squash { width: 5, height: 6 }.target((100, 1)), (5, 6));
    assert_eq!(Resize::None.target((7, 8)), (7, 8));
}
