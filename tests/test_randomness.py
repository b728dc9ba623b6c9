import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from joyful import randomness
from joyful.model.kernels import dropout as dropout_module
from joyful.model.kernels.dropout import dropout, plain_dropout, plain_relu_dropout, relu_dropout_
from joyful.randomness import Draws, _mix, _signed, host_generator, key

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15
DRAWS = Draws(seed=7, epoch=2, step=31)


def splitmix(state):
    """The finaliser of Steele, Lea & Flood (2014) with Python integers."""
    z = state & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_finaliser_gives_the_published_sequence():
    # first outputs of SplitMix64 seeded with 1234567 (rosettacode.org, "Pseudo-random numbers/Splitmix64")
    published = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821
    ]  # fmt: skip
    states = [(1234567 + i * GAMMA) & MASK for i in range(1, 6)]
    assert [splitmix(state) for state in states] == published
    words = torch.tensor([_signed(state) for state in states])
    _mix(words)
    assert [word & MASK for word in words.tolist()] == published


@pytest.mark.parametrize("shape", [(1,), (3,), (8,), (3, 5), (2, 3, 4), (0,), (0, 4)])
def test_bits_against_python_integers(shape):
    count = int(np.prod(shape))
    start = key(7, "dropout", 2, 31, "somewhere")
    words = [splitmix(start + i * GAMMA) for i in range(-(-count // 4))]
    lanes = [(word >> (16 * lane)) & 0xFFFF for word in words for lane in range(4)][:count]
    expected = torch.tensor([lane - 65536 if lane >= 32768 else lane for lane in lanes], dtype=torch.int16)
    assert torch.equal(DRAWS.bits16(shape, "somewhere", "cpu"), expected.view(shape))


def test_key_is_a_digest_of_the_five_coordinates():
    text = "7\x1fdropout\x1f2\x1f31\x1fsomewhere"
    expected = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    assert key(7, "dropout", 2, 31, "somewhere") == expected
    coordinates = [(7, "a", 1, 2, "b"), (8, "a", 1, 2, "b"), (7, "c", 1, 2, "b"), (7, "a", 2, 2, "b"),
                   (7, "a", 1, 3, "b"), (7, "a", 1, 2, "c"), (7, "a", 12, 0, "b"), (7, "a", 1, 20, "b")]  # fmt: skip
    assert len({key(*c) for c in coordinates}) == len(coordinates)


def test_a_row_does_not_depend_on_the_number_of_rows():
    for width in (1, 3, 4, 10):
        assert torch.equal(
            DRAWS.keep((5, width), 0.3, "x", "cpu"),
            DRAWS.keep((1000, width), 0.3, "x", "cpu")[:5],
        )


@pytest.mark.parametrize("drop", [0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_rate_of_keep(drop):
    n = 200_000
    kept = float(DRAWS.keep((n,), drop, "rate", "cpu").double().mean())
    sigma = (drop * (1 - drop) / n) ** 0.5
    assert abs(kept - (1 - drop)) <= 4 * sigma + 1 / 65536


def test_keep_is_exact_over_all_16_bit_numbers(monkeypatch):
    everything = torch.arange(-32768, 32768, dtype=torch.int16)
    monkeypatch.setattr(Draws, "bits16", lambda *_: everything)
    for drop, dropped in ((0.0, 0), (1e-6, 0), (1 / 65536, 1), (0.25, 16384), (0.9999, 65529), (0.9999999, 65535)):
        assert int((~DRAWS.keep((65536,), drop, "", "cpu")).sum()) == dropped


def uniform(draws=DRAWS, place="p", purpose="q", n=40_000):
    return draws.uniform((n,), place, "cpu", purpose).double()


OTHERS = {
    "seed": uniform(Draws(8, 2, 31)),
    "epoch": uniform(Draws(7, 3, 31)),
    "step": uniform(Draws(7, 2, 32)),
    "place": uniform(place="p2"),
    "purpose": uniform(purpose="r"),
    "next": uniform().roll(1),
    "next_word": uniform().roll(4),
}


@pytest.mark.parametrize("other", OTHERS)
def test_coordinates_are_uncorrelated(other):
    pair = torch.stack([uniform(), OTHERS[other]])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 40_000**0.5  # 4 standard errors of no correlation


def test_uniform_is_exact_over_all_16_bit_numbers(monkeypatch):
    monkeypatch.setattr(Draws, "bits16", lambda *_: torch.arange(-32768, 32768, dtype=torch.int16))
    assert torch.equal(DRAWS.uniform((65536,), "", "cpu", ""), torch.arange(65536) / 65536)


def test_uniform_range_and_moments():
    x = uniform()
    assert float(x.min()) >= 0
    assert float(x.max()) < 1
    assert torch.equal(x * 65536, (x * 65536).round())
    assert abs(float(x.mean()) - 0.5) < 4 * (1 / 12 / 40_000) ** 0.5
    assert abs(float(x.var()) - 1 / 12) < 4 * (1 / 180 / 40_000) ** 0.5  # var of (x - 1/2)^2 is 1/180


def test_each_lane_is_uniform_and_lanes_are_uncorrelated():
    lanes = uniform(n=160_000).view(-1, 4)
    for lane in range(4):
        counts = torch.histc(lanes[:, lane], 64, 0, 1)
        chi_square = float(((counts - 625) ** 2 / 625).sum())
        assert chi_square < 113.5  # 63 degrees of freedom: exceeded with probability 1e-4
    correlations = torch.corrcoef(lanes.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 4 / 40_000**0.5


def test_another_process_draws_the_same():
    code = (
        "from joyful.randomness import Draws, host_generator\n"
        "print(Draws(7, 2, 31).bits16((9,), 'x', 'cpu').tolist(), host_generator(1, 'batches', 2).integers(10**9, size=3).tolist())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    here = (
        f"{DRAWS.bits16((9,), 'x', 'cpu').tolist()} "
        f"{host_generator(1, 'batches', 2).integers(10**9, size=3).tolist()}\n"
    )
    assert outputs == [here, here]


def test_nothing_is_drawn_from_global_generators():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    dropout(torch.ones(50), 0.5, DRAWS, "x")
    host_generator(1, "a").random(5)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("drop", [0.1, 0.3, 0.9999999])
def test_dropout_scales_the_kept_elements_exactly(dtype, drop):
    x = torch.linspace(-3, 3, 4096, dtype=dtype).requires_grad_()
    result = dropout(x, drop, DRAWS, "x")
    kept = DRAWS.keep((4096,), drop, "x", "cpu")
    scale = torch.tensor(65536 / (65536 - min(round(drop * 65536), 65535)), dtype=dtype)
    assert result.dtype == dtype
    assert torch.equal(result, plain_dropout(x, drop, DRAWS, "x"))
    assert torch.equal(result, torch.where(kept, x * scale, torch.zeros_like(x)))
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.equal(gradient, kept.to(dtype) * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_relu_dropout_equals_relu_and_dropout(dtype):
    x = torch.randn(64, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(64, 33).to(dtype)
    before = x.clone()  # not a leaf, so it may be overwritten
    plain, ours = plain_relu_dropout(x, 0.3, DRAWS, "x"), relu_dropout_(before, 0.3, DRAWS, "x")
    assert torch.equal(ours, plain)
    assert ours.data_ptr() == before.data_ptr()
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), x) for y in (ours, plain)), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(relu_dropout_(x.clone(), 0.3, None, "x"), x.relu())
    assert torch.equal(relu_dropout_(x.clone(), 0.0, DRAWS, "x"), x.relu())


@pytest.mark.parametrize("part", [1, 7, 100])
def test_the_part_size_changes_nothing(part, monkeypatch):
    def run():
        x = torch.linspace(-1, 1, 96).view(12, 4, 2).requires_grad_()
        results = [
            DRAWS.bits16((5, 9), "x", "cpu"),
            dropout(x, 0.3, DRAWS, "x"),
            relu_dropout_(x.clone(), 0.3, DRAWS, "x"),
        ]
        return [*results, *torch.autograd.grad((results[1] + results[2]).square().sum(), x)]

    expected = run()
    monkeypatch.setattr(randomness, "_WORDS", part)
    monkeypatch.setattr(dropout_module, "PART_SIZE", part)
    assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


def test_dropout_stores_a_byte_per_element_and_after_a_relu_only_its_result():
    kept = []
    x = torch.randn(100, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        dropout(x, 0.3, DRAWS, "x")
        assert [t.dtype for t in kept] == [torch.bool]
        result = relu_dropout_(x.clone(), 0.3, DRAWS, "x")
    assert len(kept) == 2
    assert kept[1].data_ptr() == result.data_ptr()


def test_dropout_preserves_the_expectation():
    n, drop = 200_000, 0.3
    mean = float(dropout(torch.ones(n, dtype=torch.float64), drop, DRAWS, "x").mean())
    assert abs(mean - 1) < 4 * (drop / (1 - drop) / n) ** 0.5


def test_dropout_without_dropped_elements_is_the_identity():
    x = torch.ones(3)
    assert dropout(x, 0.0, DRAWS, "x") is x
    assert dropout(x, 0.5, None, "x") is x


def test_host_generator_is_a_function_of_its_coordinates():
    first = host_generator(1, "batches", 2, 3, "x").random(4)
    assert (host_generator(1, "batches", 2, 3, "x").random(4) == first).all()
    for other in ((2, "batches", 2, 3, "x"), (1, "data", 2, 3, "x"), (1, "batches", 3, 3, "x"), (1, "batches", 2, 3)):
        assert (host_generator(*other).random(4) != first).all()
