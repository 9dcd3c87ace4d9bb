"""Items through Ray Data: workers on every machine of a cluster, rows back to the one that writes."""

import logging
import os
import pickle
import re
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Generic

from edgedc.errors import EdgedcError, MissingExtra
from edgedc.files import Row

from .engines import Item, Job, Outcome

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # it prints of a worker's death; so does our error
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a call that comes after the shutdown would start all of Ray again
try:
    import pyarrow
    import ray
    import ray.data
    from ray import cloudpickle
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask
    from ray.util.queue import Queue
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "ray", "ray") from error

_ANSWERS_IN_S = 10.0
_CLOSING_S = 30.0
_CALLS_AT_ONCE = 2  # groups a worker has: while the last of one are on their way, the next one has begun


@contextmanager
def open_workers(job: Job[Item], concurrency: int) -> Iterator["_Workers[Item]"]:
    """Workers on the cluster that RAY_ADDRESS names or this machine belongs to, else on this machine alone.

    One worker per processor, at most `concurrency`, which they divide between them. Raises EdgedcError when the cluster
    cannot be reached.
    """
    with _connected():
        workers = _Workers(job, concurrency)
        try:
            yield workers
        finally:
            workers.close()


@contextmanager
def _connected() -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        if match := re.fullmatch(r"(?:ray://)?\[?([^/\]]+)\]?:(\d+)", address):
            socket.create_connection((match[1], int(match[2])), _ANSWERS_IN_S).close()  # Ray itself tries for minutes
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        if address:
            raise EdgedcError(f"Ray at {address} (RAY_ADDRESS): cannot be reached: {_reason(error)}") from error
        raise EdgedcError(f"Ray cannot be started on this machine: {_reason(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Workers(Generic[Item]):
    """A Ray Data pipeline that is fed by hand: a queue, one task that reads it, and the actors that call the job."""

    def __init__(self, job: Job[Item], concurrency: int) -> None:
        count = max(1, min(concurrency, int(ray.cluster_resources().get("CPU", 1))))
        self.group = max(1, concurrency // count)
        self.window = count * self.group * _CALLS_AT_ONCE
        self.outcomes: SimpleQueue[Outcome[Item] | None] = SimpleQueue()
        self._in_flight: dict[int, Item] = {}
        self._handed_over = 0
        self._feed = Queue(actor_options={"num_cpus": 0})
        dataset = _pipeline(self._feed, job, count, self.group)
        self._receiving = threading.Thread(target=self._receive, args=(dataset,), daemon=True)
        self._receiving.start()

    def hand_over(self, items: list[Item]) -> None:
        numbers = range(self._handed_over, self._handed_over + len(items))
        self._handed_over += len(items)
        self._in_flight.update(zip(numbers, items, strict=True))
        self._feed.actor.put.remote(cloudpickle.dumps(list(zip(numbers, items, strict=True))))

    def close(self) -> None:
        """End the pipeline, in its own time where nothing is in flight; else Ray's shutdown ends it."""
        self._feed.actor.put.remote(None)
        self._receiving.join(timeout=0 if self._in_flight else _CLOSING_S)

    def _receive(self, dataset: Any) -> None:
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for packed in batch.column("outcome").to_pylist():
                    number, result = pickle.loads(packed)
                    self.outcomes.put((self._in_flight.pop(number, None), result))
        except Exception as error:
            gone = EdgedcError(f"Ray: {_reason(error)}; the rows so far are kept: run again to go on from there")
            gone.__cause__ = error
            self.outcomes.put((None, gone))


def _pipeline(feed: Queue, job: Job[Item], count: int, threads: int) -> Any:
    """The dataset of outcomes. Rows come out one by one: a block is as small as Ray Data makes them."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_min_block_size = context.target_max_block_size = 1
    actors = ray.data.ActorPoolStrategy(
        size=count,
        max_tasks_in_flight_per_actor=_CALLS_AT_ONCE,
        max_concurrent_calls_per_actor=_CALLS_AT_ONCE,
        enable_true_multi_threading=True,
    )
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that `max_restarts` will get another name
        # Reading takes no processor, or it would be put into the first actor, and the others have nothing to do.
        groups = ray.data.read_datasource(_Feed(feed), num_cpus=0, override_num_blocks=1)
        # A worker that dies is not replaced: the new one would spend the share of the ceiling again.
        return groups.map_batches(
            _Worker,
            fn_constructor_args=(cloudpickle.dumps(job), 1 / count, threads),
            batch_size=1,
            compute=actors,
            num_cpus=1,
            max_restarts=0,
        )


class _Feed(Datasource):
    """Groups of items from the queue, until None comes."""

    def __init__(self, feed: Queue) -> None:
        super().__init__()
        self.feed = feed

    def estimate_inmemory_data_size(self) -> None:
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        feed = self.feed

        def read() -> Iterator[pyarrow.Table]:
            while (group := feed.get()) is not None:
                yield pyarrow.table({"group": [group]})

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None))]


class _Worker:
    """An actor: one opened job, `threads` calls at the same time."""

    def __init__(self, job: bytes, share: float, threads: int) -> None:
        self.pool = ThreadPoolExecutor(threads)
        self.opened = pickle.loads(job).open(share)  # kept, or what it holds would be freed
        try:
            self.call: Callable[[Any], Row] = self.opened.__enter__()
            self.failed: EdgedcError | None = None
        except EdgedcError as error:
            self.failed = error

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        for group in batch["group"]:
            for outcome in self._outcomes(pickle.loads(group)):
                yield {"outcome": [outcome]}

    def _outcomes(self, group: Iterable[tuple[int, Any]]) -> Iterator[bytes]:
        if self.failed:
            yield _packed(-1, self.failed)
            return
        running = [self.pool.submit(self._outcome, number, item) for number, item in group]
        for done in as_completed(running):
            yield done.result()

    def _outcome(self, number: int, item: Any) -> bytes:
        try:
            return _packed(number, self.call(item))
        except Exception as error:
            return _packed(number, error)


def _packed(number: int, result: Row | Exception) -> bytes:
    """A bug takes its traceback along as a note; an error that cannot travel goes as its kind's message."""
    if isinstance(result, Exception) and not isinstance(result, EdgedcError):
        result.add_note("".join(traceback.format_exception(result)))
    try:
        packed = pickle.dumps((number, result))
        pickle.loads(packed)
    except Exception:
        return pickle.dumps((number, EdgedcError(str(result))))
    return packed


def _reason(error: Exception) -> str:
    """Ray's errors are pages long: what a worker raised stands in the last line, anything else in the first."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "error raised in" in lines[0] else lines[0]
