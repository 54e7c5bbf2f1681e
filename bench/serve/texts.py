"""Texts over HTTP, one a request, beside `crossmodal embed` over the same captions in the same run."""

import numpy

import fixtures
import samples
import servers
import settings

PATHS = {"embed": "/v1/embed", "openai": "/v1/embeddings"}
#: Captions whose vectors are compared.
COMPARED = 64


def vector(way, answer):
    """The vector of an answer."""
    return answer["embeddings"][0]["embedding"] if way == "embed" else answer["data"][0]["embedding"]


def compare(server, bodies):
    """The least cosine between what the server and the engine give for the same captions, by route."""
    output = settings.SERVE / "texts.npy"
    servers.embed(fixtures.captions()[:COMPARED], output)
    truth = numpy.load(output)
    least = {}
    for way, file in bodies.items():
        lines = file.read_text().splitlines()[:COMPARED]
        found = numpy.array([vector(way, server.json(PATHS[way], line)) for line in lines])
        cosines = (found * truth).sum(1) / numpy.linalg.norm(found, axis=1) / numpy.linalg.norm(truth, axis=1)
        least[way] = float(cosines.min())
        # Captions differ, so that vectors of another caption would be noticed.
        assert least[way] > 0.9999, (way, least)
    return least


def measure(rounds, seconds):
    """Rounds of: the engine, then each route."""
    bodies = fixtures.text_bodies()
    with servers.ours_with_model() as server:
        if server.ask("POST", PATHS["openai"], bodies["openai"].read_text().splitlines()[0])[0] == 404:
            print("  this server has no /v1/embeddings")
            del bodies["openai"]
        least = compare(server, bodies)
        print(f"  least cosines {least}")
        captions, found = fixtures.captions(), []
        # So many that the engine takes about as long as a load.
        count = settings.TEXT_BATCH * max(2, round(80 * seconds / settings.TEXT_BATCH))
        for _ in range(rounds):
            one = {"engine": servers.engine(captions, count)}
            for way, file in bodies.items():
                one[way] = server.load(PATHS[way], file, settings.TEXT_CLIENTS, seconds)
            found.append(one)
            print("  " + ", ".join(f"{way} {value['requests_per_second']:.1f}/s" for way, value in one.items()), flush=True)
    ratios = {way: samples.ratio(samples.rates(found, way), samples.rates(found, "engine")) for way in bodies}
    return {"least_cosines": least, "rounds": found, "ratios": ratios}
