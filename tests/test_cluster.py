"""Trials on a Ray cluster come out as trials here do; what the cluster cannot do is said, not waited for."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cluster_toys as toys
import pytest

from leakboard.record.results import Results
from leakboard.run import cluster, workers
from leakboard.run.cluster import ClusterError

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
SOON = 30  # seconds within which a test's cluster answers and starts something


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two machines with one CPU each; its address."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    memory = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20}
    two = Cluster(initialize_head=True, head_node_args={**memory, "include_dashboard": False})
    try:
        two.add_node(**memory)
        two.wait_for_nodes()
        yield two.address
    finally:
        two.shutdown()


@pytest.fixture
def machines(address, monkeypatch) -> Iterator[None]:
    """RAY_ADDRESS names the cluster; whoever connects to it lets it go again."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    yield
    assert not ray.is_initialized(), "a connection stays open"


@pytest.fixture(scope="class")
def connection(address) -> Iterator[None]:
    """The connection that several tests share, and with it the workers, each of which takes seconds to load torch."""
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    yield
    assert ray.is_initialized(), "a connection of the caller's own stays"
    ray.shutdown()


def spread(work, jobs, lost=toys.no_loss, *, wait_seconds=SOON, **more) -> list:
    return list(cluster.spread(work, jobs, lost, wait_seconds=wait_seconds, **more))


def until(holds) -> None:
    deadline = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_results_are_those_of_this_process(machines):
    here = list(workers.spread(toys.double, range(9), 0, toys.no_loss))
    there = list(workers.spread(toys.double, range(9), "ray", toys.no_loss))
    assert sorted(there) == here and spread(toys.double, []) == []


def test_closing_ends_what_is_under_way(machines, tmp_path):
    coming = cluster.spread(toys.sleeps, [(tmp_path, 0.0), (tmp_path, 600.0)], toys.no_loss, wait_seconds=SOON)
    assert next(coming)[1] is None
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    coming.close()
    until(lambda: not any(Path(f"/proc/{mark.name}").exists() for mark in tmp_path.iterdir()))


@pytest.mark.usefixtures("connection")
class TestOverOneConnection:
    def test_a_job_whose_worker_dies_is_tried_twice_and_costs_no_other(self, tmp_path):
        jobs = [(tmp_path, name) for name in ("a", "once", "b", "always", "c")]
        got = {name: result for (_, name), result in spread(toys.dies, jobs, toys.buried)}
        assert got.pop("once") == "once after 1" and got.pop("always") == "always lost"
        assert got == {name: f"{name} after 0" for name in "abc"}
        assert (tmp_path / "always").read_text() == "xx", "tried twice, not more"

    def test_what_work_raises_is_raised_here_and_names_the_job(self):
        with pytest.raises(ZeroDivisionError, match="no good") as caught:
            spread(toys.raises, [2])
        assert caught.value.__notes__ == ["raised by 2"]

    def test_a_worker_has_the_folder_the_data_and_the_settings_of_a_trial(self, monkeypatch, tmp_path):
        monkeypatch.setenv("LEAKBOARD_DATA", "/some/where")
        monkeypatch.chdir(tmp_path)
        ((_, found),) = spread(toys.surroundings, [1])
        assert found.pop("pid") != os.getpid()
        wanted = {"folder": str(tmp_path), "data": "/some/where", "threads": ("1", 1), "deterministic": True}
        assert found == wanted

    def test_a_machine_without_the_checkout_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setattr(Path, "cwd", lambda: tmp_path / "elsewhere")
        with pytest.raises(ClusterError, match=f"{socket.gethostname()} cannot enter .*elsewhere"):
            spread(toys.double, [1])

    def test_what_no_machine_has_is_said_at_once(self):
        start, said = time.monotonic(), "asks for 1 CPU and 0.5 GPUs, the machines have 1 CPUs and 0 GPUs, 1 CPUs"
        with pytest.raises(ClusterError, match=said):
            spread(toys.double, [1], gpus_per_worker=0.5)
        assert time.monotonic() - start < SOON

    def test_a_cluster_that_starts_nothing_is_given_up(self):
        def hold() -> None:
            time.sleep(600)

        held = [ray.remote(num_cpus=1)(hold).remote() for _ in range(2)]
        until(lambda: ray.available_resources().get("CPU", 0) == 0)
        with pytest.raises(ClusterError, match="no task has started within 1 s"):
            spread(toys.double, [1], wait_seconds=1)
        for reference in held:
            ray.cancel(reference, force=True)


def test_an_address_where_no_cluster_answers_is_given_up(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ClusterError, match=r"no Ray cluster answers at RAY_ADDRESS=127.* within 3 s"):
            spread(toys.double, [1], wait_seconds=3)
    for wrong, said in (("ray://a:1", "expected HOST:PORT"), ("nowhere", "Invalid address format: nowhere")):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        with pytest.raises(ClusterError, match=said):
            spread(toys.double, [1])


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"leakboard\[cluster\]"):
        spread(toys.double, [1])


@pytest.mark.parametrize("text", ["a", "-1", "1.5", "nan"])
def test_a_share_of_a_gpu_that_makes_no_sense_is_named(text, monkeypatch):
    monkeypatch.setenv("LEAKBOARD_GPUS_PER_WORKER", text)
    with pytest.raises(ClusterError, match="LEAKBOARD_GPUS_PER_WORKER"):
        list(workers.spread(toys.double, [1], "ray", toys.no_loss))


def test_trials_on_ray_started_here_are_the_same_to_the_bit(tmp_path, monkeypatch):
    from toys import QUALITY, checkout

    from leakboard.record import trial_lines
    from leakboard.run.stage import reproduce, stages

    body = "return Reconstruction(torch.rand(seen.shape, generator=rng))"
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(checkout(tmp_path / "suite", body))
    stores = []
    for where in (0, "ray"):
        results = tmp_path / str(where)
        assert reproduce(stages(Results.at("quick", results), "toy", None), trials=range(2), workers=where) == 2
        stores.append(trial_lines.read(results / "quick" / "papers" / "toy" / "toy_gradient" / "trials.csv"))
    assert stores[0]["trial"].tolist() == [0, 1] and stores[0]["status"].tolist() == ["ok", "ok"]
    assert stores[0][QUALITY].equals(stores[1][QUALITY])
