"""Public images cross the border once, and every trial has them as they are."""

from __future__ import annotations

import pytest
import torch
from toys import GRAY, ROOT, question, toy, trial

from leakboard.attack import once
from leakboard.attack.once import Kept, Parcel
from leakboard.run import box
from leakboard.threat import Public

CRAFT = "def craft(self, model, public, rng):\n    return model"
MALICIOUS = {"conduct": "malicious"}


@pytest.fixture
def sent(monkeypatch):
    """Sizes of the public images that went to a process, one each time."""
    monkeypatch.chdir(ROOT)
    box.end_all()
    sizes, packed = [], once.packed

    def counted(header, arrays):
        sizes.append(len(arrays["images"]))
        return packed(header, arrays)

    monkeypatch.setattr(once, "packed", counted)
    return sizes


def test_public_images_are_sent_once_whatever_is_asked_and_attacked(tmp_path, sent):
    path, asked = toy(tmp_path, GRAY, methods=CRAFT), question(threat=MALICIOUS)
    assert [trial(path, asked, number).line["status"] for number in range(3)] == ["ok"] * 3
    assert sent == [8]
    box.end_all()
    trial(path, asked)
    assert sent == [8, 8], "another process has none"


def test_a_process_keeps_the_images_of_one_benchmark(tmp_path, sent):
    path, asked, other = toy(tmp_path, GRAY), question(), question(public={"count": 5})
    for one in (asked, other, other, asked):
        assert trial(path, one).line["status"] == "ok"
    assert sent == [8, 5, 8] and len(box.box_of(path).kept) == 1


def test_what_a_trial_did_to_public_images_reaches_no_other(tmp_path, sent):
    note = tmp_path / "note"
    body = f"""
    with Path({str(note)!r}).open("a") as file:
        print(seen.public.images.double().sum().item(), seen.public.labels.tolist(), file=file)
    seen.public.images.zero_()
    seen.public.labels.zero_()
    """
    path = toy(tmp_path, body + GRAY)
    reasons = [trial(path, question(), number).line["reason"] for number in range(2)]
    assert all("the attack changed its observation" in reason for reason in reasons)
    first, second = note.read_text().splitlines()
    assert first == second and not first.startswith("0.0") and sent == [8]


def test_a_process_that_lost_its_images_fails_and_is_not_believed(tmp_path, sent):
    body = """
    import gc
    from leakboard.attack.inside import Calls
    next(one for one in gc.get_objects() if isinstance(one, Calls)).kept.images.clear()
    """
    path = toy(tmp_path, body + GRAY)
    assert [trial(path, question(), number).line["status"] for number in range(2)] == ["ok", "failed"]


class Line(list):
    def send_bytes(self, content):
        self.append(content)

    def recv_bytes(self):
        return self.pop(0)


@pytest.mark.parametrize("turned", [False, True])
def test_what_arrives_is_what_was_sent_bit_for_bit(turned):
    images, labels = torch.rand(3, 2, 5, 4), torch.tensor([2, 0, 1])
    parcel = Parcel({"public": Public(images.transpose(2, 3) if turned else images, labels), "more": [7]})
    line, kept = Line(), Kept()
    once.send_images(line, set(), parcel)
    kept.receive(line)
    one, other = (kept.opened(parcel.content) for _ in range(2))
    assert one["more"] == [7] and one["public"].images is not other["public"].images
    for got in (one["public"], other["public"]):
        assert got.images.equal(images.transpose(2, 3) if turned else images) and got.labels.equal(labels)
        assert got.images.stride() == (images.transpose(2, 3) if turned else images).stride()
    assert len(parcel) >= images.numel() * 4


def test_other_images_labels_types_or_shapes_have_another_name():
    images, labels = torch.arange(8.0).view(2, 1, 2, 2), torch.arange(2)
    base = Public(images, labels)
    others = [
        Public(images + 1, labels), Public(images, labels + 1), Public(images.view(2, 1, 1, 4), labels),
        Public(images.view(torch.int32), labels), Public(images, labels.int()),
    ]  # fmt: skip
    assert len({once.name_of(one) for one in (base, *others)}) == 6
    assert once.name_of(Public(images.clone(), labels.clone())) == once.name_of(base)


def test_a_task_without_images_leaves_those_that_are_kept():
    public, line, kept, names = Public(torch.rand(1, 1, 2, 2), torch.tensor([0])), Line(), Kept(), set()
    for value in (public, "no images", public):
        once.send_images(line, names, Parcel(value))
        kept.receive(line)
    assert line == [] and set(kept.images) == names == {once.name_of(public)}
