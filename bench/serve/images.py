"""Pictures over HTTP, one a request, beside the engine's own ways, a plain service, and Infinity, in turn."""

import json
import shutil

import numpy

import fixtures
import samples
import servers
import settings

#: Pictures whose vectors are compared.
COMPARED = 16
#: name -> path, bodies, content type
OURS = {
    "form": ("/v1/embed", "form", fixtures.FORM),
    "json": ("/v1/embed", "json", "application/json"),
}
#: Compared, but not timed: coroutines of the plain service reached 0.6 of what its threads did, and data URIs as much as forms.
NOT_TIMED = {"plain-loop", "ours-json"}
PLAIN = ("/embed/image", "plain", fixtures.FORM)
INFINITY = ("/embeddings", "infinity", "application/json")


def vector(answer):
    """The vector of an answer, whoever gave it."""
    if "embeddings" in answer:
        return answer["embeddings"][0]["embedding"]
    return answer["embedding"][0] if "embedding" in answer else answer["data"][0]["embedding"]


def first_bodies(source):
    """The first bodies of a folder or file."""
    if source.is_dir():
        return [file.read_bytes() for file in sorted(source.iterdir())[:COMPARED]]
    return source.read_text().splitlines()[:COMPARED]


def vectors(server, way, bodies):
    """Unit vectors of the first pictures."""
    path, name, content_type = way
    found = numpy.array([vector(server.json(path, body, content_type)) for body in first_bodies(bodies[name])])
    return found / numpy.linalg.norm(found, axis=1, keepdims=True)


def compare(ways, bodies):
    """The least cosine of each way with the engine, as they are and with the mean vector taken off."""
    output = settings.SERVE / "pictures.npy"
    servers.program("embed", *fixtures.pictures()[:COMPARED], "--output", output)
    truth = numpy.load(output)
    least = {}
    for name, (server, way) in ways.items():
        found = vectors(server, way, bodies)
        cosines = (found * truth).sum(1)
        here, there = found - truth.mean(0), truth - truth.mean(0)
        centred = (here * there).sum(1) / numpy.linalg.norm(here, axis=1) / numpy.linalg.norm(there, axis=1)
        least[name] = {"cosine": float(cosines.min()), "centred": float(centred.min())}
    return least


def pipeline():
    """`crossmodal index` over the same files, its model being loaded; the processor time is that of the whole process."""
    folder = settings.SERVE / "indexed"
    shutil.rmtree(folder, ignore_errors=True)
    shown, _, used = servers.program("index", settings.PICTURES, "--collection", folder, "--json")
    shutil.rmtree(folder, ignore_errors=True)
    report = json.loads(shown)
    assert report["embedded"] == settings.PICTURE_COUNT, report
    return {"requests_per_second": report["embedded"] / report["seconds"], "cpu_ms": 1000 * used / report["embedded"]}


def started(starts):
    """Servers that start, and the reasons of those that don't."""
    running, reasons = {}, {}
    for name, start in starts.items():
        try:
            running[name] = start()
        except (servers.Failed, OSError) as error:
            reasons[name] = str(error)
            print(f"  {name} is left out: {str(error)[-600:]}")
    return running, reasons


def measure(rounds, seconds):
    """Rounds of every way; all servers are up, one is loaded."""
    bodies = fixtures.picture_bodies()
    starts = {
        "ours": servers.ours_with_model,
        "plain": lambda: servers.plain("threads"),
        "plain-loop": lambda: servers.plain("loop"),
        "infinity": servers.infinity,
    }
    running, reasons = started(starts)
    try:
        ways = {f"ours-{name}": (running["ours"], way) for name, way in OURS.items()}
        peers = {"plain": PLAIN, "plain-loop": PLAIN, "infinity": INFINITY}
        ways |= {name: (running[name], way) for name, way in peers.items() if name in running}
        least = compare(ways, bodies)
        print("  least cosines " + json.dumps(least))
        # Of two ways the better one is timed: all of it has to fit into minutes in which nothing else may run.
        ways = {name: way for name, way in ways.items() if name not in NOT_TIMED}
        found = [one_round(ways, bodies, seconds) for _ in range(rounds)]
    finally:
        for server in running.values():
            server.stop()
    ratios = {}
    for mine in (name for name in found[0] if name.startswith("ours-")):
        others = [name for name in found[0] if not name.startswith("ours-")]
        ratios[mine] = {name: samples.ratio(samples.rates(found, mine), samples.rates(found, name)) for name in others}
    return {"least_cosines": least, "rounds": found, "ratios": ratios, "left_out": reasons}


def one_round(ways, bodies, seconds):
    """Every way once."""
    one = {"index": pipeline()}
    for name, (server, (path, body, content_type)) in ways.items():
        one[name] = server.load(path, bodies[body], settings.PICTURE_CLIENTS, seconds, content_type, warm=2.5)
    print("  " + ", ".join(f"{way} {value['requests_per_second']:.2f}/s" for way, value in one.items()), flush=True)
    return one
