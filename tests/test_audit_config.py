"""The table in pyproject.toml selects checks and moves their thresholds, or is one clear error."""

import pytest

from fanin.audit import CHECKS, Trace, config, examine
from fanin.errors import ArgumentError


def write(folder, text):
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_and_no_table_are_all_checks_as_they_are(tmp_path):
    for found in (config.load(None), config.load(write(tmp_path, "[tool.other]\nx = 1\n"))):
        assert (found.select, found.ignore, tuple(found.checks)) == (None, (), CHECKS)


def test_codes_and_thresholds_are_read(tmp_path):
    path = write(
        tmp_path,
        """
        [tool.fanin.audit]
        select = ["forward-scale", "symmetry"]
        ignore = ["symmetry"]

        [tool.fanin.audit.forward-scale]
        warn = 0.5
        """,
    )
    found = config.load(path)
    assert (found.select, found.ignore) == (("forward-scale", "symmetry"), ("symmetry",))
    (changed,) = [check for check, old in zip(found.checks, CHECKS, strict=True) if check != old]
    assert (changed.code, changed.warn, changed.fail) == ("forward-scale", 0.5, 3.0)
    assert examine(Trace("", ()), found.select, found.ignore, found.checks) == ()


def test_the_file_is_the_nearest_above(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    path = write(tmp_path, "")
    assert config.find(inner) == path
    assert config.find(tmp_path) == path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[tool.fanin.audit]\nselct = []", "tool.fanin.audit: no key 'selct'; did you mean select"),
        ("[tool.fanin.audit]\nselect = 'symmetry'", "audit.select: 'symmetry'; expected a list of codes"),
        (
            "[tool.fanin.audit]\nignore = ['symetry']",
            "audit.ignore: no check 'symetry'; did you mean symmetry",
        ),
        ("[tool.fanin.audit]\nsymmetry = 3", "audit.symmetry: 3; expected a table of thresholds"),
        ("[tool.fanin.audit.symmetry]\nwarn = 3", "audit.symmetry: no threshold 'warn'; it has none"),
        ("[tool.fanin.audit.balance]\nzz = 3", "audit.balance: no threshold 'zz'; it has effect, z"),
        ("[tool.fanin.audit.balance]\nz = 'much'", "audit.balance.z: 'much'; expected a number >= 0"),
        ("[tool.fanin.audit.balance]\nz = -1", "audit.balance.z: -1; expected a number >= 0"),
        ("[tool.fanin.audit.balance]\nz = true", "audit.balance.z: True; expected a number >= 0"),
        ("[tool.fanin.audit.balance]\nz = nan", "audit.balance.z: nan; expected a number >= 0"),
        ("[tool]\nfanin = 3", "tool.fanin.audit: 3; expected a table"),
        ("[tool.fanin.audit", "pyproject.toml: "),
    ],
)
def test_a_bad_table_is_one_error_that_names_file_and_key(tmp_path, text, says):
    with pytest.raises(ArgumentError, match=r"pyproject\.toml: ") as error:
        config.load(write(tmp_path, text))
    assert says in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ArgumentError, match=r"pyproject\.toml: .*No such file"):
        config.load(tmp_path / "pyproject.toml")
