"""Training: settings, exact resume, damage, Ctrl-C, and two processes."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from msgspec.structs import replace
from torch import Tensor

from tdsnn import zoo
from tdsnn.cli.train import describe
from tdsnn.data._base import Split
from tdsnn.errors import GateError, IntegrityError, TdsnnError, UsageError
from tdsnn.kernels._library import library
from tdsnn.kernels.memory import keep_freed_memory
from tdsnn.publish.release import first_images
from tdsnn.schema import Recipe
from tdsnn.tasks._base import TASKS
from tdsnn.tasks.classification import CLASSIFICATION
from tdsnn.topography.alignment import firing_rates
from tdsnn.training import loop, objective, session
from tdsnn.training._draws import batches
from tdsnn.training.loop import LOG, Trainer
from tdsnn.training.optim import build_optimizer, set_lr
from tdsnn.training.state import (
    SETTINGS,
    STATE,
    check_settings,
    load_state,
    save_state,
    settings_digest,
    write_settings,
)
from tdsnn.weights import read_checkpoint
from tests.second_device import second_device
from tests.training import SMALL, Quiet, make_split, small, trainer

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture(scope="module")
def split() -> Split:
    return make_split()


@pytest.mark.parametrize("changes", [(), ("ema_decay=0.9", "optimizer=sgd", "clip_norm=1.0")])
def test_resume_is_bit_equal(tmp_path: Path, split: Split, changes: tuple[str, ...]) -> None:
    """5 + 7 steps, across the end of an epoch, give what 12 steps give."""
    manifest = small("augmentation=['crop', 'flip']", *changes)
    whole = trainer(manifest, tmp_path / "whole", split)
    whole.run(Quiet())
    first = trainer(manifest, tmp_path / "parts", split)
    first.run(Quiet(), stop_after=5)
    second = trainer(manifest, tmp_path / "parts", split)
    second.resume()
    assert vars(second.position) == {"epoch": 0, "step": 5}
    second.run(Quiet())
    one, two = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    states = load_state(tmp_path / "whole"), load_state(tmp_path / "parts")
    assert str(states[0]["optimizer"]) == str(states[1]["optimizer"])


def test_a_run_learns_logs_and_leaves_a_checkpoint(tmp_path: Path, split: Split) -> None:
    quiet = Quiet()
    run = trainer(small("epochs=6", "lr=0.02"), tmp_path, split)
    run.run(quiet)
    log = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(6))
    assert log[-1]["task"] < 0.7 * log[0]["task"]
    assert {"L_L", "L_S", "masked", "accuracy", "images_per_second", "lr"} <= log[0].keys()
    assert quiet.lines[0]["seconds_left"] > 0
    checkpoint = read_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.config.name == "tsresnet18.fashion_mnist"
    assert len(checkpoint.positions) == 8


def test_the_twin_sees_the_same_images_and_starts_equal(tmp_path: Path, split: Split) -> None:
    one = trainer(small(), tmp_path / "one", split)
    two = trainer(small(name="sresnet18"), tmp_path / "two", split)
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key])
    for layer, sheet in one.model.sheets.items():
        assert torch.equal(sheet.positions, two.model.sheets[layer].positions)
    assert two.objective.spatial is None
    lines = Quiet(), Quiet()
    one.run(lines[0], stop_after=1)
    two.run(lines[1], stop_after=1)
    assert lines[0].lines[0]["lr"] > 0, "no step is for nothing"
    # Without warm-up steps behind it the topographic weight is still zero, so the first loss is the same.
    assert lines[0].lines[0]["task"] == lines[1].lines[0]["task"]


def test_the_spatial_loss_changes_the_weights(tmp_path: Path, split: Split) -> None:
    strong = ("topography.alpha=5", "topography.beta=5", "topography.warmup_epochs=0")
    one = trainer(small(*strong), tmp_path / "one", split)
    two = trainer(small(*strong, "topography.alpha=0", "topography.beta=0"), tmp_path / "two", split)
    one.run(Quiet(), stop_after=2)
    two.run(Quiet(), stop_after=2)
    assert not torch.equal(one.model.conv1.weight, two.model.conv1.weight)


def test_batches_cover_the_epoch_once_and_differ_between_epochs() -> None:
    plan = batches(0, 0, samples=50, batch_size=8)
    drawn = torch.cat(plan)
    assert len(plan) == 6
    assert drawn.unique().numel() == 48
    assert not torch.equal(drawn, torch.cat(batches(0, 1, samples=50, batch_size=8)))
    assert torch.equal(drawn, torch.cat(batches(0, 0, samples=50, batch_size=8)))


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = Recipe(lr=1.0, epochs=10, warmup_epochs=2.0)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), recipe)
    rates = []
    for epoch in (0, 1, 2, 6, 10):
        set_lr(optimizer, recipe, epoch)
        rates.append(optimizer.param_groups[0]["lr"])
        assert {group["lr"] for group in optimizer.param_groups} == {rates[-1]}
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)


def test_settled_statistics_are_the_mean_over_batches(tmp_path: Path, split: Split) -> None:
    run = trainer(small("epochs=1", "bn_batches=3", "augmentation=[]"), tmp_path, split)
    run.run(Quiet())
    model, recipe = run.model, run.manifest.recipe
    plan = batches(recipe.seed, recipe.epochs, samples=len(split.labels), batch_size=recipe.batch_size)
    means, variances = [], []
    for chosen in plan[:3]:
        x = torch.from_numpy(split.images[chosen.numpy()]).float() / 255
        with torch.no_grad():
            first = model.conv1((x - model.mean) / model.std)
        means.append(first.mean((0, 2, 3)))
        variances.append(first.var((0, 2, 3)))
    torch.testing.assert_close(model.bn1.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(model.bn1.running_var, torch.stack(variances).mean(0))
    assert model.bn1.momentum == 0.1
    assert not model.training


def test_statistics_are_settled_in_passes_no_larger_than_those_that_fitted(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        loop, "finish", lambda *_, batches, **__: seen.extend(len(images) for images in batches)
    )
    run = trainer(small("epochs=1", "bn_batches=3", "accumulate=4"), tmp_path, split)
    run._finish()
    assert seen == 12 * [2]


def test_gradient_shares_are_logged_once_an_epoch(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [], objective.gradient_shares
    monkeypatch.setattr(
        objective, "gradient_shares", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    shares = []
    for weight, stop_after in ((0.01, 1), (2.0, None)):
        weights = f"topography.alpha={weight}", f"topography.beta={weight}"
        quiet = Quiet()
        trainer(small(*weights), tmp_path / str(weight), split).run(quiet, stop_after=stop_after)
        shares.append(quiet.lines[0]["gradient_shares"])
        assert set(shares[-1]) == {"task", "L_L", "L_S"}
        assert sum(shares[-1].values()) == pytest.approx(1)
        assert f"L_S {shares[-1]['L_S']:.0%}" in describe(quiet.lines[0])
    # 200 times the weight is 200 times the share beside the task, also before the warm-up is over.
    odds = [share["L_L"] / share["task"] for share in shares]
    assert odds[1] / odds[0] == pytest.approx(200, rel=1e-3)
    log = [json.loads(line) for line in (tmp_path / "2.0" / LOG).read_text().splitlines()]
    assert log[0]["gradient_shares"] == shares[1]
    assert log[1]["gradient_shares"] != shares[1]
    assert len(calls) == 3, "one step, and two epochs"


def test_a_run_without_a_spatial_loss_measures_no_shares(tmp_path: Path, split: Split) -> None:
    quiet = Quiet()
    trainer(small(name="sresnet18"), tmp_path, split).run(quiet, stop_after=1)
    assert "gradient_shares" not in quiet.lines[0]


@pytest.mark.parametrize(("loss", "recorded"), [("tdann", 8), ("topoloss", 0)])
def test_other_spatial_losses_train_on_the_outputs_that_they_need(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch, loss: str, recorded: int
) -> None:
    asked, real = [], objective.capture_outputs
    one = ("topography.alpha=5", "topography.beta=0", "topography.warmup_epochs=0")
    factors = ("topography.factor_h=2", "topography.factor_w=2") if loss == "topoloss" else ()
    run = trainer(small(f"topography.loss={loss}", *one, *factors), tmp_path, split)
    monkeypatch.setattr(
        objective, "capture_outputs", lambda model, layers: asked.append(len(layers)) or real(model, layers)
    )
    quiet = Quiet()
    run.run(quiet, stop_after=6)
    assert asked == [recorded] * 6
    assert quiet.lines[0]["gradient_shares"]["spatial"] > 0
    assert quiet.lines[-1]["spatial"] < quiet.lines[0]["spatial"]


@pytest.mark.parametrize("compile", ["false", "true"])
def test_the_spatial_loss_is_compiled_with_the_model(tmp_path: Path, split: Split, compile: str) -> None:
    keep_freed_memory.cache_clear()
    run = trainer(small(f"compile={compile}"), tmp_path, split)
    spatial = run.objective.spatial
    assert spatial is not None
    assert spatial.compiled == run.model.neurons[0].compiled == (compile == "true" and bool(library()))
    assert keep_freed_memory.cache_info().currsize == 0, "whose process it is decides about its memory"


class _Shifted(type(CLASSIFICATION)):  # type: ignore[misc]
    """The class after the target is the right one."""

    def training_loss(self, outputs: Tensor, targets: Tensor, *, label_smoothing: float) -> Tensor:
        return super().training_loss(outputs, (targets + 1) % 10, label_smoothing=label_smoothing)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().score(outputs, (targets + 1) % 10)


def test_the_task_of_the_images_says_what_is_learned(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = type(TASKS).load
    monkeypatch.setattr(
        type(TASKS), "load", lambda registry, name: _Shifted() if name == "shifted" else load(registry, name)
    )
    shifted = dataclasses.replace(split, labels=(split.labels - 1) % 10, task="shifted")
    runs = []
    for images in (split, shifted):
        run = trainer(small("epochs=1", "label_smoothing=0.1"), tmp_path / images.task, images)
        run.run(Quiet())
        runs.append(run)
    assert settings_digest(runs[0].manifest) == settings_digest(runs[1].manifest)
    for key, value in runs[0].model.state_dict().items():
        assert torch.equal(value, runs[1].model.state_dict()[key])
    logs = [json.loads((run.folder / LOG).read_text()) for run in runs]
    for key in ("task", "accuracy", "held_out_accuracy"):
        assert logs[0][key] == logs[1][key]


def test_biases_are_not_decayed() -> None:
    groups = build_optimizer(torch.nn.Linear(3, 2), Recipe(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in groups] == [
        (0.1, [2]),
        (0.0, [1]),
    ]


def test_resume_refuses_other_settings_and_damage(tmp_path: Path) -> None:
    manifest = small()
    with pytest.raises(UsageError, match="nothing to resume"):
        load_state(tmp_path)
    write_settings(tmp_path, manifest)
    check_settings(tmp_path, manifest)
    other = replace(manifest, recipe=replace(manifest.recipe, lr=0.5))
    with pytest.raises(UsageError, match=r"began with 0\.003 for 'recipe\.lr', but .* has 0\.5 here"):
        check_settings(tmp_path, other)
    stored = json.loads((tmp_path / SETTINGS).read_text())
    del stored["topography"]["window_shape"], stored["recipe"]["bn_batches"]
    (tmp_path / SETTINGS).write_text(json.dumps(stored))
    check_settings(tmp_path, small("bn_batches=0"))  # a run that began before there were these settings
    with pytest.raises(UsageError, match=r"for 'topography\.window_shape'"):
        check_settings(tmp_path, small("bn_batches=0", "topography.window_shape=triangular"))
    for damaged, message in (("[]", "needs a table"), ("{", "cannot be read"), ("{}", "lacks the key")):
        (tmp_path / SETTINGS).write_text(damaged)
        with pytest.raises(IntegrityError, match=message):
            check_settings(tmp_path, manifest)
    (tmp_path / STATE).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(IntegrityError, match="damaged"):
        load_state(tmp_path)
    torch.save([1], tmp_path / STATE)
    with pytest.raises(IntegrityError, match="damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("set of settings", "0" * 64),
        ("set of training images", "0" * 64),
        ("set of held-out images", "0" * 64),
        ("network that arranged the sheets", "0" * 64),
        ("number of processes", 2),
    ],
)
def test_a_state_of_another_run_is_not_taken_up(tmp_path: Path, part: str, value: object) -> None:
    split = dataclasses.replace(make_split(), digest="1" * 64)
    run = trainer(small(), tmp_path, split)
    run.run(Quiet(), stop_after=1)
    state = load_state(tmp_path)
    assert part in state["origin"]
    save_state(tmp_path, state | {"origin": {**state["origin"], part: value}})
    with pytest.raises(UsageError, match=f"was made with another {part} ") as caught:
        run.resume()
    assert STATE in caught.value.message
    save_state(tmp_path, {key: kept for key, kept in state.items() if key != "origin"})
    run.resume()  # a run of before there was one
    assert run.position.step == 1


def test_resume_without_settings_goes_on_under_those_of_the_run(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "load_training", lambda name: (split, split))
    settings = [*SMALL, "topography.cluster_units=8", "topography.clusters=2", "epochs=1"]
    first = session.train("tsresnet18", settings=settings, run_dir=tmp_path)
    assert first is not None
    again = session.train("tsresnet18", resume=True, run_dir=tmp_path)
    assert again is not None
    assert again.weights_sha256 == first.weights_sha256
    killed = tmp_path / "before its first state"
    killed.mkdir()
    shutil.copy(tmp_path / SETTINGS, killed)
    early = session.train("tsresnet18", resume=True, run_dir=killed)
    assert early is not None
    assert early.weights_sha256 == first.weights_sha256
    with pytest.raises(UsageError, match=r"began with 1 for 'recipe\.epochs'"):
        session.train("tsresnet18", settings=[*settings, "epochs=2"], resume=True, run_dir=tmp_path)
    with pytest.raises(UsageError, match=r"is of tsresnet18\.fashion_mnist"):
        session.train("sresnet18", resume=True, run_dir=tmp_path)


def test_a_run_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(folder: Path | None, *, resume: bool = False) -> None:
        session.train(
            "tsresnet18",
            settings=SMALL,
            resume=resume,
            device="cpu",
            run_dir=folder,
            watcher=Quiet(),
            note=lambda text: None,
        )

    file = tmp_path / "file"
    file.write_text("mine")
    for resume in (False, True):
        with pytest.raises(UsageError, match="file' is a file, so no run can be in it"):
            start(file, resume=resume)
    with pytest.raises(TdsnnError, match="could not be written: Not a directory"):
        start(file / "below")
    with pytest.raises(UsageError, match="nothing to resume"):
        start(file / "below", resume=True)
    assert file.read_text() == "mine"
    monkeypatch.chdir("/proc")  # nobody may write there, not even root
    with pytest.raises(TdsnnError, match=r"'runs/tsresnet18\.fashion_mnist' could not be written"):
        start(None)


def test_a_penalty_on_firing_rates_lowers_them(tmp_path: Path, split: Split) -> None:
    rates = []
    for weight in (1e-9, 3.0):
        quiet = Quiet()
        run = trainer(
            small(f"rate_penalty={weight}", "lr=0.02", name="sresnet18"), tmp_path / str(weight), split
        )
        run.run(quiet)
        first, last = quiet.lines[0], quiet.lines[-1]
        assert 0 < last["rate"] < 1
        assert f"rate {first['rate']:.3f}" in describe(first)
        rates.append(firing_rates(run.model, run.model.sheet_layers, first_images(split)))
    assert rates[0].keys() == set(run.model.sheet_layers)
    assert sum(rates[1].values()) < 0.8 * sum(rates[0].values())


def test_a_loss_that_is_no_number_ends_the_run(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(small(), tmp_path, split)
    run.run(Quiet(), stop_after=2)
    weights = {key: value.clone() for key, value in run.model.state_dict().items() if "running" not in key}
    real = type(CLASSIFICATION).training_loss
    monkeypatch.setattr(
        type(CLASSIFICATION), "training_loss", lambda *given, **named: real(*given, **named) * math.nan
    )
    with pytest.raises(GateError, match=r"loss of epoch 1, step 3 is not finite \(task nan") as caught:
        run.run(Quiet())
    assert "--set lr=" in caught.value.hint
    after = run.model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in weights.items() if "num_batches" not in key)
    assert load_state(tmp_path)["position"]["step"] == 2
    assert not (tmp_path / "checkpoint").exists()


def test_half_precision_weights_are_what_is_measured(tmp_path: Path, split: Split) -> None:
    run = trainer(small("weight_format=fp16", "epochs=1", "bn_batches=2"), tmp_path / "half", split)
    run.run(Quiet())
    whole = trainer(small("epochs=1", "bn_batches=2"), tmp_path / "whole", split)
    whole.run(Quiet())
    files = [tmp_path / name / "checkpoint" / "model.safetensors" for name in ("half", "whole")]
    parameters = sum(p.numel() for p in run.model.parameters() if p.ndim > 1)
    assert files[1].stat().st_size - files[0].stat().st_size == pytest.approx(2 * parameters, rel=0.02)
    loaded = zoo.load(tmp_path / "half" / "checkpoint")
    for key, value in run.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    settled, mean = run.model.bn1.running_mean, whole.model.bn1.running_mean
    assert not torch.equal(settled, mean), "statistics belong to the rounded weights"


def test_processes_share_a_batch_equally_or_not_at_all(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(UsageError, match="A batch of 16 images cannot be shared equally by 3") as caught:
        trainer(small("batch_size=16"), tmp_path, split)
    assert "batch_size=18" in caught.value.hint


def test_the_device_that_was_asked_for_is_the_one(tmp_path: Path, split: Split) -> None:
    device = torch.device("cpu:0")
    run = Trainer(small(), folder=tmp_path, train=split, held_out=split, device=device)
    assert run.device == device
    assert {parameter.device.type for parameter in run.model.parameters()} == {"cpu"}


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_products_are_rounded_only_if_the_recipe_says_so(
    precision: str, tf32: bool, tmp_path: Path, split: Split
) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    run = trainer(small(f"precision={precision}", name="sresnet18"), tmp_path, split)
    seen, before = [], (cudnn.allow_tf32, matmul.allow_tf32)
    run.model.register_forward_hook(
        lambda *_: seen.append((cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic))
    )
    run.run(Quiet(), stop_after=1)
    assert seen == [(tf32, tf32, True)], "and so that a resumed run can be the undisturbed one"
    assert (cudnn.allow_tf32, matmul.allow_tf32) == before


@pytest.mark.parametrize("wanted", [True, False])
def test_operators_for_cpus_are_not_left_out_in_silence(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(session, "_train", lambda *_, **__: None)
    with second_device():
        session.train(
            "sresnet18",
            settings=[f"compile={str(wanted).lower()}"],
            device="cuda:0",
            run_dir=tmp_path,
            note=notes.append,
        )
    assert [note for note in notes if "Spiking layers run on: " in note] == notes
    assert bool(notes) == wanted


def test_a_run_is_on_the_gpu_that_was_asked_for_and_on_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on: list[int] = []
    monkeypatch.setattr(session, "_train", lambda *_, **__: on.append(torch.cuda.current_device()))
    with second_device(1):
        session.train("sresnet18", settings=["compile=false"], device="cuda:1", run_dir=tmp_path)
        on.append(torch.cuda.current_device())
    assert on == [1, 0]


def test_more_processes_than_gpus_are_refused_before_they_look_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with second_device(), pytest.raises(UsageError, match="Process 1 of this machine has no GPU of its own"):
        session.train("sresnet18", device="auto", run_dir=tmp_path)


def test_a_gpu_that_is_too_small_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(session, "_train", full)
    with pytest.raises(TdsnnError, match="too little memory") as caught:
        session.train("sresnet18", settings=["accumulate=2"], device="cpu", run_dir=tmp_path)
    assert "--set accumulate=4" in caught.value.hint
