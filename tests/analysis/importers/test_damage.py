"""Whatever the content of a file, an importer reads it or refuses it with one line that names the file."""

import random
import shutil

import pytest

from joyful.results import InputError
from tests.support.importing import FIXTURES, read_runs_of, rows_of

ARMS = ("--arm-from", "^[^/]+", "--seed-from", "seed_([0-9]+)")
#: Format -> options.
FORMATS = {
    "lightning": (), "huggingface": ARMS, "tensorboard": ARMS, "sb3": ARMS, "keras": ARMS, "mlflow": (),
}  # fmt: skip
PARTS = (
    b"", b",", b"\n", b'"', b"nan", b"inf", b"-1", b"1e400", b"9" * 400, b"1_0", b"\0", b"\xff", b"{", b"[", b"]", b"null", b"true",
    b": ", b"&a *a", b"!!python/name:os.system", b"\xed\xa0\x80", b"#", b"-", b"0" * 30,
)  # fmt: skip


def changed(draw: random.Random, data: bytes) -> bytes:
    """Return the content with one to three parts replaced, removed or inserted."""
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(data) + 1)
        data = data[:place] + draw.choice(PARTS) + data[place + draw.choice((0, 1, 4, 1000)) :]
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_changed_files_raise_no_other_error(tmp_path, name):
    draw, messages = random.Random(name), dict[str, str]()
    for number in range(150):
        folder = tmp_path / str(number)
        shutil.copytree(FIXTURES / name, folder)
        path = draw.choice([path for path in sorted(folder.rglob("*")) if path.is_file()])
        path.write_bytes(changed(draw, path.read_bytes()))
        try:
            for run in read_runs_of(name, folder, *FORMATS[name]):
                rows_of(run)
        except InputError as error:
            messages[str(folder)] = str(error)
    assert not [text for folder, text in messages.items() if folder not in text and "--" not in text]
    assert not [text for text in messages.values() if "\n" in text or len(text) > 1000]
    assert 20 < len(messages) < 150  # both outcomes occur
