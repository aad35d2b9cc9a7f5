"""What a benchmark may not say: (what stands in its file, what stands there instead, what the message names)."""

from __future__ import annotations

from bad_inputs.damages import swap
from bad_inputs.suite import B, Case

WEIGHTS = "network: {name: lenet_sigmoid, weights: trained}\n  training: {epochs: 1, learning_rate: 0.1}"
CLIENTS = "federation: {learning_rate: 0.1}\n  batch: 1"


def _trained(old: str, new: str) -> str:
    assert old in WEIGHTS
    return WEIGHTS.replace(old, new)


def _clients(new: str) -> str:
    return CLIENTS.replace("learning_rate: 0.1", new)


ROWS: list[tuple[str, str, str]] = [
    # numbers that are none, or not of their kind
    *(("version: 1", f"version: {value}", f"version {named}") for value, named in (
        ("true", "True"), ("'1'", "'1'"), ("1.5", "1.5"), ("-1", "-1"), ("0", "0"), (".nan", "nan"), ("[1]", "[1]"),
        ("10000000000", "10000000000"),
    )),
    *(("seed: 7", f"seed: {value}", f"seed {named}") for value, named in (
        ("true", "True"), ("'7'", "'7'"), ("-1", "-1"), ("7.0", "7.0"), ("1e3", "1000.0"), ("2020-01-01", "2020"),
        ("9" * 30, "9" * 10),
    )),
    *(("trials: 2", f"trials: {value}", f"trials {named}") for value, named in (
        ("0", "0"), ("-3", "-3"), ("true", "True"), ("'2'", "'2'"), ("2.0", "2.0"), ("2.5", "2.5"), (".inf", "inf"),
        ("", "trials"), ("[2]", "[2]"), ("{n: 2}", "{'n': 2}"), ("1000000000", "1000000000"), ("two", "'two'"),
        ("1_000", "'1_000'"), ("0x10", "'0x10'"),
    )),
    *(("budget: 20", f"budget: {value}", f"budget {named}") for value, named in (
        ("0", "0"), ("-1", "-1"), ("true", "True"), ("'20'", "'20'"), (".nan", "nan"), ("1e3", "1000.0"),
        ("1000000000000000000", "1000000000000000000"),
    )),
    *(("batch: 1\n", f"batch: {value}\n", f"batch {named}") for value, named in (
        ("0", "0"), ("-1", "-1"), ("true", "True"), ("1.0", "1.0"), ("'1'", "'1'"), ("1000000000", "1000000000"),
    )),
    *(("batch: 1\n", f"timeout_seconds: {value}\n", f"timeout_seconds {named}") for value, named in (
        ("0", "0"), ("-1", "-1"), (".inf", "inf"), (".nan", "nan"), ("'60'", "'60'"), ("true", "True"),
        ("1e300", "1e+300"),
    )),
    *(("batch: 1\n", f"equal_labels: {value}\n", f"equal_labels {named}") for value, named in (
        ("0", "0"), ("true", "True"), ("'1'", "'1'"),
    )),
    # images
    *(("{name: digits}", f"{{name: digits, {more}}}", f"data {named}") for more, named in (
        ("size: 0", "size 0"), ("size: -8", "size -8"), ("size: true", "size True"), ("size: '8'", "size '8'"),
        ("size: 100000000", "size 100000000"), ("start: -1", "start -1"), ("start: true", "start True"),
        ("start: 1" + "0" * 30, "start"), ("count: 0", "count 0"), ("count: true", "count True"),
        ("count: '3'", "count '3'"), ("classes: []", "classes"), ("classes: [true]", "classes True"),
        ("classes: [-1]", "classes -1"), ("classes: ['1']", "classes '1'"), ("classes: 5-2", "classes '5-2'"),
        ("classes: 0-99999999999", "classes '0-99999999999'"), ("classes: a-b", "classes 'a-b'"),
        ("classes: [1, 1]", "classes"), ("classes: {}", "classes {}"), ("split: ''", "split ''"),
        ("split: 3", "split 3"),
        ("file: x.npz", "name file"), ("fold: x", "fold"),
        ("file: \"a\\0b\"", "file"),
    )),
    *(("data: {name: digits}", f"data: {value}", f"data {named}") for value, named in (
        ("digits", "'digits'"), ("[digits]", "['digits']"), ("", "None"), ("{}", "`name`"), ("7", "7"),
        ("{name: ../digits}", "name '../digits'"), ("{name: /etc/passwd}", "name '/etc/passwd'"),
        ("{name: ''}", "name ''"), ("{name: DIGITS}", "name 'DIGITS'"), ("{name: 5}", "name 5"),
        ("{name: '[red]x'}", "name '[red]x'"), ("{file: \"a\\0b\"}", "file"), ("{file: ''}", "file ''"),
        ("{folder: ''}", "folder ''"),
    )),
    *(("public: {count: 8}", f"public: {value}", f"public {named}") for value, named in (
        ("8", "8"), ("[8]", "[8]"), ("false", "False"), ("0", "0"), ("{count: 0}", "count 0"),
        ("{count: '8'}", "count '8'"),
        ("{count: true}", "count True"), ("{count: 8, name: ../x}", "name '../x'"),
    )),
    # networks and their training
    *(("{name: lenet_sigmoid}", value, f"network {named}") for value, named in (
        ("lenet", "'lenet'"), ("{name: nope}", "'nope'"), ("{}", "`name` `file`"),
        ("{name: mlp, width: 0}", "width 0"),
        ("{name: mlp, width: true}", "width True"), ("{name: mlp, width: 1000000000}", "width 1000000000"),
        ("{name: mlp, bias: 'yes'}", "bias 'yes'"), ("{name: mlp, bias: 1}", "bias 1"),
        ("{name: mlp, bias: yes}", "'yes'"),
        ("{name: mlp, dropout: .nan}", "dropout nan"), ("{name: mlp, dropout: 1.5}", "dropout 1.5"),
        ("{name: mlp, dropout: true}", "dropout True"), ("{name: mlp, mode: training}", "mode 'training'"),
        ("{name: mlp, weights: frozen}", "weights 'frozen'"), ("{name: mlp, features: ../x}", "features '../x'"),
        ("{name: mlp, weights: trained}", "`training`"), ("{name: mlp, file: x.py}", "`name` `file`"),
    )),
    *(("network: {name: lenet_sigmoid}", _trained(old, new), f"training {named}") for old, new, named in (
        ("epochs: 1", "epochs: '2'", "epochs '2'"), ("epochs: 1", "epochs: true", "epochs True"),
        ("epochs: 1", "epochs: -1", "epochs -1"), ("epochs: 1", "epochs: 1000000000", "epochs 1000000000"),
        ("rate: 0.1", "rate: 0", "learning_rate 0"), ("rate: 0.1", "rate: .nan", "learning_rate nan"),
        ("rate: 0.1", "rate: .inf", "learning_rate inf"), ("rate: 0.1", "rate: '0.1'", "learning_rate '0.1'"),
        ("rate: 0.1", "rate: true", "learning_rate True"), ("rate: 0.1", "rate: 0.1, momentum: 1", "momentum 1"),
        ("rate: 0.1", "rate: 0.1, augment: 1", "augment 1"), ("rate: 0.1", "rate: 0.1, images: 7", "images 7"),
    )),
    *(("batch: 1\n", f"normalise: {value}\n", f"normalise {named}") for value, named in (
        ("imagnet", "'imagnet'"), ("{mean: [0.5], std: [0]}", "`std`"), ("{mean: [.nan], std: [1]}", "mean nan"),
        ("{mean: [0.5], std: [-1]}", "`std`"), ("{mean: [0.5, 0.5], std: [1]}", "`mean` `std`"),
        ("{mean: [a], std: [1]}", "mean 'a'"), ("{mean: [true], std: [1]}", "mean True"),
        ("{mean: [], std: []}", "`mean`"),
        ("{mean: [0.5], std: [.inf]}", "std inf"),
    )),
    *(("batch: 1", _clients(value), f"federation {named}") for value, named in (
        ("learning_rate: 0.1, clients: 0", "clients 0"), ("learning_rate: 0.1, clients: true", "clients True"),
        ("learning_rate: 0.1, clients: 1000000000", "clients 1000000000"),
        ("learning_rate: 0.1, share: 0", "share 0"),
        ("learning_rate: 0.1, share: 1.5", "share 1.5"), ("learning_rate: 0.1, share: .nan", "share nan"),
        ("learning_rate: .inf", "learning_rate inf"), ("learning_rate: 0.1, rounds: '2'", "rounds '2'"),
        ("learning_rate: 0.1, partition: mine", "partition 'mine'"),
        ("learning_rate: 0.1, beta: 1", "beta partition"),
        ("learning_rate: 0.1, rule: ../x", "rule '../x'"), ("", "federation.learning_rate"),
    )),
    *(("batch: 1\n", f"defence: {value}\n", f"defence {named}") for value, named in (
        
        ("{gaussian_noise: {deviation: true}}", "deviation True"),
        ("{gaussian_noise: {deviation: '0.1'}}", "deviation '0.1'"), ("[gaussian_noise]", "['gaussian_noise']"),
         ("{'../x': {}}", "'../x'"),
    )),
    # who sees and knows what
    *(("{knows: [batch_size, public_data]}", f"{{{value}}}", f"threat {named}") for value, named in (
        ("knows: labels", "knows 'labels'"), ("knows: [batch_size, batch_size, public_data]", "knows batch_size"),
        ("knows: [batch_size, public_data, everything]", "knows everything"), ("knows: [1, batch_size]", "knows 1"),
        ("sees: gradients", "sees 'gradients'"), ("attacker: nobody", "attacker 'nobody'"),
        ("access: grey", "access 'grey'"),
        ("conduct: true", "conduct True"), ("knows: [public_data]", "knows batch_size"),
    )),
    # words for readers
    *(("[mse, psnr]", value, f"metrics {named}") for value, named in (
        ("psnr", "'psnr'"), ("[]", "metrics"), ("[nope]", "nope"), ("[1]", "1"), ("[mse, mse]", "mse"), ("", "None"),
        ("[gradient_norm, mse]", "gradient_norm"),
    )),
    *(("Does the toy work?", value, f"question {named}") for value, named in (
        ("5", "5"), ("", "None"), ("''", "''"), ('"one\\ntwo"', "two"),
        ('"\\e[31mred"', "31mred"), ("x" * 5000, "5000"), 
    )),
    # sections
    *((old, new, named) for old, new, named in (
        ("quick:\n", "quick: 3\nother:\n", "quick"), ("quick:\n", "quick: []\nother:\n", "quick"),
        ("quick:\n", "fast:\n", "fast"), ("paper:\n", "paper: false\nother:\n", "other"),
        ("about:\n", "about: text\nother:\n", "other"), ("  seed: 7", "  seed: 7\n  name: ../../evil", "name"),
        ("  seed: 7", "  seed: 7\n  scale: paper", "scale"), ("  seed: 7", "  seed: 7\n  seed: 8", "seed"),
        ("  seed: 7", "  seed: 7\n  colour: red", "colour"), ("  seed: 7\n", "", "seed"),
        ("  seed: 7", "  seed: 7\n  1: 2", "1"), ("  seed: 7", "  seed: 7\n  null: 2", "null"),
        ("  seed: 7", "  seed: 7\n  [a, b]: 2", "key"), ("quick:\n", "1: {}\nquick:\n", "1"),
        ("quick:\n", "common: {}\nquick:\n", "common"), ("about:\n", "about: [1]\nelse:\n", "about"),
        ("  seed: 7", "  seed: 2020-13-45", "month"), ("  seed: 7", "  seed: !!int abc", "abc"),
        ("  seed: 7", '  seed: !!python/object/apply:os.system ["true"]', "python/object"),
        ("  seed: 7", "  seed: " + "9" * 5000, "line 999"), ("  seed: 7", "  seed: *nothing", "nothing"),
    )),
]  # fmt: skip

CASES = {
    f"{new.strip()[:60]} {says}"[:110]: Case("list", {B: swap(old, new)}, ("toy_gradient.yaml", *says.split()))
    for old, new, says in ROWS
}
assert len(CASES) == len(ROWS), "two rows are alike"
