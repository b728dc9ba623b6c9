"""Digests of the numbers that a checkout computes, to show that a change leaves them equal.

    python benchmarks/digests.py record FILE.json [--root CHECKOUT] [--python INTERPRETER]
    python benchmarks/digests.py compare BEFORE.json AFTER.json

``record`` runs the checkout's own commands in a temporary folder and writes a JSON object from names to SHA-256
digests: the histories of the 15 runs of ``+sweeps=first_look``, of one epoch of ``model=reference``, and of a tiny run
for each loss, encoder reduction, classification loss, fusion, context, weighting and optimizer, and the
``verdicts.csv`` of two archives of the study. ``compare`` lists the names whose digests differ, and exits with code 1
if there are any.

Compare only digests recorded on one machine, because processors round differently. To compare with an earlier version,
check it out with ``git worktree add FOLDER COMMIT``, run ``make setup`` there, and record both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Settings of a run that takes about a second.
TINY = (
    "data.synthetic.dialogues={train: 7, dev: 3, test: 3}",
    "data.synthetic.utterances=6",
    "data.synthetic.dimensions={audio: 5, text: 9, visual: 7}",
    "model.inter_size=8",
    "model.fusion_hidden_size=12",
    "model.fusion_latent_size=6",
    "model.hidden_size=8",
    "model.context_feedforward_size=16",
    "model.context_heads=2",
    "training.batch_size=2",
    "training.epochs=3",
)

#: One tiny run is trained with each of these overrides.
VARIANTS = (
    *(f"loss={name}" for name in ("mse", "smoothl1", "weighted_mse")),
    *(f"loss.encoder_reduction={name}" for name in ("legacy_sum", "legacy_mean")),
    "classification=focal",
    "fusion=auto",
    "fusion.use_ulgm=true",
    *(f"model.context={name}" for name in ("lstm", "gru", "transformer")),
    *(f"weighting={name}" for name in ("adaptive", "fixed", "gradient_balanced", "normalised")),
    *(f"optimizer={name}" for name in ("adam", "adamw", "rmsprop", "sgd")),
    "training.moving_average=0.9",
    "training.evaluations_per_epoch=2",
)

#: Settings of the single epoch at the reference's size: few dialogues with features of full width.
REFERENCE = (
    "model=reference",
    "data.synthetic.dialogues={train: 12, dev: 4, test: 4}",
    "training.epochs=1",
    "training.batch_size=4",
)

#: Archives of the study whose verdicts are compared.
ARCHIVES = ("synthetic", "meld")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return its exit code."""
    parser = argparse.ArgumentParser(prog="python benchmarks/digests.py", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    record_ = commands.add_parser("record", help="run a checkout's commands and write their digests")
    record_.add_argument("file", type=Path)
    record_.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    record_.add_argument("--python", default=sys.executable, help="its interpreter (default: this one)")
    compare_ = commands.add_parser("compare", help="list the digests that differ between two files")
    compare_.add_argument("before", type=Path)
    compare_.add_argument("after", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "record":
        digests = record(options.root.resolve(), options.python)
        options.file.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{len(digests)} digests: {options.file}")
        return 0
    before, after = (json.loads(file.read_text(encoding="utf-8")) for file in (options.before, options.after))
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    for name in differing:
        print(f"differs: {name}")
    print(
        f"{len(before.keys() | after.keys()) - len(differing)} of {len(before.keys() | after.keys())} digests are equal"
    )
    return 1 if differing else 0


def record(root: Path, python: str) -> dict[str, str]:
    """Return the digests of the checkout in ``root``, computed by its own code under the interpreter ``python``.

    Raises:
        subprocess.CalledProcessError: If one of the checkout's commands fails.
    """
    digests = {}
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)

        def run(*command: str) -> None:
            done = subprocess.run([python, *command], cwd=work, env=environment, capture_output=True, text=True)
            if done.returncode:
                print(done.stdout, done.stderr, file=sys.stderr)
                done.check_returncode()

        program = str(root / "run.py")
        for variant in VARIANTS:
            run(program, *TINY, "training.threads=1", variant, "hydra.run.dir=run")
            digests[f"tiny {variant}"] = _digest(work / "run/history.parquet")
            subprocess.run(["rm", "-r", str(work / "run")], check=True)
        run(program, *REFERENCE, "training.threads=2", "hydra.run.dir=reference")
        digests["reference"] = _digest(work / "reference/history.parquet")
        run(program, "-m", "+sweeps=first_look")
        for history in sorted((work / "multirun/first_look").glob("*/history.parquet")):
            digests[f"first_look {int(history.parent.name):02}"] = _digest(history)
        moved = (root / "study/archives").is_dir()
        archives, module = ("study/archives", "study.archive") if moved else ("analysis/study", "analysis.archive")
        for archive in ARCHIVES:
            run("-m", module, "unpack", str(root / archives / f"{archive}.parquet"), archive)
            run("-m", "analysis.report", archive)
            digests[f"verdicts {archive}"] = _digest(work / archive / "report/verdicts.csv")
    return digests


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
