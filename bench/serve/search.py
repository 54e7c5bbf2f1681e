"""Searches over HTTP with the vector in the body: requests a second, times, the load client's share, recall."""

import shutil

import numpy

import fixtures
import servers
import settings

#: Queries whose hits are compared with the exact ones.
COMPARED = 500


def recall(server, path, bodies):
    """The share of the true nearest rows that are among the hits."""
    truth = numpy.load(settings.search_data("truth"))[:COMPARED, : settings.K]
    hits = 0
    for line, nearest in zip(bodies.read_text().splitlines(), truth.tolist()):
        answer = server.json(path, line)
        hits += len({int(hit["id"]) for hit in answer["hits"]} & set(nearest))
    return hits / truth.size


def wrk(server, path, bodies, seconds):
    """What wrk measures: one thread, for two would take both processors from the server."""
    command = ["wrk", "--threads", 1, "--connections", settings.SEARCH_CLIENTS, "--duration", f"{seconds:.0f}s"]
    command += ["--script", settings.HERE / "wrk.lua", f"http://127.0.0.1:{server.port}{path}", "--", bodies]
    return server.timed(command)


def measure(rounds, seconds):
    """Rounds of wrk and of the own client."""
    folder, bodies = fixtures.collection(), fixtures.search_bodies()
    path = f"/v1/collections/{folder.name}/search"
    with servers.ours("--collection", folder) as server:
        found = {"recall": recall(server, path, bodies), "rounds": []}
        print(f"  recall of {settings.K} {found['recall']:.4f}")
        for _ in range(rounds):
            one = {"http_load": server.load(path, bodies, settings.SEARCH_CLIENTS, seconds)}
            if shutil.which("wrk"):
                one["wrk"] = wrk(server, path, bodies, seconds)
            found["rounds"].append(one)
            shown = (f"{name} {v['requests_per_second']:.0f}/s p99 {v['p99_ms']:.1f} ms" for name, v in one.items())
            print("  " + ", ".join(shown), flush=True)
    return found
