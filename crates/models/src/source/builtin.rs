//! The files of `mini`, the small model that is part of the program, so that everything works without a download.

/// The name of the built-in model.
pub const NAME: &str = "mini";

/// Names and contents of its files.
pub(super) const FILES: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../../../../models/mini/config.json")),
    ("model.safetensors", include_bytes!("../../../../models/mini/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../../../../models/mini/preprocessor_config.json")),
    ("special_tokens_map.json", include_bytes!("../../../../models/mini/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../../../../models/mini/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../models/mini/tokenizer_config.json")),
];

/// The contents of one of its files.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(other, _)| *other == name).map(|(_, bytes)| *bytes)
}
