"""benchmarks/training_speed.py: the figures that need no run."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", None),
        ("NVIDIA L40", None),
        ("NVIDIA RTX A1000 Laptop GPU", None),
    ],
)
def test_a_card_is_not_taken_for_another_whose_name_begins_alike(monkeypatch, name: str, peak: float | None) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from training_speed import peak_of

    assert peak_of(name) == peak
