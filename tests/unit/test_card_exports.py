"""The section of a card about exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from card_zoo import TOPO, TWIN, build_pair, card, row

from tdsnn import certificates
from tdsnn.certificates import Certificate, ExportedFile, Latency, LayerFlips, OtherClass, OwnPaths
from tdsnn.errors import IntegrityError


@pytest.fixture
def pair(project: Path) -> Path:
    return build_pair(project)


def certificate(**changes: Any) -> Certificate:
    values = {
        "name": TOPO,
        "format": "onnx",
        "file": ExportedFile(name="topo.onnx", size=3, sha256="d" * 64),
        "weights_sha256": "a" * 64,
        "timesteps": 4,
        "dataset": "toys",
        "split": "test",
        "data_digest": "e" * 64,
        "n": 1000,
        "runtime": "ONNX Runtime 1.32.0",
        "largest_logit": 9.87,
        "worst_difference": 0.63,
        "worst_without_flips": 9.5e-7,
        "other_classes": (),
        "flipped_images": 11,
        "layers": (
            LayerFlips(layer="act1", flips=0, compared=5000),
            LayerFlips(layer="layer1.0.act1", flips=25, compared=5000),
        ),
        "latency": (
            Latency(batch=1, rounds=15, model_ms=27.8, runtime_ms=16.9),
            Latency(batch=64, rounds=15, model_ms=575.9, runtime_ms=947.7),
        ),
        "compiled": True,
        "own_paths": OwnPaths(argmax_differences=0, moved_images=14),
        "provenance": {"threads": 1, "device_name": "A <CPU>"},
    }
    return Certificate(**values | changes)


def official(pair: Path, found: Certificate, stem: str = "one") -> None:
    certificates.write(found, pair / "benchmarks" / "results" / "export" / f"{stem}.json")


def test_a_certificate_is_shown_in_the_card_of_the_same_weights(pair: Path) -> None:
    official(pair, certificate())
    text = card().text
    section = text[text.index("## Export") : text.index("## Training")]
    assert "onnx, T = 4, on the first 1,000 test images" in section
    assert row(section, "images with another class") == ["0"]
    assert row(section, "worst difference of a logit where no spike flips") == ["9.5e-07"]
    assert row(section, "worst difference of a logit") == ["6.3e-01"]
    assert row(section, "images with a flipped spike") == ["11"]
    assert row(section, "flipped spikes of all layers") == ["25 of 10,000 (2.5e-03)"]
    assert row(section, "most in one layer") == ["25 of 5,000 (5.0e-03), `layer1.0.act1`"]
    assert row(section, "ms for 1 image: here / ONNX Runtime 1.32.0") == ["27.8 / 16.9"]
    assert row(section, "ms for 64 images: here / ONNX Runtime 1.32.0") == ["575.9 / 947.7"]
    assert r"A \<CPU\>" in section
    assert "The model's compiled operators, which fold nothing," in section
    assert "a logit by more than 1e-04 on 14 of 1,000 images, and the class on 0." in section
    assert f"tdsnn-zoo export {TOPO} --format onnx" in section
    assert "## Export" not in card(TWIN).text


def test_a_network_without_spikes_has_no_rows_about_them(pair: Path) -> None:
    official(pair, certificate(layers=(), flipped_images=0, compiled=False, latency=(), own_paths=None))
    section = card().text.partition("## Export")[2].partition("\n## ")[0]
    assert "flip" not in section
    assert row(section, "worst difference of a logit") == ["6.3e-01"]
    assert "ms for" not in section


def test_each_format_has_a_table(pair: Path) -> None:
    official(pair, certificate())
    official(pair, certificate(format="nir", latency=(), runtime="reference"), "two")
    text = card().text
    assert text.count("## Export") == 1
    assert text.index("### onnx") < text.index("### nir")


def test_a_failed_certificate_says_so(pair: Path) -> None:
    official(pair, certificate(other_classes=(OtherClass(image=3, lead=0.25, flips=7),)))
    text = card().text
    assert "**Failed**: the file chooses another class on 1 of 1,000 images." in text
    assert row(text, "images with another class") == ["1 (lead of the model at most 0.25)"]


def test_a_damaged_certificate_is_named(pair: Path) -> None:
    folder = pair / "benchmarks" / "results" / "export"
    folder.mkdir(parents=True)
    (folder / "one.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"one\.json"):
        card()
