"""``tdsnn-zoo data``: which datasets exist, fetching them, and checking what was fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from tdsnn.cli import _output, _progress
from tdsnn.cli._completion import complete, dataset_names

if TYPE_CHECKING:
    from tdsnn.data._base import Split
    from tdsnn.progress import Progress

app = typer.Typer(no_args_is_help=True, help="List, fetch and verify datasets.")

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=complete(dataset_names),
        help="Dataset; `tdsnn-zoo data list` shows them.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Only this split, e.g. test.  [default: all]")
]


class _Action(Protocol):
    def __call__(self, name: str, split: str, *, progress: Progress) -> Split: ...


@app.command("list")
def list_command(json: _output.JsonFlag = False) -> None:
    """List the datasets and which of their splits are decoded on this machine.

    Examples:

        tdsnn-zoo data list

        tdsnn-zoo data list --json
    """
    from tdsnn.data._base import DATASETS, cached_splits

    datasets = {name: DATASETS.load(name) for name in DATASETS.names()}
    if json:
        _output.emit_json(
            [
                {
                    "name": name,
                    "title": dataset.title,
                    "shape_chw": list(dataset.shape),
                    "classes": list(dataset.classes),
                    "splits": {
                        split: {"size": info.size, "sha256": info.digest}
                        for split, info in dataset.splits.items()
                    },
                    "streamed": dataset.streamed,
                    "cached_splits": list(cached_splits(name)),
                    "licence": dataset.licence,
                    "citation": dataset.citation,
                }
                for name, dataset in datasets.items()
            ]
        )
        return
    rows = [
        (
            name,
            "x".join(map(str, dataset.shape)),
            str(len(dataset.classes)),
            ", ".join(f"{info.size:,} {split}" for split, info in dataset.splits.items()),
            "streamed" if dataset.streamed else ", ".join(cached_splits(name)) or "-",
        )
        for name, dataset in datasets.items()
    ]
    _output.table("Datasets", ("name", "CxHxW", "classes", "images", "decoded here"), rows)


@app.command("fetch")
def fetch_command(name: NameArgument, split: SplitOption = None, json: _output.JsonFlag = False) -> None:
    """Get a dataset from the first source that has it, check it and decode it into the cache.

    Sources are asked in this order: the folder TDSNN_DATA, an installed package, the Hub. What is already
    in the cache is checked sample by sample and decoded again if it is damaged. A dataset that is streamed is
    never decoded as a whole: its files are fetched (of ImageNet, about 150 GB).

    Examples:

        tdsnn-zoo data fetch fashion_mnist

        TDSNN_DATA=~/mirror tdsnn-zoo data fetch cifar10 --split test
    """
    from tdsnn.data._base import fetch_split

    _show(name, _each_split(name, split, fetch_split, verb="Decoding"), title=f"Fetched {name}", as_json=json)


@app.command("verify")
def verify_command(name: NameArgument, split: SplitOption = None, json: _output.JsonFlag = False) -> None:
    """Check every sample of a dataset against the sha256 pinned for its split; exits 3 if one differs.

    A split without a pinned sha256 is reported as such: then only shape, number and labels are known. Of a
    dataset that is streamed each file is compared with the sha256 that the Hub states.

    Examples:

        tdsnn-zoo data verify fashion_mnist

        tdsnn-zoo data verify cifar10 --split test --json
    """
    from tdsnn.data._base import verify_split

    _show(
        name, _each_split(name, split, verify_split, verb="Checking"), title=f"Verified {name}", as_json=json
    )


def _each_split(name: str, split: str | None, action: _Action, *, verb: str) -> dict[str, Split]:
    from tdsnn.data._base import DATASETS

    wanted = [split] if split is not None else list(DATASETS.load(name).splits)
    done = {}
    for each in wanted:
        with _progress.bar(f"{verb} {name} {each}") as progress:
            done[each] = action(name, each, progress=progress)
    return done


def _show(name: str, splits: dict[str, Split], *, title: str, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {
            "name": name,
            "splits": {
                each: {
                    "size": len(split.labels),
                    "sha256": split.digest,
                    "pinned": split.pinned,
                    "origin": split.origin,
                }
                for each, split in splits.items()
            },
        }
        _output.emit_json(document)
        return
    rows = [
        (each, f"{len(split.labels):,}", split.digest[:12], "as pinned" if split.pinned else "NOT PINNED")
        for each, split in splits.items()
    ]
    origins = "; ".join(dict.fromkeys(split.origin for split in splits.values()))
    _output.table(title, ("split", "images", "sha256", "is"), rows, caption=f"Read from {origins}")
    for each, split in splits.items():
        if not split.pinned:
            _output.note(
                f"No sha256 is pinned for split '{each}' of {name}: only its form was checked. "
                f"Measured here: {split.digest}"
            )
