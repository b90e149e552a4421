"""Workers: processes of this machine, which nobody else can reach, or those of a Dask cluster that is there."""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker, LocalCluster, WorkerPlugin, as_completed
from distributed.security import Security
from tornado.ioloop import PeriodicCallback

from .jobs import MODELS, SENT, Job, Part, Recipe, sentence, work
from .store import FleetError

PER_WORKER = 1_500_000_000  # bytes of memory for each worker, beside the model's
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
Batches = Iterator[tuple[list[int], list[Any]]]


class Sender(WorkerPlugin):
    """Brings the weights to every worker, once each, also to those that start later."""

    def __init__(self, recipe: Recipe, tensors: bytes | None, own: bool) -> None:
        self.weights, self.tensors, self.own, self.name = recipe.weights, tensors, own, f"mi-workshop-{recipe.weights}"

    def setup(self, worker: Any) -> None:
        if self.own:
            worker.http_server.stop()  # Dask's page about the worker
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the client
        if self.tensors:
            SENT[self.weights] = self.tensors

    def teardown(self, worker: Any) -> None:
        SENT.pop(self.weights, None)
        MODELS.pop(self.weights, None)


@contextmanager
def connected(workers: int, scheduler: Any, dashboard: bool) -> Iterator[Client]:
    """A client of ``scheduler`` (address, Dask cluster or client) or of ``workers`` processes of our own, which end with it."""
    with ExitStack() as stack:
        if scheduler is None:
            dashboard = dashboard and find_spec("bokeh") is not None
            environment = dict.fromkeys(THREADS, str(max(1, CPU_COUNT // workers)))
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            with dask.config.set({"distributed.nanny.pre-spawn-environ": environment, "distributed.worker.http.routes": []}):  # fmt: skip
                scheduler = stack.enter_context(LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", protocol="tls://", security=Security.temporary(),
                    dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": dashboard, "allowed_failures": 0},
                    silence_logs=logging.CRITICAL, local_directory=folder,
                ))  # fmt: skip
            # Dask gives up a worker that has been away for 15 s, also one that is only slow to start again: ask for it anew.
            asking = PeriodicCallback(partial(scheduler.scale, workers), 5000)
            scheduler.loop.add_callback(asking.start)
            stack.callback(scheduler.loop.add_callback, asking.stop)
            if not dashboard:
                scheduler.loop.add_callback(scheduler.scheduler.http_server.stop)
        try:
            own = isinstance(scheduler, Client)
            client = scheduler if own else stack.enter_context(Client(scheduler, timeout=5, set_as_default=False))
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise FleetError(f"There is no Dask scheduler at {scheduler}: {sentence(error)}") from None
        if dashboard:
            print(f"dashboard: {client.dashboard_link}")
        yield client


def results(client: Client, recipe: Recipe, job: Job, batches: Batches) -> Iterator[tuple[list[int], Part]]:
    """Each batch's rows and what came of them, as they are finished; four batches for each worker are under way at a time.

    A batch whose worker was killed is done again after all others, alone; if that kills a worker too, prompt by prompt, and one that does it alone has failed.
    """
    flight = as_completed(loop=client.loop)
    going: dict[Any, tuple[list[int], list[Any], bool]] = {}
    again: list[tuple[list[int], list[Any]]] = []

    def submit(rows: list[int], items: list[Any], alone: bool) -> None:
        future = client.submit(work, recipe, job, items, pure=False)
        going[future] = (rows, items, alone)
        flight.add(future)

    while True:
        while len(going) < 4 * max(1, len(client.nthreads())) and (batch := next(batches, None)):
            submit(*batch, alone=False)
        if not going:
            if not again:
                return
            submit(*again.pop(), alone=True)
        future = next(flight)
        if future.status == "lost":  # with its worker, before it was fetched: Dask does it again
            flight.add(future)
            continue
        rows, items, alone = going.pop(future)
        if future.status == "cancelled":
            raise ConnectionError
        error = future.exception() if future.status == "error" else None
        if error is None:
            yield rows, future.result()
        elif isinstance(error, FleetError):
            raise error
        elif not alone:
            again.append((rows, items))
        elif len(rows) > 1:
            again += [([row], [item]) for row, item in zip(rows, items, strict=True)]
        else:
            killed = "Its worker was killed while it worked on this prompt alone (too little memory?)."
            yield rows, Part([], None, {0: killed if isinstance(error, KilledWorker) else sentence(error)})


def parts(recipe: Recipe, tensors: bytes | None, job: Job, batches: Batches, workers: int, scheduler: Any, dashboard: bool) -> Iterator[tuple[list[int], Part]]:  # fmt: skip
    """``results`` of a cluster that is started or joined, and left in order.

    Raises FleetError for a scheduler that cannot be reached or is lost, and workers that cannot have the package or the model.
    """
    recipe = recipe if scheduler is not None else recipe._replace(threads=max(1, CPU_COUNT // workers))
    with connected(workers, scheduler, dashboard) as client:
        sender = Sender(recipe, tensors, scheduler is None)
        try:
            client.register_plugin(sender)
        except Exception as error:
            raise FleetError(f"The workers cannot use mi_workshop (is the same version installed there?): {sentence(error)}") from None  # fmt: skip
        try:
            yield from results(client, recipe, job, batches)
        except OSError:
            raise FleetError("The scheduler was lost; what is finished is kept, and the same call again goes on from there.") from None  # fmt: skip
        finally:
            if client.status == "running":
                client.unregister_worker_plugin(sender.name)
