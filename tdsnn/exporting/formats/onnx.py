"""ONNX: one graph of standard operators, run by ONNX Runtime."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tdsnn.errors import UsageError
from tdsnn.exporting.formats._base import Exported, Exporter, Metadata, readable
from tdsnn.exporting.program import Program, layer_of

__all__ = ["FORMAT"]

_INPUT, _OUTPUT, _BATCH = "images", "logits", "batch"
_SPIKES = "/spikes/"
"""Between a layer and the number of the step, in the names of comparisons with the threshold."""
_SCOPES = "pkg.torch.onnx.name_scopes"


class Onnx(Exporter):
    """Steps are unrolled, so the graph has no loop. Spikes are the outputs of its ``GreaterOrEqual`` nodes,
    called ``LAYER/spikes/STEP``."""

    suffix: ClassVar[str] = ".onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")

    @property
    def runtime(self) -> str:
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}"

    def encode(self, program: Program, metadata: Metadata) -> bytes:
        import onnx

        model = _converted(program)
        _name_spikes(model.graph, program)
        _strip(model)
        onnx.helper.set_model_props(model, metadata.texts())
        model.producer_name, model.producer_version = "tdsnn-zoo", metadata.tdsnn_version
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content

    def read(self, path: Path) -> Exported:
        import onnx
        from google.protobuf.message import DecodeError
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        failures = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.InvalidArgument)
        with readable(path, DecodeError, onnx.checker.ValidationError, *failures, state.NotImplemented):
            model = onnx.load_model_from_string(path.read_bytes())
            onnx.checker.check_model(model)
            return _Exported(model, path)


FORMAT = Onnx()


class _Exported(Exported):
    def __init__(self, model: Any, path: Path) -> None:
        self.metadata = Metadata.from_texts({one.key: one.value for one in model.metadata_props}, path=path)
        self._model = model
        self._session = _session(model)
        self._traced: Any = None

    def logits(self, images: Tensor) -> Tensor:
        (logits,) = self._session.run([_OUTPUT], {_INPUT: images.numpy()})
        return torch.from_numpy(logits)

    def spikes(self, images: Tensor) -> dict[str, Tensor]:
        names = [name for node in self._model.graph.node for name in node.output if _SPIKES in name]
        if not names:
            return {}
        if self._traced is None:
            self._traced = _session(_with_outputs(self._model, names))
        found = self._traced.run(names, {_INPUT: images.numpy()})
        steps: dict[str, dict[int, Tensor]] = {}
        for name, fired in zip(names, found, strict=True):
            layer, _, step = name.rpartition(_SPIKES)
            steps.setdefault(layer, {})[int(step)] = torch.from_numpy(fired)
        return {layer: torch.stack([fired[t] for t in sorted(fired)]) for layer, fired in steps.items()}


def _session(model: Any) -> Any:
    """ONNX Runtime on the CPU with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _with_outputs(model: Any, names: Iterable[str]) -> Any:
    """The same graph, whose inner values of these names can be asked for too."""
    import onnx

    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(model)
    for name in names:
        open_graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return open_graph


def _converted(program: Program) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own insides
            found = torch.onnx.export(
                program.exported,
                dynamo=True,
                optimize=True,
                verbose=False,
                input_names=[_INPUT],
                output_names=[_OUTPUT],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UsageError(
            f"ONNX cannot express the operator '{_operator(error)}' of this network.",
            hint="Another format may: tdsnn-zoo export --help",
        ) from error
    assert found is not None
    return found.model_proto


def _operator(error: BaseException) -> str:
    """The operator that an exporter's errors are about, or else their first line."""
    texts, reason = [], str(error).strip().split("\n")[0]
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    named = re.findall(r"OpOverload\(op='([^']+)'", "\n".join(texts))
    return named[-1] if named else reason


def _name_spikes(graph: Any, program: Program) -> None:
    """Call the comparisons of a layer's potentials ``LAYER/spikes/STEP``."""
    counts: dict[str, int] = {}
    names: dict[str, str] = {}
    for node in graph.node:
        layer = _layer(node, program) if node.op_type == "GreaterOrEqual" else ""
        if layer:
            step = counts[layer] = counts.get(layer, -1) + 1
            names[node.output[0]] = f"{layer}{_SPIKES}{step}"
    assert {layer: count + 1 for layer, count in counts.items()} == {
        layer: len(steps) for layer, steps in program.spikes.items()
    }, "each step of each layer compares once"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)


def _layer(node: Any, program: Program) -> str:
    scopes = next((one.value for one in node.metadata_props if one.key == _SCOPES), "[]")
    return next((layer for layer in map(layer_of, ast.literal_eval(scopes)) if layer in program.spikes), "")


def _strip(model: Any) -> None:
    """Take away what the exporter notes about its run: places in files of this machine among them."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
