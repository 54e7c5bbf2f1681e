"""Our side: the worker process (`crates/index/examples/search_worker.rs`), spoken to in JSON lines."""

import json
import subprocess
import tempfile

import numpy

import settings


class Worker:
    """One process with its vectors, queries and index."""

    def __init__(self, name, metric="cosine"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([str(settings.WORKER)], **pipes)
        self.output = tempfile.NamedTemporaryFile(prefix="crossmodal-search-")
        self.order("load", rows=str(settings.rows_file(name)), queries=str(settings.queries_file(name)), metric=metric)

    def order(self, name, **options):
        """Gives an order and returns the answer."""
        print(json.dumps({"order": name, **options}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{name} {options}: {answer['error']}")
        return answer

    def build(self, kind, threads, **options):
        """Seconds to build an index."""
        return self.order("build", kind=kind, threads=threads, **options)["seconds"]

    def select(self, rows):
        """Later searches see only these rows (a sorted array of numbers); all with None."""
        if rows is None:
            self.order("select")
            return
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            numpy.save(file, rows.astype(numpy.uint32))
            file.flush()
            self.order("select", rows=file.name)

    def search(self, effort=None, threads=1, **options):
        """Row numbers found, `K` a query, and the seconds of one pass over the queries."""
        answer = self.order("search", k=settings.K, effort=effort, threads=threads, output=self.output.name, **options)
        return numpy.fromfile(self.output.name, numpy.uint32).reshape(-1, settings.K), answer["seconds"]

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.output.close()
