"""The benchmark of the kernels: every kernel of the folder is in it, and a plain form replaces the kernel."""

import pytest

from benchmarks import kernels
from joyful.model import joyful as model


def test_every_kernel_has_a_plain_form(request):
    files = {path.stem for path in (request.config.rootpath / "joyful/model/kernels").glob("[!_]*.py")}
    assert set(kernels.KERNELS) == files
    for kernel in kernels.KERNELS.values():
        for name, plain in kernel.plain.items():
            assert getattr(model, name) is not plain


def test_a_plain_form_is_what_the_step_uses(monkeypatch):
    calls = []
    monkeypatch.setattr(kernels, "settings_for", lambda name, size: kernels.settings_of("small"))
    monkeypatch.setattr(kernels, "configure_torch_for_run", lambda threads: None)
    monkeypatch.setattr(model, "relational_convolution", model.relational_convolution)  # restored after the test
    plain = kernels.relational.plain_relational_convolution
    counting = kernels.Kernel({"relational_convolution": lambda *arguments: calls.append(1) or plain(*arguments)})
    monkeypatch.setitem(kernels.KERNELS, "relational", counting)
    assert kernels.contender("relational", kernels.FAST, "small", 1)() > 0
    assert calls == []
    assert kernels.contender("relational", kernels.PLAIN, "small", 1)() > 0
    assert calls


@pytest.mark.slow
@pytest.mark.soak("measures for half a minute; benchmarks are programs of their own")
def test_the_figures_of_a_kernel(measured):
    named, document = measured(
        kernels.main, "--size", "small", "--threads", "1", "--repeats", "1", "--kernels", "dropout"
    )
    fast, plain = named["dropout, step with the kernel"], named["dropout, step with the plain form"]
    assert fast.ratio == pytest.approx(1 / plain.ratio) == pytest.approx(fast.value / plain.value)
    assert named["dropout, memory saved"].value == pytest.approx(
        named["dropout, peak memory with the kernel"].value
        * (1 / named["dropout, peak memory with the kernel"].ratio - 1)
    )
    assert document["kernels"] == ["dropout"]


def test_an_unknown_kernel_is_refused(capsys):
    with pytest.raises(SystemExit):
        kernels.main(["--kernels", "dropout,nothing"])
    assert "--kernels: expected some of intermodal" in capsys.readouterr().err
