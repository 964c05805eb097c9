"""Everything on docs/plant.md, in the reader's order, on a function file of the form of the one that the script downloads."""

from pathlib import Path

from pages import run_page
from plant_logs import example, function_file

PAGE = Path(__file__).parents[2] / "docs/plant.md"
QUICK = ["dynamics.members=2", "dynamics.elites=2", "dynamics.max_epochs=20"]


def quick(arguments: list[str]) -> list[str]:
    """The command as it stands on the page, with fewer epochs."""
    return [*arguments, *QUICK] if arguments[:2] == ["dynamics", "fit"] else arguments


def test_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("moen4.m").write_text(function_file())
    plant, counts = example(), {"tables": 0, "comparisons": 0}

    def script(arguments: list[str]) -> None:
        """Tables of the file at hand instead of the download; comparisons, which repeat the page's commands, are only read."""
        tables_only = plant.options(arguments).csv
        counts["tables" if tables_only else "comparisons"] += 1
        if tables_only:
            plant.main([*arguments, "--file", "moen4.m"])

    run_page(PAGE, quick, {"examples/plant.py": script})
    assert counts["tables"] == 1
    assert counts["comparisons"] >= 1
    assert "plant/cd_arm.csv: 399 rows of y1, y2, u1, u2, part" in capsys.readouterr().out
    assert (tmp_path / "plant/model.onnx").is_file()


def test_commands_of_the_page_are_those_of_the_script():
    plant = example()
    arm = plant.PLANTS["cd_arm"]
    convert, fit, export = plant.commands(Path("plant"), "cd_arm", arm, 2, 11)
    page = PAGE.read_text()
    names = {"plant/cd_arm.h5": "plant/train.h5", "plant/cd_arm-11.pt": "plant/dynamics.pt", "plant/cd_arm-11.onnx": "plant/model.onnx"}
    for command in (convert, fit, export):
        assert "mbkit " + " ".join(names.get(word, word) for word in command) in page
