"""``fanin audit`` of weights alone, with NumPy: what it says of checkpoints, honest, truncated and lying."""

import json
import sys
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest

import fanin
from fanin.audit.stored import guessed
from fanin.checkpoints.safetensors import header
from fanin.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``fanin`` with these arguments, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fanin", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


def write(path, tensors):
    """A safetensors file of arrays."""
    front, _ = header([(name, str(array.dtype), array.shape) for name, array in tensors.items()], {})
    order = sorted(tensors, key=lambda name: name)
    path.write_bytes(front + b"".join(tensors[name].tobytes() for name in order))
    return path


def sound():
    """A small network, well initialized."""
    found = {"embed_tokens.weight": fanin.RandomNormal(0.0, 0.02)((50, 32), seed=0, name="e")}
    for at in range(4):
        name = f"layers.{at}.fc.weight"
        found[name] = fanin.HeNormal()((32, 32), seed=0, name=name, axes="oi")
        found[f"layers.{at}.fc.bias"] = np.zeros(32, np.float32)
        found[f"layers.{at}.norm.weight"] = np.ones(32, np.float32)
    return found


def test_a_sound_checkpoint_is_fine_and_its_fans_are_said_to_be_guessed(run, tmp_path):
    write(tmp_path / "a.safetensors", sound())
    done = run("audit", "a.safetensors")
    assert done.returncode == 0, done.stdout
    assert "guessed from names and shapes" in " ".join(done.stdout.split())
    said = json.loads(run("audit", "a.safetensors", "--json").stdout)
    assert [finding["code"] for finding in said["findings"]] == ["weights-alone"]
    roles = {weights["name"]: weights["role"] for weights in said["trace"]["weights"]}
    assert roles["embed_tokens.weight"] == "embedding"
    assert roles["layers.2.fc.weight"] == "kernel"
    assert roles["layers.2.norm.weight"] == "norm_scale"


def test_a_planted_fault_is_found_and_the_exit_code_says_so(run, tmp_path):
    tensors = sound()
    tensors["layers.2.fc.weight"][3, 4] = np.nan
    write(tmp_path / "a.safetensors", tensors)
    done = run("audit", "a.safetensors", "--github")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("::error ")
    assert "layers.2.fc.weight" in done.stdout
    assert run("audit", "a.safetensors", "--ignore", "not-finite").returncode == 0
    assert run("audit", "a.safetensors", "--select", "coarse-values,symmetry").returncode == 0


def test_a_sharded_folder_is_one_checkpoint(run, tmp_path):
    tensors = sound()
    tensors["layers.3.fc.weight"] = tensors["layers.1.fc.weight"].copy()
    names = sorted(tensors)
    for at, part in enumerate((names[:5], names[5:])):
        write(tmp_path / f"model-0000{at + 1}-of-00002.safetensors", {name: tensors[name] for name in part})
    weight_map = {name: f"model-0000{1 + (name in names[5:])}-of-00002.safetensors" for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    said = json.loads(run("audit", ".", "--json").stdout)
    assert said["findings"][0]["code"] == "repeated-tensor"
    assert said["findings"][0]["at"] == ["layers.1.fc.weight", "layers.3.fc.weight"]


def test_thresholds_and_codes_come_from_pyproject(run, tmp_path):
    tensors = sound()
    tensors["layers.2.fc.weight"] *= np.float32(3)
    write(tmp_path / "a.safetensors", tensors)
    assert run("audit", "a.safetensors").returncode == 1
    (tmp_path / "pyproject.toml").write_text("[tool.fanin.audit.scaled-layer]\nfactor = 4\n")
    assert run("audit", "a.safetensors").returncode == 0
    (tmp_path / "pyproject.toml").write_text('[tool.fanin.audit]\nignore = ["scaled-layer"]\n')
    assert run("audit", "a.safetensors").returncode == 0
    (tmp_path / "pyproject.toml").write_text("[tool.fanin.audit]\nignor = []\n")
    done = run("audit", "a.safetensors")
    assert done.returncode == 2
    assert "no key 'ignor'" in done.stderr


class Scripts(HTMLParser):
    """Counts what a browser would run."""

    found = 0

    def handle_starttag(self, tag, attrs):
        self.found += tag == "script" or any(name.startswith("on") for name, _ in attrs)


def test_names_are_text_in_the_page(run, tmp_path):
    name = "</script><script>alert(1)</script><img src=x onerror=alert(1)>.weight"
    write(tmp_path / "a.safetensors", {name: np.full((8, 8), np.nan, np.float32)})
    done = run("audit", "a.safetensors", "--html", "page.html")
    assert done.returncode == 1
    page = (tmp_path / "page.html").read_text()
    scripts = Scripts()
    scripts.feed(page)
    assert scripts.found == 0
    assert "&lt;/script&gt;" in page


@pytest.mark.parametrize("cut", [0, 4, 8, 40, -1])
def test_truncated_files_are_one_line(run, tmp_path, cut):
    whole = write(tmp_path / "a.safetensors", sound()).read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:cut])
    done = run("audit", "a.safetensors")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "a.safetensors" in done.stderr


LIES = {
    "shape": {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]}},
    "offsets": {"w": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "beyond": {"w": {"dtype": "F32", "shape": [1 << 20], "data_offsets": [0, 1 << 22]}},
    "negative": {"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
    "dtype": {"w": {"dtype": "F33", "shape": [4], "data_offsets": [0, 16]}},
    "nothing": {"w": {}},
    "list": [1, 2],
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_headers_are_one_line(run, tmp_path, lie):
    text = json.dumps(LIES[lie]).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    done = run("audit", "a.safetensors")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing.safetensors"], "nothing.safetensors"),
        (["a.safetensors", "--batch", "json:loads"], "--batch: 'a.safetensors' has weights alone"),
        (["a.safetensors", "--recipe", "he_normal"], "--recipe: 'a.safetensors' has weights alone"),
        (["a.safetensors", "--select", "symetry"], "no check 'symetry'; did you mean symmetry"),
        (["a.safetensors", "--html", "page.txt"], "its suffix must be .html or .json"),
        (["no_such_module:build"], "no module 'no_such_module'"),
        (["json:no_such_name"], "json has no 'no_such_name'"),
        (["json:dumps"], "cannot be called without arguments"),
        (["json:JSONDecoder"], "returns a JSONDecoder; expected a model"),
        (["empty.safetensors"], "holds no weights"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, arguments, text):
    write(tmp_path / "a.safetensors", sound())
    write(tmp_path / "empty.safetensors", {})
    done = run("audit", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_many_parameters_are_a_matter_of_seconds(run, tmp_path):
    names = [f"h.{at}.{leaf}" for at in range(1000) for leaf in ("fc.weight", "fc.bias")]
    tensors = {name: np.zeros(4, np.float32) for name in names}
    for at in range(1000):
        tensors[f"h.{at}.fc.weight"] = fanin.HeNormal()((4, 4), seed=at, name="w", axes="oi")
    write(tmp_path / "a.safetensors", tensors)
    assert run("audit", "a.safetensors").returncode == 0


GUESSES = [
    ("transformer.wte.weight", (50, 8), "embedding"),
    ("transformer.wpe.weight", (20, 8), "position"),
    ("lm_head.weight", (50, 8), "head"),
    ("h.0.attn.c_attn.weight", (8, 24), "kernel"),
    ("h.0.attn.c_attn.bias", (24,), "bias"),
    ("h.0.ln_1.bias", (8,), "norm_bias"),
    ("rnn.weight_hh_l0", (32, 8), "recurrent_kernel"),
    ("mixer.A_log", (8, 4), "dynamics"),
    ("dense/kernel", (4, 4), "kernel"),
]


def test_roles_and_fans_are_guessed_by_name_and_shape():
    model = guessed([(name, shape, "float32") for name, shape, _ in GUESSES])
    pieces = {tensor.path: (tensor.pieces[0], tensor.shape) for tensor in model.tensors}
    assert {name: pieces[name][0].role for name, _, _ in GUESSES} == {n: r for n, _, r in GUESSES}
    for name, fans in (("h.0.attn.c_attn.weight", (8, 24)), ("h.0.attn.c_attn.bias", (8, 24))):
        piece, shape = pieces[name]
        assert piece.axes.fans(shape) == fans
        assert piece.block == 0


def test_statistics_and_integers_are_no_weights():
    names = [("bn.running_mean", "float32"), ("bn.num_batches_tracked", "int64"), ("position_ids", "int64")]
    assert guessed([(name, (3,), dtype) for name, dtype in names]).tensors == ()
