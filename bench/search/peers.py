"""The other libraries, each behind the same three calls."""

import time

import faiss
import hnswlib
import numpy
import usearch.index

import settings


class Hnswlib:
    """hnswlib: fp32, inner product of unit vectors."""

    name, kind = "hnswlib M16 efC100", "hnswlib"

    def build(self, rows, threads):
        """Seconds to build."""
        start = time.perf_counter()
        self.index = hnswlib.Index("ip", rows.shape[1])
        self.index.init_index(len(rows), M=16, ef_construction=100)
        self.index.add_items(rows, num_threads=threads)
        return time.perf_counter() - start

    def open(self, file, dimension):
        """Takes a saved index."""
        self.index = hnswlib.Index("ip", dimension)
        self.index.load_index(str(file))

    def search(self, queries, effort, allowed=None):
        """Row numbers and seconds, on one thread. `allowed` is an array of a truth value per row."""
        self.index.set_ef(max(effort, settings.K))
        filter_of = {} if allowed is None else {"filter": allowed.__getitem__}
        start = time.perf_counter()
        found, _ = self.index.knn_query(queries, k=settings.K, num_threads=1, **filter_of)
        return found, time.perf_counter() - start


class Faiss:
    """FAISS: fp32 HNSW."""

    name, kind = "FAISS HNSW32 efC40", "faiss"

    def build(self, rows, threads):
        """Seconds to build."""
        faiss.omp_set_num_threads(threads)
        start = time.perf_counter()
        self.index = faiss.IndexHNSWFlat(rows.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 40
        self.index.add(rows)
        return time.perf_counter() - start

    def search(self, queries, effort, allowed=None):
        """As `Hnswlib.search`."""
        faiss.omp_set_num_threads(1)
        options = {"efSearch": max(effort, settings.K)}
        if allowed is not None:
            options["sel"] = faiss.IDSelectorBitmap(numpy.packbits(allowed, bitorder="little"))
        parameters = faiss.SearchParametersHNSW(**options)
        start = time.perf_counter()
        _, found = self.index.search(queries, settings.K, params=parameters)
        return found, time.perf_counter() - start


class Usearch:
    """usearch: fp32, its default connectivity and efforts."""

    name, kind = "usearch f32", "usearch"

    def build(self, rows, threads):
        """Seconds to build."""
        start = time.perf_counter()
        self.index = usearch.index.Index(ndim=rows.shape[1], metric="ip", dtype="f32")
        self.index.add(numpy.arange(len(rows)), rows, threads=threads)
        return time.perf_counter() - start

    def search(self, queries, effort, allowed=None):
        """As `Hnswlib.search`; it has no filter."""
        assert allowed is None, "usearch has no filter in Python"
        self.index.expansion_search = max(effort, settings.K)
        start = time.perf_counter()
        found = self.index.search(queries, settings.K, threads=1).keys
        return found, time.perf_counter() - start


ALL = [Hnswlib, Faiss, Usearch]
