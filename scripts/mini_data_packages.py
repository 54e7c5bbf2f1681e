"""Where the drawings and names of scripts/mini_data.py come from: pinned packages, their checksums, and how they are fetched and opened.

A package is one file (an npm tarball or a Debian package) or one git repository at one commit. Nothing is unpacked on disk.
"""

import dataclasses
import hashlib
import io
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator


class MissingPackages(Exception):
    """Some packages are not in the folder, or are not the pinned ones; the message says which and what to do."""


@dataclasses.dataclass(frozen=True)
class Package:
    """One pinned source. `checksum` is the SHA-256 of the file; a git repository is pinned by its commit instead."""

    kind: str
    name: str
    version: str
    checksum: str = ""
    folder: str = ""

    @property
    def label(self) -> str:
        return f"{self.kind}:{self.name} {self.version}"

    @property
    def file_name(self) -> str:
        if self.kind == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.kind == "apt":
            return f"{self.name}_{self.version}_all.deb"
        return self.name.rsplit("/", 1)[1]

    @property
    def fetch_commands(self) -> list[list[str]]:
        if self.kind == "npm":
            return [["npm", "pack", "--silent", f"{self.name}@{self.version}"]]
        if self.kind == "apt":
            return [["apt-get", "download", f"{self.name}={self.version}"]]
        repository = f"https://github.com/{self.name}"
        fetch = ["git", "-C", self.file_name, "fetch", "--quiet", "--depth", "1", repository, self.version]
        return [["git", "init", "--quiet", "--bare", self.file_name], fetch]

    def fault(self, packages: pathlib.Path) -> str | None:
        """Why the package can't be used from this folder, or None."""
        path = packages / self.file_name
        if not path.exists():
            return f"{path} is missing"
        if self.kind == "git":
            found = subprocess.run(
                ["git", "-C", path, "cat-file", "-e", f"{self.version}^{{commit}}"], capture_output=True
            )
            return None if found.returncode == 0 else f"{path} has no commit {self.version}"
        digest = sha256(path.read_bytes())
        return None if digest == self.checksum else f"{path} has SHA-256 {digest}, expected {self.checksum}"

    def files(self, packages: pathlib.Path) -> dict[str, bytes]:
        """Every file of the package by its path inside the package (npm: without the leading `package/`)."""
        path = packages / self.file_name
        if self.kind == "npm":
            with tarfile.open(path, "r:gz") as archive:
                return {name.split("/", 1)[1]: content for name, content in members(archive)}
        if self.kind == "apt":
            command = ["dpkg-deb", "--fsys-tarfile", str(path)]
        else:
            command = ["git", "-C", str(path), "archive", self.version, self.folder]
        stream = subprocess.run(command, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
            return {name.removeprefix("./"): content for name, content in members(archive)}


def members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """The names and contents of an archive's plain files."""
    for member in archive:
        content = archive.extractfile(member) if member.isfile() else None
        if content is not None:
            yield member.name, content.read()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_of_pictures(pictures: dict[str, str]) -> str:
    """SHA-256 over the names of pictures and the SHA-256 of each."""
    return sha256("".join(f"{name} {pictures[name]}\n" for name in sorted(pictures)).encode())


def npm(name: str, version: str, checksum: str) -> Package:
    return Package("npm", name, version, checksum)


EMOJI_LIST = npm("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
ANNOTATIONS = npm("cldr-annotations-full", "48.2.0", "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1")
ANNOTATIONS_DERIVED = npm(
    "cldr-annotations-derived-full", "48.2.0", "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e"
)
NOTO = npm("@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad")
NOTO_V1 = npm("@iconify-json/noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37")
NOTO_2017 = npm("emoji-datasource-google", "4.1.0", "5835b53de3671546e3b2a13854539cd1c30a78ae0d1948d505e0c8967b9cc372")
NOTO_2020 = npm("emoji-datasource-google", "6.1.1", "a507c8d2aa1f1496dc2c560c5f4f1ef3955d4166fd389efb09e7a7cebeefcfca")
FLUENT = npm("@iconify-json/fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b")
FLUENT_FLAT = npm(
    "@iconify-json/fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
)
FLUENT_CONTRAST = npm(
    "@iconify-json/fluent-emoji-high-contrast",
    "1.2.6",
    "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
)
FLUENT_3D = npm("@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58")
FXEMOJI = npm("@iconify-json/fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef")
EMOJIONE = npm("@iconify-json/emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e")
EMOJIONE_MONOTONE = npm(
    "@iconify-json/emojione-monotone", "1.2.1", "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e"
)
STREAMLINE = npm(
    "@iconify-json/streamline-emojis", "1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc"
)
NOTO_EMOJI_FONT = npm(
    "@fontsource/noto-emoji", "5.3.2", "1fe49bb2cf7c2d78f93c0a69b6a431dcfd0d585b7831eba87fae6888ccf8d373"
)
UNIFONT = npm("@fontsource/unifontex", "5.2.6", "2c35920b24b3dd51fa923f24155562ed1c4c5351427ed272529dae1af06539ff")
SYMBOLA = Package(
    "apt", "fonts-symbola", "2.60-1.1", "408244997437d4103e9cdc9dd75db29d0e5fbee6e6874536173995204033a6df"
)
BLOBMOJI = Package("git", "C1710/blobmoji", "437784e59a5dc524aca8b8ea520ea1d889d5643e", folder="svg")
SERENITY = Package("git", "SerenityOS/serenity", "5f37b60744d49b6ff217cfc60cce54a26f1d9c59", folder="Base/res/emoji")
TWEMOJI = npm("@twemoji/svg", "15.0.0", "1d2907557a422c7c4e3feca50ef915c39da1db3d76b4a4d7e73fb59bce4403c3")
OPENMOJI = npm("openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68")
TWEMOJI_NAMES = npm(
    "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
)


def require(packages: list[Package], folder: pathlib.Path) -> None:
    """Raises `MissingPackages`, naming every unusable package and the commands that bring it."""
    faults = [(package, package.fault(folder)) for package in packages]
    lines = [
        f"  {fault}\n    cd {folder} && {' && '.join(' '.join(command) for command in package.fetch_commands)}"
        for package, fault in faults
        if fault
    ]
    if lines:
        advice = "\nRun with --fetch to bring them, or leave styles out (--styles, --without-git)."
        raise MissingPackages(f"{len(lines)} of {len(packages)} packages can't be used:\n" + "\n".join(lines) + advice)


def fetch(packages: list[Package], folder: pathlib.Path) -> None:
    """Brings the packages that are not there yet, with the ordinary client of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if package.fault(folder) is None:
            continue
        print(f"fetching {package.label}", flush=True)
        for command in package.fetch_commands:
            if shutil.which(command[0]) is None:
                raise MissingPackages(f"{package.label} needs the command {command[0]}, which is not installed")
            finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if finished.returncode != 0:
                raise MissingPackages(f"{' '.join(command)} failed in {folder}:\n{finished.stderr.strip()}")
        fault = package.fault(folder)
        if fault is not None:
            raise MissingPackages(f"{package.label} was fetched, but {fault}")
