"""Training from shards: resumed anywhere it goes on as if nothing had been, also over broken rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tdsnn.data._augment import WHOLE, Part
from tdsnn.errors import IntegrityError, UsageError
from tdsnn.schema import Recipe
from tdsnn.training.loop import LOG, Trainer
from tdsnn.training.streaming import StreamedBatches, training_batches
from tests.shards import Mirror, encoded, mirror, photograph, rows
from tests.training import Quiet, make_split, small

__all__ = ["mirror"]
pytestmark = pytest.mark.usefixtures("threads")
AUGMENTED = "augmentation=['resized_crop', 'flip', 'randaugment', 'mixup', 'cutmix']"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdsnn.data._reader.usable_workers", lambda: 1)


def streamed_trainer(mirror: Mirror, folder: Path, *changes: str) -> Trainer:
    folder.mkdir(exist_ok=True)
    rest, held_out = mirror.training()
    return Trainer(small(*changes), folder=folder, train=rest, held_out=held_out, device=CPU)


def with_broken_rows(count: int) -> list[tuple[bytes | None, int | None]]:
    content = rows(count)
    content[3], content[41] = (b"", 1), (encoded(photograph(1, size=(200, 200)))[:-3000], 1)
    return content


def test_resume_is_bit_equal_wherever_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    """Eleven batches an epoch, two epochs; stopped after 1, 5, 11 and 15 steps in all."""
    mirror.write(with_broken_rows(100))
    settings = (AUGMENTED, "bn_batches=2", "ema_decay=0.5", "topography.warmup_epochs=0")
    whole = streamed_trainer(mirror, tmp_path / "whole", *settings)
    whole.run(Quiet())
    assert whole.batches.steps == 11
    for steps in (1, 4, 6, 4, None):
        part = streamed_trainer(mirror, tmp_path / "parts", *settings)
        if steps != 1:
            part.resume()
        part.run(Quiet(), stop_after=steps)
    one, two = whole.model.state_dict(), part.model.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    logs = [
        [json.loads(line) for line in (tmp_path / run / LOG).read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    for ours, theirs in zip(*logs, strict=True):
        for key in ("task", "accuracy", "unreadable", "held_out_accuracy"):
            assert ours[key] == theirs[key]


def test_broken_rows_are_told_at_the_end_of_the_epoch(mirror: Mirror, tmp_path: Path) -> None:
    mirror.write(with_broken_rows(98))
    run = streamed_trainer(mirror, tmp_path / "run", "epochs=1")
    kept = set(run.batches._pictures.rows) & {3, 41}  # type: ignore[attr-defined]
    run.run(Quiet())
    (line,) = map(json.loads, (tmp_path / "run" / LOG).read_text().splitlines())
    assert run.batches.steps * 8 == 88
    assert line["unreadable"] == pytest.approx(len(kept) / 88)
    assert kept, "at least one is not held out"
    assert line["remark"].startswith(f"{len(kept)} of 88 pictures of this epoch could not be used")
    assert "; one of them: Row " in line["remark"]


def test_a_shard_with_too_many_broken_rows_ends_the_run(mirror: Mirror, tmp_path: Path) -> None:
    content = rows(150)
    content[55:90] = [(b"", 1)] * 35
    mirror.write(content)
    run = streamed_trainer(mirror, tmp_path / "run")
    with pytest.raises(
        IntegrityError, match=r"train-00001-of-00003.parquet has 11 rows .* holds no encoded picture"
    ):
        run.run(Quiet())


def batches_of(
    mirror: Mirror, *, processes: int = 1, names: tuple[str, ...] = ("resized_crop", "flip")
) -> StreamedBatches:
    recipe = Recipe(batch_size=16, augmentation=names)  # type: ignore[arg-type]
    found = training_batches(mirror.training()[0], recipe, processes=processes, device=CPU)
    assert isinstance(found, StreamedBatches)
    return found


def test_processes_share_a_batch_as_one_has_it(mirror: Mirror) -> None:
    mirror.write(rows(100))
    alone = batches_of(mirror)
    teams = [batches_of(mirror, processes=2) for _ in range(2)]
    for step, chosen in enumerate(alone.plan(0)):
        x, y = alone.load(chosen, epoch=0, step=step)
        for rank, own in enumerate(teams):
            assert torch.equal(own.plan(0)[step], chosen)
            mine, labels = own.load(chosen[rank::2], epoch=0, step=step, part=Part(rank, 2))
            assert torch.equal(mine, x[rank::2])
            assert torch.equal(labels, y[rank::2])


def test_reading_begins_anew_at_any_batch(mirror: Mirror) -> None:
    mirror.write(rows(100))
    one, other = batches_of(mirror), batches_of(mirror)
    plan = one.plan(2)
    for step in (0, 1, 2, 3):
        whole = one.load(plan[step], epoch=2, step=step, part=WHOLE)[0]
    assert torch.equal(other.load(plan[3], epoch=2, step=3)[0], whole)
    assert torch.equal(other.load(plan[0], epoch=2, step=0)[0], one.load(plan[0], epoch=2, step=0)[0])
    assert not torch.equal(
        other.load(plan[3], epoch=2, step=3)[0], other.load(other.plan(1)[3], epoch=1, step=3)[0]
    )


def test_labels_go_with_their_pictures(mirror: Mirror) -> None:
    mirror.write(rows(100))
    batches = batches_of(mirror, names=())
    for step, chosen in enumerate(batches.plan(0)):
        x, labels = batches.load(chosen, epoch=0, step=step)
        assert torch.equal((x[:, 0, :6].mean((1, 2)) > x[:, 0, 10:].mean((1, 2)) + 0.4).long(), labels)
        assert labels.tolist() == batches._split.labels[chosen.numpy()].tolist()


def test_a_crop_is_not_for_images_that_were_decoded_before() -> None:
    with pytest.raises(UsageError, match="'resized_crop' is made where pictures are decoded"):
        training_batches(
            make_split(), Recipe(batch_size=8, augmentation=("resized_crop",)), processes=1, device=CPU
        )


def test_images_of_the_cache_can_be_mixed_too() -> None:
    recipe = Recipe(batch_size=8, augmentation=("flip", "mixup"))
    batches = training_batches(make_split(), recipe, processes=1, device=CPU)
    x, shares = batches.load(batches.plan(0)[0], epoch=0, step=0)
    assert shares.shape == (8, 10)
    assert x.shape == (8, 1, 16, 16)


def test_accumulated_gradients_are_those_of_the_batch(tmp_path: Path) -> None:
    """Without statistics of a batch, which the normalisation does not take in evaluation mode."""
    gradients = []
    for passes in ("accumulate=1", "accumulate=4"):
        folder = tmp_path / passes
        folder.mkdir()
        split = make_split()
        plain = small(
            passes, "augmentation=['mixup']", "topography.alpha=0", "topography.beta=0", "rate_penalty=0.5"
        )
        run = Trainer(plain, folder=folder, train=split, held_out=split, device=CPU)
        run.wrapped.eval()
        parts = run._step(run.batches.plan(0)[0], epoch=0, step=0)
        flat = torch.cat([one.grad.flatten() for one in run.model.parameters() if one.grad is not None])
        gradients.append((flat, parts["task"], parts["accuracy"]))
    (one, task, accuracy), (many, same, alike) = gradients
    torch.testing.assert_close(many, one, rtol=1e-4, atol=1e-6)
    assert (same, alike) == (pytest.approx(task), pytest.approx(accuracy))


def test_passes_of_unequal_size_are_refused() -> None:
    with pytest.raises(UsageError, match="8 images cannot be accumulated in 3 equal passes") as caught:
        training_batches(make_split(), Recipe(batch_size=8, accumulate=3), processes=1, device=CPU)
    assert "batch_size=9" in caught.value.hint
