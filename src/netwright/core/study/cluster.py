"""Trials on a Ray cluster: the same trial function, watched over in the same way.

Ray carries a trial to a node; there a worker process of `Processes` runs it, so that a crash, a hang or a
memory-eater is the same row as at home and costs no Ray worker. Netwright must be installed on the nodes, in
the same version; the trial function, network and task travel with the study.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netwright.core.errors import BadInput, MissingExtra
from netwright.core.progress import Progress
from netwright.core.study.processes import Processes, Session
from netwright.core.study.trial import Ended, Event, Limits, Trial

_ANSWER = 10.0  # seconds in which a cluster must answer
_WAIT = 0.1  # seconds that one look at the cluster may take


class Ray:
    """Runner: 'local' starts Ray on this machine (which takes some seconds), 'auto' or HOST:PORT joins a cluster.

    A Ray that is up already in this process is used as it is; one that is started here ends with the process.
    """

    def __init__(self, address: str = "local") -> None:
        try:
            import ray
        except ImportError:
            raise MissingExtra("ray", "ray", "running trials on a Ray cluster") from None
        check_address(address)
        self.ray, self.address = ray, address

    def warm(self) -> None:
        if self.ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a library does not report on its users
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            self.ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            line = str(error).strip().partition("\n")[0]
            raise BadInput(f"no Ray cluster at '{self.address}': {line}") from error

    def slots(self) -> int:
        """One trial per processor of the cluster."""
        self.warm()
        return max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    @contextmanager
    def session(self, parcel: Path, limits: Limits, jobs: int) -> Iterator[Session]:
        self.warm()
        running = _Running(self.ray, parcel.read_bytes(), limits)
        try:
            yield running
        finally:
            running.close()


def check_address(address: str) -> None:
    """BadInput for a HOST:PORT that nobody answers; Ray itself would ask for minutes."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise BadInput(f"'{address}' is no address of a Ray cluster; give HOST:PORT, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"no Ray cluster at '{address}': {getattr(error, 'strerror', None) or error}"
        ) from error


class _Running:
    def __init__(self, ray: Any, content: bytes, limits: Limits) -> None:
        from ray.util.queue import Queue

        self.ray, self.limits = ray, limits
        self.content = ray.put(content)
        self.news = Queue(actor_options={"num_cpus": 0})
        # max_retries: Ray would run a trial again that took its node down
        self.remote = ray.remote(num_cpus=1, max_retries=0)(_supervise)
        self.under_way: dict[Any, tuple[Trial, Path]] = {}

    def start(self, trial: Trial, folder: Path) -> None:
        reference = self.remote.remote(self.content, trial, self.limits, self.news)
        self.under_way[reference] = trial, folder

    def events(self) -> list[Event]:
        ready, _ = self.ray.wait(list(self.under_way), timeout=_WAIT)
        keys = {trial.key for trial, _ in self.under_way.values()}
        news = self.news.get_nowait_batch(self.news.qsize())
        events: list[Event] = [(key, Progress(*said)) for key, said in news if key in keys]
        return events + [self._collect(reference) for reference in ready]

    def _collect(self, reference: Any) -> Event:
        trial, folder = self.under_way.pop(reference)
        try:
            ended, files = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            line = str(error).strip().partition("\n")[0]
            return trial.key, Ended("failed", f"lost by the cluster: {type(error).__name__}: {line}")
        try:
            for name, content in files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            return trial.key, Ended("not stored", error.strerror or str(error))
        return trial.key, Ended(*ended)

    def close(self) -> None:
        for reference in self.under_way:
            with contextlib.suppress(Exception):
                self.ray.cancel(reference, force=True)
        with contextlib.suppress(Exception):
            self.news.shutdown(force=True)


def _supervise(content: bytes, trial: Trial, limits: Limits, news: Any) -> tuple[Ended, dict[str, bytes]]:
    """On a node: run one trial in a worker process; give back how it ended and its files."""
    with tempfile.TemporaryDirectory(prefix="netwright-") as home:
        folder = Path(home) / trial.key
        folder.mkdir()
        with Processes().session(_parcel(content), limits, jobs=os.cpu_count() or 1) as session:
            session.start(trial, folder)
            while True:
                for key, event in session.events():
                    if isinstance(event, Ended):
                        return event, {path.name: path.read_bytes() for path in folder.iterdir()}
                    news.put_nowait((key, tuple(event)))


_parcels: dict[str, Path] = {}
_home: list[tempfile.TemporaryDirectory[str]] = []


def _parcel(content: bytes) -> Path:
    """The study's parcel as a file of this Ray worker's, in a folder that nobody else can write to; kept for the
    trials to come."""
    name = hashlib.sha256(content).hexdigest()
    if name not in _parcels:
        _home.append(tempfile.TemporaryDirectory(prefix="netwright-parcel-"))
        path = Path(_home[-1].name) / "parcel.pt"
        path.write_bytes(content)
        _parcels[name] = path
    return _parcels[name]
