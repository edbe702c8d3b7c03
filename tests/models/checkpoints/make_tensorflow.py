"""Write the TensorFlow checkpoints that the tests read, by the real TensorFlow: ``pip install tensorflow-cpu==2.21.0``.

    python tests/models/checkpoints/make_tensorflow.py

Each holds what `expected.npz` beside them says, read back by TensorFlow itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent / "data" / "tensorflow"
TYPES = [
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "bfloat16",
]


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers that are exact in every type."""
    count = int(np.prod(shape))
    numbers = np.arange(count).reshape(shape) % (2 if dtype == "bool" else 50)
    return tf.cast(numbers, dtype).numpy()


def types() -> dict[str, np.ndarray]:
    """A variable of every type, and of every odd shape."""
    found = {f"types/{dtype}": values(dtype, (2, 3)) for dtype in TYPES}
    shapes = {"scalar": (), "empty": (0, 4), "one": (1,), "deep": (1, 2, 1, 2, 1)}
    return found | {f"shapes/{name}": values("float32", shape) for name, shape in shapes.items()}


def save_v1(name: str, arrays: dict[str, np.ndarray], **saver) -> None:
    """As TensorFlow 1 saves a session."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {key: tf.compat.v1.Variable(value, name=key) for key, value in arrays.items()}
        session.run([variable.initializer for variable in variables.values()])
        saver = tf.compat.v1.train.Saver(variables, **saver)
        saver.save(session, str(HERE / name), write_meta_graph=False, write_state=False)


def save_sharded(arrays: dict[str, np.ndarray]) -> None:
    """In several data files, as several servers save."""
    parts = []
    for number, name in enumerate(arrays):
        prefix = str(HERE / f"part{number}")
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=[name], shape_and_slices=[""], tensors=[arrays[name]])
        parts.append(prefix)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(HERE / "sharded.ckpt"))


def save_parts() -> None:
    """One variable that is stored in two parts."""
    tf.raw_ops.SaveV2(
        prefix=str(HERE / "parts.ckpt"),
        tensor_names=["table", "table"],
        shape_and_slices=["4 3 0,2:0,3", "4 3 2,2:0,3"],
        tensors=[np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)],
    )


def save_objects() -> None:
    """As TensorFlow 2 saves a model and its optimizer."""
    tf.random.set_seed(0)
    weight = tf.Variable(values("float32", (3, 2)))
    slots = {"momentum": tf.Variable(values("float32", (3, 2))), "iterations": tf.Variable(7, dtype=tf.int64)}
    checkpoint = tf.train.Checkpoint(layer=weight, optimizer=tf.train.Checkpoint(**slots))
    checkpoint.save(str(HERE / "objects"))
    for file in HERE.glob("checkpoint"):
        file.unlink()


WIDTH, HEADS, LAYERS, INNER, WORDS, PLACES, CLASSES = 8, 2, 2, 12, 20, 10, 3


def bert_weights() -> dict[str, np.ndarray]:
    """A small BERT of google-research's names, with the slots of its optimizer and its counter of steps."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(0, 0.5, shape).astype(np.float32)

    found = {
        "bert/embeddings/word_embeddings": draw(WORDS, WIDTH),
        "bert/embeddings/token_type_embeddings": draw(2, WIDTH),
        "bert/embeddings/position_embeddings": draw(PLACES, WIDTH),
        "output_weights": draw(CLASSES, WIDTH),
        "output_bias": draw(CLASSES),
        "cls/predictions/output_bias": draw(WORDS),
        "cls/predictions/transform/dense/kernel": draw(WIDTH, WIDTH),
        "cls/predictions/transform/LayerNorm/gamma": draw(WIDTH),
        "cls/seq_relationship/output_weights": draw(2, WIDTH),
    }
    norms, dense = ["bert/embeddings"], {"bert/pooler/dense": (WIDTH, WIDTH)}
    for layer in (f"bert/encoder/layer_{number}" for number in range(LAYERS)):
        norms += [f"{layer}/attention/output", f"{layer}/output"]
        for part in ("self/query", "self/key", "self/value", "output/dense"):
            dense[f"{layer}/attention/{part}"] = (WIDTH, WIDTH)
        dense[f"{layer}/intermediate/dense"] = (WIDTH, INNER)
        dense[f"{layer}/output/dense"] = (INNER, WIDTH)
    for name in norms:
        found |= {f"{name}/LayerNorm/gamma": 1 + draw(WIDTH), f"{name}/LayerNorm/beta": draw(WIDTH)}
    for name, shape in dense.items():
        found |= {f"{name}/kernel": draw(*shape), f"{name}/bias": draw(shape[1])}
    for slot in ("adam_m", "adam_v"):
        found[f"bert/pooler/dense/kernel/{slot}"] = draw(WIDTH, WIDTH)
    return found | {"global_step": np.int64(12)}


def bert_logits(weights: dict[str, np.ndarray], ids, segments, mask):
    """The classifier's forward pass, in TensorFlow's ops."""

    def dense(name, value):
        return value @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def norm(name, value):
        mean, variance = tf.nn.moments(value, -1, keepdims=True)
        value = (value - mean) / tf.sqrt(variance + 1e-12)
        return value * weights[f"{name}/LayerNorm/gamma"] + weights[f"{name}/LayerNorm/beta"]

    def heads(value):
        parts = tf.reshape(value, (*value.shape[:2], HEADS, WIDTH // HEADS))
        return tf.transpose(parts, (0, 2, 1, 3))

    table = "bert/embeddings/{}_embeddings".format
    state = tf.gather(weights[table("word")], ids) + tf.gather(weights[table("token_type")], segments)
    state = norm("bert/embeddings", state + weights[table("position")][: ids.shape[1]])
    for layer in (f"bert/encoder/layer_{number}" for number in range(LAYERS)):
        query, key, value = (
            heads(dense(f"{layer}/attention/self/{part}", state)) for part in ("query", "key", "value")
        )
        scores = tf.matmul(query, key, transpose_b=True) / np.sqrt(np.float32(WIDTH // HEADS))
        scores += (1 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0
        context = tf.transpose(tf.matmul(tf.nn.softmax(scores), value), (0, 2, 1, 3))
        context = tf.reshape(context, state.shape)
        state = norm(f"{layer}/attention/output", state + dense(f"{layer}/attention/output/dense", context))
        inner = tf.nn.gelu(dense(f"{layer}/intermediate/dense", state))
        state = norm(f"{layer}/output", state + dense(f"{layer}/output/dense", inner))
    pooled = tf.tanh(dense("bert/pooler/dense", state[:, 0]))
    return tf.matmul(pooled, weights["output_weights"], transpose_b=True) + weights["output_bias"]


def save_bert() -> None:
    """The checkpoint, and what the model says to two texts of which one is padded."""
    weights = bert_weights()
    save_v1("bert.ckpt", weights)
    random = np.random.default_rng(1)
    ids, segments = random.integers(0, WORDS, (2, 6)), random.integers(0, 2, (2, 6))
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2])
    logits = bert_logits(weights, ids, segments, mask).numpy()
    np.savez(HERE / "bert.npz", input_ids=ids, token_type_ids=segments, attention_mask=mask, logits=logits)


def main() -> None:
    """Write all of them, and what TensorFlow reads from them."""
    HERE.mkdir(parents=True, exist_ok=True)
    for file in HERE.iterdir():
        file.unlink()
    save_v1("types.ckpt", types())
    save_v1("old.ckpt", {"weight": values("float32", (2, 2))}, write_version=tf.compat.v1.train.SaverDef.V1)
    save_sharded(
        {name: values("float32", (2, number + 1)) for number, name in enumerate(("a", "b/c", "b/d"))}
    )
    save_parts()
    save_objects()
    save_bert()
    expected = {}
    for name in ("types.ckpt", "sharded.ckpt", "objects-1"):
        reader = tf.train.load_checkpoint(str(HERE / name))
        for key, dtype in reader.get_variable_to_dtype_map().items():
            if dtype != tf.string:
                value = reader.get_tensor(key)
                expected[f"{name}|{key}"] = value.view(np.uint16) if dtype == tf.bfloat16 else value
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
