"""Reads a Dockerfile and carries out its stages in Debian systems; the part of check_dockerfile.sh that does the work.

Instructions and forms that it doesn't know are errors, so that nothing of the file goes untried unnoticed.
"""

import argparse
import base64
import ctypes
import fcntl
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEY = "a-key-for-this-check-only"


def fail(reason):
    sys.exit(f"check_dockerfile: {reason}")


def say(text):
    print(text, flush=True)


# --- reading -----------------------------------------------------------------------------------------------------------------------


def instructions(text):
    """Pairs of an instruction's name and the rest of its line, continuation lines joined as the engine joins them."""
    joined = ""
    for line in text.splitlines():
        # Comments may stand between the lines of an instruction.
        if line.lstrip().startswith("#") or (not line.strip() and not joined):
            continue
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        name, _, rest = (joined + line).strip().partition(" ")
        joined = ""
        if "<<" in rest:
            fail(f"here-documents aren't supported: {name} {rest}")
        yield name.upper(), rest.strip()
    if joined:
        fail("the file ends within an instruction")


def parts(text, build_arguments):
    """The file as stages in order, (name, image, instructions), with what stands before the first FROM put into their images."""
    head, stages = {}, []
    for name, rest in instructions(text):
        if name == "FROM":
            match = re.fullmatch(r"(\S+)(?:\s+[Aa][Ss]\s+(\S+))?", expand(rest, head))
            if not match:
                fail(f"FROM {rest}: not supported")
            stages.append((match[2] or str(len(stages)), match[1], []))
        elif stages:
            stages[-1][2].append((name, rest))
        elif name == "ARG":
            key, _, value = rest.partition("=")
            head[key] = build_arguments.get(key, words(value)[0] if words(value) else "")
        else:
            fail(f"{name} stands before FROM")
    if not stages:
        fail("there is no FROM")
    return stages, head


def needed(stages):
    """The names of the stages that the last one is made from, itself included: an engine leaves out the others."""
    known, wanted, found = {name: (image, body) for name, image, body in stages}, [stages[-1][0]], set()
    while wanted:
        name = wanted.pop()
        if name in known and name not in found:
            found.add(name)
            image, body = known[name]
            copies = [dict(options(rest)[0]).get("from") for instruction, rest in body if instruction == "COPY"]
            wanted += [image, *filter(None, copies)]
    return found


def expand(text, variables):
    """Puts variables in: $NAME, ${NAME}, ${NAME:-otherwise}, ${NAME:+instead}."""

    def value(match):
        name, operator, word = match["plain"] or match["name"], match["operator"], match["word"]
        found = variables.get(name, "")
        if operator == ":-":
            return found or word
        if operator == ":+":
            return word if found else ""
        return found

    pattern = r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<operator>:[-+])(?P<word>[^}]*))?\})"
    expanded = re.sub(pattern, value, text)
    if "$" in expanded:
        fail(f"a form of variable that isn't supported: {text}")
    return expanded


def words(text):
    """Splits at blanks, heeding quotes and backslashes."""
    return shlex.split(text)


def pairs(text):
    found = []
    for word in words(text):
        key, equals, value = word.partition("=")
        if not equals:
            fail(f"expected KEY=VALUE, found {word!r}")
        found.append((key, value))
    return found


def listed(text):
    """The JSON form of a command; none where it is written for a shell."""
    return json.loads(text) if text.startswith("[") else None


def options(text):
    """The --name=value options ahead of an instruction's arguments, and the arguments."""
    found = []
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        found.append((match[1], match[2]))
        text = text[match.end() :]
    return found, text


class Ignored:
    """The rules of .dockerignore: the last one that matches a path or a folder above it decides."""

    def __init__(self, path):
        self.rules = []
        for line in path.read_text().splitlines() if path.exists() else []:
            rule = line.strip()
            if not rule or rule.startswith("#"):
                continue
            kept, rule = rule.startswith("!"), rule.lstrip("!").strip("/")
            if "**" in rule or "[" in rule:
                fail(f".dockerignore: a rule that isn't supported: {line}")
            self.rules.append((kept, rule.split("/")))

    def __contains__(self, path):
        parts, ignored = Path(path).parts, False
        for kept, rule in self.rules:
            if len(rule) <= len(parts) and all(map(fnmatch.fnmatchcase, parts, rule)):
                ignored = not kept
        return ignored


# --- a stage -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Stage:
    name: str
    base: str
    root: Path
    environment: dict = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    arguments: dict = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    labels: dict = field(default_factory=dict)
    volumes: list = field(default_factory=list)
    ports: list = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    health: list = field(default_factory=list)
    health_times: dict = field(default_factory=dict)
    entrypoint: list = field(default_factory=list)
    command: list = field(default_factory=list)
    #: Whether another stage goes on in its folder.
    stacked: bool = False

    def inside(self, path):
        """Where a path of the stage lies on this machine."""
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def popen(self, command, environment=None, user=None, **more):
        """Starts a program in the stage, with nothing of this machine's environment."""
        user_id, _, group_id = (user or self.user).partition(":")
        if not user_id.isdigit() or not group_id.isdigit():
            fail(f"USER: numbers are expected, USER:GROUP, found {self.user!r}")

        def enter():
            os.chroot(self.root)
            os.setgroups([])
            os.setgid(int(group_id))
            os.setuid(int(user_id))
            os.chdir(self.folder)

        return subprocess.Popen(command, env=self.environment | (environment or {}), preexec_fn=enter, **more)

    def run(self, command, **more):
        process = self.popen(command, **more)
        output, _ = process.communicate()
        return process.returncode, (output or b"").decode(errors="replace").strip()


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


def mounted(path):
    """Whether something is mounted there; os.path.ismount doesn't see bind mounts within one file system."""
    places = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return str(path) in places


def bind(source, target, read_only=False):
    Path(target).mkdir(parents=True, exist_ok=True)
    mount("--bind", source, target)
    if read_only:
        mount("-o", "remount,bind,ro", target)


def system_mounts(root):
    """What an engine mounts into each container; of devices, the few harmless ones."""
    mount("-t", "proc", "proc", root / "proc")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root / "dev")
    for name in ["null", "zero", "full", "random", "urandom", "tty"]:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", root / "dev" / name)
    for name, target in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")]:
        (root / "dev" / name).symlink_to(target)


class Builder:
    def __init__(self, work, program, keep, build_arguments):
        self.work, self.program, self.keep, self.build_arguments = work, program, keep, build_arguments
        self.stages = {}
        self.ignored = Ignored(ROOT / ".dockerignore")

    def base(self, image, root):
        """A system like a known image, and what the image's environment holds."""
        if match := re.fullmatch(r"debian:(bookworm)-slim", image):
            suite, packages, rust = match[1], [], None
        elif match := re.fullmatch(r"rust:([\d.]+)-slim-(bookworm)", image):
            suite, packages, rust = match[2], ["ca-certificates", "gcc", "libc6-dev"], match[1]
        else:
            fail(f"FROM {image}: this script knows debian:bookworm-slim and rust:VERSION-slim-bookworm")
        kept = self.keep and self.keep / f"{'-'.join([suite, *packages])}.tar"
        if kept and kept.exists():
            root.mkdir()
            self.quietly(["tar", "--numeric-owner", "-xf", kept, "-C", root])
        else:
            include = [f"--include={','.join(packages)}"] if packages else []
            self.quietly(["debootstrap", "--variant=minbase", *include, suite, root])
            if kept:
                self.quietly(["tar", "--numeric-owner", "-cf", kept, "-C", root, "."])
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        if Path("/etc/apt/apt.conf.d").is_dir():
            for settings in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
                shutil.copy(settings, root / "etc/apt/apt.conf.d")
        system_mounts(root)
        return self.rust(rust, root) if rust else {}

    def rust(self, version, root):
        home = Path(os.environ.get("HOME", "/root"))
        rustup = Path(os.environ.get("RUSTUP_HOME", home / ".rustup"))
        cargo = Path(os.environ.get("CARGO_HOME", home / ".cargo"))
        toolchain = next((rustup / "toolchains").glob(f"{version}*"), None)
        if toolchain is None:
            fail(f"{rustup} has no toolchain {version}")
        place = root / "usr/local/rustup/toolchain"
        bind(toolchain, place, read_only=True)
        layer = self.work / "registry"
        for name in ["written", "scratch"]:
            (layer / name).mkdir(parents=True)
        registry = root / "usr/local/cargo/registry"
        registry.mkdir(parents=True)
        lower = f"lowerdir={cargo}/registry,upperdir={layer}/written,workdir={layer}/scratch"
        mount("-t", "overlay", "overlay", "-o", lower, registry)
        return {
            "PATH": f"/usr/local/rustup/toolchain/bin:{SYSTEM_PATH}",
            "CARGO_HOME": "/usr/local/cargo",
            "RUSTUP_HOME": "/usr/local/rustup",
            "RUST_VERSION": version,
            # The one variable that no image sets: no registry is asked.
            "CARGO_NET_OFFLINE": "true",
        }

    def quietly(self, command):
        """Runs a program of this machine, showing what it says only where it fails."""
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            print(done.stdout.decode(errors="replace")[-4000:])
            fail(f"{command[0]} failed")

    def build(self, text):
        stages, self.head = parts(text, self.build_arguments)
        wanted = needed(stages)
        for name, image, body in stages:
            if name not in wanted:
                say(f"stage {name} isn't needed")
                continue
            stage = self.start(name, image)
            for instruction, rest in body:
                start = time.monotonic()
                method = getattr(self, f"do_{instruction.lower()}", None)
                if method is None:
                    fail(f"{instruction} isn't supported")
                method(stage, rest)
                shown = " ".join(f"{instruction} {rest}".split())
                say(f"  {time.monotonic() - start:6.1f} s  {shown if len(shown) <= 110 else shown[:107] + '...'}")
        return stage

    def start(self, name, image):
        say(f"stage {name}, from {image}")
        below = self.stages.get(image)
        if below is None:
            stage = Stage(name, image, self.work / f"stage-{name}")
            stage.environment |= self.base(image, stage.root)
        elif below.stacked:
            fail(f"FROM {image}: two stages on top of one aren't supported")
        else:
            # The same folder: nothing else is made from it.
            below.stacked = True
            stage = replace(below, name=name, base=image, arguments={}, stacked=False)
        self.stages[name] = stage
        return stage

    def do_arg(self, stage, rest):
        key, equals, value = rest.partition("=")
        # Without a value it is the one from before the first FROM.
        default = (words(value)[0] if words(value) else "") if equals else self.head.get(key, "")
        stage.arguments[key] = self.build_arguments.get(key, default)

    def variables(self, stage):
        return stage.arguments | stage.environment

    def do_env(self, stage, rest):
        stage.environment |= dict(pairs(expand(rest, self.variables(stage))))

    def do_label(self, stage, rest):
        stage.labels |= dict(pairs(rest))

    def do_workdir(self, stage, rest):
        stage.folder = os.path.join(stage.folder, expand(rest, self.variables(stage)))
        stage.inside(".").mkdir(parents=True, exist_ok=True)

    def do_user(self, stage, rest):
        stage.user = expand(rest, self.variables(stage))

    def do_volume(self, stage, rest):
        stage.volumes += listed(rest) or words(rest)

    def do_expose(self, stage, rest):
        stage.ports += words(expand(rest, self.variables(stage)))

    def do_stopsignal(self, stage, rest):
        stage.stop_signal = rest

    def do_entrypoint(self, stage, rest):
        stage.entrypoint = listed(rest) or ["/bin/sh", "-c", rest]

    def do_cmd(self, stage, rest):
        stage.command = listed(rest) or ["/bin/sh", "-c", rest]

    def do_healthcheck(self, stage, rest):
        times, rest = options(rest)
        stage.health_times = dict(times)
        word, _, command = rest.partition(" ")
        if word != "CMD":
            fail(f"HEALTHCHECK {rest}: only CMD is supported")
        stage.health = listed(command.strip()) or ["/bin/sh", "-c", command.strip()]

    def do_run(self, stage, rest):
        given, command = options(rest)
        for kind, value in given:
            values = dict(part.split("=", 1) for part in value.split(","))
            if kind != "mount" or values.get("type") != "cache" or set(values) - {"type", "target", "sharing", "id"}:
                fail(f"RUN --{kind}={value}: only cache mounts are supported")
            target = stage.inside(values["target"])
            # The registry's place is taken already, by this machine's.
            if not mounted(target):
                cache = (self.keep or self.work) / "caches" / values["target"].strip("/").replace("/", "-")
                cache.mkdir(parents=True, exist_ok=True)
                warm = sum(1 for _ in cache.iterdir())
                say(f"    {values['target']} is a cache, {'as the last build left it' if warm else 'empty'}")
                bind(cache, target)
        if self.program and stage.name == "builder":
            say("    not run: the program was given")
            return
        command = listed(command) or ["/bin/sh", "-c", command]
        log = self.work / "run.log"
        with log.open("wb") as out:
            more = {"DEBIAN_FRONTEND": "noninteractive"} | stage.arguments
            code, _ = stage.run(command, environment=more, stdout=out, stderr=subprocess.STDOUT)
        lines = log.read_text(errors="replace").splitlines()
        if code != 0:
            print("\n".join(lines[-40:]))
            fail(f"RUN ended with {code}")
        for line in lines[-2:]:
            say(f"    {line[:150]}")

    def do_copy(self, stage, rest):
        given, rest = options(rest)
        given = dict(given)
        if set(given) - {"from", "chmod", "chown"}:
            fail(f"COPY: an option that isn't supported: {given}")
        *sources, target = listed(rest) or words(expand(rest, self.variables(stage)))
        other = self.stages.get(given["from"]) if "from" in given else None
        if "from" in given and other is None:
            fail(f"COPY --from={given['from']}: there is no such stage")
        for source in sources:
            if any(letter in source for letter in "*?["):
                fail(f"COPY {source}: patterns aren't supported")
            place = stage.inside(target)
            if other is not None:
                found = other.inside(source)
                if self.program and other.name == "builder":
                    found = self.program
            else:
                found = ROOT / source
                if source in self.ignored:
                    fail(f"COPY {source}: .dockerignore leaves it out")
            if not found.exists():
                fail(f"COPY {source}: there is no such file")
            # A folder's content is copied, a file itself.
            into = place / found.name if found.is_file() and (target.endswith("/") or place.is_dir()) else place
            self.copy(found, into, checked=other is None)
            owner = given.get("chown", "0:0").partition(":")
            for path in [into, *(into.rglob("*") if into.is_dir() else [])]:
                os.chown(path, int(owner[0]), int(owner[2] or owner[0]), follow_symlinks=False)
                if "chmod" in given:
                    path.chmod(int(given["chmod"], 8))

    def copy(self, found, into, checked):
        if found.is_symlink():
            fail(f"COPY: {found} is a link")
        if found.is_dir():
            into.mkdir(parents=True, exist_ok=True)
            for child in sorted(found.iterdir()):
                if not (checked and str(child.relative_to(ROOT)) in self.ignored):
                    self.copy(child, into / child.name, checked)
        else:
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)


# --- trying the image --------------------------------------------------------------------------------------------------------------


def own_network():
    """From here on this process and what it starts have a network of their own, with nothing but loopback."""
    new_network = 0x40000000
    if ctypes.CDLL(None, use_errno=True).unshare(new_network) != 0:
        fail(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, get_flags, request))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def read_only(stage, work):
    """Makes the root unwritable but for its volumes, which begin as copies of the image's folders, and /tmp."""
    for volume in stage.volumes:
        own = work / "volumes" / volume.strip("/").replace("/", "-")
        shutil.copytree(stage.inside(volume), own)
        was = stage.inside(volume).stat()
        os.chown(own, was.st_uid, was.st_gid)
        own.chmod(was.st_mode & 0o7777)
        bind(own, stage.inside(volume))
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", stage.root / "tmp")
    # Mounts below keep their own rights.
    mount("--rbind", stage.root, stage.root)
    mount("-o", "remount,bind,ro", stage.root)
    for place in [*stage.volumes, "/tmp", "/dev", "/proc"]:
        if not mounted(stage.inside(place)):
            fail(f"{place} isn't mounted")


class Trial:
    """A list of things that must be so."""

    def __init__(self):
        self.failed = 0

    def expect(self, what, fine, seen=""):
        self.failed += not fine
        say(f"  {'ok    ' if fine else 'FAILED'}  {what}{f': {seen}' if seen else ''}")


def ask(path, body=None, key=KEY, content_type="application/json"):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:8000{path}", data, headers | {"Content-Type": content_type})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def try_image(stage, work):
    trial = Trial()
    command = stage.entrypoint + stage.command
    say(f"trying {' '.join(command)} as {stage.user}, in {stage.folder}")
    code, output = stage.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    trial.expect("without a key it refuses to start", code != 0 and "CROSSMODAL_API_KEY" in output, output.splitlines()[-1][:150])
    code, output = stage.run(stage.health, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    trial.expect("the health check fails where nothing listens", code != 0, output.splitlines()[-1][:100] if output else "")

    code, output = stage.run(["/bin/touch", "/usr/local/bin/another"], user="0:0", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    trial.expect("the root file system can't be written to", code != 0 and "Read-only" in output, output)

    log = (work / "server.log").open("w+b")
    server = stage.popen(command, environment={"CROSSMODAL_API_KEY": KEY}, stdout=log, stderr=subprocess.STDOUT)
    try:
        serve(stage, server, trial)
    finally:
        server.kill() if server.poll() is None else None
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
        say("what the server wrote, first and last lines:")
        for line in lines[:5] + (["..."] if len(lines) > 8 else []) + lines[max(5, len(lines) - 3) :]:
            say(f"  {line[:170]}")
    return trial.failed


def serve(stage, server, trial):
    start, healthy, output = time.monotonic(), False, ""
    while not healthy and time.monotonic() - start < 60 and server.poll() is None:
        code, output = stage.run(stage.health, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        healthy = code == 0
        time.sleep(0.1)
    trial.expect(f"the image's health check passes after {time.monotonic() - start:.1f} s", healthy, output)
    if not healthy:
        return
    status = Path(f"/proc/{server.pid}/status")
    ids = re.search(r"^Uid:\s+(.*)$", status.read_text(), re.M)[1].split()
    trial.expect("it runs as the image's user", set(ids) == {stage.user.partition(":")[0]} and ids[0] != "0", " ".join(ids))
    trial.expect("it listens on the exposed port", stage.ports == [stage.environment["CROSSMODAL_PORT"]], stage.ports)

    code, _ = ask("/v1/models", key=None)
    trial.expect("requests without the key are refused", code == 401, code)
    code, body = ask("/v1/embed", {"inputs": {"text": "red apple"}})
    answer = json.loads(body)
    vector = answer["embeddings"][0]["embedding"] if code == 200 else []
    length = sum(x * x for x in vector) ** 0.5
    trial.expect("a text is embedded", code == 200 and len(vector) == answer["dimension"] and abs(length - 1) < 1e-5,
                 f"{answer.get('model')}, {len(vector)} dimensions, length {length:.6f}")
    picture = base64.b64encode((ROOT / "samples/gallery/1f34e.png").read_bytes()).decode()
    request = {"rows": [{"image": picture}], "columns": [{"text": "red apple"}, {"text": "bicycle"}]}
    code, body = ask("/v1/similarity", request)
    probabilities = json.loads(body).get("probabilities", [[0]])[0]
    trial.expect("a picture is told by its name", code == 200 and probabilities[0] > 0.9, probabilities)
    collection(trial)

    rest = stage.inside("/data")
    made = sorted(path.name for path in rest.iterdir())
    trial.expect("what it stored lies in the volume", bool(made) and all((rest / name).stat().st_uid == int(ids[0]) for name in made), made)
    memory = re.search(r"^VmHWM:\s+(\d+)", status.read_text(), re.M)[1]
    say(f"          it has taken {int(memory) / 1024:.0f} MiB at most")

    begin = time.monotonic()
    server.send_signal(getattr(signal, stage.stop_signal))
    code = server.wait(timeout=90)
    trial.expect(f"{stage.stop_signal} ends it after {time.monotonic() - begin:.1f} s", code == 0, f"exit code {code}")
    code, _ = stage.run(stage.health, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    trial.expect("the health check fails afterwards", code != 0)


def collection(trial):
    code, body = ask("/v1/collections", {"name": "check"})
    trial.expect("a collection is made", code == 201, code)
    content = (ROOT / "samples/gallery/1f34e.png").read_bytes()
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="apple.png"\r\n\r\n'
    code, body = ask("/v1/collections/check/items", head + content + b"\r\n--edge--\r\n", content_type="multipart/form-data; boundary=edge")
    trial.expect("a picture is taken", code == 202, code)
    job = json.loads(body)
    while code == 202 and job["state"] in ("queued", "running"):
        time.sleep(0.1)
        job = json.loads(ask(f"/v1/jobs/{job['id']}")[1])
    code, body = ask("/v1/collections/check/search", {"query": "red apple", "k": 1})
    hits = json.loads(body).get("hits", [])
    trial.expect("and found", job.get("state") == "done" and len(hits) == 1, [hit["name"] for hit in hits])


def megabytes(path):
    done = subprocess.run(["du", "-xsm", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def main():
    parser = argparse.ArgumentParser(prog="check_dockerfile.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, default=ROOT / "Dockerfile", help="another Dockerfile")
    parser.add_argument("--program", type=Path, help="take this for what the builder would have made")
    parser.add_argument("--keep", type=Path, help="folder in which fresh Debian systems and the caches of RUN are kept for the next time")
    parser.add_argument("--features", default="", help="cargo features")
    given = parser.parse_args()
    say(f"{given.file.name}, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC")
    builder = Builder(given.work, given.program, given.keep, {"FEATURES": given.features})
    image = builder.build(given.file.read_text())
    program = image.root / "usr/local/bin/crossmodal"
    say(f"the image has {megabytes(image.root)} MB, {program.stat().st_size / 1e6:.0f} of them the program; labels {sorted(image.labels)}")
    own_network()
    read_only(image, given.work)
    failed = try_image(image, given.work)
    if given.program:
        say(f"note: the program was given, {given.program}; the builder's commands were not run")
    say(f"{'FAILED' if failed else 'passed'}: {failed} checks failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
