"""Where a run's numbers come from: the state of the code and the versions of what computes them."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import TypedDict

#: Distributions whose versions can change a run's numbers.
DISTRIBUTIONS = ("torch", "hydra-core", "numpy", "joyful")


class GitState(TypedDict):
    commit: str | None
    dirty: bool | None


def git_state(folder: str | os.PathLike[str]) -> GitState:
    """The commit of the repository around `folder`, and whether tracked files differ from it.

    {commit: None, dirty: None} outside a repository, without git, or where git takes longer than five seconds.
    """
    command = [
        "git",
        "-c",
        "core.fsmonitor=false",
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
        "--no-renames",
    ]
    # variables of a surrounding git (a hook's GIT_DIR) would name another repository; a status must not take the
    # lock of the index
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    lines = result.stdout.decode("utf-8", "replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = commits[0] if commits and commits[0] != "(initial)" else None
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def versions() -> dict[str, str | None]:
    """Distribution -> version, read from the installed metadata (nothing is imported); None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
