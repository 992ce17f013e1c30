"""``python -m sc_lmm``: what it prints and writes, on the simulated cohort and on files, and how it fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
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
        ([*MODEL, "--layer", "logs"], "layer='logs' is not in adata.layers"),
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
    assert "Note: 1 genes could not be fitted" in capsys.readouterr().out


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
    assert len(blocks) == 4
    assert "lmm_de" in names["adata"].varm


def test_readme_describes_every_column_and_status(folder: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    main([str(file(folder)), *MODEL])
    table = read_h5ad(folder / "sc_lmm_quickstart.h5ad").varm["lmm_de"]
    assert [column for column in table.columns if f"`{column}`" not in readme] == []
    assert [status for status in table["status"].cat.categories if f"`{status}`" not in readme] == []


def test_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "sc_lmm", "--help"], capture_output=True, text=True, check=True)
    assert "--formula" in run.stdout
