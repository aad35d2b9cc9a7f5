"""Full disks and folders that cannot be written: one clear line, exit status 2, and what was there is untouched."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest
from accidents import QUICK, WORDS, assert_whole, call, toy_stage, while_writing
from toys import checkout

from leakboard import cli
from leakboard.record import saving
from leakboard.run import opened
from leakboard.run.stage import reproduce


@pytest.fixture(autouse=True)
def suite(tmp_path, monkeypatch) -> Path:
    folder = checkout(tmp_path / "suite", QUICK)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(opened, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(cli.screen, "_width", 400)
    return folder


@pytest.fixture
def mounted(tmp_path):
    """A disk of its own: mounted(size) -> its folder."""
    there: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a disk of its own cannot be mounted here: {done.stderr.strip()}")
        there.append(folder)
        return folder

    yield mount
    for folder in there:
        subprocess.run(["umount", str(folder)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def fill(folder: Path) -> Path:
    """A file that takes all that is left."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


def one_line(said: str, *named: str) -> None:
    faults = [line for line in said.splitlines() if line.startswith("error ")]
    assert len(faults) == 1 and "Traceback" not in said, said
    assert [word for word in named if word not in faults[0]] == [], faults[0]
    assert re.search(r"error /\S+: not saved: found .+; expected .+", faults[0])


def test_a_disk_that_is_full_in_the_middle_of_a_run(mounted, tmp_path):
    """Nothing of what was saved is damaged, and where there is room again the same call goes on."""
    disk = mounted("size=256k")
    words = (*WORDS, "--workers", "0", "--out", str(disk))
    assert call(*words, "--trials", "0:2")[0] == 0
    filling = fill(disk)
    before = contents(disk)
    status, said = call(*words)
    assert status == 2
    one_line(said, str(disk), "No space left on device", "bytes free", "room for", "untouched")
    assert contents(disk) == before
    assert assert_whole(disk)["trial"].tolist() == [0, 1]
    filling.unlink()
    assert call(*words)[0] == 0
    assert_whole(disk, 4)


def test_a_disk_that_is_full_from_the_beginning(mounted):
    disk = mounted("size=64k,nr_inodes=5")
    status, said = call(*WORDS, "--workers", "0", "--out", str(disk))
    assert status == 2
    one_line(said, "No space left on device", str(disk))


def test_a_disk_that_may_only_be_read(mounted, tmp_path):
    disk = mounted("size=1m")
    words = (*WORDS, "--workers", "0", "--out", str(disk))
    assert call(*words, "--trials", "0:2")[0] == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = contents(disk)
    status, said = call(*words)
    assert status == 2 and contents(disk) == before
    one_line(said, "Read-only file system", "a folder that can be written")
    assert len(toy_stage(disk).results.current_lines("toy", "toy_gradient")) == 2, "reading goes on"


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "reconstructions").write_text("a file of the reader's")
    status, said = call(*WORDS, "--workers", "0", "--out", str(tmp_path))
    assert status == 2 and (tmp_path / "reconstructions").read_text() == "a file of the reader's"
    one_line(said, str(tmp_path / "reconstructions"), "a folder that can be written")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", [".npz", "curve.csv", "trials.csv", "metrics.json", "timing.json", "grid.png"])
def test_every_file_of_a_stage_is_whole_or_as_it_was(name, number, tmp_path, monkeypatch):
    results = tmp_path / "out"
    reproduce([toy_stage(results)], workers=0, trials=range(2))
    before = contents(results)

    def full() -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        while_writing(patch, name, full, always=True)
        status, said = call(*WORDS, "--workers", "0", "--out", str(results))
    assert status == 2
    one_line(said, name, os.strerror(number), "untouched")
    after = contents(results)
    assert not [path for path in after if path.endswith(".part")]
    named = [path for path in before if path.endswith(name)]
    same = [after[path] for path in named] == [before[path] for path in named]
    assert name == ".npz" or (named and same)
    assert_whole(results)
    reproduce([toy_stage(results)], workers=0)
    assert_whole(results, 4)


def test_what_cannot_be_saved_in_one_place_is_saved_in_the_others(tmp_path):
    class Here:
        def __init__(self, full: bool) -> None:
            self.full, self.saved = full, 0

        def save(self, outcomes, *more) -> None:
            if self.full:
                raise saving.SaveError("disk: full")
            self.saved += len(outcomes)

    places = [Here(False), Here(True), Here(False)]
    every = [opened.Opened("toy", place, [], set(), waiting=[1, 2]) for place in places]
    with pytest.raises(saving.SaveError, match="disk: full"):
        opened._save_all(every)
    assert [place.saved for place in places] == [2, 0, 2]
    assert [len(one.waiting) for one in every] == [0, 2, 0], "what was not saved still waits"


def test_a_report_on_a_full_disk(mounted):
    disk = mounted("size=64k")
    reproduce([toy_stage(disk)], workers=0, trials=range(1))
    fill(disk)
    status, said = call("report", "--out", str(disk))
    assert status == 2
    one_line(said, "No space left on device", str(disk))
