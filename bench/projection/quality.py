"""How good the maps of `crates/engine/src/projection` are, beside plain principal components and umap-learn.

    cargo build --release -p crossmodal-engine --example projection
    pip install -r bench/projection/requirements.txt        (in an environment outside the repository)
    python bench/projection/quality.py target/release/examples/projection samples/gallery OUT

Prints a table in Markdown and writes pictures of the gallery's maps into OUT.

Trustworthiness (Venna and Kaski 2001) asks whether neighbours on the map are neighbours in the space. Kept: the share of the 15 nearest in the
space that are among the 15 nearest on the map. Labels: the share of the 15 nearest on the map that have the point's label, and the same in the space.
"""

import csv
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import umap
from PIL import Image
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

K = 15


def nearest(rows):
    return NearestNeighbors(n_neighbors=K + 1).fit(rows).kneighbors(rows, return_distance=False)


def others(found):
    return [[other for other in near if other != at][:K] for at, near in enumerate(found)]


def kept(space, places):
    pairs = zip(others(nearest(space)), others(nearest(places)))
    return np.mean([len(set(a) & set(b)) / K for a, b in pairs])


def agreement(places, labels):
    near = others(nearest(places))
    return np.mean([np.mean(labels[n] == labels[at]) for at, n in enumerate(near)])


def report(name, method, rows, places, labels, seconds):
    trust = trustworthiness(rows, places, n_neighbors=K)
    label = "" if labels is None else f"{agreement(places, labels):.3f} ({agreement(rows, labels):.3f})"
    print(f"| {name} | {method} | {trust:.3f} | {kept(rows, places):.3f} | {label} | {seconds:.2f} |", flush=True)


def ours(program, folder, rows, seed):
    file = folder / "rows.f32"
    rows.astype("<f4").tofile(file)
    start = time.perf_counter()
    command = [program, "--rows", file, str(rows.shape[1]), str(seed)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - start
    lines = {int(name): (float(x), float(y)) for name, x, y in csv.reader(text.splitlines())}
    return np.array([lines[at] for at in range(len(rows))]), seconds


def compare(program, folder, name, rows, labels):
    start = time.perf_counter()
    places = PCA(2).fit_transform(rows)
    report(name, "principal components", rows, places, labels, time.perf_counter() - start)
    for seed in range(3):
        places, seconds = ours(program, folder, rows, seed)
        report(name, f"ours, seed {seed}", rows, places, labels, seconds)
    for seed in range(3):
        start = time.perf_counter()
        places = umap.UMAP(n_neighbors=K, random_state=seed, n_jobs=1).fit_transform(rows)
        report(name, f"umap-learn, seed {seed}", rows, places, labels, time.perf_counter() - start)


def clusters(count, dimension, points, noise):
    random = np.random.default_rng(5)
    labels = np.arange(points) % count
    rows = 2 + random.uniform(-1, 1, (count, dimension))[labels] + noise * random.normal(size=(points, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4"), labels


def draw(path, names, places, gallery):
    figure, axes = plt.subplots(figsize=(16, 16), dpi=75)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    for name, place in zip(names, places):
        picture = OffsetImage(np.asarray(Image.open(gallery / name).convert("RGBA").resize((36, 36))), zoom=0.9)
        axes.add_artist(AnnotationBbox(picture, place, frameon=False))
    figure.tight_layout()
    figure.savefig(path)


def main():
    program, gallery, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    print("| data | method | trustworthiness | kept | labels (in the space) | seconds |\n|---|---|---|---|---|---|")
    vectors = folder / "gallery.f32"
    text = subprocess.run([program, "--gallery", vectors], check=True, capture_output=True, text=True).stdout
    lines = list(csv.reader(text.splitlines()))
    places = np.array([[float(x), float(y)] for _, x, y in lines])
    rows = np.fromfile(vectors, "<f4").reshape(len(lines), -1)
    draw(folder / "gallery.png", [name for name, _, _ in lines], places, gallery)
    compare(program, folder, f"gallery, {rows.shape[0]} x {rows.shape[1]}", rows, None)
    digits = load_digits()
    compare(program, folder, "digits, 1797 x 64", digits.data.astype("f4"), digits.target)
    for count, noise in [(12, 0.4), (50, 0.6), (50, 1.0)]:
        rows, labels = clusters(count, 128, 2000, noise)
        compare(program, folder, f"{count} clusters, noise {noise}, 2000 x 128", rows, labels)


main()
