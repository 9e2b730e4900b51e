"""The shelf: built once, verified by checksum, whole or not at all."""

from pathlib import Path

import pytest

from surpass.errors import InputError
from surpass.zoo import shelf
from surpass.zoo.shelf import Zoo, item


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "_ITEMS", {})
    monkeypatch.setattr(shelf, "items", lambda: shelf._ITEMS)
    built: list[str] = []

    @item("numbers", line="three numbers", load=lambda f: (f / "n.txt").read_text(), minutes=0.1)
    def numbers(folder: Path, zoo: Zoo):
        built.append("numbers")
        (folder / "n.txt").write_text("1 2 3")
        return {"seed": 7}

    @item("broken", line="never ends", load=lambda f: None)
    def broken(folder: Path, zoo: Zoo):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    return Zoo(folder=tmp_path), built


def test_it_is_built_once_with_provenance(zoo):
    shelf_, built = zoo
    assert shelf_("numbers") == "1 2 3" and shelf_("numbers") == "1 2 3"
    assert built == ["numbers"]
    assert shelf_.provenance("numbers")["made"] == {"seed": 7}


def test_a_changed_file_is_refused_and_force_mends_it(zoo):
    shelf_, built = zoo
    shelf_("numbers")
    (shelf_.place("numbers") / "n.txt").write_text("4")
    with pytest.raises(InputError, match="build it again"):
        shelf_("numbers")
    shelf_.build("numbers", force=True)
    assert shelf_("numbers") == "1 2 3"


def test_an_interrupted_build_leaves_nothing(zoo):
    shelf_, _ = zoo
    with pytest.raises(KeyboardInterrupt):
        shelf_("broken")
    assert not shelf_.has("broken") and list(shelf_.folder.iterdir()) == []


def test_a_misspelled_name_is_told_the_nearest(zoo):
    with pytest.raises(InputError, match="'numbers'"):
        zoo[0]("number")
