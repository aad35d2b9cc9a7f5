"""GGL's boards: what they must have, and that the commands of its README do what they say."""

from __future__ import annotations

import re

import pytest
from toys import ROOT

from leakboard import config
from leakboard.cli import app
from leakboard.record.results import Results
from leakboard.run import stage
from leakboard.victim.defences import points

FAMILY = "lenet_cifar10_gradient_"


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def boards(start: str) -> list[config.Benchmark]:
    return [config.benchmark(name, "paper") for name in config.board_names() if name.startswith(start)]


def test_every_defence_has_a_board_that_attacks_stand_on():
    alike = [board for board in boards(FAMILY) if config.like(board.name)]
    acting = {name for board in alike for name in board.defence}
    assert acting == set(points.DEFENCES) - {"rounding"}
    assert all(board.trials >= 30 and board.price is not None for board in alike)
    for board in alike:
        summed = "secure_aggregation" in board.defence  # the rules of the others read one image
        wanted = {"dlg"} if summed else {"dlg", "idlg", "ig", "ggl"}
        assert wanted <= set(config.papers_on(board.name)), board.name


@pytest.mark.parametrize(("defence", "setting"), [("gaussian_noise", "deviation"), ("pruning", "share")])
def test_noise_and_pruning_have_five_strengths(defence, setting):
    found = {board.defence[defence][setting] for board in boards(FAMILY) if defence in board.defence}
    assert len(found) >= 5


@pytest.mark.parametrize(("network", "trials"), [("lenet", 30), ("resnet18", 10)])
def test_faces_have_the_four_defences_of_the_paper(network, trials):
    found = boards(f"{network}_lfw_gradient_")
    wanted = [{}, {"gaussian_noise": {"deviation": 0.1}}, {"clipping": {"norm": 4}}, {"pruning": {"share": 0.9}}]
    wanted.append({"soteria": {"share": 0.8}})
    assert sorted(map(str, wanted)) == sorted(str(dict(board.defence)).replace("4.0", "4") for board in found)
    assert all(board.trials == trials for board in found)


def test_malicious_servers_meet_dp_sgd_and_sums():
    for root in ("imprint_cifar10_gradient_k128", "mlp_cifar10_gradient_b100"):
        acting = {name for board in boards(root) if config.like(board.name) == root for name in board.defence}
        assert acting == {"dp_sgd", "secure_aggregation"}


def test_every_claim_is_about_rows_that_stand_on_their_boards():
    """And what gates is of a board with ten trials at least."""
    for claim in config.published("ggl").claims:
        for side in filter(None, (claim.left, claim.right)):
            board = config.benchmark(side.run, "paper")
            assert side.variant in config.params(side.paper or "ggl").variants_on(board), claim.says
            assert not claim.gates or board.trials >= 10


COMMANDS = re.findall(r"^ {4}leakboard ([^#\n]*)", (ROOT / "baselines/ggl/README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", [text.strip() for text in COMMANDS])
def test_a_command_of_the_readme(command, tmp_path):
    """At quick scale it runs; at paper scale there is such a stage."""
    from typer.testing import CliRunner

    words = command.split()
    paper, board, scale = words[1], words[2], words[words.index("--scale") + 1]
    if scale == "paper":
        (found,) = stage.stages(Results.at("paper"), paper, board)
        assert found.variants
        return
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path), "--workers", "0"])
    assert result.exit_code == 0, result.output
    name = "price.json" if paper == "victims" else "trials.csv"
    assert (tmp_path / scale / "papers" / paper / board / name).is_file()
