"""Int8 engines by NVIDIA's own builder, for compute capability 8.9, on any machine; and the file that it refuses.

    python benchmarks/tensorrt_build.py                           # ResNet-20, ResNet-50, a 6-layer BERT
    python benchmarks/tensorrt_build.py --bert out/sst2-teacher   # the trained BERT in place of one with random weights

Weights are random unless said otherwise: what is built does not depend on them. For ResNet-20 the file that ONNX
Runtime's tool makes by its defaults is tried as well: the lint names its defects, and NVIDIA's parser refuses it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from quantization_peers import onnxruntime_static
from records import Records
from torch import nn

import lianzhi as lz
from lianzhi import artifact, deploy, quantize
from lianzhi.deploy import tensorrt

BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}


def images(size: int) -> list[torch.Tensor]:
    """Two batches of noise."""
    torch.manual_seed(0)
    return [torch.randn(4, 3, size, size) for _ in range(2)]


def tokens() -> list[dict[str, torch.Tensor]]:
    """Two batches of token ids."""
    torch.manual_seed(0)
    names = ("input_ids", "attention_mask", "token_type_ids")
    made = []
    for length in (16, 24):
        ids = torch.randint(5, 30000, (4, length))
        made.append(dict(zip(names, (ids, torch.ones_like(ids), torch.zeros_like(ids)), strict=True)))
    return made


def build(name: str, model: nn.Module, batches: list[Any], capability: str, folder: Path) -> dict[str, Any]:
    """Quantize, export, lint, parse and build; float beside int8."""
    example = {k: v[:1] for k, v in batches[0].items()} if isinstance(batches[0], dict) else batches[0][:1]
    start = time.perf_counter()
    form = quantize.quantize(model.eval(), example, batches, target="tensorrt")
    seconds = time.perf_counter() - start
    path = form.export(folder / f"{name}.onnx")
    floating = deploy.export_onnx(model, example, folder / f"{name}-float.onnx")
    reports = {
        kind: tensorrt.build(file, folder / f"{name}-{kind}.engine", compute_capability=capability)
        for kind, file in (("int8", path), ("float", floating))
    }
    return {
        "quantize_seconds": round(seconds, 2),
        "layers_int8": len(form.report["layers"]),
        "layers_float": len(form.report["left_float"]),
        "lint": [str(item) for item in quantize.lint(path, "tensorrt")],
        "parser": tensorrt.check(path),
        **{kind: report.to_dict() for kind, report in reports.items()},
    }


def refused(folder: Path) -> dict[str, Any]:
    """ResNet-20 by ONNX Runtime's tool: what the lint and the parser say."""
    model = lz.model("resnet20").eval()
    source = deploy.export_onnx(model, torch.zeros(1, 3, 32, 32), folder / "float.onnx")
    path = onnxruntime_static(source, folder / "peer.onnx", images(32))
    found = Counter(item.rule for item in quantize.lint(path, "tensorrt"))
    return {"lint": dict(found), "parser": tensorrt.check(path)[:3]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bert", type=Path, help="an artifact; default: random weights")
    parser.add_argument("--compute-capability", default="8.9")
    given = parser.parse_args()
    records = Records("tensorrt_build")
    bert = artifact.load(given.bert) if given.bert else lz.model("huggingface", config=BERT, num_classes=2)
    cases = {
        "resnet20": (lz.model("resnet20"), images(32)),
        "resnet50": (lz.model("resnet50"), images(224)),
        "bert6": (bert, tokens()),
    }
    with tempfile.TemporaryDirectory() as place:
        for name, (model, batches) in cases.items():
            record = build(name, model, batches, given.compute_capability, Path(place))
            records.add(name, record)
            print(f"{name}: {record['layers_int8']} layers int8, {record['layers_float']} float")
            for kind in ("float", "int8"):
                entry = record[kind]
                print(
                    f"  {kind}: {entry['onnx_bytes'] / 1e6:.1f} MB of ONNX, engine of {entry['bytes'] / 1e6:.1f} MB "
                    f"in {entry['seconds']:.1f} s, {entry['library']} {entry['version']}, "
                    f"SM {entry['compute_capability']}, not executed"
                )
            print(f"  lint: {record['lint'] or 'nothing found'}; parser: {record['parser'] or 'takes it'}")
        records.add("onnxruntime static, resnet20", refused(Path(place)))
    peer = records["onnxruntime static, resnet20"]
    print(f"ONNX Runtime's file: lint {peer['lint']}; parser: {peer['parser'][0]}")


if __name__ == "__main__":
    main()
