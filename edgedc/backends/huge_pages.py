"""Memory in huge pages, where Linux gives them only to whoever asks (`madvise`, as on Ubuntu).

A model's weights are read from end to end for every token. In pages of 4 kB much of that time goes into finding out
where each of them lies.
"""

import ctypes
from pathlib import Path

_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS = Path("/proc/self/maps")
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1 (madvise(2))
_ANONYMOUS = ["rw-p", "00000000", "00:00", "0"]  # permissions, offset, device, inode (proc_pid_maps(5))


def anonymous_memory() -> list[range]:
    """The addresses of this process's memory that no file is behind, in order; none where it has no huge pages."""
    try:
        if "[never]" in (_SETTINGS / "enabled").read_text() or not page_size():
            return []
        lines = [line.split() for line in _MAPS.read_text().splitlines()]
    except OSError:  # no Linux, or one that does not say
        return []
    bounds = (fields[0].split("-") for fields in lines if fields[1:] == _ANONYMOUS)
    return [range(int(start, 16), int(end, 16)) for start, end in bounds]


def pages_since(before: list[range]) -> list[int]:
    """Addresses of the huge pages that could be where there was no `anonymous_memory` before.

    What the allocator had at hand is not among them; for as much as a model's weights, it asks the system.
    """
    now = anonymous_memory()
    size = page_size() if now else 1
    places = (place for one in now for place in range(-(-one.start // size) * size, one.stop - size + 1, size))
    return [place for place in places if not any(old.start < place + size and place < old.stop for old in before)]


def page_size() -> int:
    """Of a huge page, in bytes."""
    return int((_SETTINGS / "hpage_pmd_size").read_text())


def collapse(place: int) -> None:
    """Move what is in small pages there into a huge one: milliseconds. Where that cannot be, all stays as it is."""
    ctypes.CDLL(None).madvise(ctypes.c_void_p(place), ctypes.c_size_t(page_size()), _COLLAPSE)
