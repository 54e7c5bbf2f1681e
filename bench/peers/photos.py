"""Seeded photo-like pictures: smooth structure at many scales, shapes with sharp edges, shading and film grain.

Saved as JPEG at quality 90 with 4:2:0 chroma, 4000 x 3000 pixels are some megabytes, as a camera's are.
"""

import numpy
from PIL import Image, ImageDraw

import settings

WIDTH, HEIGHT = 4000, 3000
COUNT = 200


def photo(seed, width, height):
    """A picture that depends on the seed alone."""
    random = numpy.random.default_rng([settings.SEED, seed])
    picture = _octaves(random, width, height)
    _shapes(random, picture)
    pixels = numpy.asarray(picture, dtype=numpy.int16)
    # Grain: one pattern of light, coarser than a pixel here and there, on all channels alike.
    strength = random.uniform(5.5, 8.5)
    grain = (random.standard_normal((height, width), dtype=numpy.float32) * strength).astype(numpy.int16)
    return Image.fromarray(numpy.clip(pixels + grain[:, :, None], 0, 255).astype(numpy.uint8))


def _octaves(random, width, height):
    """Noise of every scale, the coarser the stronger, each octave enlarged smoothly, over a gradient."""
    total = None
    for level in range(9, 1, -1):
        cells = 2**level
        if cells > min(width, height):
            continue
        # Light varies more than colour.
        down = max(2, cells * height // width)
        light = random.uniform(0, 255, (down, cells, 1))
        colour = random.uniform(0, 255, (down, cells, 3))
        noise = (0.7 * light + 0.3 * colour).astype(numpy.uint8)
        octave = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total = octave if total is None else Image.blend(total, octave, 0.42)
    ends = [tuple(int(value) for value in random.integers(0, 256, 3)) for _ in range(4)]
    corners = numpy.array([[ends[0], ends[1]], [ends[2], ends[3]]], dtype=numpy.uint8)
    gradient = Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)
    return Image.blend(total, gradient, random.uniform(0.25, 0.5))


def _shapes(random, picture):
    """A few things with edges."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for _ in range(int(random.integers(8, 24))):
        x, y = random.uniform(0, width), random.uniform(0, height)
        across, down = random.uniform(0.02, 0.2, 2) * width
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        box = (x, y, x + across, y + down)
        if random.random() < 0.5:
            draw.ellipse(box, fill=colour)
        else:
            draw.rectangle(box, fill=colour)


def make(count=COUNT):
    """The files of the first `count` pictures, made where they are missing."""
    settings.PHOTOS.mkdir(parents=True, exist_ok=True)
    files = [settings.PHOTOS / f"photo-{number:03}.jpg" for number in range(count)]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    if missing:
        print(f"drawing {len(missing)} pictures of {WIDTH} x {HEIGHT}")
    for number in missing:
        part = files[number].with_suffix(".part")
        photo(number, WIDTH, HEIGHT).save(part, "JPEG", quality=90, subsampling="4:2:0")
        part.rename(files[number])
    return files


if __name__ == "__main__":
    make()
