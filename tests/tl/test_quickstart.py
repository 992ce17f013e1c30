"""``python -m sc_lmm``: what it prints and writes, on the simulated cohort and on files, and how it fails."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData, read_h5ad
from matplotlib import image
from matplotlib import pyplot as plt

import sc_lmm as sl
from sc_lmm.__main__ import main

mpl.use("agg")

# anndata 0.13 with pandas 3
pytestmark = pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated")

MODEL = ["--formula", "~ sequencing_saturation + diagnosis + (1 | sample_id)", "--test", "diagnosis"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the simulated cohort small."""
    simulate = sl.datasets.brain_cohort
    monkeypatch.setattr(sl.datasets, "brain_cohort", lambda **_: simulate(n_donors=10, n_cells=1_000, n_genes=100))


def file(folder: Path, *, counts: bool = False) -> Path:
    adata = sl.datasets.brain_cohort(n_donors=12, n_cells=720, n_genes=60)
    adata.obs["stage"] = np.array(["none", "mild", "T/NK cell"])[adata.obs["sample_id"].cat.codes % 3]
    adata.obs["code"] = 1 + adata.obs["sample_id"].cat.codes % 4
    if counts:
        adata = AnnData(
            adata.layers["counts"], obs=adata.obs, var=adata.var[[]], layers={"raw": adata.layers["counts"]}
        )
    path = folder / "mine.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.mark.usefixtures("small")
def test_without_arguments(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    written = read_h5ad(folder / "sc_lmm_quickstart.h5ad")
    table = sl.get.lmm_de_df(written)
    found = table["pvals_adj"] < 0.05
    assert f"Alzheimer against control: {found.sum()} of 100 genes have adjusted p < 0.05" in printed
    for word in ("5 control, 5 Alzheimer", "true log2 FC", "boundary", "ICC", "Was it right?", "hatch run quickstart"):
        assert word in printed
    for gene in table["names"].head(10):
        assert gene in printed
    hit = set(table["names"][found]) & set(written.var_names[written.var["changed"]])
    assert f"10 of 100 genes really change. {len(hit)} of them were found" in printed
    assert image.imread(folder / "sc_lmm_quickstart.png").shape[:2] == (900, 1905)


def test_on_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "new" / "folder"
    options = ["--reference", "Alzheimer", "--key-added", "mine", "--output-dir", str(out)]
    assert main([str(file(folder)), *MODEL, *options]) == 0
    printed = capsys.readouterr().out
    assert "control against Alzheimer" in printed
    assert "true" not in printed
    assert 'sl.get.lmm_de_df(adata, key="mine")' in printed
    assert sl.get.lmm_de_params(read_h5ad(out / "sc_lmm_quickstart.h5ad"), key="mine")["reference"] == "Alzheimer"
    assert (out / "sc_lmm_quickstart.png").exists()


def test_donors_behind_a_gene(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(file(folder)), *MODEL])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("GENE"))
    adata = read_h5ad(folder / "sc_lmm_quickstart.h5ad")
    gene = line.split()[0]
    means = adata.to_df()[gene].groupby(adata.obs["sample_id"], observed=True).mean()
    diagnosis = adata.obs.groupby("sample_id", observed=True)["diagnosis"].first()
    beyond = means[diagnosis == "Alzheimer"] - means[diagnosis == "control"].mean()
    same_side = (beyond > 0).sum() if "higher" in line else (beyond < 0).sum()
    assert f" {same_side} of 6 " in line


def test_three_levels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file(folder)), "--formula", "~ stage + (1 | sample_id)", "--test", "stage"]) == 0
    printed = capsys.readouterr().out
    for title in ("stage, all levels at once:", "mild against T/NK cell:", "none against T/NK cell:"):
        assert f"\n{title}" in printed


def test_a_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file(folder)), "--formula", "~ age + (1 | sample_id)", "--test", "age"]) == 0
    printed = capsys.readouterr().out
    assert "per unit of age:" in printed
    assert "s with age" in printed


@pytest.mark.parametrize("layer", [[], ["--layer", "raw"]], ids=["X", "layer"])
def test_raw_counts_need_normalise(folder: Path, capsys: pytest.CaptureFixture[str], layer: list[str]) -> None:
    path = str(file(folder, counts=True))
    assert main([path, *MODEL, *layer]) == 2
    assert "--normalise" in capsys.readouterr().err
    assert main([path, *MODEL, *layer, "--normalise"]) == 0
    normalised = read_h5ad(folder / "sc_lmm_quickstart.h5ad")
    np.testing.assert_allclose(np.expm1(normalised.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    assert normalised.varm["lmm_de"]["logfoldchanges"].notna().any()


def test_normalise_refuses_what_is_normalised(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file(folder)), *MODEL, "--normalise"]) == 2
    assert "does not hold raw counts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formula", "~ diagnose + (1 | sample_id)", "--test", "diagnose"], "Did you mean 'diagnosis'"),
        (["--formula", "~ diagnosis + (1 | sample_id)", "--test", "age"], "not a fixed-effect term"),
        ([*MODEL, "--layer", "logs"], "--layer 'logs' is not in adata.layers"),
        ([*MODEL, "--reference", "healthy"], "'control'"),
    ],
)
def test_errors_are_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(file(folder)), *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert "Traceback" not in errors
    assert not (folder / "sc_lmm_quickstart.h5ad").exists()


# What is tested -> formula, test, and what the first line of results says.
TESTS = {
    "an interaction": ("diagnosis * stage", "diagnosis:stage", "diagnosis:stage, all levels at once:"),
    "an interaction of two levels": ("diagnosis * sex", "diagnosis:sex", "less the same in"),
    "a term in an interaction": ("diagnosis * sex", "diagnosis", "Alzheimer against control in female:"),
    "a contrast": ("stage", "cond(stage='mild') - cond(stage='none')", "mild against none:"),
    "an average of levels": (
        "stage",
        "cond(stage='mild') / 2 + cond(stage='none') / 2 - cond(stage='T/NK cell')",
        "cond(",
    ),
    "a transform": ("poly(age, 2)", "poly(age, 2)", "poly(age, 2), all levels at once:"),
    "a variance": ("diagnosis", "(1 | sample_id)", "differences between samples:"),
    "a number of cells": ("sequencing_saturation", "sequencing_saturation", "per unit of sequencing_saturation:"),
    "codes": ("C(code)", "C(code)", "C(code), all levels at once:"),
}


# what scanpy's and anndata's plots ask of pandas
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame", "ignore::sc_lmm.LmmWarning")
@pytest.mark.parametrize("name", TESTS)
def test_every_kind_of_test_has_a_picture_and_what_is_told_can_be_typed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fixed, test, title = TESTS[name]
    assert main([str(file(folder)), "--formula", f"~ {fixed} + (1 | sample_id)", "--test", test]) == 0
    printed = capsys.readouterr().out
    assert title in printed.split("Time")[1].split("genes have adjusted p")[0]
    assert (folder / "sc_lmm_quickstart.png").stat().st_size > 10_000
    monkeypatch.setattr(plt, "show", lambda: None)
    code = printed.split("Next, in Python\n")[1]
    exec("\n".join(line.strip() for line in code.splitlines()), {})
    plt.close("all")


def test_what_cannot_be_stored_is_said_when_the_picture_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: AnnData, path: Path) -> None:
        path.touch()
        error = TypeError("Can't write a thing")
        error.add_note("Error raised while writing key 'thing'")
        raise error

    monkeypatch.setattr("sc_lmm.__main__.write_file", refuse)
    assert main([str(file(folder)), *MODEL]) == 1
    printed = capsys.readouterr()
    assert (
        "sc_lmm_quickstart.h5ad cannot be written: Can't write a thing Error raised while writing key 'thing'"
        in printed.err
    )
    assert "Traceback" not in printed.err
    assert len(printed.err.splitlines()) == 1
    assert (folder / "sc_lmm_quickstart.png").exists()
    assert not (folder / "sc_lmm_quickstart.h5ad").exists()
    table = pd.read_csv(folder / "sc_lmm_quickstart.csv")
    assert table["names"].str.startswith("GENE").all()
    assert len(table) == 60


def test_a_reference_of_another_factor(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, model = str(file(folder)), ["--formula", "~ diagnosis * sex + (1 | sample_id)", "--test", "diagnosis"]
    assert main([path, *model, "--reference", "sex=male"]) == 0
    assert "Alzheimer against control in male:" in capsys.readouterr().out
    assert main([path, *model, "--reference", "control"]) == 0  # of the tested factor
    assert (
        main([path, "--formula", "~ diagnosis * sex + (1 | sample_id)", "--test", "diagnosis:sex", "--reference", "x"])
        == 2
    )
    error = capsys.readouterr().err
    assert '--reference "diagnosis=x"' in error
    assert "{" not in error


def test_notes_speak_of_options_that_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(file(folder)), "--formula", "~ diagnosis * sex + (1 | sample_id)", "--test", "diagnosis"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Note: The p-values of diagnosis are of its effect at sex = 'female' alone" in printed
    assert '--reference "sex=male"' in printed


SHARED = Path(__file__).parents[3] / "shared" / "data"
FILES = {
    "kang_bcells_8x2": ("condition + (1 | donor)", "condition"),
    "pig_airway_cf_7": ("genotype * cell_type + (1 | sample_id)", "genotype:cell_type"),
    "glioblastoma_lemur_5x2": ("donor + condition + (1 | sample_id)", "condition"),
    "covid_joint_12": ("log_total_counts + diagnosis + (1 | sample_id)", "diagnosis"),
}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of the developers are not here")
# of reading and writing with pandas 3
@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated")
@pytest.mark.parametrize("name", FILES)
def test_real_files_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    formula, test = FILES[name]
    options = ["--normalise", "--formula", f"~ {formula}", "--test", test]
    assert main([str(SHARED / f"{name}.h5ad"), *options]) == 0
    assert "Traceback" not in capsys.readouterr().err
    assert (folder / "sc_lmm_quickstart.png").stat().st_size > 10_000
    (folder / "sc_lmm_quickstart.h5ad").unlink()


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.h5ad", *MODEL]) == 2
    assert "nowhere.h5ad" in capsys.readouterr().err


def test_file_needs_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(file(folder))])
    assert stopped.value.code == 2
    assert "FILE needs --formula and --test" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_notes_of_the_run_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    simulate = sl.datasets.brain_cohort

    def with_odd_gene(**kwargs: object) -> AnnData:
        adata = simulate(**kwargs)
        values = adata.X.toarray()
        values[:, 0] = adata.obs["sample_id"].cat.codes + 0.5  # no variation within any donor
        adata.X = values
        return adata

    monkeypatch.setattr(sl.datasets, "brain_cohort", with_odd_gene)
    assert main([]) == 0
    assert "Note: 1 gene could not be fitted" in capsys.readouterr().out


# what scanpy's plot of the README asks of pandas
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame")
def test_code_of_the_readme_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[2] / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    adata = read_h5ad(file(folder, counts=True))
    sc.pp.calculate_qc_metrics(adata, percent_top=None, log1p=False, inplace=True)
    adata.obs["log_total_counts"] = np.log(adata.obs["total_counts"])
    adata.write_h5ad(folder / "cohort.h5ad")
    monkeypatch.setattr(plt, "show", lambda: None)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    plt.close("all")
    assert len(blocks) == 6
    assert "lmm_de" in names["adata"].varm


def test_readme_describes_every_column_and_status(folder: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    main([str(file(folder)), *MODEL])
    table = read_h5ad(folder / "sc_lmm_quickstart.h5ad").varm["lmm_de"]
    assert [column for column in table.columns if f"`{column}`" not in readme] == []
    assert [status for status in table["status"].cat.categories if f"`{status}`" not in readme] == []


def test_a_second_run_leaves_the_files_of_the_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(file(folder))
    for _ in range(2):
        assert main([path, *MODEL, "--out", "there"]) == 0
    printed = capsys.readouterr().out
    assert sorted(found.name for found in (folder / "there").iterdir()) == [
        *("sc_lmm_quickstart.h5ad", "sc_lmm_quickstart.png", "sc_lmm_quickstart_2.h5ad", "sc_lmm_quickstart_2.png"),
    ]
    assert "sc_lmm_quickstart_2.h5ad" in printed


def test_choices_are_those_of_the_function(folder: Path) -> None:
    path = str(file(folder))
    options = ["--method", "between-within", "--no-moderate", "--weights", "np.exp(sequencing_saturation)"]
    assert main([path, *MODEL, *options]) == 0
    params = sl.get.lmm_de_params(read_h5ad(folder / "sc_lmm_quickstart.h5ad"))
    assert (params["method"], params["moderate"], params["weights"]) == (
        "between-within",
        False,
        "np.exp(sequencing_saturation)",
    )


def test_a_model_of_each_group(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(folder)
    adata = read_h5ad(path)
    rare = adata.obs["sample_id"].cat.codes.isin([0, 2]) & (np.arange(adata.n_obs) % 3 == 0)
    adata.obs["cell_type"] = np.where(rare, "rare", adata.obs["cell_type"].astype(str))
    adata.write_h5ad(path)
    assert main([str(path), *MODEL, "--groupby", "cell_type"]) == 0
    printed = capsys.readouterr().out
    types = sorted(set(adata.obs["cell_type"]) - {"rare"})
    for name in types:
        assert re.search(rf"against control in {re.escape(name)}: \d+ of 60 genes", printed)
    assert "rare: no result. " in printed
    written = read_h5ad(folder / "sc_lmm_quickstart.h5ad")
    assert list(written.uns["lmm_de"]["comparisons"].index) == types


@pytest.mark.parametrize("command", [["sc-lmm"], [sys.executable, "-m", "sc_lmm"]], ids=["script", "module"])
def test_as_a_command(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip("the package is not installed, so that there is no script")
    run = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
    assert "--formula" in run.stdout
    assert run.stdout.startswith(f"usage: {'sc-lmm' if command[0] == 'sc-lmm' else 'python -m sc_lmm'}")
    assert "Exit status: 0" in run.stdout
    run = subprocess.run([*command, "nothing.h5ad", *MODEL], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ")
    assert list(folder.iterdir()) == []
