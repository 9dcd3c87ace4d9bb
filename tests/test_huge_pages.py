"""A model that goes on working has its weights moved into huge pages, and says what it said before."""

import platform
import re
from pathlib import Path

import numpy as np
import pytest
from test_export import make_model

from edgedc.backends import huge_pages, llamacpp_context
from edgedc.backends.llamacpp import LlamaCppBackend, has_amx
from export.gguf.quantize import quantize
from export.gguf.to_gguf import to_gguf

MOVES = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2]) >= (6, 1)
lent = pytest.mark.skipif(not (MOVES and huge_pages.anonymous_memory()), reason="no huge pages, or Linux before 6.1")


def in_huge_pages() -> int:
    return sum(map(int, re.findall(r"AnonHugePages: +(\d+)", Path("/proc/self/smaps").read_text()))) << 10


@lent
def test_memory_is_moved_as_it_is() -> None:
    before, size = huge_pages.anonymous_memory(), huge_pages.page_size()
    held = np.arange(20 * size // 4, dtype=np.int32)  # malloc maps what is as large
    pages = huge_pages.pages_since(before)
    assert 19 <= len(pages) <= 21
    start = held.ctypes.data
    for page in pages:
        huge_pages.collapse(page)
    inside = [page for page in pages if start <= page and page + size <= start + held.nbytes]
    assert in_huge_pages() >= len(inside) * size
    assert (held == np.arange(held.size)).all()


def test_nothing_is_moved_that_was_there_before() -> None:
    held = np.ones(1 << 22)
    before = huge_pages.anonymous_memory()
    pages = huge_pages.pages_since(before)
    assert not any(held.ctypes.data <= page < held.ctypes.data + held.nbytes for page in pages)


@lent
def test_what_cannot_be_moved_stays() -> None:
    huge = in_huge_pages()
    huge_pages.collapse(0)  # where nothing is
    assert in_huge_pages() == huge


@pytest.mark.parametrize("setting", [None, "always madvise [never]", "always [madvise] never"])
def test_where_there_are_none_or_it_is_not_said_nothing_is_asked_for(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        (tmp_path / "enabled").write_text(setting)
    monkeypatch.setattr(huge_pages, "_SETTINGS", tmp_path)
    assert huge_pages.anonymous_memory() == huge_pages.pages_since([]) == []


@lent
@pytest.mark.skipif(has_amx(), reason="weights are mapped from the file here, and moved by nobody")
def test_a_model_that_goes_on_working_moves_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "model", "llama", hidden=1024, intermediate_size=5120)  # as large, too
    to_gguf(model, tmp_path / "f32.gguf", "model", "f32")
    quantize(tmp_path / "f32.gguf", tmp_path / "q8_0.gguf", "q8_0")
    size, huge = (tmp_path / "q8_0.gguf").stat().st_size, in_huge_pages()
    backend = LlamaCppBackend(tmp_path / "q8_0.gguf", threads=1)
    context = backend._context
    assert context is not None
    pages = len(context.movable)
    assert pages >= size // huge_pages.page_size() - 1

    def replies() -> list[str]:
        return [backend.complete(range(k, k + 20), max_tokens=12).text for k in range(3, 8)]

    monkeypatch.setattr(llamacpp_context, "_AT_WORK", 1000)
    first = replies()
    assert len(context.movable) == pages
    monkeypatch.setattr(llamacpp_context, "_AT_WORK", 0)
    assert replies() == first
    assert context.movable == []
    assert in_huge_pages() >= huge + (pages - 1) * huge_pages.page_size()
    assert replies() == first
    backend.close()
