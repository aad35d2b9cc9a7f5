"""What content files may not say: each is one clear line that names the file."""

from __future__ import annotations

import pytest
import yaml

from leakboard import config, models
from leakboard.config import sections

NORMS = {"knows": ["batch_size", "public_data", "batch_norm"]}


def test_the_networks_that_a_benchmark_may_name_are_those_that_there_are():
    assert set(sections.NETWORKS) == set(models.NETWORKS)


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        (
            "about",
            {"metrics": ["label_acuracy"]},
            r"metrics: unknown \['label_acuracy'\]; there are: gradient_norm",
        ),
        ("about", {"colour": 1}, r"\['colour'\] in section about; `about` holds question and metrics"),
        ("common", {"metrics": ["psnr"]}, r"\['metrics'\] in section common"),
        (
            "common",
            {"network": {"name": "lenet"}},
            r"network: .*unknown network 'lenet'; there are: mlp, fc2",
        ),
        ("common", {"network": {}}, "either `name` or `file`"),
        (
            "common",
            {"threat": {"sees": "gradients"}},
            "no kind of observation 'gradients'; there are: gradient",
        ),
        ("common", {"threat": {"knows": ["labels"]}}, "lacks `batch_size`"),
        ("common", {"threat": {"knows": ["batch_size"]}, "public": {"count": 3}}, "`public` images, of which"),
        ("common", {"threat": {"knows": ["batch_size", "clients"]}}, r"\['clients'\] without a `federation`"),
        (
            "common",
            {"threat": {"knows": ["batch_size", "batch_norm"]}, "network": {"name": "mlp", "mode": "train"}},
            "running",
        ),
        ("common", {"batch": 0}, "batch: .*greater than or equal to 1"),
        ("quick", {"budget": 0}, "budget: .*greater than or equal to 1"),
        ("common", {"network": {"name": "mlp", "dropout": 1.5}}, "dropout: .*less than 1"),
        ("common", {"data": {"name": "digits", "file": "x.npz"}}, "name and file exclude one another"),
        ("common", {"data": {"name": "digits", "classes": "4-0"}}, "classes '4-0'; expected a list, or FIRST-LAST"),
    ],
)
def test_what_a_benchmark_may_not_say_is_one_clear_line(section, change, says, tmp_path):
    content: dict = {
        "about": {"question": "?"},
        "common": {"version": 1, "seed": 0, "data": {"name": "digits"}, "network": {"name": "mlp"}},
        "quick": {"trials": 1, "budget": 1},
    }
    content[section] = {**content[section], **change}
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(config.ConfigError, match=rf"b\.yaml:(.|\n)*{says}"):
        config.benchmark("b", "quick", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"on": {"b": {"palin": {}}}}, "no variant palin; there are: plain"),
        ({"sees": {"plain": ["gradients"]}}, "no kind of observation 'gradients'"),
        ({"sees": {"palin": ["gradient"]}}, "no variant palin"),
        ({"runs": ["b"]}, "runs: found a key that is none"),
        ({"quick_only": {"b": {}}}, "b: under `on` and under `quick_only`"),
        ({"quick_only": {"c": {"palin": {}}}}, "no variant palin"),
    ],
)
def test_what_params_may_not_say_is_one_clear_line(change, says, tmp_path, monkeypatch):
    content = {"version": 1, "title": "t", "variants": {"plain": {}}, "on": {"b": {}}, **change}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "baselines" / "toy").mkdir(parents=True)
    (tmp_path / "baselines" / "toy" / "params.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError, match=rf"toy/params\.yaml:(.|\n)*{says}"):
        config.params("toy")
