"""``tdsnn-zoo publish``: put a finished run into the zoo, and an entry of the zoo onto a Hub."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdsnn.cli import _output, _progress
from tdsnn.cli._completion import zoo_models
from tdsnn.errors import TdsnnError, UsageError
from tdsnn.manifest import home, list_models, release_path, require_writable, resolve
from tdsnn.naming import parse
from tdsnn.paths import zoo_folders
from tdsnn.store import LARGEST_EMBEDDED_BYTES, cached, source_of, stored

if TYPE_CHECKING:
    from tdsnn.hub import Published, Reference
    from tdsnn.publish.push import Draft


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|RUN_DIR]",
            autocompletion=zoo_models,
            help="Released zoo entry, or folder of a finished run.",
        ),
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="OWNER/NAME", help="Repository on the Hub; with --all only OWNER."),
    ] = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch, made as needed.")] = "main",
    tag: Annotated[str | None, typer.Option("--tag", help="Name for the commit, e.g. v1.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every released entry of the zoo.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Release a run that is no better than chance, too.")
    ] = False,
    as_json: _output.JsonFlag = False,
) -> None:
    """Measure a finished run and put it into the zoo; with --repo, publish it on the Hub.

    A run becomes `zoo/checkpoints/NAME`, `zoo/verdicts/NAME.safetensors` and `zoo/releases/NAME.json`; its
    accuracy is what `bench` measures.
    Before an entry is sent it must load strictly, keep no state, and reproduce its stored accuracy. What is
    sent is one commit, and none if nothing changed. The token is that of HF_TOKEN or `hf auth login`.

    Examples:

    * `tdsnn-zoo publish runs/tsresnet18.fashion_mnist`

    * `tdsnn-zoo publish tsresnet18 --repo my-lab/tsresnet18.fashion_mnist --dry-run`

    * `tdsnn-zoo publish --all --repo my-lab --tag v1`
    """
    if (name is None) == (not everything):
        raise UsageError("Name one entry or run, or --all.", hint="See tdsnn-zoo publish --help")
    job = _Job(repo=repo, revision=revision, tag=tag, private=private, dry_run=dry_run, as_json=as_json)
    if name is None:
        _publish_all(job)
        return
    is_run = _is_run(name)
    _check(job, name, is_run=is_run)
    if is_run:
        name = _register(Path(name), force=force, quiet=as_json and repo is not None, as_json=as_json)
    if repo is not None:
        document = _publish(name, job.reference(repo), job)
        if as_json:
            _output.emit_json(document)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The command as it was given."""

    repo: str | None
    revision: str
    tag: str | None
    private: bool
    dry_run: bool
    as_json: bool

    def reference(self, repo: str) -> Reference:
        """The repository and branch to publish to, checked before anybody waits for anything."""
        from tdsnn.hub import Reference, require_publishing

        reference = Reference(repo=repo, revision=self.revision)
        if not self.dry_run:
            require_publishing(reference, tag=self.tag, private=self.private)
        return reference


def _is_run(name: str) -> bool:
    # A run is a folder, so what has the form of a repository is one that is not there.
    return not isinstance(parse(name), str)


def _check(job: _Job, name: str, *, is_run: bool) -> None:
    if job.repo is not None:
        job.reference(job.repo)
    elif job.dry_run or job.private or job.tag or job.revision != "main":
        raise UsageError("These options need a repository.", hint="Add --repo OWNER/NAME.")
    elif not is_run:
        resolve(name)
        raise UsageError(
            f"'{name}' is in the zoo already.", hint="To publish it on the Hub, add --repo OWNER/NAME."
        )
    if is_run and job.dry_run:
        raise UsageError(
            "A run is measured and put into the zoo before it can be compared with a repository.",
            hint=f"First: tdsnn-zoo publish {quote(name)}",
        )
    if not is_run and not job.dry_run:
        require_writable(resolve(name).name)


def _register(run_dir: Path, *, force: bool, quiet: bool, as_json: bool) -> str:
    from tdsnn.publish.release import register_run
    from tdsnn.schema import plain

    release = register_run(run_dir, force=force)
    if source_of(release) == "cache":
        _output.note(
            f"{release.name} has more than the {LARGEST_EMBEDDED_BYTES // 2**20} MiB that are embedded: "
            "only the cache of this machine has it. "
            f"To publish it: tdsnn-zoo publish {quote(release.name)} --repo OWNER/NAME"
        )
    if quiet:
        return release.name
    if as_json:
        _output.emit_json(plain(release))
        return release.name
    accuracy = release.metrics["clean_accuracy"]
    out = _output.console()
    out.print(f"Released {release.name}: {accuracy['value']:.2f} % on {accuracy['n']:,} test images.")
    for record in release.files:
        out.print(f"{record.path:<18} {record.size:>9,} bytes  sha256 {record.sha256}", markup=False)
    folder = cached(release) if source_of(release) == "cache" else stored(release.name)
    _output.note(f"Written: {folder} and {release_path(release.name)}")
    return release.name


def _publish_all(job: _Job) -> None:
    """Every entry of the first zoo folder that was released; a failure does not keep the others back."""
    if job.repo is None or "/" in job.repo:
        raise UsageError("With --all, --repo names the owner only.", hint="For example --repo my-lab")
    zoo = zoo_folders()[0]
    names = [name for name in list_models() if home(name) == zoo and release_path(name).is_file()]
    if not names:
        raise UsageError(f"No entry of {zoo} was released.", hint="Publish a run: tdsnn-zoo publish RUN_DIR")
    references = {name: job.reference(f"{job.repo}/{name}") for name in names}
    documents: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for name, reference in references.items():
        try:
            if not job.dry_run:
                require_writable(name)
            documents.append(_publish(name, reference, job))
        except TdsnnError as error:
            _output.fail(error)
            failed[name] = error.message
    if job.as_json:
        _output.emit_json({"published": documents, "failed": failed})
    if failed:
        raise TdsnnError(
            f"{len(failed)} of {len(names)} entries were not published: {', '.join(failed)}.",
            hint="What is published stays; run the same command again for the others.",
        )


def _publish(name: str, reference: Reference, job: _Job) -> dict[str, Any]:
    from tdsnn.publish.push import draft, send

    with _progress.bar(f"checking {name}", unit="images") as progress:
        planned = draft(name, reference, progress=progress)
    if not job.as_json:
        _show(planned)
    if job.dry_run:
        _output.note("Dry run: nothing was sent.")
        return _document(planned, None)
    done = send(planned, private=job.private, tag=job.tag)
    verb = "is at" if done.new else "had all of it already; no commit was made:"
    _output.note(f"{done.repo} {verb} {done.commit}" + (f", tag {job.tag}." if job.tag else "."))
    return _document(planned, done)


def _show(draft: Draft) -> None:
    for gate in draft.gates:
        _output.note(f"passed: {gate.name}, {gate.measured:.3g} of at most {gate.limit:.3g} {gate.unit}")
    lines = [f"{draft.name} to {draft.reference.repo}, {draft.reference.revision}"]
    for change in draft.comparison.changes:
        content = "" if change.size is None else f" {change.size:>11,} bytes  sha256 {change.sha256}"
        lines.append(f"{change.state:<9}  {change.path:<40}{content}")
    lines += [f"not ours   {path:<40} stays as it is" for path in draft.comparison.others]
    out = _output.console()
    for line in (*lines, *draft.metadata_diff):
        out.print(line, markup=False, soft_wrap=True)


def _document(draft: Draft, done: Published | None) -> dict[str, Any]:
    return {
        "name": draft.name,
        "repo": draft.reference.repo,
        "revision": draft.reference.revision,
        "files": [asdict(change) for change in draft.comparison.changes],
        "others": list(draft.comparison.others),
        "metadata_diff": list(draft.metadata_diff),
        "commit": done.commit if done else None,
        "new": done.new if done else None,
    }
