"""The command line of the note: translate its flags to Hydra overrides and train as run.py does."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from joyful.runtime import heap, signals

if __name__ == "__main__":
    signals.exit_on_ctrl_c()
    heap.restart_with_heap_settings()  # before other modules are loaded

from joyful.messages import CommandParser
from joyful.records import MODALITIES

#: --dataset NAME -> data=NAME if the names differ. In this program `meld` is the pickle.
DATASETS = {"meld": "meld_cogmen"}
LETTERS = "".join(MODALITIES)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the reference's flags. Its defaults differ in --device auto and hierarchical fusion."""
    p = CommandParser(
        description=__doc__,
        epilog="Arguments of the form key=value are passed to run.py unchanged: python train.py --dataset=synthetic "
        "model=small training.threads=1",
    )
    add = p.add_argument
    add("overrides", nargs="*", metavar="key=value", help="additional overrides for run.py")
    add(
        "--dataset",
        default="iemocap",
        choices=["iemocap", "iemocap_4", "mosei", "meld", "synthetic"],
        help="dataset; all except synthetic are pickles in --data_dir_path (default: %(default)s)",
    )
    add("--modalities", default="atv", choices=["a", "t", "v", "at", "tv", "av", "atv"], help="default: %(default)s")
    add(
        "--data_dir_path",
        default="./data",
        help="folder that contains <dataset>/data_<dataset>.pkl (default: %(default)s)",
    )
    add("--emotion", default=None, help="labels of mosei: a binary emotion, multilabel, or 7class")
    add("--from_begin", action="store_true", help="ignore --model_ckpt and start from the beginning")
    add("--model_ckpt", default=None, metavar="PATH", help="folder of a run, or file of weights, to start from")
    add("--device", default="auto", help="auto, cuda or cpu (default: %(default)s)")
    add("--epochs", default=1, type=int, help="default: %(default)s")
    add("--batch_size", default=32, type=int, help="dialogues per batch (default: %(default)s)")
    add("--optimizer1", default="adam", choices=["sgd", "rmsprop", "adam", "adamw"], help="default: %(default)s")
    add(
        "--scheduler",
        default="reduceLR",
        choices=["reduceLR", "none"],
        help="reduceLR lowers the learning rate when dev NLL stops falling (default: %(default)s)",
    )
    add("--learning_rate", default=3e-5, type=float, help="default: %(default)s")
    add("--weight_decay", default=1e-8, type=float, help="default: %(default)s")
    add("--drop_rate", default=0.3, type=float, help="default: %(default)s")
    add("--max_grad_norm", default=1.0, type=float, help="0 turns clipping off (default: %(default)s)")
    add("--cl_loss_weight", default=0.2, type=float, help="weight of the contrastive loss (default: %(default)s)")
    add(
        "--encoder_loss_weight",
        default=0.03,
        type=float,
        help="weight of the reconstruction loss (default: %(default)s)",
    )
    add("--gate_reg_weight", default=0.01, type=float, help="weight of the gate regulariser (default: %(default)s)")
    add("--use_smooth_l1", action="store_true", help="use SmoothL1 instead of MSE as reconstruction loss")
    add("--use_hierarchical_fusion", action="store_true", help="has no effect: hierarchical fusion is the default")
    add("--fusion", default="hierarchical", choices=["hierarchical", "auto"], help="default: %(default)s")
    add("--use_ulgm", action="store_true", help="train unimodal heads")
    add("--unimodal_loss_weight", default=0.002, type=float, help="default: %(default)s")
    add("--ulgm_hidden_size", default=128, type=int, help="default: %(default)s")
    add("--wp", default=8, type=int, help="linked past utterances, -1 for all (default: %(default)s)")
    add("--wf", default=8, type=int, help="linked future utterances, -1 for all (default: %(default)s)")
    add("--n_speakers", default=2, type=int, help="has no effect: the dataset determines the number")
    add("--hidden_size", default=100, type=int, help="default: %(default)s")
    add("--rnn", default="transformer", choices=["lstm", "gru", "transformer"], help="default: %(default)s")
    add("--class_weight", action="store_true", help="weight classes by inverse training frequency")
    add(
        "--concat_gin_gout",
        action="store_true",
        help="give the classifier the input of the graph in addition to its output",
    )
    add("--seqcontext_nlayer", default=4, type=int, help="default: %(default)s")
    add("--gnn_nheads", default=4, type=int, help="default: %(default)s")
    add("--use_highway", action="store_true", help="add a highway layer before the classifier")
    add("--seed", default=24, type=int, help="default: %(default)s")
    return p  # fmt: skip


def overrides(arguments: argparse.Namespace) -> list[str]:
    """Return the Hydra overrides for parsed flags.

    Every default is passed explicitly, so this program does not depend on the defaults of run.py.
    """
    a = arguments
    flag = {True: "true", False: "false"}
    result = [
        f"data={DATASETS.get(a.dataset, a.dataset)}",
        f"modalities={''.join(letter for letter in LETTERS if letter in a.modalities)}",
        f"fusion={a.fusion}", "model=reference", f"loss={'smoothl1' if a.use_smooth_l1 else 'mse'}",
        "classification=nll", f"classification.class_weight={'inverse' if a.class_weight else 'none'}",
        "weights=basic", f"weights.encoder_loss_weight={a.encoder_loss_weight}",
        f"weights.cl_loss_weight={a.cl_loss_weight}", f"weights.gate_reg_weight={a.gate_reg_weight}", "weighting=fixed",
        f"optimizer={a.optimizer1}", f"optimizer.learning_rate={a.learning_rate}", f"optimizer.weight_decay={a.weight_decay}",
        f"training.epochs={a.epochs}", f"training.batch_size={a.batch_size}", f"training.max_grad_norm={a.max_grad_norm}",
        f"training.scheduler.name={a.scheduler}", f"model.dropout={a.drop_rate}", f"model.wp={a.wp}", f"model.wf={a.wf}",
        f"model.hidden_size={a.hidden_size}", f"model.context={a.rnn}", f"model.context_layers={a.seqcontext_nlayer}",
        f"model.graph_heads={a.gnn_nheads}", f"model.concat_gin_gout={flag[a.concat_gin_gout]}",
        f"model.use_highway={flag[a.use_highway]}", f"fusion.use_ulgm={flag[a.use_ulgm]}",
        f"fusion.unimodal_loss_weight={a.unimodal_loss_weight}", f"fusion.ulgm_hidden_size={a.ulgm_hidden_size}",
        f"device={a.device}", f"seed={a.seed}",
    ]  # fmt: skip
    if a.dataset != "synthetic":
        result.append(f"data.root={_quoted(a.data_dir_path)}")
    if a.emotion is not None:
        result.append(f"data.emotion={_quoted(a.emotion)}")
    if a.model_ckpt is not None and not a.from_begin:
        result.append(f"fork={_quoted(a.model_ckpt)}")
    return result + list(a.overrides)


def _quoted(value: str) -> str:
    """Quote a value such that Hydra's grammar reads it back unchanged."""
    if value and all(c.isalnum() or c in "./_-" for c in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main(arguments: Sequence[str] | None = None) -> None:
    """Translate the flags, print the equivalent command of run.py, and train."""
    hydra_overrides = overrides(parser().parse_args(arguments))
    print("python run.py", shlex.join(hydra_overrides), flush=True)
    sys.argv = ["run.py", *hydra_overrides]
    from joyful.cli import train

    train()


if __name__ == "__main__":
    main()
