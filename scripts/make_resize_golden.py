#!/usr/bin/env python3
"""Writes small pictures in many formats and modes, and the SHA-256 of what Pillow makes of them.

Run first with Pillow 13, then with Pillow 12.3 on the same folder, which only adds the resizes of the older pass order:

    python scripts/make_resize_golden.py tests/golden/preprocess/extra
    python-with-pillow-12 scripts/make_resize_golden.py tests/golden/preprocess/extra

Files in the folder whose names start with `given_` are described too: JPEG samplings that Pillow can't write.
`--variants N` repeats every kind of file with N other sizes and contents, for a wider check outside the repository.
"""

import argparse
import hashlib
import io
import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def over_white(image):
    """transformers 5, convert_to_rgb."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")


def native(image):
    """Bytes in the layout of this project: bilevel as 0 and 255."""
    return (image.convert("L") if image.mode == "1" else image).tobytes()


def noise(random, width, height, channels):
    """Half smooth, half noise."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [127 + 120 * np.sin(x / (3 + i) + y / (5 + 2 * i) + i) for i in range(channels)]
    smooth = np.stack(planes, -1)
    rough = random.integers(0, 256, smooth.shape)
    mask = random.random((height, width, 1)) < 0.5
    return np.where(mask, smooth, rough).clip(0, 255).astype(np.uint8)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width, height, bits, colour, rows, before=()):
    """A PNG of a bit depth or colour type that Pillow can't write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *(png_chunk(*chunk) for chunk in before)]
    data = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, png_chunk(b"IDAT", zlib.compress(data)), png_chunk(b"IEND", b"")])


def raw_bmp(width, height, bits, compression, masks, rows, palette=b"", top_down=False):
    """A bitmap of a kind that Pillow can't write."""
    mask_bytes = b"".join(struct.pack("<I", mask) for mask in masks)
    length = 56 if len(masks) == 4 else 40
    offset = 14 + (length if len(masks) == 4 else length + len(mask_bytes)) + len(palette)
    signed = -height if top_down else height
    header = struct.pack("<IiiHHIIiiII", length, width, signed, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0)
    data = b"".join(row + b"\0" * (-len(row) % 4) for row in rows) if compression in (0, 3) else b"".join(rows)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + mask_bytes + palette + data


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def pictures(random, width, height):
    """Pictures of every mode."""
    rgb = Image.fromarray(noise(random, width, height, 3))
    grey = Image.fromarray(noise(random, width, height, 1)[..., 0])
    rgba = Image.fromarray(noise(random, width, height, 4), "RGBA")
    grey_alpha = rgba.convert("LA")
    palette = rgb.quantize(37, dither=Image.Dither.NONE)
    wide = Image.fromarray(random.integers(0, 65536, (height, width)).astype(np.uint16))
    return rgb, grey, rgba, grey_alpha, palette, wide


def png_files(random, width, height):
    rgb, grey, rgba, grey_alpha, palette, wide = pictures(random, width, height)
    yield "png_rgb", saved(rgb, "PNG")
    yield "png_rgba", saved(rgba, "PNG")
    yield "png_grey", saved(grey, "PNG")
    yield "png_grey_alpha", saved(grey_alpha, "PNG")
    yield "png_palette", saved(palette, "PNG")
    yield "png_palette4", saved(rgb.quantize(11), "PNG")
    yield "png_palette2", saved(rgb.quantize(3), "PNG")
    yield "png_palette1", saved(rgb.quantize(2), "PNG")
    yield "png_palette_index", saved(palette, "PNG", transparency=5)
    yield "png_palette_alphas", saved(palette, "PNG", transparency=bytes(random.integers(0, 256, 20).tolist()))
    yield "png_bilevel", saved(grey.convert("1"), "PNG")
    yield "png_bilevel_key", saved(grey.convert("1"), "PNG", transparency=0)
    yield "png_bilevel_key1", saved(grey.convert("1"), "PNG", transparency=255)
    yield "png_grey16", saved(wide, "PNG")
    yield "png_grey_key", saved(grey, "PNG", transparency=int(np.asarray(grey)[0, 0]))
    yield "png_rgb_key", saved(rgb, "PNG", transparency=rgb.getpixel((0, 0)))
    yield "png_grey16_key", saved(wide, "PNG", transparency=int(np.asarray(wide)[0, 0]))
    rows = lambda count: [bytes(random.integers(0, 256, count).tolist()) for _ in range(height)]
    yield "png_grey2", raw_png(width, height, 2, 0, rows((width * 2 + 7) // 8))
    yield "png_grey4", raw_png(width, height, 4, 0, rows((width * 4 + 7) // 8), [(b"tRNS", b"\0\7")])
    yield "png_rgb16", raw_png(width, height, 16, 2, rows(width * 6))
    wide_rows = rows(width * 6)
    yield "png_rgb16_key", raw_png(width, height, 16, 2, wide_rows, [(b"tRNS", wide_rows[0][:6])])
    yield "png_grey_alpha16", raw_png(width, height, 16, 4, rows(width * 4))
    yield "png_rgba16", raw_png(width, height, 16, 6, rows(width * 8))
    short = [(b"PLTE", bytes(random.integers(0, 256, 30).tolist()))]
    yield "png_short_palette", raw_png(width, height, 8, 3, rows(width), short)
    yield "png_exif5", saved(rgb, "PNG", exif=exif(5))
    yield "png_exif7", saved(grey_alpha, "PNG", exif=exif(7))


def other_files(random, width, height):
    rgb, grey, rgba, grey_alpha, palette, wide = pictures(random, width, height)
    yield "gif", saved(palette, "GIF")
    yield "gif_key", saved(palette, "GIF", transparency=3)
    yield "gif_grey", saved(grey, "GIF")
    yield "gif_interlaced", saved(rgb.quantize(200), "GIF", interlace=1)
    frames = [rgb.quantize(9), grey.convert("P"), palette]
    yield "gif_frames", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
    yield "gif_rgba", saved(rgba, "GIF")
    yield "webp_lossless", saved(rgb, "WEBP", lossless=True)
    yield "webp_lossless_alpha", saved(rgba, "WEBP", lossless=True, exact=True)
    yield "webp_exif", saved(rgb, "WEBP", lossless=True, exif=exif(3))
    for quality in (5, 50, 90, 100):
        yield f"webp_{quality}", saved(rgb, "WEBP", quality=quality)
        yield f"webp_alpha_{quality}", saved(rgba, "WEBP", quality=quality, alpha_quality=60 if quality == 50 else 100)
    yield "webp_frames", saved(rgb, "WEBP", save_all=True, append_images=[rgb.transpose(0), rgb.transpose(1)])
    yield "webp_frames_alpha", saved(rgba, "WEBP", save_all=True, append_images=[rgba.transpose(0)], lossless=True)
    for name, image in (("rgb", rgb), ("grey", grey), ("palette", palette), ("bilevel", grey.convert("1")), ("rgba", rgba)):
        yield f"bmp_{name}", saved(image, "BMP")
    rows = lambda count: [bytes(random.integers(0, 256, count).tolist()) for _ in range(height)]
    colours = bytes(random.integers(0, 256, 64).tolist())
    yield "bmp_4", raw_bmp(width, height, 4, 0, (), rows((width + 1) // 2), colours)
    yield "bmp_1", raw_bmp(width, height, 1, 0, (), rows((width + 7) // 8), colours[:8], top_down=True)
    yield "bmp_555", raw_bmp(width, height, 16, 0, (), rows(width * 2))
    yield "bmp_565", raw_bmp(width, height, 16, 3, (0xF800, 0x7E0, 0x1F), rows(width * 2), top_down=True)
    yield "bmp_bgra", raw_bmp(width, height, 32, 3, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), rows(width * 4))
    yield "bmp_rgbx", raw_bmp(width, height, 32, 3, (0xFF000000, 0xFF0000, 0xFF00), rows(width * 4))
    runs = [b"".join(bytes((min(3, width - x), int(random.integers(16)))) for x in range(0, width, 3)) + b"\0\0" for _ in range(height)]
    yield "bmp_rle8", raw_bmp(width, height, 8, 1, (), [*runs, b"\0\1"], colours)
    yield "bmp_rle4", raw_bmp(width, height, 4, 2, (), [*runs, b"\0\1"], colours)
    modes = (("rgb", rgb), ("rgba", rgba), ("grey", grey), ("grey_alpha", grey_alpha), ("palette", palette), ("bilevel", grey.convert("1")), ("grey16", wide), ("cmyk", rgb.convert("CMYK")))
    for index, (name, image) in enumerate(modes):
        yield f"tiff_{name}", saved(image, "TIFF", compression=(None, "tiff_lzw", "tiff_adobe_deflate", "packbits")[index % 4])
    yield "tiff_oriented", saved(rgb, "TIFF", exif=exif(6))


def jpeg_files(random, width, height):
    rgb, grey, *_ = pictures(random, width, height)
    for orientation in range(2, 9):
        yield f"jpeg_exif{orientation}", saved(rgb, "JPEG", exif=exif(orientation), quality=60)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        name = subsampling.replace(":", "")
        yield f"jpeg_{name}", saved(rgb, "JPEG", subsampling=subsampling, quality=int(random.integers(5, 100)))
        yield f"jpeg_progressive_{name}", saved(rgb, "JPEG", subsampling=subsampling, progressive=True, quality=70)
    yield "jpeg_grey", saved(grey, "JPEG", quality=30)
    yield "jpeg_restarts", saved(rgb, "JPEG", restart_marker_blocks=2, optimize=True)
    yield "jpeg_rgb", saved(rgb, "JPEG", keep_rgb=True)
    yield "jpeg_cmyk", saved(rgb.convert("CMYK"), "JPEG")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="8"/></x:xmpmeta>'
    yield "jpeg_xmp", saved(rgb, "JPEG", xmp=xmp)


def describe(data):
    """What Pillow 13 and transformers 5 make of a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    loaded = ImageOps.exif_transpose(image).convert("RGB")
    return {
        "mode": image.mode,
        "size": list(image.size),
        "native": sha256(native(image)),
        "drop": sha256(image.convert("RGB").tobytes()),
        "over_white": sha256(over_white(image).tobytes()),
        "upright": sha256(ImageOps.exif_transpose(image).convert("RGB").tobytes()),
        "load_image": sha256(over_white(loaded).tobytes()),
    }


def target_sizes(random, width, height):
    yield (int(random.integers(1, 2 * width + 2)), int(random.integers(1, 2 * height + 2)))
    yield (width, max(1, height // 3))
    yield (max(1, width // 4), height)


def resizes(random, data):
    image = Image.open(io.BytesIO(data))
    image.load()
    for size in target_sizes(random, *image.size):
        for name, filter in FILTERS.items():
            yield f"{size[0]}x{size[1]} {name}", sha256(native(image.resize(size, filter)))


def sizes(variants):
    fixed = [(23, 17), (9, 31), (40, 3)]
    random = np.random.default_rng(99)
    return fixed[:1] if variants == 0 else fixed + [tuple(random.integers(1, 90, 2).tolist()) for _ in range(variants)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variants", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    major = PIL.__version__.split(".")[0]
    path = arguments.folder / "golden.json"
    if major == "13":
        arguments.folder.mkdir(parents=True, exist_ok=True)
        result = {"pillow": PIL.__version__, "files": {}}
        for index, (width, height) in enumerate(sizes(arguments.variants)):
            random = np.random.default_rng(1000 + index)
            for make in (png_files, other_files, jpeg_files):
                for name, data in make(random, width, height):
                    name = f"{name}_{width}x{height}"
                    (arguments.folder / name).write_bytes(data)
                    try:
                        result["files"][name] = describe(data)
                    except OSError as error:
                        print(name, error)
        for given in sorted(arguments.folder.glob("given_*")):
            result["files"][given.name] = describe(given.read_bytes())
        tall = Image.fromarray(noise(np.random.default_rng(5), 3, 410, 3))
        (arguments.folder / "png_rgb_3x410").write_bytes(saved(tall, "PNG"))
        result["files"]["png_rgb_3x410"] = describe((arguments.folder / "png_rgb_3x410").read_bytes())
    else:
        result = json.loads(path.read_text())
        result["pillow_older"] = PIL.__version__
    for index, (name, entry) in enumerate(result["files"].items()):
        data = (arguments.folder / name).read_bytes()
        entry[f"resized_{major}"] = dict(resizes(np.random.default_rng(index), data))
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
