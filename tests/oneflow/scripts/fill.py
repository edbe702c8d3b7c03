"""Run by OneFlow's Python: the model of FOLDER/model.py with random weights of OneFlow's, saved as FOLDER/checkpoint.

The outputs for FOLDER/inputs.npz are left in FOLDER/outputs.npz.
"""

import sys
from pathlib import Path

import oneflow as flow
from outputs import model_of, write_outputs

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    flow.manual_seed(0)
    model = model_of(folder)
    for name, parameter in model.named_parameters():
        scale = "LayerNorm.weight" in name
        flow.nn.init.normal_(
            parameter, mean=1.0 if scale else 0.0, std=0.5 if name.startswith("classifier") else 0.1
        )
    flow.save(model.state_dict(), str(folder / "checkpoint"))
    write_outputs(model, folder / "inputs.npz", folder / "outputs.npz")
