"""What `params.yaml`, `published.yaml` and any content file may not be."""

from __future__ import annotations

from bad_inputs.damages import DANGLING, FOLDER, LOOP, PIPE, ZEROS, Damage, add, swap
from bad_inputs.suite import BENCHMARK, PARAMS, PUBLISHED, A, B, Case, N, P

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
LIST = "list"

SETTINGS: list[tuple[str, str, str]] = [
    *(("version: 1", f"version: {value}", f"version {named}") for value, named in (
        ("true", "True"), ("'1'", "'1'"), ("0", "0"), ("-1", "-1"), ("1.0", "1.0"), ("", "None"), (".inf", "inf"),
    )),
    *(("title: The toy paper", f"title: {value}", f"title {named}") for value, named in (
        ("7", "7"), ("''", "''"), ("<b>bold</b>", "<b>"), ('"one\\ntwo"', "two"), ("'a | b'", "|"),
        ("2020-01-01", "2020"),
        ('"\\x1b[2Jx"', "2Jx"), ("x" * 3000, "3000"),
    )),
    *(("{level: 0.5}", value, f"variants {named}") for value, named in (
        ("3", "3"), ("[level]", "['level']"), ("{level: .nan}", "level nan"), ("{level: -.inf}", "level inf"),
        ("{level: [1, .nan]}", "level nan"), ("text", "'text'"),
        ("{level: {a: .inf}}", "level inf"), ("{two words: 1}", "'two words'"),
    )),
    *(("only: {level: 0.5}", f"only: {{}}\n  {name}: {{}}", f"variants {named}") for name, named in (
        ("'../../evil'", "../../evil"), ("/tmp/evil", "/tmp/evil"), ("'two words'", "two words"), ("''", "''"),
        ("Upper", "Upper"), ("'[red]x'", "[red]x"), ("<b>", "<b>"), ("a/b", "a/b"), ("é", "é"), ("'a\\nb'", "nb"),
        ("'.'", "'.'"), ('"a\\0b"', "x00"), ("a" * 300, "aaa"),
    )),
    *(("toy_gradient: {}", value, named) for value, named in (
        ("toy_gradient: {nope: {}}", "nope only"), ("toy_gradient: 3", "toy_gradient 3"),
        ("toy_gradient: [only]", "toy_gradient"),
        ("'../toy_gradient': {}", "../toy_gradient"), ("/etc/passwd: {}", "/etc/passwd"), ("'[red]': {}", "[red]"),
        ("toy_gradient: {only: {level: .nan}}", "level nan"), ("toy_gradient: {only: 5}", "only 5"),
        ("toy_gradient: {}\n  toy_gradient: {}", "toy_gradient"),
        ("toy_gradient: {}\nsees: {only: [gradients]}", "gradients"),
        ("toy_gradient: {}\nsees: {nope: [gradient]}", "nope only"),
        ("toy_gradient: {}\nsees: {only: gradient}", "'gradient'"),
        ("toy_gradient: {}\nruns: [x]", "runs"), ("toy_gradient: {}\nelsewhere: {'../x': {}}", "../x"),
    )),
    ("variants:\n  only: {level: 0.5}\n", "variants: {}\n", "variants"),
    ("{level: 0.5}", "{level: 0.5, level: 0.6}", "level twice"),
    ("{level: 0.5}", "{level: 0.5, more: {1: 2}}", "'1' word"),
    ("{level: 0.5}", "{level: 0.5}\n  only: {}", "only twice"),
    ("variants:\n  only: {level: 0.5}\n", "variants: []\n", "variants []"),
    ("variants:\n  only: {level: 0.5}\n", "", "variants"),
    ("on:\n  toy_gradient: {}\n", "on: [toy_gradient]\n", "on ['toy_gradient']"),
    ("on:\n  toy_gradient: {}\n", "", "on"),
]  # fmt: skip

NUMBERS: list[tuple[str, str, str]] = [
    *(("value: 0.2", f"value: {value}", f"value {named}") for value, named in (
        ("true", "True"), ("'0.2'", "'0.2'"), (".nan", "nan"), (".inf", "inf"), ("", "None"), ("[0.2]", "[0.2]"),
        ("1e999", "inf"),
    )),
    *(("tolerance: 0.3", f"tolerance: {value}", f"tolerance {named}") for value, named in (
        ("-0.3", "-0.3"), ("true", "True"), ("'0.3'", "'0.3'"), (".inf", "inf"), (".nan", "nan"),
    )),
    *(("metric: mse", f"metric: {value}", f"metric {named}") for value, named in (
        ("nope", "'nope'"), ("5", "5"), ("[mse]", "['mse']"),
    )),
    *(("gates: true", f"gates: {value}", f"gates {named}") for value, named in (
        ("'true'", "'true'"), ("1", "1"), ("yes", "'yes'"),
    )),
    *(("variant: only", f"variant: {value}", named) for value, named in (
        ("nope", "nope only"), ("../only", "../only"), ("3", "variant 3"),
    )),
    *(("run: toy_gradient", f"run: {value}", named) for value, named in (
        ("nope", "nope toy_gradient"), ("../toy_gradient", "../toy_gradient"), ("[red]", "red"), ("''", "run ''"),
    )),
    *(("provenance: verified", f"provenance: {value}", f"provenance {named}") for value, named in (
        ("heard", "'heard'"), ("figure", "figure"),
    )),
    *(("scale: quick", f"scale: {value}", f"scale {named}") for value, named in (
        ("huge", "'huge'"), ("[]", "scale"), ("7", "7"), ("[quick, quick]", "quick"),
    )),
    *(("where: Table 1", f"where: {value}", f"where {named}") for value, named in (
        ("7", "7"), ("<script>x</script>", "<script>"), ("''", "''"),
    )),
    ("gates: true", "gates: true\n    cause: <img src=x>", "cause <img"),
    ("gates: true", "gates: true\n    colour: 1", "colour"),
    ("gates: true", "gates: true\n    gates: false", "gates"), ("gates: true", "gates: true\n    cause: 5", "cause 5"),
    ('relation: "<"', "relation: less", "relation 'less'"), ("    value: 90\n", "", "`right` `value`"),
    ("value: 90", "value: '90'", "value '90'"), ("value: 90", "value: true", "value True"),
    ("margin: 0.0", "margin: -1", "margin -1"),
    ("margin: 0.0", "margin: .inf", "margin inf"), ("margin: 0.0", "margin: true", "margin True"),
    ("{run: toy_gradient, variant: only}", "toy_gradient", "left 'toy_gradient'"),
    ("{run: toy_gradient, variant: only}", "{run: toy_gradient, variant: only, paper: nobody}", "nobody"),
    ("{run: toy_gradient, variant: only}", "{run: toy_gradient, variant: only, paper: ../toy}", "../toy"),
    ("says: The toy is not sharp", "says: <b>x</b>", "says <b>"), ("says: The toy is not sharp", "says: 5", "says 5"),
    ("paper: The toy paper\n", "", "paper"), ("citation: Nobody, 2020", "citation: 2020", "citation 2020"),
    ("numbers:\n", "numbers: {}\nothers:\n", "numbers"),
]  # fmt: skip

RAW: dict[str, tuple[Damage, str]] = {
    "empty": ("", "nothing"), "a comment": ("# nothing\n", "nothing"), "a list": ("[1, 2]\n", "list"),
    "a word": ("word\n", "str"),
    "NUL": (b"\0" * 100, "YAML"), "binary": (bytes(range(256)) * 4, "UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0", "UTF-8"),
    "UTF-16": (BENCHMARK.encode("utf-16"), "UTF-8"), "Latin-1": ("a: é\n".encode("latin-1"), "UTF-8"),
    "two documents": ("a: 1\n---\nb: 2\n", "document"), "a tab": ("a:\n\tb: 1\n", "line 2"),
    "not closed": ("a: {b: 1\n", "line"),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "line 3"), "a bomb": (BOMB, "aliases"),
    "an endless list": ("a: &a [*a]\n", "alias"),
    "deep": ("a: " + "[" * 50_000 + "]" * 50_000, "deep"),
    "deep mappings": ("a: " + "{b: " * 5_000 + "1" + "}" * 5_000, "deep"),
    "huge": ("a: " + "x" * 20_000_000, "bytes"), "a long line": ("x" * 900_000 + "\n", "str"),
    "half": (BENCHMARK[:20], ""),
    "a folder": (FOLDER, "folder"), "a pipe": (PIPE, "regular file"), "a loop": (LOOP, "symbolic links"),
    "zeros": (ZEROS, "regular file"),
    "dangling": (DANGLING, "not exist"),
}  # fmt: skip

CASES = {
    **{
        f"params {new.strip()[:60]} {says}"[:110]: Case(LIST, {P: swap(old, new)}, ("params.yaml", *says.split()))
        for old, new, says in SETTINGS
    },
    **{
        f"published {new.strip()[:60]} {says}"[:110]: Case(
            "check", {N: swap(old, new)}, ("published.yaml", *says.split())
        )
        for old, new, says in NUMBERS
    },
    **{
        f"a benchmark that is {name}": Case(LIST, {B: damage}, ("toy_gradient.yaml", *says.split()))
        for name, (damage, says) in RAW.items()
    },
    **{
        f"params that are {name}": Case(LIST, {P: damage}, ("params.yaml", *says.split()))
        for name, (damage, says) in RAW.items()
    },
    **{
        f"numbers that are {name}": Case("check", {N: damage}, ("published.yaml", *says.split()))
        for name, (damage, says) in RAW.items()
    },
    "a benchmark with bytes at its end": Case(LIST, {B: add(b"\xff\xfe")}, ("toy_gradient.yaml", "UTF-8")),
    "a name with spaces": Case(LIST, {"benchmarks/My Board.yaml": BENCHMARK}, ("My Board",)),
    "a name with markup": Case(LIST, {"benchmarks/[red].yaml": BENCHMARK}, ("[red]",)),
    "a name in capitals": Case(LIST, {"benchmarks/Toy.yaml": BENCHMARK}, ("Toy.yaml",)),
    "a paper with spaces": Case(LIST, {"baselines/A B/params.yaml": PARAMS}, ("A B",)),
    "a paper with markup": Case("report", {"baselines/<b>x/params.yaml": PARAMS}, ("<b>x",)),
    "no attack": Case("check", {A: FOLDER}, ("attack.py", "folder")),
    "an attack that is a pipe": Case("check", {A: PIPE}, ("attack.py", "regular file")),
    "numbers of nobody": Case(
        "check",
        {
            "baselines/other/params.yaml": PARAMS,
            "baselines/other/published.yaml": PUBLISHED,
            "baselines/other/attack.py": "def",
        },
        ("attack.py",),
    ),
    "a board that is not there": Case(
        "reproduce toy",
        {P: swap("toy_gradient: {}", "toy_gradient: {}\n  toy_update: {}")},
        ("toy_update", "toy_gradient"),
    ),
}
