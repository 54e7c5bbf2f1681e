"""Puts a server of ours under `overload.py`, where that is there, and passes on whether it survived."""

import subprocess
import sys

import servers
import settings

OVERLOAD = settings.HERE / "overload.py"


def main():
    if not OVERLOAD.exists():
        print("there is no overload.py")
        return 0
    with servers.ours("--model", "mini") as server:
        return subprocess.run([sys.executable, OVERLOAD, f"http://127.0.0.1:{server.port}", *sys.argv[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
