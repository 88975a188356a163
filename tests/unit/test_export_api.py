"""``tdsnn.export`` and its certificate."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import exports
import pytest
import tiny
import torch
from exports import by_hand
from msgspec.structs import replace

import tdsnn
from tdsnn import certificates
from tdsnn.certificates import LOGITS_BAR, Certificate, OtherClass, OwnPaths
from tdsnn.errors import GateError, IntegrityError, MissingError, TdsnnError, UsageError
from tdsnn.exporting.api import MOST_TIMESTEPS, verify
from tdsnn.exporting.formats import FORMATS, Exported
from tdsnn.exporting.verification import Agreement, own_paths
from tdsnn.paths import install_command

onnx = pytest.importorskip("onnx")
N = 30
QUICK = "torch-export"
"""Of the formats the one that is written in the least time, for what depends on none."""


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    """Times are not what is tested here, and compiling takes half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tdsnn.models._base.Model.compile_operators", lambda model: False)
        patch.setattr("tdsnn.exporting.latency._ROUNDS", 2)
        yield


def spiking() -> exports.ByHand:
    """The network computed by hand on digits; neurons fire at other steps for each brightness."""
    model = by_hand(classes=10, timesteps=2)
    with torch.no_grad():
        model.readout.weight.copy_(torch.linspace(-1, 2, 10)[:, None])
        model.readout.bias.copy_(torch.linspace(0.05, -0.02, 10))
    model.dataset = "digits"
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tdsnn.exporting.api.Export:
    out = tmp_path_factory.mktemp("exported") / "net.onnx"
    return tdsnn.export(spiking(), format="onnx", out=out, verify=True, n=N)


def test_the_certificate_tells_of_the_file(exported: Any) -> None:
    found = exported.certificate
    content = exported.path.read_bytes()
    assert found.failures == ()
    assert (found.n, found.split, found.timesteps) == (N, "test", 2)
    assert found.file.size == len(content)
    assert found.worst_difference < LOGITS_BAR
    assert {layer.layer: (layer.flips, layer.compared) for layer in found.layers} == {
        "first": (0, N * 2 * 64),
        "second": (0, N * 2 * 64),
    }
    assert [one.batch for one in found.latency] == [1, 64]
    assert all(one.model_ms > 0 and one.runtime_ms > 0 for one in found.latency)
    assert {"onnx", "onnxruntime", "torch"} <= found.provenance["packages"].keys()


def test_the_certificate_lies_beside_the_file(exported: Any) -> None:
    path = exported.path.with_name("net.onnx.certificate.json")
    assert certificates.read(path) == exported.certificate
    document = json.loads(path.read_text())
    assert document["passed"] is True
    assert document["flip_rate"] == 0.0
    assert document["other_classes"] == []


def test_its_text_is_tables(exported: Any) -> None:
    text = str(exported.certificate)
    assert re.search(rf"images \(digits, test\) +{N}\n", text)
    assert "Passed" in text
    assert "ONNX Runtime" in text
    assert "first" in text


def test_other_onnx_readers_find_images_logits_and_metadata(exported: Any) -> None:
    model = onnx.load(exported.path)
    (images,), (logits,) = model.graph.input, model.graph.output
    sizes = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, sizes, logits.name) == ("images", ["batch", 1, 8, 8], "logits")
    assert {one.domain for one in model.opset_import} == {one.domain for one in model.graph.node} == {""}
    about = {one.key: one.value for one in model.metadata_props}
    assert about["timesteps"] == "2"
    assert json.loads(about["labels"]) == [str(digit) for digit in range(10)]
    assert about["weights_sha256"] == exported.certificate.weights_sha256
    spikes = [node for node in model.graph.node if node.op_type == "GreaterOrEqual"]
    assert [node.output[0] for node in spikes] == [
        f"{layer}/spikes/{step}" for step in range(2) for layer in ("first", "second")
    ]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def tampered(path: Path, target: Path, change: Any) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, target)
    return target


def scale(name: str, factor: float) -> Any:
    def change(model: Any) -> None:
        (tensor,) = [one for one in model.graph.initializer if one.name.endswith(name)]
        values = onnx.numpy_helper.to_array(tensor) * factor
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), tensor.name))

    return change


def test_a_tampered_file_fails(exported: Any, tmp_path: Path) -> None:
    """One weight that changes logits a little, one that changes spikes, and one that changes classes."""
    bias = tampered(exported.path, tmp_path / "bias.onnx", scale("readout.bias", 1.01))
    found = verify(bias, spiking(), format="onnx", n=N)
    assert found.worst_without_flips > LOGITS_BAR
    assert found.flipped_images == 0
    assert len(found.failures) == 1
    assert "where no spike flips" in found.failures[0]
    kernel = tampered(exported.path, tmp_path / "kernel.onnx", scale("conv1.weight", 0.3))
    found = verify(kernel, spiking(), format="onnx", n=N)
    assert found.flipped_images == N
    assert sum(layer.flips for layer in found.layers) > 0
    readout = tampered(exported.path, tmp_path / "readout.onnx", scale("readout.weight", -1.0))
    found = verify(readout, spiking(), format="onnx", n=N)
    assert found.other_classes
    assert all(0 <= one.image < N and one.lead > 0 for one in found.other_classes)
    assert "chooses another class on" in found.failures[0]
    assert "Failed" in str(found)


def test_a_file_of_other_weights_is_refused(exported: Any, tmp_path: Path) -> None:
    def rename(model: Any) -> None:
        (entry,) = [one for one in model.metadata_props if one.key == "weights_sha256"]
        entry.value = "b" * 64

    other = tampered(exported.path, tmp_path / "other.onnx", rename)
    with pytest.raises(IntegrityError, match="of the weights bbbbbbbbbbbb"):
        verify(other, spiking(), format="onnx", n=N)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file"):
        verify(tmp_path / "gone.onnx", spiking(), format="onnx", n=N)


def test_the_same_model_gives_the_same_bytes(exported: Any, tmp_path: Path) -> None:
    again = tdsnn.export(spiking(), format="onnx", out=tmp_path / "again.onnx")
    assert again.path.read_bytes() == exported.path.read_bytes()
    assert again.certificate is None
    assert not certificates.beside(again.path).exists()


def test_what_rounding_alone_does_is_told_beside_it(exported: Any) -> None:
    assert exported.certificate.own_paths is None, "these tests compile nothing"
    assert exported.certificate.own == ""
    told = replace(exported.certificate, own_paths=OwnPaths(argmax_differences=1, moved_images=12))
    assert f"a logit by more than 1e-04 on 12 of {N} images, and the class on 1" in str(told)
    model, images = spiking(), torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        answers = model(images)
    assert own_paths(model, answers, images.split(4), timesteps=2) == OwnPaths(
        argmax_differences=0, moved_images=0
    )
    answers[1] = answers[1].flip(0) + 1.0
    answers[4] += 2e-4
    assert own_paths(model, answers, images.split(4), timesteps=2) == OwnPaths(
        argmax_differences=1, moved_images=2
    )


class Odd(Exported):
    """A file with answers of its own."""

    def __init__(self, logits: torch.Tensor, spikes: dict[str, torch.Tensor]) -> None:
        self._logits, self._spikes = logits, spikes

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        return self._logits

    def spikes(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._spikes


def test_answers_of_another_form_are_refused() -> None:
    model, images, trains = spiking(), torch.rand(3, 1, 8, 8), torch.zeros(2, 3, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(IntegrityError, match=r"logits \(3, 9\), the model \(3, 10\)"):
        Agreement().add(model, Odd(torch.zeros(3, 9), {}), images, timesteps=2)
    with pytest.raises(IntegrityError, match="nowhere of layer 'second'"):
        Agreement().add(model, Odd(torch.zeros(3, 10), {"first": trains}), images, timesteps=2)


def test_no_number_is_the_largest_difference() -> None:
    model, images = spiking(), torch.rand(3, 1, 8, 8)
    agreement, trains = Agreement(), exports.spikes_of(model, images, 2)
    agreement.add(model, Odd(torch.full((3, 10), torch.nan), trains), images, timesteps=2)
    assert agreement.flipped_images == 0
    assert agreement.worst_without_flips == pytest.approx(3.4e38, rel=0.01)


def test_a_zoo_entry_has_the_digest_and_licence_of_its_release(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.install(project, monkeypatch)
    monkeypatch.setattr(tiny.Tiny, "compile_operators", lambda model: False)
    found = tdsnn.export("tiny", format=QUICK, out=tmp_path / "tiny.pt2")
    assert found.metadata.name == "tiny.digits"
    assert found.metadata.licence == "Apache-2.0"
    release = tdsnn.manifest.load_release("tiny.digits")
    assert found.metadata.weights_sha256 == release.weights_sha256
    assert found.metadata.timesteps == 1


def test_a_model_in_training_stays_in_training(tmp_path: Path) -> None:
    """The file answers as the model in eval mode does."""
    model = spiking().train()
    statistics = model.norm.running_mean.clone()
    tdsnn.export(model, format=QUICK, out=tmp_path / "net.pt2")
    assert model.training
    assert model.norm.training
    assert torch.equal(model.norm.running_mean, statistics)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not Linear"):
        tdsnn.export(torch.nn.Linear(1, 1), format="onnx", out=tmp_path / "net.onnx")


@pytest.mark.parametrize("timesteps", [0, -1, MOST_TIMESTEPS + 1])
def test_steps_out_of_range_are_refused(tmp_path: Path, timesteps: int) -> None:
    with pytest.raises(UsageError, match=f"1 to {MOST_TIMESTEPS}, not {timesteps}"):
        tdsnn.export(spiking(), format="onnx", out=tmp_path / "net.onnx", timesteps=timesteps)


@pytest.mark.parametrize("n", [0, -5, 10_000])
def test_images_that_are_not_there_are_refused_before_work_begins(tmp_path: Path, n: int) -> None:
    with pytest.raises(UsageError, match=f"not {n}"):
        tdsnn.export(spiking(), format="onnx", out=tmp_path / "net.onnx", verify=True, n=n)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean onnx"):
        tdsnn.export(spiking(), format="onxn", out=tmp_path / "net.onnx")


def test_a_model_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must know its dataset"):
        tdsnn.export(by_hand(), format="onnx", out=tmp_path / "net.onnx")


def test_files_that_exist_stay(exported: Any, tmp_path: Path) -> None:
    for name in ("net.onnx", "net.onnx.certificate.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match="exists"):
            tdsnn.export(spiking(), format="onnx", out=tmp_path / "net.onnx", verify=True, n=N)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    with pytest.raises(UsageError, match="is a folder"):
        tdsnn.export(spiking(), format="onnx", out=tmp_path, force=True)


def test_force_replaces_the_file_and_takes_its_old_certificate_away(exported: Any, tmp_path: Path) -> None:
    target = tmp_path / "net.pt2"
    target.write_text("old")
    certificates.write(exported.certificate, certificates.beside(target))
    found = tdsnn.export(spiking(), format=QUICK, out=target, force=True)
    assert FORMATS.load("torch_export").read(target).metadata == found.metadata
    assert not certificates.beside(target).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TdsnnError, match="could not be written"):
        tdsnn.export(spiking(), format="onnx", out=tmp_path / "net.onnx")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "net.pt2"
    target.write_text("old")

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as stream:
            stream.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(TdsnnError, match="No space left on device"):
        tdsnn.export(spiking(), format=QUICK, out=target, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]
    assert target.read_text() == "old"


def test_a_writer_that_errs_is_found_out_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(FORMATS.load("torch_export"))
    right = kind.encode

    def wrong(self: Any, program: Any, metadata: Any) -> bytes:
        program.exported.state_dict["network.readout.bias"].data.add_(0.01)
        return right(self, program, metadata)

    monkeypatch.setattr(kind, "encode", wrong)
    with pytest.raises(IntegrityError, match=r"logits differ by 1\.0e-02"):
        tdsnn.export(spiking(), format=QUICK, out=tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_the_model_is_kept_with_its_certificate(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the two images of the way back did not show it."""
    failed = replace(exported.certificate, other_classes=(OtherClass(image=3, lead=0.25, flips=7),))
    monkeypatch.setattr("tdsnn.exporting.api._verify", lambda *arguments, **options: failed)
    target = tmp_path / "net.pt2"
    with pytest.raises(GateError, match=f"chooses another class on 1 of {N} images") as caught:
        tdsnn.export(spiking(), format=QUICK, out=target, verify=True, n=N)
    assert caught.value.exit_code == 5
    assert target.is_file()
    assert certificates.read(certificates.beside(target)) == failed


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FORMATS.load("onnx")), "packages", ("onnx", "no_such_package"))
    with pytest.raises(MissingError, match="'no_such_package'") as caught:
        tdsnn.export(spiking(), format="onnx", out=tmp_path / "net.onnx")
    assert caught.value.hint == f"Install it: {install_command('export')}"


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda text: text[:-20], "cannot be read"), (lambda text: text.replace('"n": 30', '"n": 0'), "n")],
    ids=["cut", "no images"],
)
def test_a_damaged_certificate_is_refused(exported: Any, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "x.certificate.json"
    path.write_text(change(certificates.beside(exported.path).read_text()))
    with pytest.raises(IntegrityError, match=message):
        certificates.read(path)


def test_official_certificates_are_found_by_their_weights(exported: Any, project: Path) -> None:
    assert certificates.official("a" * 64) == ()
    folder = project / "benchmarks" / "results" / "export"
    for stem, sha256 in (("one", "a" * 64), ("two", "b" * 64)):
        certificates.write(replace(exported.certificate, weights_sha256=sha256), folder / f"{stem}.json")
    (found,) = certificates.official("a" * 64)
    assert isinstance(found, Certificate)
    assert found.weights_sha256 == "a" * 64
