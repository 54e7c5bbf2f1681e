#!/usr/bin/env python3
"""Drives `crossmodal serve` with the real clients of other servers.

    python scripts/http_clients_test.py target/release/crossmodal

Needs scripts/http_clients_requirements.txt. Prints a line for each check and `N passed, N failed` at the end; fails if one does. Nothing leaves this
machine: three servers run on loopback (open, with a key, with an allowance) and are stopped at the end.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import cohere
import numpy
import openai
from huggingface_hub import InferenceClient

KEY = "a-key-for-the-clients-0123456789"
GALLERY = pathlib.Path(__file__).resolve().parent.parent / "samples" / "gallery"
APPLE, LEMON = GALLERY / "1f34e.png", GALLERY / "1f34b.png"
LONG = "a red apple beside a yellow lemon on a wooden table in the morning light of a kitchen with many large windows " * 3


@contextlib.contextmanager
def server(binary, *options, key=None):
    """The address of a running server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CROSSMODAL_")}
    if key:
        environment["CROSSMODAL_API_KEY"] = key
    command = [binary, "serve", "--host", "127.0.0.1", "--port", "0", *options]
    # A file, since a pipe that nobody reads fills up and stops the server.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield wait_for(process, log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def wait_for(process, log):
    for line in process.stdout:
        if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
            address = f"http://{found[1]}"
            break
    else:
        log.seek(0)
        raise SystemExit(f"the server didn't start: {log.read()}")
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    return address
        except urllib.error.HTTPError:
            time.sleep(0.1)
    raise SystemExit("the server isn't ready after a minute")


class Checks:
    """Counts what holds and what doesn't."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, check):
        try:
            check()
        except Exception as error:  # noqa: BLE001: whatever goes wrong is a failure of this check, not of the others
            self.failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {name}", flush=True)


def near(found, expected, tolerance=1e-6):
    found, expected = numpy.asarray(found, dtype=numpy.float32), numpy.asarray(expected, dtype=numpy.float32)
    assert found.shape == expected.shape, f"{found.shape} instead of {expected.shape}"
    gap = float(numpy.abs(found - expected).max())
    assert gap <= tolerance, f"they differ by {gap}"


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def raises(kind, ask, status, part=""):
    """Asks, and expects one class of error. Returns it."""
    try:
        ask()
    except Exception as error:  # noqa: BLE001: told apart right here
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
        assert error.status_code == status, f"status {error.status_code} instead of {status}"
        assert part in str(error), f"{part!r} is not in {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def post(address, path, body):
    """Status and JSON of a plain request."""
    request = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def data_uri(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def own(address, *inputs):
    """Vectors from the server's own route, to compare with."""
    status, body = post(address, "/v1/embed", {"inputs": list(inputs)})
    same(status, 200)
    return [row["embedding"] for row in body["embeddings"]]


def openai_checks(checks, address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none needed", max_retries=0)
    embed = lambda input, **more: client.embeddings.create(model="mini", input=input, **more)  # noqa: E731
    words = own(address, {"text": "red apple"}, {"text": "a dog"})
    apple, lemon = own(address, {"image": data_uri(APPLE)}, {"image": data_uri(LEMON)})
    ids = [token["id"] for token in post(address, "/tokenize", {"inputs": "red apple", "add_special_tokens": False})[1][0]]

    def shape():
        answer = embed(["red apple", "a dog"])
        same((answer.object, answer.model), ("list", "mini"))
        same([(row.object, row.index) for row in answer.data], [("embedding", 0), ("embedding", 1)])
        same(answer.usage.prompt_tokens, answer.usage.total_tokens)
        assert answer.usage.prompt_tokens >= 8

    checks.run("openai: shape of the answer", shape)
    checks.run("openai: base64, which the client asks for by itself", lambda: near(embed("red apple").data[0].embedding, words[0]))
    checks.run("openai: float", lambda: near(embed("red apple", encoding_format="float").data[0].embedding, words[0]))
    checks.run("openai: lists", lambda: near([row.embedding for row in embed(["red apple", "a dog"]).data], words))
    checks.run("openai: token ids", lambda: near(embed(ids).data[0].embedding, words[0]))
    checks.run("openai: lists of token ids", lambda: near([row.embedding for row in embed([ids, ids]).data], [words[0]] * 2))
    checks.run("openai: dimensions and user", lambda: near(embed("red apple", dimensions=len(words[0]), user="me").data[0].embedding, words[0]))
    checks.run("openai: a text that is too long", lambda: same(len(embed(LONG).data[0].embedding), len(words[0])))
    checks.run(
        "infinity: modality image",
        lambda: near([row.embedding for row in embed([data_uri(APPLE), data_uri(LEMON)], extra_body={"modality": "image"}).data], [apple, lemon]),
    )
    checks.run(
        "jina: objects",
        lambda: near([row.embedding for row in embed([{"text": "red apple"}, {"image": data_uri(APPLE)}]).data], [words[0], apple]),
    )
    checks.run("openai: models", lambda: same([model.id for model in client.models.list()], ["mini"]))
    checks.run("openai: one model", lambda: same(client.models.retrieve("mini").id, "mini"))

    def refusal():
        error = raises(openai.BadRequestError, lambda: embed([]), 400)
        same((error.param, error.code, error.type), ("input", "invalid_request", "invalid_request_error"))

    checks.run("openai: BadRequestError for nothing", refusal)
    checks.run("openai: BadRequestError for other dimensions", lambda: raises(openai.BadRequestError, lambda: embed("a", dimensions=7), 400, "dimensions"))
    checks.run("openai: BadRequestError for an empty text", lambda: raises(openai.BadRequestError, lambda: embed(""), 400))
    checks.run("openai: BadRequestError for unknown token ids", lambda: raises(openai.BadRequestError, lambda: embed([999_999]), 400, "vocabulary"))
    checks.run(
        "openai: NotFoundError",
        lambda: raises(openai.NotFoundError, lambda: client.embeddings.create(model="none", input="a"), 404, "isn't served here"),
    )
    checks.run("openai: NotFoundError for one model", lambda: raises(openai.NotFoundError, lambda: client.models.retrieve("none"), 404))


def cohere_checks(checks, address):
    client = cohere.ClientV2(api_key="none needed", base_url=address)
    words = own(address, {"text": "red apple"}, {"text": "a dog"})
    (apple,) = own(address, {"image": data_uri(APPLE)})
    embed = lambda **asked: client.embed(model="mini", **{"input_type": "search_document", **asked})  # noqa: E731

    def texts():
        answer = embed(texts=["red apple", "a dog"], embedding_types=["float"])
        near(answer.embeddings.float_, words)
        same(answer.texts, ["red apple", "a dog"])
        same((answer.response_type, answer.meta.api_version.version), ("embeddings_by_type", "2"))
        assert answer.id and answer.meta.billed_units.input_tokens >= 8

    def types():
        answer = embed(texts=["red apple"], embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"]).embeddings
        vector = numpy.asarray(words[0], dtype=numpy.float32)
        near(answer.float_[0], vector)
        near(numpy.frombuffer(base64.b64decode(answer.base64[0]), dtype="<f4"), vector)
        levels = numpy.asarray(answer.int8[0], dtype=numpy.float32)
        cosine = float(levels @ vector / numpy.linalg.norm(levels))
        assert cosine > 0.999, cosine
        same([level + 128 for level in answer.int8[0]], answer.uint8[0])
        same(answer.ubinary[0], numpy.packbits(vector > 0).tolist())
        same(answer.binary[0], [byte - 128 for byte in answer.ubinary[0]])

    def pictures():
        answer = embed(images=[data_uri(APPLE)], input_type="image", embedding_types=["float"])
        near(answer.embeddings.float_[0], apple)
        same((answer.images[0].format, answer.meta.billed_units.images), ("png", 1))

    def mixtures():
        parts = [{"type": "text", "text": "red apple"}, {"type": "image_url", "image_url": {"url": data_uri(APPLE)}}]
        answer = embed(inputs=[{"content": parts}, {"content": parts[:1]}], embedding_types=["float"])
        mean = numpy.asarray(words[0]) + numpy.asarray(apple)
        near(answer.embeddings.float_, [mean / numpy.linalg.norm(mean), words[0]])

    checks.run("cohere: texts", texts)
    checks.run("cohere: all types of vectors", types)
    checks.run("cohere: pictures", pictures)
    checks.run("cohere: mixtures", mixtures)
    checks.run("cohere: START", lambda: same(len(embed(texts=[LONG], truncate="START", embedding_types=["float"]).embeddings.float_[0]), len(words[0])))
    checks.run("cohere: BadRequestError for NONE", lambda: raises(cohere.BadRequestError, lambda: embed(texts=[LONG], truncate="NONE"), 400, "tokens"))
    checks.run("cohere: BadRequestError for a wrong input type", lambda: raises(cohere.BadRequestError, lambda: embed(texts=["a"], input_type="song"), 400))
    checks.run("cohere: NotFoundError", lambda: raises(cohere.NotFoundError, lambda: client.embed(model="none", input_type="image", texts=["a"]), 404))
    checks.run(
        "cohere: NotImplementedError for reranking",
        lambda: raises(cohere.NotImplementedError, lambda: client.rerank(model="mini", query="a", documents=["b"]), 501, "reranker"),
    )


def inference_checks(checks, address):
    words = own(address, {"text": "red apple"}, {"text": "a dog"})
    embed = InferenceClient(model=f"{address}/embed").feature_extraction
    compare = InferenceClient(model=f"{address}/similarity").sentence_similarity

    def plain():
        near(post(address, "/embed", {"inputs": ["red apple", "a dog"]})[1], words)
        status, body = post(address, "/embed", {"inputs": LONG, "truncate": False})
        same((status, body["error_type"]), (422, "Validation"))

    def tokens():
        status, rows = post(address, "/tokenize", {"inputs": ["red apple"]})
        same((status, sorted(rows[0][0])), (200, ["id", "special", "start", "stop", "text"]))
        same([token["special"] for token in rows[0]][:: len(rows[0]) - 1], [True, True])

    checks.run("text-embeddings-inference: /embed", plain)
    checks.run("text-embeddings-inference: /tokenize", tokens)
    checks.run("huggingface_hub: feature_extraction", lambda: near(embed("red apple"), [words[0]]))
    checks.run("huggingface_hub: truncated at the left", lambda: same(embed(LONG, truncate=True, truncation_direction="left").shape, (1, len(words[0]))))
    checks.run(
        "huggingface_hub: sentence_similarity",
        lambda: near(compare("red apple", other_sentences=["red apple", "a dog"]), [1.0, float(numpy.dot(*words))], 1e-5),
    )


def guarded_checks(checks, address):
    ask = lambda key: openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0).embeddings.create(model="mini", input="a")  # noqa: E731
    cohere_ask = lambda key: cohere.ClientV2(api_key=key, base_url=address).embed(model="mini", input_type="image", texts=["a"])  # noqa: E731
    checks.run("openai: a key", lambda: same(len(ask(KEY).data), 1))
    checks.run("openai: AuthenticationError", lambda: raises(openai.AuthenticationError, lambda: ask("wrong"), 401))
    checks.run("cohere: a key", lambda: same(len(cohere_ask(KEY).embeddings.float_), 1))
    checks.run("cohere: UnauthorizedError", lambda: raises(cohere.UnauthorizedError, lambda: cohere_ask("wrong"), 401))


def allowance_checks(checks, address):
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none needed", max_retries=0)
    ask = lambda: client.embeddings.create(model="mini", input="a")  # noqa: E731

    def refused():
        ask()
        error = raises(openai.RateLimitError, ask, 429)
        assert int(error.response.headers["retry-after"]) >= 1

    checks.run("openai: RateLimitError", refused)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    binary, checks = sys.argv[1], Checks()
    with server(binary) as address:
        openai_checks(checks, address)
        cohere_checks(checks, address)
        inference_checks(checks, address)
    with server(binary, key=KEY) as address:
        guarded_checks(checks, address)
    with server(binary, "--rate-limit", "0.05") as address:
        allowance_checks(checks, address)
    print(f"{checks.passed} passed, {checks.failed} failed")
    raise SystemExit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
