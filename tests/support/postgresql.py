"""A temporary PostgreSQL server for tests, in a temporary folder and on a free local port."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: Folders outside PATH in which distributions install the programs, sorted with the newest version last.
_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")

#: PostgreSQL refuses to run as root. For root, the server runs as the first of these users that exists.
_USERS = ("postgres", "nobody")


def programs() -> Path | None:
    """Return the folder with initdb and pg_ctl, or None if PostgreSQL is not installed."""
    executable = shutil.which("pg_ctl")
    folders = [folder for pattern in _FOLDERS for folder in sorted(glob.glob(pattern))]
    folders += [str(Path(executable).resolve().parent)] if executable else []
    return next((Path(folder) for folder in reversed(folders) if Path(folder, "initdb").exists()), None)


class Server:
    """A running server.

    Attributes:
        port: Port of the server on this machine.
        url: URL of its database, including the password.

    Args:
        binaries: The folder with its programs.
        settings: Further settings of its configuration file.
    """

    password = "hunter2-of-the-test"

    def __init__(self, binaries: Path, settings: Mapping[str, object] | None = None) -> None:
        self._binaries, self._settings = binaries, dict(settings or {})
        self._user = _user() if os.name == "posix" and os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="joyful-pg-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://joyful:{self.password}@127.0.0.1:{self.port}/postgres"
        try:
            self._create()
            self._control("start")
        except BaseException:
            self.stop()
            raise

    def _create(self) -> None:
        secret = self._folder / "password"
        secret.write_text(self.password)
        if self._user is not None:
            shutil.chown(self._folder, self._user)
            shutil.chown(secret, self._user)
        data = str(self._folder / "data")
        options = ["--auth=scram-sha-256", "--username=joyful", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"]
        self._call([str(self._binaries / "initdb"), "--pgdata", data, "--locale=C", *options])
        settings = f"listen_addresses='127.0.0.1'\nport={self.port}\nunix_socket_directories=''\nfsync=off\n"
        settings += "".join(f"{name}={value}\n" for name, value in self._settings.items())
        with (self._folder / "data/postgresql.conf").open("a") as file:
            file.write(settings)

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return int((self._folder / "data/postmaster.pid").read_text().split()[0])

    def restart(self) -> None:
        """Restart the server on the same port. All connections are closed."""
        self._control("restart")

    def pause(self) -> None:
        """Stop the server until `resume`. All connections are closed."""
        self._control("stop")

    def resume(self) -> None:
        """Start the server on the same port, unless it is running."""
        if not (self._folder / "data/postmaster.pid").exists():
            self._control("start")

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        if (self._folder / "data/postmaster.pid").exists():
            self._control("stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _control(self, action: str) -> None:
        data, log = str(self._folder / "data"), str(self._folder / "log")
        mode = ["-m", "fast"] if action != "start" else []
        self._call([str(self._binaries / "pg_ctl"), action, "--pgdata", data, "-l", log, "-w", "-t", "60", *mode])

    def _call(self, arguments: list[str]) -> None:
        # The output is discarded, because the server would inherit a pipe and keep it open.
        user = {} if self._user is None else {"user": self._user, "group": _group(self._user), "extra_groups": []}
        subprocess.run(
            arguments, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, timeout=120, **user,
        )  # type: ignore[call-overload] # fmt: skip


def _user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _USERS if name in names)


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
