"""What one may not ask of the console: words, names, numbers, folders."""

from __future__ import annotations

from bad_inputs.damages import DANGLING, FOLDER, LOOP, swap
from bad_inputs.suite import ATTACK, PARAMS, B, Case, P

RUN, REPRODUCE = "run toy toy_gradient --workers 0", "reproduce toy toy_gradient --workers 0 --out {outside}/out"
MANY = swap("trials: 2", "trials: 100000")
NAME = "a-z, 0-9 and _"

CALLS: dict[str, tuple[str, ...]] = {
    # names
    "run toy ../toy_gradient": ("'../toy_gradient'", NAME), "run toy /etc/passwd": ("'/etc/passwd'", NAME),
    "run toy ''": ("''", NAME),
    "run toy TOY_GRADIENT": ("'TOY_GRADIENT'", NAME), "run toy '[red]x[/red]'": ("'[red]x[/red]'", NAME),
    "run toy nothing": ("nothing", "toy_gradient"),
    "run toy $'a\\nb'": ("nb", NAME), "run toy toy_gradient.yaml": ("'toy_gradient.yaml'", NAME),
    "run toy 'toy_gradient '": ("'toy_gradient '", NAME),
    f"run toy {'a' * 300}": ("aaaa", NAME), f"run toy {'a/' * 3000}": ("a/a/", NAME), "run toy é": ("'é'", NAME),
    "run toy dvc": ("dvc", "toy_gradient"),
    "reproduce ../toy": ("'../toy'", NAME), "reproduce /etc": ("'/etc'", NAME), "reproduce ''": ("''", NAME),
    "reproduce toy ''": ("''", NAME),
    "reproduce toy ../toy_gradient": ("'../toy_gradient'", NAME), "reproduce '[bold]toy'": ("'[bold]toy'", NAME),
    "reproduce nobody": ("nobody", "toy"),
    "reproduce toy nothing": ("nothing", "toy_gradient"), "reproduce victims ../x": ("'../x'", NAME),
    "reproduce victims nothing": ("nothing", "toy_gradient"),
    "reproduce victims toy_gradient": ("toy_gradient", "no victim to train"), "reproduce .": ("'.'", NAME),
    "reproduce ..": ("'..'", NAME),
    "reproduce toy/../toy": ("'toy/../toy'", NAME), "reproduce baselines/toy": ("'baselines/toy'", NAME),
    "reproduce toy.": ("'toy.'", NAME),
    "rescore ../toy": ("'../toy'", NAME), "rescore ''": ("''", NAME), "rescore toy ../x": ("'../x'", NAME),
    "rescore nobody": ("nobody", "toy"),
    "data verify ../x": ("'../x'", "digits"), "data verify ''": ("''", "digits"),
    "data fetch /etc/passwd": ("'/etc/passwd'", "digits"),
    "data fetch nothing": ("nothing", "digits"), "data verify '[red]'": ("[red]", "digits"),
    "data fetch imagenet": ("imagenet", "cannot be fetched"),
    "data fetch weights": ("weights", "digits"),
    # words
    "nothing": ("nothing",), "run": ("ATTACK",), "run toy": ("BENCHMARK",), "run toy toy_gradient more": ("more",),
    "run --nothing": ("--nothing",),
    "list more": ("more",), "check --fast": ("--fast",), "data": ("data",), "data nothing": ("nothing",),
    "": ("Usage",), "merge": ("FOLDERS",),
    **{f"{RUN} --trials {value}": (value.strip("'"), "--trials", "FIRST:LAST") for value in (
        "0", "-1", "many", "1.5", "3:", "5:2", "-2:2", "0:0", "''", "1:2:3", "1_0", "0x10", "1e3", "'1 '", "+2", "٣",
        ":", "inf", "2:2", "true",
    )},
    f"{RUN} --trials {'9' * 5000}": ("--trials", "999", "FIRST:LAST"),
    f"{RUN} --trials 0:100000000000": ("--trials", "100000000000"),
    f"{RUN} --trials 444:446": ("444", "2 trials"),
    f"{RUN} --trials 900000:900001": ("900000", "2 trials"),
    f"{REPRODUCE} --trials 2:4": ("2 trials", "toy_gradient"), f"{REPRODUCE} --trials 0": ("--trials", "FIRST:LAST"),
    f"{REPRODUCE} --trials x": ("--trials", "'x'"),
    **{f"run toy toy_gradient --workers {value}": (value.strip("'"), "--workers", "ray") for value in (
        "-1", "x", "1.5", "''", "100000", "ray2", "٣", "1e3", "RAY", "2_0", "true",
    )},
    f"run toy toy_gradient --workers {'9' * 5000}": ("--workers", "999", "ray"),
    **{f"{RUN} --device {value}": (value.strip("'"), "auto", "cpu") for value in (
        "abacus", "''", "meta", "cpu:7", "cuda", "cuda:0", "cuda:x", "mps", "xla", "hpu", "CPU", "cpu:-1", "'[red]'",
        "vulkan", "ipu", "cuda:99999999999",
    )},
    **{f"{words} --scale {value}": (value.strip("'"), "quick", "paper")
       for value in ("huge", "''", "QUICK", "'[red]x'", "1") for words in (RUN, REPRODUCE, "report", "rescore")},
    # folders
    "report --out {outside}/nowhere": ("nowhere", "results"), "report --out ''": ("--out", "''"),
    "report --out README.md": ("README.md",),
    "report --out /dev/null": ("/dev/null",), "rescore --out {outside}/nowhere": ("nowhere", "results"),
    "rescore --out ''": ("--out", "''"),
    "reproduce toy --workers 0 --out ''": ("--out", "''"),
    "reproduce toy --workers 0 --out /dev/null": ("/dev/null",),
    "reproduce toy --workers 0 --out /proc/nothing": ("/proc/nothing",), "merge {outside}/nowhere": ("nowhere",),
    "merge results {outside}/nowhere": ("nowhere",),
    "merge ''": ("''",), "merge datasets": ("datasets", "--out"),
    "merge benchmarks/toy_gradient.yaml": ("toy_gradient.yaml",), "merge results --out ''": ("--out", "''"),
    "merge results --out /dev/null": ("/dev/null",), "report --scale paper --out results": ("results", "paper"),
    f"report --out {'a' * 300}": ("aaa",), f"merge {'a/' * 3000}": ("a/a/",),
}  # fmt: skip

# The file of an attack: its name; None where the name is fine and the file is what is wrong.
ATTACK_NAMES = (
    "my attack.py",
    "My.py",
    "a-b.py",
    "[red]x.py",
    "é.py",
    "a.b.py",
    ".py",
    "controls.py",
    "a\nb.py",
    "x" * 200 + "!.py",
    "$x$.py",
    "<b>.py",
    "toy.txt",
    "a|b.py",
)

DEFENCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unknown": ("{nope: {}}", ("toy_gradient", "nope", "gaussian_noise")),
    "misspelt": ("{gaussian_noise: {devation: 0.1}}", ("toy_gradient", "devation", "deviation")),
    "negative": ("{gaussian_noise: {deviation: -0.1}}", ("toy_gradient", "deviation", "-0.1")),
    "endless": ("{gaussian_noise: {deviation: .inf}}", ("toy_gradient", "deviation", "inf")),
    "no number": ("{gaussian_noise: {deviation: .nan}}", ("toy_gradient", "deviation", "nan")),
    "without its setting": ("{gaussian_noise: {}}", ("toy_gradient", "deviation")),
}
SHARE = "{outside}/a/quick/papers/toy/toy_gradient/trials.csv"
MATRIX = "stages: {a: {matrix: {x: '${nope}'}}}\n"

CASES = {
    **{f"leakboard {words[:80]}": Case(words.replace("$'a\\nb'", "'a\nb'"), {}, says) for words, says in CALLS.items()},
    **{
        f"an attack in {name!r:.60}": Case(
            f"run '{{outside}}/{name}' toy_gradient --workers 0",
            {"{outside}/" + name: ATTACK},
            (name.split("\n")[0][:40].rsplit("/")[-1],),
        )
        for name in ATTACK_NAMES
    },
    "more trials than images, said by the benchmark": Case(
        "reproduce toy --workers 0 --out {outside}/out", {B: MANY}, ("toy_gradient", "100,000", "445")
    ),
    "more trials than images, tried": Case(RUN, {B: MANY}, ("toy_gradient", "100,000", "445")),
    "a batch of more images than there are": Case(
        RUN, {B: swap("batch: 1\n", "batch: 1000\n")}, ("toy_gradient", "2,000", "445")
    ),
    "a start beyond the end": Case(
        RUN, {B: swap("{name: digits}", "{name: digits, start: 445}")}, ("toy_gradient", "445")
    ),
    "a paper on no board": Case(
        "reproduce toy", {P: swap("on:\n  toy_gradient: {}\n", "on: {}\n")}, ("toy", "params.yaml", "on")
    ),
    "no data set of this name": Case(
        RUN, {B: swap("{name: digits}", "{name: digitz}")}, ("digitz", "digits", "sources.toml")
    ),
    "no split of this name": Case(
        RUN, {B: swap("{name: digits}", "{name: digits, split: tests}")}, ("tests", "digits", "train")
    ),
    "no such size": Case(RUN, {B: swap("{name: digits}", "{name: digits, size: 9}")}, ("digits", "9", "8")),
    "data that is a file": Case(
        "data verify mnist", {}, ("LEAKBOARD_DATA", "/dev/null", "folder"), {"LEAKBOARD_DATA": "/dev/null"}
    ),
    "data of nobody": Case(
        "data list", {}, ("LEAKBOARD_DATA", "~nobody_of_this_name"), {"LEAKBOARD_DATA": "~nobody_of_this_name/x"}
    ),
    "data in a loop": Case("data list", {"loop": LOOP}, ("LEAKBOARD_DATA", "loop"), {"LEAKBOARD_DATA": "loop"}),
    "data that is not there": Case("data verify mnist", {}, ("mnist",), {"LEAKBOARD_DATA": "/nothing/there"}),
    "a share that is none": Case(
        "run toy toy_gradient --workers ray",
        {},
        ("LEAKBOARD_GPUS_PER_WORKER", "much"),
        {"LEAKBOARD_GPUS_PER_WORKER": "much"},
    ),
    "no cluster there": Case(
        "run toy toy_gradient --workers ray", {}, ("RAY_ADDRESS", "ray://x"), {"RAY_ADDRESS": "ray://x:1"}
    ),
    "build that is a file": Case(RUN, {"build/runs": FOLDER, "build/runs/toy": "text"}, ("build/runs/toy",)),
    "build that leads nowhere": Case(RUN, {"build/runs": DANGLING}, ("build/runs",)),
    "a README that is not there": Case("report --scale paper", {}, ("README.md", "does not exist")),
    "a README without marks": Case("report --scale paper", {"README.md": "text"}, ("README.md", "replication:begin")),
    "a README that is no text": Case("report --scale paper", {"README.md": b"\xff\xfe"}, ("README.md", "UTF-8")),
    "a paper called victims": Case("list", {"baselines/victims/params.yaml": PARAMS}, ("baselines/victims", "paper")),
    "stages that are a list": Case("check", {"benchmarks/dvc.yaml": "stages: [1]\n"}, ("benchmarks/dvc.yaml", "list")),
    "a matrix over nothing": Case("check", {"dvc.yaml": MATRIX}, ("dvc.yaml", "matrix")),
    "trials of development that are none": Case(f"{RUN} --victims development --trials 5000:5001", {}, ("5000", "100")),
    "victims of nobody": Case(f"{RUN} --victims nobody", {}, ("'nobody'", "official", "development")),
    "a share without lines": Case("merge {outside}/a", {"{outside}/a/quick/papers/toy/x": ""}, ("results", "/a")),
    "a damaged share": Case("merge {outside}/a --out {outside}/b", {SHARE: "x\n"}, ("trials.csv:1", "/a")),
    **{
        f"a defence that is {name}": Case(RUN, {B: swap("batch: 1\n", f"batch: 1\n  defence: {value}\n")}, says)
        for name, (value, says) in DEFENCES.items()
    },
}
