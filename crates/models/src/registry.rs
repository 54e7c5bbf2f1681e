//! Well-known variants as data: one file per architecture in `models/configs`, with the checkpoints published for it.
//!
//! Hub ids and activations follow `open_clip`'s list of pretrained weights, accuracies its published evaluation. Licences are
//! those of the model cards where they could be checked. Preprocessing is not here: the repository's own configuration decides.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::config::Layout;

/// Files of `models/configs`, by architecture.
const CONFIGS: [&str; 15] = [
    include_str!("../../../models/configs/mini.json"),
    include_str!("../../../models/configs/ViT-B-32.json"),
    include_str!("../../../models/configs/ViT-B-32-256.json"),
    include_str!("../../../models/configs/ViT-B-16.json"),
    include_str!("../../../models/configs/ViT-L-14.json"),
    include_str!("../../../models/configs/ViT-L-14-336.json"),
    include_str!("../../../models/configs/ViT-H-14.json"),
    include_str!("../../../models/configs/ViT-H-14-378.json"),
    include_str!("../../../models/configs/ViT-g-14.json"),
    include_str!("../../../models/configs/ViT-bigG-14.json"),
    include_str!("../../../models/configs/RN50.json"),
    include_str!("../../../models/configs/RN101.json"),
    include_str!("../../../models/configs/RN50x4.json"),
    include_str!("../../../models/configs/RN50x16.json"),
    include_str!("../../../models/configs/RN50x64.json"),
];

/// Which layout a variant's repository is read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantLayout {
    /// Hugging Face.
    HuggingFace,
    /// OpenCLIP.
    OpenClip,
}

impl From<VariantLayout> for Layout {
    fn from(layout: VariantLayout) -> Self {
        match layout {
            VariantLayout::HuggingFace => Self::HuggingFace,
            VariantLayout::OpenClip => Self::OpenClip,
        }
    }
}

/// Sizes of a vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisionShape {
    /// Side of the square picture in pixels.
    pub image_size: u64,
    /// Side of a patch in pixels.
    pub patch_size: u64,
    /// Width of the residual stream.
    pub width: u64,
    /// Number of blocks.
    pub layers: u64,
    /// Attention heads per block.
    pub heads: u64,
    /// Width inside the MLP.
    pub mlp_width: u64,
}

/// Sizes of a text transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextShape {
    /// Largest number of tokens.
    pub context_length: u64,
    /// Rows of the token table.
    pub vocab_size: u64,
    /// Width of the residual stream.
    pub width: u64,
    /// Number of blocks.
    pub layers: u64,
    /// Attention heads per block.
    pub heads: u64,
    /// Width inside the MLP.
    pub mlp_width: u64,
}

/// Published recall at rank 1, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recall {
    /// Pictures found by their captions.
    pub text_to_image: f64,
    /// Captions found by their pictures.
    pub image_to_text: f64,
}

/// A checkpoint that is known by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Variant {
    /// Name of the architecture in OpenCLIP's style, for example `ViT-B-32`.
    pub architecture: String,
    /// Name of the weights, for example `laion2b_s34b_b79k`.
    pub tag: Option<String>,
    /// Other names.
    pub aliases: Vec<String>,
    /// The model family.
    pub family: String,
    /// Whether this version loads it.
    pub supported: bool,
    /// Repository on the hub; none for the built-in model.
    pub hub_id: Option<String>,
    /// The layout it is read in.
    pub layout: VariantLayout,
    /// Licence of the weights.
    pub licence: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Length of an embedding.
    pub embed_dim: u64,
    /// Side of the square picture in pixels.
    pub image_size: u64,
    /// The picture tower, if it is a plain vision transformer.
    pub vision: Option<VisionShape>,
    /// The text tower.
    pub text: TextShape,
    /// Whether it was trained with the quick approximation of GELU.
    pub quick_gelu: bool,
    /// Size of the weights in bytes, taking them for 32-bit numbers; some repositories hold half-precision files of half the size.
    pub approx_download_bytes: u64,
    /// Zero-shot top-1 accuracy on ImageNet-1k in percent.
    pub imagenet_top1: Option<f64>,
    /// On Flickr30k.
    pub flickr30k_recall_at_1: Option<Recall>,
    /// On COCO captions.
    pub coco_recall_at_1: Option<Recall>,
    /// Repositories with the same weights in another layout.
    pub also_at: Vec<String>,
    /// File names of TorchScript archives with the same weights.
    pub torchscript: Vec<String>,
}

impl Variant {
    /// `architecture/tag`, or the architecture alone where there is no tag.
    pub fn full_name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}/{tag}", self.architecture),
            None => self.architecture.clone(),
        }
    }
}

/// A file of `models/configs`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Architecture {
    architecture: String,
    family: String,
    supported: bool,
    parameters: u64,
    embed_dim: u64,
    image_size: u64,
    vision: Option<VisionShape>,
    text: TextShape,
    checkpoints: Vec<PublishedCheckpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishedCheckpoint {
    tag: Option<String>,
    aliases: Vec<String>,
    hub_id: Option<String>,
    layout: VariantLayout,
    licence: String,
    quick_gelu: bool,
    approx_download_bytes: u64,
    imagenet_top1: Option<f64>,
    flickr30k_recall_at_1: Option<Recall>,
    coco_recall_at_1: Option<Recall>,
    also_at: Vec<String>,
    torchscript: Vec<String>,
}

impl Architecture {
    fn variants(self) -> impl Iterator<Item = Variant> {
        let Self { architecture, family, supported, parameters, embed_dim, image_size, vision, text, checkpoints } =
            self;
        checkpoints.into_iter().map(move |checkpoint| Variant {
            architecture: architecture.clone(),
            tag: checkpoint.tag,
            aliases: checkpoint.aliases,
            family: family.clone(),
            supported,
            hub_id: checkpoint.hub_id,
            layout: checkpoint.layout,
            licence: checkpoint.licence,
            parameters,
            embed_dim,
            image_size,
            vision: vision.clone(),
            text: text.clone(),
            quick_gelu: checkpoint.quick_gelu,
            approx_download_bytes: checkpoint.approx_download_bytes,
            imagenet_top1: checkpoint.imagenet_top1,
            flickr30k_recall_at_1: checkpoint.flickr30k_recall_at_1,
            coco_recall_at_1: checkpoint.coco_recall_at_1,
            also_at: checkpoint.also_at,
            torchscript: checkpoint.torchscript,
        })
    }
}

static VARIANTS: LazyLock<Vec<Variant>> = LazyLock::new(|| {
    let parse = |text: &&str| {
        serde_json::from_str::<Architecture>(text).expect("the built-in registry is well-formed; a test checks it")
    };
    CONFIGS.iter().map(parse).flat_map(Architecture::variants).collect()
});

/// Every known variant, `mini` first.
pub fn all() -> &'static [Variant] {
    &VARIANTS
}

/// The variant of this full name or alias. Case doesn't matter.
pub fn find(name: &str) -> Option<&'static Variant> {
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    all().iter().find(|variant| is(&variant.full_name()) || variant.aliases.iter().any(|alias| is(alias)))
}

/// The full name of the checkpoint with the weights of a TorchScript archive that OpenAI published, given the archive's file
/// name or path.
pub fn equivalent_openclip(archive: &str) -> Option<String> {
    let file = archive.rsplit(['/', '\\']).next()?;
    all().iter().find(|variant| variant.torchscript.iter().any(|name| name == file)).map(Variant::full_name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn files_are_complete_and_well_formed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/configs");
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file: Architecture = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(path.file_stem().unwrap().to_str().unwrap(), file.architecture);
            names.push(file.architecture);
        }
        let embedded: HashSet<_> = all().iter().map(|variant| variant.architecture.clone()).collect();
        assert_eq!(names.into_iter().collect::<HashSet<_>>(), embedded);
    }

    #[test]
    fn names_and_aliases_are_unique() {
        let mut seen = HashSet::new();
        for variant in all() {
            for name in variant.aliases.iter().cloned().chain([variant.full_name()]) {
                assert!(seen.insert(name.to_ascii_lowercase()), "{name} twice");
                assert_eq!(find(&name), Some(variant));
            }
        }
        assert_eq!(find("vit-b-32/OPENAI").unwrap().hub_id.as_deref(), Some("timm/vit_base_patch32_clip_224.openai"));
        assert_eq!(find("ViT-B-32"), None);
    }

    /// Parameters of a pre-norm transformer: attention, MLP and two norms a block.
    fn blocks(layers: u64, width: u64, mlp: u64) -> u64 {
        layers * (4 * width * width + 4 * width + 2 * width * mlp + mlp + width + 4 * width)
    }

    fn computed_parameters(variant: &Variant, vision: &VisionShape) -> u64 {
        let (d, t, e) = (vision.width, &variant.text, variant.embed_dim);
        let patches = (vision.image_size / vision.patch_size).pow(2);
        let picture = d + 3 * vision.patch_size.pow(2) * d + (patches + 1) * d + 4 * d + d * e;
        let text = (t.vocab_size + t.context_length) * t.width + 2 * t.width + t.width * e;
        picture + text + 1 + blocks(vision.layers, d, vision.mlp_width) + blocks(t.layers, t.width, t.mlp_width)
    }

    #[test]
    fn shapes_give_the_published_number_of_parameters() {
        for variant in all().iter().filter(|variant| variant.supported) {
            let vision = variant.vision.as_ref().expect("supported variants have a vision transformer");
            assert_eq!(computed_parameters(variant, vision), variant.parameters, "{}", variant.full_name());
            assert_eq!(vision.image_size, variant.image_size);
            assert_eq!((vision.width % vision.heads, variant.text.width % variant.text.heads), (0, 0));
        }
    }

    #[test]
    fn totals_are_those_of_the_reference_projects() {
        let totals = [
            ("ViT-B-32/openai", 151_277_313),
            ("ViT-B-16/openai", 149_620_737),
            ("ViT-L-14/openai", 427_616_513),
            ("ViT-L-14-336/openai", 427_944_193),
            ("ViT-H-14/laion2b_s32b_b79k", 986_109_441),
            ("ViT-H-14-378/dfn5b", 986_714_881),
            ("ViT-g-14/laion2b_s34b_b88k", 1_366_678_273),
            ("ViT-bigG-14/laion2b_s39b_b160k", 2_539_567_105),
            ("RN50/openai", 102_007_137),
            ("mini", 5_734_273),
        ];
        for (name, parameters) in totals {
            assert_eq!(find(name).unwrap().parameters, parameters, "{name}");
        }
    }

    #[test]
    fn archives_have_equivalents() {
        assert_eq!(equivalent_openclip("/cache/clip/ViT-L-14-336px.pt").as_deref(), Some("ViT-L-14-336/openai"));
        assert_eq!(equivalent_openclip("RN50.pt").as_deref(), Some("RN50/openai"));
        assert_eq!(equivalent_openclip("other.pt"), None);
    }

    #[test]
    fn only_the_built_in_model_has_no_repository() {
        for variant in all() {
            assert_eq!(variant.hub_id.is_none(), variant.architecture == "mini", "{}", variant.full_name());
            assert!(!variant.licence.is_empty());
        }
    }
}
