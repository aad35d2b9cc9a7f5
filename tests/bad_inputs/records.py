"""What a damaged record is: trials, curves, aggregates, speed, verdicts, pictures, lock files, sources of data."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from bad_inputs.damages import (
    DANGLING,
    FOLDER,
    GONE,
    LOOP,
    PIPE,
    ZEROS,
    Damage,
    add,
    again,
    as_table,
    cell,
    cut,
    swap,
    without,
)
from bad_inputs.suite import C, Case, D, G, L, M, S, T, V


def header_twice(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *lines]))


def column_twice(path: Path) -> None:
    rows = list(csv.reader(io.StringIO(path.read_text())))
    path.write_text(as_table([[*row, row[0]] for row in rows]))


def one_cell_less(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].rsplit(",", 1)[0]]) + "\n")


# Of every table of records: what becomes of it, and what is said (its name always).
TABLE: dict[str, tuple[Damage, str]] = {
    "header twice": (header_twice, ":2"), "column twice": (column_twice, ":1 twice"),
    "a cell less": (one_cell_less, ":3 expected"),
    "a column more": (swap("variant,", "colour,variant,"), ":"), "NUL bytes": (add(b"\0\0\0\n"), "expected"),
    "binary": (bytes(range(256)), "UTF-8"),
    "UTF-16": ("a,b\n".encode("utf-16"), "UTF-8"), "a huge field": (add('"' + "x" * 300_000 + '"\n'), "131072"),
    "an open quote": (add('"open\n'), ":"), "empty": ("", "nothing"), "an empty line": (add("\n"), "expected"),
    "cut off": (cut(5), ":3"),
    "a folder": (FOLDER, "folder"), "a pipe": (PIPE, "regular file"), "a loop": (LOOP, "symbolic links"),
    "zeros": (ZEROS, "regular file"),
    "dangling": (DANGLING, "not exist"), "no line feed": (cut(1), ":3 cut"),
    "words": ("these are no records\n", "expected"),
}  # fmt: skip

TRIALS: list[tuple[str, str]] = [
    ("seconds", "-1"), ("seconds", "inf"), ("seconds", "nan"), ("seconds", "fast"), ("seconds", "1_0"),
    ("seconds", " 1"), ("seconds", "0x10"),
    ("prepare_seconds", "-0.5"), ("peak_bytes", "-1"), ("evaluations", "-20"), ("evaluations", "inf"),
    ("trial", "-1"), ("trial", "0.5"), ("trial", ""),
    ("trial", "1e3"), ("trial", "9" * 5000), ("seed", "x"), ("seed", ""), ("engine", "-2"), ("engine", "one"),
    ("status", "fine"), ("status", ""),
    ("status", "OK"), ("dirty", "yes"), ("mse", "inf"), ("mse", "-1"), ("mse", "nan"), ("psnr", "inf"),
    ("psnr", "-inf"), ("ssim", "inf"), ("exact", "inf"),
    ("exact", "1.5"), ("success_1e-2", "-0.5"), ("seconds_to_20", "-1"), ("seconds_to_20", "-inf"),
    ("gradient_norm", "-1"), 
    ("threads", "-1"), ("threads", "0"), ("threads", "inf"), ("mse_each", "a b"), ("mse_each", "0.1 inf"),
    ("mse_each", "nan"), ("mse_each", "-0.1"),
    ("psnr_each", "x"), ("psnr_each", "inf"), ("variant", "../evil"), ("variant", "<b>only</b>"), ("variant", ""),
    ("variant", "[red]only"),
    ("device_kind", "$\\frac$"), ("device_kind", ""), ("device_kind", "<svg>"), ("execution", "abacus"),
    ("execution", "stacked x0"),
    ("execution", ""), ("scale", "huge"), ("benchmark", "../x"), ("attack", "[red]"), ("benchmark_version", "true"),
    ("attack_version", "-2"),
    ("benchmark_hash", "no hash"), ("settings_hash", ""), ("attack_sha", "<b>"),
]  # fmt: skip
CURVES = [
    ("variant", "../x"), ("variant", "<b>"), ("variant", ""), ("trial", "-1"), ("trial", "x"), ("trial", ""),
    ("device_kind", "$\\frac$"), ("step", "0"),
    ("step", "-1"), ("step", "1.5"), ("evaluations", "-1"), ("evaluations", "inf"), ("evaluations", "nan"),
    ("seconds", "-1"), ("seconds", "inf"),
    ("mse", "-1"), ("mse", "inf"), ("mse", "x"), ("psnr", "inf"), ("psnr", "x"), ("loss", "x"),
]  # fmt: skip
SPEEDS = [
    ("execution", "abacus"), ("execution", ""), ("stacked", "0"), ("stacked", "-1"), ("stacked", "1.5"),
    ("stacked", "4"), ("stacked", "9999999999"),
    ("seconds_per_step", "-1"), ("seconds_per_step", "0"), ("seconds_per_step", "nan"), ("seconds_per_step", "inf"),
    ("seconds_per_step", "x"),
    ("ratio_to_loop", "-1"), ("ratio_to_loop", "0"), ("ratio_to_floor", "nan"), ("warm_up_seconds", "-1"),
    ("warm_up_seconds", ""), ("peak_bytes", "-1"),
    ("peak_bytes", "1.5"), ("chosen", "yes"), ("chosen", "True"), ("threads", "0"), ("benchmark", "../x"),
    ("attack", "<b>"), ("device", "$x$"),
    ("cpu_seconds_per_step", "-1"), ("steps_per_second", "1"), ("steps_per_second", "x"),
]  # fmt: skip

VERDICTS: dict[str, tuple[Damage, str]] = {
    "header twice": (header_twice, ""), "binary": (bytes(range(256)), ""), "empty": ("", ""),
    "a huge field": (add('"' + "x" * 300_000 + '"\n'), ""),
    "another verdict": (cell("verdict", "brilliant"), "brilliant"), "a folder": (FOLDER, ""), "cut off": (cut(5), ""),
    "NUL bytes": (add(b"\0\n"), ""),
    "no column": (without("ours"), ""), "a pipe": (PIPE, ""), "text for ours": (cell("ours", "much"), "much"),
    "zeros": (ZEROS, ""),
    "n is no number": (cell("n", "many"), "many"), "gates is no flag": (cell("gates", "perhaps"), "perhaps"),
    "UTF-16": ("a,b\n".encode("utf-16"), ""),
    "markup": (cell("where", "[red]<b>"), "[red]<b>"),
}  # fmt: skip
JSONS: dict[str, tuple[Damage, str]] = {
    "empty": ("", ""), "no JSON": ("{", ""), "a list": ("[1]", ""), "binary": (bytes(range(256)), ""),
    "deep": ("[" * 100_000, ""), "a folder": (FOLDER, ""),
    "a pipe": (PIPE, ""), "a key more": (swap("{", '{"evil": 1, '), "evil"), "NaN": (swap("0.1", "NaN"), ""),
    "gone": (GONE, ""), "zeros": (ZEROS, ""),
    "huge numbers": (swap("{", '{"x": ' + "9" * 5000 + ", "), ""),
    "markup": (swap("{", '{"[red]x[/red]": 1, '), "[red]x[/red]"),
}  # fmt: skip
LOCKS: dict[str, tuple[Damage, str]] = {
    "a list": ("[1]\n", "mapping"), "a word": ("word\n", "mapping"), "empty": ("", "mapping"),
    "no YAML": ("a: {\n", "YAML"), "binary": (bytes(range(256)), "UTF-8"),
    "stages: a list": ("stages: [1]\n", "stages"), "stages: a word": ("stages: word\n", "stages"),
    "a stage: a word": ("stages: {a: word}\n", "mapping"),
    "deps: a mapping": ("stages: {a: {deps: {b: 1}}}\n", "deps"),
    "deps: words": ("stages: {a: {deps: [word]}}\n", "deps"),
    "deps: no path": ("stages: {a: {deps: [{md5: abc}]}}\n", "path"),
    "deps: null": ("stages: {a: {deps: [null]}}\n", "deps"),
    "params: a list": ("stages: {a: {params: [1]}}\n", "params"),
    "params: a word": ("stages: {a: {params: {b.yaml: word}}}\n", "params"),
    "outs: a number": ("stages: {a: {outs: 7}}\n", "outs"), "another md5": (swap("md5: ", "md5: 0"), "attack.py"),
    "out of the checkout": ("stages: {a: {deps: [{path: ../../outside, md5: abc}]}}\n", "../../outside"),
    "an absolute path": ("stages: {a: {deps: [{path: /etc/passwd, md5: abc}]}}\n", "/etc/passwd"),
    "a folder": (FOLDER, "folder"), "a pipe": (PIPE, "regular"),
    "a bomb": ("a: &a [1]\nb: *a\n", "alias"), "deep": ("a: " + "[" * 50_000, "deep"),
    "twice": ("stages: {}\nstages: {}\n", "twice"), "zeros": (ZEROS, "regular"),
    "params of no file": ("stages: {a: {params: {broken.yaml: {y: 1}}}}\n", "broken.yaml"), "a loop": (LOOP, "links"),
    "a number for a path": ("stages: {a: {deps: [{path: 7, md5: abc}]}}\n", "path"),
    "another engine": (swap("ENGINE: ", "ENGINE: 9"), "ENGINE"),
    "NUL in a path": ('stages: {a: {deps: [{path: "a\\0b", md5: abc}]}}\n', "path"),
}  # fmt: skip
SOURCES: dict[str, tuple[Damage, str]] = {
    "empty": ("", "nothing"), "no TOML": ("[digits\n", "line 1"), "binary": (bytes(range(256)), "UTF-8"),
    "a key twice": (swap("classes = 10", "classes = 10\nclasses = 10"), "line"),
    "classes: text": (swap("classes = 10", 'classes = "10"'), "digits classes '10'"),
    "classes: 0": (swap("classes = 10", "classes = 0"), "digits classes 0"),
    "classes: true": (swap("classes = 10", "classes = true"), "digits classes True"),
    "no classes": (swap("classes = 10\n", ""), "digits classes"),
    "no origin": (swap("origin = ", "source = "), "digits origin"),
    "shape": (swap("shape = [1, 8, 8]", "shape = [8]"), "digits shape"),
    "shape: text": (swap("[1, 8, 8]", '"1x8x8"'), "digits shape"),
    "length: negative": (swap("train = 1352", "train = -1"), "digits length -1"),
    "length: inf": (swap("train = 1352", "train = inf"), "digits length inf"),
    "a name": (swap("[digits]", '["../digits"]'), "../digits"),
    "a sha256": (swap('sha256 = "09f66e', 'sha256 = "zz'), "digits sha256"),
    "no checksum": (swap("sha256 = ", "sha = "), "digits"),
    "a file elsewhere": (swap("datasets/data/digits.csv.gz", "../../../etc/passwd"), "../../../etc/passwd"),
    "an absolute file": (swap("datasets/data/digits.csv.gz", "/etc/passwd"), "/etc/passwd"),
    "variants: a list": (swap("[digits.variants.bundled]", "[[digits.variants]]"), "digits variants"),
    "no variants": ("[digits]\ntitle='a'\n", "digits"),
    "a folder": (FOLDER, "folder"), "a pipe": (PIPE, "regular"), "an entry: a number": ("digits = 3\n", "digits 3"),
    "a loop": (LOOP, "links"), "zeros": (ZEROS, "regular"),
    "a package of dots": (swap('package = "sklearn"', 'package = ".."'), "'..'"),
    "weights: a number": ("weights = 3\n", "weights 3"), "deep": ("a = " + "[" * 100_000, "deep"),
}  # fmt: skip


def _table(what: str, call: str, file: str, rows: list[tuple[str, str]]) -> dict[str, Case]:
    """One cell of line 2 is another; the message names file, line, column and the beginning of the cell."""
    named = f"{file.rsplit('/', 1)[1]}:2"
    return {
        f"{what} {column} {value[:40]!r}": Case(
            call, {file: cell(column, value)}, (named, column, value.split("\n")[0][:20].strip("$\\"))
        )
        for column, value in rows
    }


def _files(what: str, call: str, file: str, rows: dict[str, tuple[Damage, str]]) -> dict[str, Case]:
    last = ":7" if file == C else ":3"
    named = {name: says.replace(":3", last).split() for name, (_, says) in rows.items()}
    return {
        f"{what} {name}": Case(call, {file: damage}, (file.rsplit("/", 1)[1], *named[name]))
        for name, (damage, _) in rows.items()
    }


CASES = {
    **_table("trials", "report", T, TRIALS),
    **_table("curve", "report", C, CURVES),
    **_table("speed", "report", S, SPEEDS),
    **_files("trials", "check", T, TABLE),
    **_files("curve", "report", C, TABLE),
    **_files("speed", "report", S, {k: v for k, v in TABLE.items() if k != "a column more"}),
    **_files("trials of a stage", "reproduce toy --workers 0", T, TABLE),
    **_files("verdicts", "check", V, VERDICTS),
    **_files("metrics", "check", M, JSONS),
    **_files("lock", "check", L, LOCKS),
    **_files("sources", "data list", D, SOURCES),
    "trials a line twice": Case("check", {T: again(2)}, ("trials.csv", "twice")),
    "trials a line twice, reported": Case("report", {T: again(2)}, ("trials.csv:4", "2")),
    "speed a line twice": Case("report", {S: again(2)}, ("speed.csv:4", "2")),
    "speed of two chosen": Case("report", {S: cell("chosen", "true", 3)}, ("speed.csv:3", "chosen")),
    "speed without a column": Case("report", {S: without("stacked")}, ("speed.csv:1", "stacked")),
    "curve without a column": Case("report", {C: without("psnr")}, ("curve.csv:1", "psnr")),
    "curve a line twice": Case("report", {C: again(2)}, ("curve.csv:8", "2")),
    "trials without a column": Case("report", {T: without("victim_sha")}, ("trials.csv:1", "victim_sha")),
    "speed of a run": Case(
        "run toy toy_gradient --workers 0", {S: cell("stacked", "x")}, ("speed.csv:2", "stacked", "'x'")
    ),
    "trials of a run": Case(
        "run toy toy_gradient --workers 0", {T: cell("trial", "x")}, ("trials.csv:2", "trial", "'x'")
    ),
    "a package that is not installed": Case(
        "data list",
        {D: swap('package = "sklearn"', 'package = "no_such_package"')},
        ("no_such_package", "not installed"),
    ),
    "a picture that is none": Case("report", {G: "no picture"}, ("grid.png", "PNG")),
    "a picture that is a folder": Case("report", {G: FOLDER}, ("grid.png", "folder")),
    "a picture that is a pipe": Case("report", {G: PIPE}, ("grid.png", "regular")),
}
