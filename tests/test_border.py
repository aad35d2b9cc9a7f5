"""Tricks: what an attack tries on the other side of the border, and what it gets for it."""

from __future__ import annotations

import time

import pytest
import torch
from toys import GRAY, ROOT, question, toy, trial

from leakboard.attack.contract import AttackError
from leakboard.run import box
from leakboard.score import match, mse
from leakboard.victim.secrets import secret

NOISE = "return Reconstruction(torch.rand(seen.shape, generator=rng))"


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


# name -> (body of `reconstruct`, what the reason says; None: the trial is fine)
INSIDE = {
    "data and victims are not there": (
        """
        import sys
        closed = ("leakboard.victim", "leakboard.data", "leakboard.score")
        rooms = [name for name in sys.modules if name.startswith(closed)]
        assert not rooms, rooms
        assert "LEAKBOARD_DATA" not in os.environ and not list(Path.cwd().iterdir())
        """,
        None,
    ),
    "the garbage collector knows no secret": (
        """
        import gc
        held = {type(o).__name__ for o in gc.get_objects()} & {"Secret", "Truth", "Slice", "Dataset", "Victim"}
        assert not held, held
        """,
        None,
    ),
    "no frame above is the runner's": (
        """
        import sys
        frame, names = sys._getframe(), []
        while frame:
            names.append(frame.f_code.co_filename)
            frame = frame.f_back
        assert not [n for n in names if "/run/" in n or "/victim/" in n], names
        """,
        None,
    ),
    "many labels for one": (
        "return Reconstruction(torch.zeros(seen.shape), torch.arange(10)[None].expand(2, 10))",
        "labels have shape (2, 10)",
    ),
    "labels that are no integers": ("return Reconstruction(torch.zeros(seen.shape), torch.ones(2))", "classes"),
    "more images by a class of its own": (
        """
        class Mine(Reconstruction):
            def checked(self, shape):
                return self
        return Mine(torch.zeros(50, *seen.shape[1:]))
        """,
        "M <= 2",
    ),
    "a budget swallowed": (
        """
        for _ in range(30):
            try:
                seen.model(torch.zeros(seen.shape))
            except Exception:
                pass
        """,
        "more than the 20 gradient evaluations",
    ),
    "a thousand restarts as one pass": (
        "torch.func.vmap(seen.model, randomness='same')(torch.zeros(1000, *seen.shape))",
        "more than the 20 gradient evaluations",
    ),
    "a thousand gradients as one pass": (
        """
        names = {name: parameter.detach() for name, parameter in seen.model.named_parameters()}
        def slope(image):
            one = lambda p: torch.func.functional_call(seen.model, p, (image[None],)).sum()
            return torch.func.grad(one)(names)
        torch.func.vmap(slope, randomness='same')(torch.zeros(1000, *seen.shape[1:]))
        """,
        "more than the 20 gradient evaluations",
    ),
    "an exception that is none": ("class Rude(BaseException):\n    pass\nraise Rude('base')", "Rude: base"),
    "an exception that cannot be printed": (
        "class Rude(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Rude",
        "cannot be printed",
    ),
    "an exit that says all is well": ("import sys\nsys.exit(0)", "SystemExit"),
    "an info that is no number": (
        "return Reconstruction(torch.zeros(seen.shape), None, {'loss': object(), 'restarts': float('nan'), 3: 4})",
        None,
    ),
    "an info that is no mapping": ("return Reconstruction(torch.zeros(seen.shape), None, 7)", None),
    "a process that ends": ("os._exit(0)", "the attack's process ended twice"),
    "a process that kills itself": ("import signal\nos.kill(os.getpid(), signal.SIGKILL)", "ended twice"),
    "words that are no message": (
        """
        import gc
        from multiprocessing.connection import Connection
        for part in gc.get_objects():
            if isinstance(part, Connection) and not part.closed:
                part.send_bytes(b"garbage")
        time.sleep(60)
        """,
        "sent what is no message",
    ),
    "a pickle that runs code": (
        """
        import gc, pickle
        from multiprocessing.connection import Connection
        class Bomb:
            def __reduce__(self):
                return (os.system, ("touch " + MARKER,))
        for part in gc.get_objects():
            if isinstance(part, Connection) and not part.closed:
                part.send_bytes(pickle.dumps(Bomb()))
        time.sleep(60)
        """,
        "sent what is no message",
    ),
    "an end of its own making": (
        """
        import gc
        from leakboard.attack.inside import Calls
        for part in gc.get_objects():
            if isinstance(part, Calls):
                part.tell({"stopped": [{}]}, {"0 images": torch.rand(99, *seen.shape[1:])})
                part.tell({"end": "attack", "status": "ok", "seconds": 1e-9, "evaluations": [0]})
        time.sleep(60)
        """,
        "M <= 2",
    ),
    "numbers that no clock and no counter shows": (
        """
        import gc
        from leakboard.attack.inside import Calls
        for part in gc.get_objects():
            if isinstance(part, Calls):
                part.tell({"stopped": [{"loss": 10**400}]}, {"0 images": torch.rand(seen.shape)})
                part.tell({"end": "attack", "status": "ok", "seconds": 1e-9, "evaluations": [2**70], "peak_bytes": -1})
        time.sleep(60)
        """,
        "OverflowError",
    ),
    "a message of another task": (
        """
        import gc
        from leakboard.attack.inside import Calls
        for part in gc.get_objects():
            if isinstance(part, Calls):
                part.task -= 1
        """,
        "a message of another task",
    ),
    "a reason of many lines": (
        "raise ValueError('one' + chr(27) + chr(10) + 'two' * 1000)",
        "ValueError: one?",
    ),
    "a question that cannot be answered": (
        """
        import gc
        from leakboard.attack.inside import Calls
        for part in gc.get_objects():
            if isinstance(part, Calls):
                for name in ("query", "turn", "submit", 7, ["x"]):
                    for trial in (0, 5, "a", None):
                        try:
                            part(name, trial, {"images": torch.zeros(0)})
                        except ValueError:
                            continue
                        raise AssertionError(name)
        raise ValueError("all were refused")
        """,
        "all were refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_tried_inside(name, tmp_path):
    body, reason = INSIDE[name]
    marker = tmp_path / "marker"
    head = f"import os\nMARKER = {str(marker)!r}\n"
    text = body.strip("\n")
    indent = len(text) - len(text.lstrip())
    text = "\n".join(line[indent:] for line in text.splitlines())
    asked = question("gradient", batch=2, timeout_seconds=20)
    line = trial(toy(tmp_path, head + text + "\n" + GRAY), asked, 1).line
    assert not marker.exists()
    if reason is None:
        assert line["status"] == "ok", line.get("reason")
        return
    assert line["status"] == "failed" and reason in line["reason"], line["reason"]
    noise = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(line["seed"]))
    true = secret(asked, 1).images
    assert line["mse_each"] == mse(true, noise[match(true, noise)]).tolist()


def test_a_deadline_that_is_swallowed_ends_the_process(tmp_path):
    body = """
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass
    """
    asked = question(timeout_seconds=0.5)
    before = time.monotonic()
    line = trial(toy(tmp_path, body), asked).line
    assert (line["status"], line["reason"]) == ("timeout", "more than 0.5 s") and time.monotonic() - before < 10
    assert 0.4 < line["seconds"] < 5


def test_seconds_that_a_clock_denies_are_the_runners(tmp_path):
    """The attack stops its own clock; the wall on the other side says what it took."""
    body = """
    import gc
    from leakboard.attack.clock import Clock
    for part in gc.get_objects():
        if isinstance(part, Clock):
            part.stop = lambda: None
    time.sleep(1.0)
    """
    line = trial(toy(tmp_path, body + GRAY), question()).line
    assert line["status"] == "ok" and line["seconds"] >= 0.9


@pytest.mark.parametrize("where", ["import", "skips", "prior", "craft"])
def test_a_loop_outside_of_the_attack_ends_too(where, tmp_path, monkeypatch):
    monkeypatch.setattr(box, "ASKING_SECONDS", 1.0)
    path = toy(tmp_path, GRAY)
    if where == "import":
        path.write_text("while True:\n    pass\n")
    else:
        arguments = "self, model, public, rng" if where == "craft" else "self, benchmark"
        path.write_text(
            toy(tmp_path, GRAY, methods=f"def {where}({arguments}):\n    while True:\n        pass").read_text()
        )
    asked = question("gradient", {"knows": ["prior"], "conduct": "malicious"})
    if where == "craft":
        line = trial(path, asked).line
        assert line["status"] == "failed" and "more than 1 s" in line["reason"]
        return
    with pytest.raises(AttackError, match="more than 1 s"):
        trial(path, asked)


@pytest.mark.parametrize("deed", ["sys.exit(0)", "os._exit(0)", "raise KeyboardInterrupt", "raise BaseException('x')"])
def test_an_import_that_ends_is_an_error_and_no_end(deed, tmp_path):
    path = tmp_path / "rude.py"
    path.write_text(f"import os, sys\n{deed}\n")
    with pytest.raises(AttackError, match=r"rude\.py"):
        trial(path, question())


def test_images_that_come_after_the_attack_are_nobodys(tmp_path):
    """The clock is held when images are handed in: a thread that goes on computing finds no ear."""
    body = """
    import gc, threading
    from leakboard.attack.inside import Calls
    part = next(one for one in gc.get_objects() if isinstance(one, Calls))
    told = part.tell
    def tell(header, arrays=None):
        told(header, arrays)
        if "stopped" in header:
            told({"stopped": [{}]}, {"0 images": torch.ones(seen.shape)})
    part.tell = tell
    """
    asked = question(batch=1)
    line = trial(toy(tmp_path, body + "return Reconstruction(torch.zeros(seen.shape))"), asked).line
    assert line["status"] == "ok"
    assert line["mse_each"] == mse(secret(asked, 0).images, torch.zeros(1, 1, 8, 8)).tolist()
