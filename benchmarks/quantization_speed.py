"""How long does post-training quantization of a BERT-base-size model take, with 8 samples of 128 tokens?

    python benchmarks/quantization_speed.py            # .venv-bench/bin/python … --peer for NNCF beside it

From the float module to the quantized module, capture included; the export is timed apart. Random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from records import Records

import lianzhi as lz
from lianzhi import deploy, measure, quantize

BASE = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
LIMIT = 10.0


def tokens(batch: int, length: int) -> dict[str, torch.Tensor]:
    """Token ids and what goes with them."""
    ids = torch.randint(5, 30000, (batch, length))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", action="store_true", help="NNCF as well (in .venv-bench)")
    given = parser.parse_args()
    torch.manual_seed(0)
    records = Records("quantization_speed")
    model = lz.model("huggingface", config=BASE, num_classes=2).eval()
    data = [tokens(8, 128)]
    quantize.quantize(torch.nn.Linear(4, 4), torch.zeros(1, 4), [torch.zeros(2, 4)])  # imports
    start = time.perf_counter()
    form = quantize.quantize(model, tokens(1, 128), data)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        path = form.export(Path(place) / "model.onnx")
        exported = time.perf_counter() - start
        record = {
            "parameters": measure.parameters(model),
            "seconds": round(seconds, 2),
            "export_seconds": round(exported, 2),
            "bytes": measure.size(path),
            "layers": len(form.report["layers"]),
            "bar": LIMIT,
        }
        records.add("ours", record)
        print(
            f"ours: {record['parameters'] / 1e6:.0f}M parameters, {record['layers']} layers quantized in {seconds:.1f} s "
            f"(bar {LIMIT:.0f}: {'met' if seconds < LIMIT else 'MISSED'}); export {exported:.1f} s"
        )
        if given.peer:
            from quantization_peers import nncf

            source = deploy.export_onnx(model, tokens(1, 128), Path(place) / "float.onnx")
            start = time.perf_counter()
            nncf(source, Path(place) / "nncf.xml", data, transformer=True)
            peer = time.perf_counter() - start
            records.add("nncf", {"seconds": round(peer, 2)})
            print(f"NNCF, from the ONNX file: {peer:.1f} s")


if __name__ == "__main__":
    main()
