"""Pins the base images of the Dockerfile by digest: base-images.lock has a line NAME=IMAGE@DIGEST for each.

`pin` asks the registries, by Docker, and writes the file. `arguments` prints the build arguments of a release, one a
line, and fails if one of them is missing, is another image than the Dockerfile's, or has no digest.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE, LOCK = ROOT / "Dockerfile", ROOT / "base-images.lock"
_DEFAULT = re.compile(r"^ARG (\w*BASE)=(\S+)$", re.MULTILINE)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def defaults(dockerfile: str) -> dict[str, str]:
    """The base images of the Dockerfile, by the name of their build argument."""
    return dict(_DEFAULT.findall(dockerfile))


def digest(image: str) -> str:
    """The digest that the registry has for a tag, of all platforms together."""
    command = ["docker", "buildx", "imagetools", "inspect", image, "--format", "{{.Manifest.Digest}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def pinned(images: Mapping[str, str], resolve: Callable[[str], str] = digest) -> str:
    """The text of the file.

    Raises:
        ValueError: what was found is no digest.
    """
    lines = ["# Written by `make pin-images`."]
    for name, image in images.items():
        found = resolve(image)
        if not _DIGEST.fullmatch(found):
            raise ValueError(f"{image}: expected a digest, found {found!r}")
        lines.append(f"{name}={image}@{found}")
    return "\n".join(lines) + "\n"


def arguments(images: Mapping[str, str], lock: str) -> list[str]:
    """The build arguments that the file gives.

    Raises:
        ValueError: not each of the images has a digest there; the message says what to do.
    """
    lines = (line.partition("=") for line in lock.splitlines() if line and not line.startswith("#"))
    found = {name: value for name, _, value in lines}
    for name, image in images.items():
        tag, _, tail = found.get(name, "").partition("@")
        if tag != image or not _DIGEST.fullmatch(tail):
            said = found.get(name, "nothing")
            raise ValueError(
                f"{LOCK.name}: {name}: expected {image}@sha256:..., found {said}; run `make pin-images`, review and "
                "commit the file"
            )
    return [f"--build-arg={name}={found[name]}" for name in images]


def main() -> int:
    """Run the command in the arguments."""
    images = defaults(DOCKERFILE.read_text())
    try:
        match sys.argv[1:]:
            case ["pin"]:
                LOCK.write_text(pinned(images))
            case ["arguments"]:
                print("\n".join(arguments(images, LOCK.read_text() if LOCK.exists() else "")))
            case _:
                print("usage: base_images.py pin|arguments", file=sys.stderr)
                return 2
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        print(getattr(error, "stderr", None) or error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
