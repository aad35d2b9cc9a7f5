"""The attack's own process: what it leaves behind, what it started, and how it ends."""

from __future__ import annotations

import multiprocessing.forkserver as forkserver
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toys import GRAY, ROOT, question, toy, trial

from leakboard.run import box

NOISE = "return Reconstruction(torch.rand(seen.shape, generator=rng))"


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


LEAKS = """
import builtins
torch.set_default_dtype(torch.float64)
torch.set_num_threads(7)
torch.set_grad_enabled(False)
os.chdir("/")
os.environ["LEAKBOARD_MARK"] = "x"
torch.rand = None
builtins.sum = None
"""


def test_what_an_attack_leaves_behind_reaches_nobody_else(tmp_path):
    polite = toy(tmp_path, NOISE)
    before = trial(polite, question(batch=2)).line
    state = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), Path.cwd()
    trial(toy(tmp_path, "import os\n" + LEAKS + GRAY, name="rude"), question(batch=2))
    box.end_all()
    after = trial(polite, question(batch=2)).line
    assert after["mse_each"] == before["mse_each"] and after["status"] == "ok"
    assert state == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), Path.cwd())
    assert "LEAKBOARD_MARK" not in os.environ and torch.rand is not None and sum([1, 2]) == 3


def test_one_trial_of_an_attack_leaves_the_next_one_its_settings(tmp_path):
    body = """
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled() and torch.get_num_threads() == 1
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(3)
    """
    path = toy(tmp_path, body + GRAY)
    assert [trial(path, question(), number).line["status"] for number in range(2)] == ["ok", "ok"]


def test_the_server_has_one_thread_and_a_dead_one_is_replaced(tmp_path):
    path = toy(tmp_path, GRAY)
    assert trial(path, question()).line["status"] == "ok"
    pid = forkserver._forkserver._forkserver_pid
    assert len(os.listdir(f"/proc/{pid}/task")) == 1, "threads do not survive a fork"  # noqa: PTH208
    os.kill(pid, signal.SIGKILL)
    assert trial(toy(tmp_path, GRAY, name="other"), question()).line["status"] == "ok"
    assert forkserver._forkserver._forkserver_pid != pid


def test_a_box_that_has_ended_sends_no_signal_to_whoever_has_its_number_now(tmp_path, monkeypatch):
    assert trial(toy(tmp_path, GRAY), question()).line["status"] == "ok"
    one = list(box._boxes.values())[-1]
    sent = []
    box.dropped(one)
    monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
    monkeypatch.setattr(os, "killpg", lambda *what: sent.append(what))
    one.kill()
    one.end()
    assert sent == [] and not one.process.is_alive()


def test_a_board_that_ranks_by_a_cost_compares_images(tmp_path):
    line = trial(toy(tmp_path, GRAY), question(metrics=("seconds_to_20", "psnr"))).line
    assert line["status"] == "ok" and line["psnr"] > 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_runner_takes_its_boxes_and_what_they_started_along(tmp_path):
    body = f"""
    import os, subprocess
    child = subprocess.Popen(["sleep", "100"])
    Path({str(tmp_path / "pids")!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
    time.sleep(100)
    """
    path = toy(tmp_path, body + GRAY)
    call = [sys.executable, "-c", "from leakboard.cli import app; app()", "run", str(path), "lenet_mnist_gradient"]
    runner = subprocess.Popen([*call, "--trials", "1", "--workers", "0"], cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    inner, child = map(int, (tmp_path / "pids").read_text().split())
    assert alive(inner)
    runner.kill()
    runner.wait()
    while alive(inner) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(inner)
    if alive(child):
        os.kill(child, signal.SIGKILL)


def test_what_a_box_started_ends_with_it(tmp_path):
    body = f"""
    import subprocess
    child = subprocess.Popen(["sleep", "100"])
    Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    time.sleep(100)
    """
    line = trial(toy(tmp_path, body + GRAY), question(timeout_seconds=1)).line
    assert line["status"] == "timeout"
    child, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_words_between_two_trials_end_the_process(tmp_path):
    body = """
    import gc, threading
    from leakboard.attack.inside import Calls
    part = next(one for one in gc.get_objects() if isinstance(one, Calls))
    def later():
        time.sleep(0.5)
        part.tell({"stopped": [{}]}, {"0 images": torch.ones(seen.shape)})
    threading.Thread(target=later, daemon=True).start()
    """
    path = toy(tmp_path, body + GRAY)
    first = trial(path, question()).line
    pid = box.box_of(path).pid
    time.sleep(1.0)
    assert box.box_of(path).pid != pid and trial(path, question(), 1).line["status"] == first["status"] == "ok"


def test_a_child_that_left_its_group_does_not_hold_the_runner(tmp_path):
    body = f"""
    import os, subprocess
    child = subprocess.Popen(["sleep", "30"], start_new_session=True, close_fds=False)
    Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    if not os.fork():
        os.setsid()
        time.sleep(30)
        os._exit(0)
    time.sleep(100)
    """
    before = time.monotonic()
    line = trial(toy(tmp_path, body + GRAY), question(timeout_seconds=1)).line
    assert line["status"] == "timeout" and time.monotonic() - before < 15
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
