"""An engine that runs on the GPU that is here. TensorRT and TensorRT-RTX are called alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lianzhi.deploy.session import Port, Session
from lianzhi.deploy.tensorrt.library import Library
from lianzhi.deploy.tensorrt.log import logger
from lianzhi.errors import DataError, TargetError

_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "UINT8": torch.uint8,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}


class TensorRtSession(Session):
    """Inputs go to the GPU, outputs come back from it: a call ends when they are there."""

    def __init__(self, library: Library, plan: bytes, *, precision: str) -> None:
        self.logger = logger(library.module)
        self.engine = library.module.Runtime(self.logger).deserialize_cuda_engine(plan)
        self.context: Any = None if self.engine is None else self.engine.create_execution_context()
        if self.context is None:
            reason = next(reversed(self.logger.lines), "it gives no reason")
            raise TargetError(f"{library} cannot run the engine on {torch.cuda.get_device_name()}: {reason}")
        self.stream = torch.cuda.Stream()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self.types = {name: _TYPES[self.engine.get_tensor_dtype(name).name] for name in names}
        takes = [name for name in names if self.engine.get_tensor_mode(name).name == "INPUT"]
        super().__init__(
            runtime="tensorrt",
            precision=precision,
            threads=1,
            inputs=[Port(name, _numpy(self.types[name]), _shape(self.engine, name)) for name in takes],
            outputs=[name for name in names if name not in takes],
        )

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run once."""
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            held = {name: torch.from_numpy(value).cuda() for name, value in feeds.items()}
            for name, tensor in held.items():
                if not self.context.set_input_shape(name, tuple(tensor.shape)):
                    raise DataError(self._too_large(name, tuple(tensor.shape)))
                self.context.set_tensor_address(name, tensor.data_ptr())
            results = []
            for name in self.outputs:
                shape = tuple(self.context.get_tensor_shape(name))
                if any(size < 0 for size in shape):
                    raise TargetError(f"the shape of the engine's output '{name}' depends on values; not run")
                results.append(torch.empty(shape, dtype=self.types[name], device="cuda"))
                self.context.set_tensor_address(name, results[-1].data_ptr())
            if not self.context.execute_async_v3(self.stream.cuda_stream):
                reason = next(reversed(self.logger.lines), "it gives no reason")
                raise TargetError(f"TensorRT cannot run the engine: {reason}")
            found = [
                value.float().cpu() if value.dtype == torch.bfloat16 else value.cpu() for value in results
            ]
            self.stream.synchronize()
        return [value.numpy() for value in found]

    def _too_large(self, name: str, shape: tuple[int, ...]) -> str:
        least, _, largest = (tuple(size) for size in self.engine.get_tensor_profile_shape(name, 0))
        return f"input '{name}' has shape {shape}, and the engine was built for {least} to {largest}"


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    if dtype == torch.bfloat16:
        raise TargetError("the engine takes bfloat16, which NumPy does not have; export with float32 inputs")
    found: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    return found


def _shape(engine: Any, name: str) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in engine.get_tensor_shape(name))
