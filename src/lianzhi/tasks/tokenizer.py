"""A tokenizer out of a folder: `tokenizers` reads ``tokenizer.json``, which is data and holds no code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lianzhi import files
from lianzhi.errors import ArtifactError, DataError

FILE = "tokenizer.json"
FOLDER = "tokenizer"  # in an artifact
BESIDE = ("tokenizer_config.json", "special_tokens_map.json")
PATTERNS = (FILE, *BESIDE, "config.json", "vocab*", "merges.txt", "*.model")
MAX_BYTES = 1 << 27
# what transformers writes for "as long as you like", int(1e30), is more than a number in strict JSON may be
_NO_LIMIT = re.compile(rf'"model_max_length"\s*:\s*{int(1e30)}(?!\d)')
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class TokenizerFiles:
    """The text of ``tokenizer.json`` and of the small files beside it, and what they say of padding and segments."""

    text: str
    beside: dict[str, str]
    where: str
    pad_id: int
    pad_type_id: int
    segments: bool  # whether the model is told which of two texts a token is of

    @property
    def members(self) -> dict[str, str]:
        """What an artifact's folder ``tokenizer`` holds."""
        return {FILE: self.text, **self.beside}


def library() -> Any:
    """The library `tokenizers`.

    Raises:
        DataError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise DataError(
            "text needs tokenizers, which is not installed; run: pip install 'lianzhi[text]'"
        ) from None
    return tokenizers


def parse(text: str, where: str) -> Any:
    """The `tokenizers.Tokenizer` of a ``tokenizer.json``, without padding or truncation of its own.

    Raises:
        DataError: the library is not installed, or the text is damaged.
    """
    made = library().Tokenizer
    try:
        tokenizer = made.from_str(text)
    except BaseException as error:  # the library's panics are no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        reason = " ".join(str(error).split())[:150]
        raise DataError(f"{where}: damaged, or not a tokenizer ({reason}); restore it") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read(place: str) -> TokenizerFiles:
    """Read the tokenizer of a model's folder, ``package:NAME/folder``, a name on the hub, or an artifact.

    A folder without ``tokenizer.json`` (one with ``vocab.txt``, say) is converted by `transformers`.

    Raises:
        DataError: there is no tokenizer, or it is damaged.
    """
    try:
        root = files.find_folder(place, PATTERNS)
        folder = root / FOLDER if (root / FOLDER).is_dir() else root
        text = files.read_text(folder / FILE, MAX_BYTES) if (folder / FILE).is_file() else _converted(folder)
        tokenizer = parse(text, str(folder / FILE))
        beside = {name: found for name in BESIDE if (found := _tidy(folder / name)) is not None}
        pad_id, pad_type_id, segments = _conventions(root, folder, tokenizer, text)
    except ArtifactError as error:
        raise DataError(f"tokenizer: {error}") from None
    return TokenizerFiles(text, beside, str(folder), pad_id, pad_type_id, segments)


def _converted(folder: Path) -> str:
    """What the library makes of other files of a tokenizer."""
    from lianzhi.models.text.library import explained, transformers

    if not any(folder.glob("*.model")) and not any(folder.glob("vocab*")):
        raise DataError(f"{folder}: holds no {FILE}; give tokenizer: the folder of a model that has one")
    library = transformers()
    try:
        with explained():
            made = library.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            return str(made.backend_tokenizer.to_str())
    except Exception as error:
        reason = " ".join(str(error).split())[:150]
        raise DataError(
            f"{folder}: holds no {FILE}, and its other files cannot be converted ({reason}); save the tokenizer "
            f"again: tokenizer.save_pretrained(folder)"
        ) from None


def _tidy(file: Path) -> str | None:
    """A small JSON file without what names code or places."""
    if not file.is_file():
        return None
    values = _table(file)
    if not isinstance(values, dict):
        raise DataError(f"{file}: damaged: it holds no table; restore it")
    if values.get("model_max_length", 0) is None:
        del values["model_max_length"]  # the library's own default again
    dropped = {"auto_map", "name_or_path", "tokenizer_file", "custom_pipelines"}
    kept = {key: value for key, value in values.items() if key not in dropped}
    return json.dumps(kept, ensure_ascii=False, indent=1) + "\n"


def _conventions(root: Path, folder: Path, tokenizer: Any, text: str) -> tuple[int, int, bool]:
    """Id and segment of padding, and whether there are segments: as an artifact says, else as the model's config."""
    saved = _values(root / "preprocess.json")
    if saved.get("kind") == "text":
        return int(saved["pad_id"]), int(saved["pad_type_id"]), "token_type_ids" in saved["inputs"]
    model, own = _values(folder / "config.json"), _values(folder / BESIDE[0])
    padding = json.loads(text).get("padding") or {}
    pad = model.get("pad_token_id")
    if type(pad) is not int:
        pad = padding.get("pad_id")
    if type(pad) is not int:
        token = own.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        named = [tokenizer.token_to_id(name) for name in (token, *_PADS) if isinstance(name, str)]
        pad = next((number for number in named if number is not None), 0)
    inputs = own.get("model_input_names")
    sizes = model.get("type_vocab_size")
    if isinstance(inputs, list):
        segments = "token_type_ids" in inputs
    else:
        segments = type(sizes) is int and sizes > 1
    return pad, int(padding.get("pad_type_id") or 0), segments


def _values(file: Path) -> dict[str, Any]:
    values = _table(file) if file.is_file() else {}
    return values if isinstance(values, dict) else {}


def _table(file: Path) -> Any:
    text = _NO_LIMIT.sub('"model_max_length": null', files.read_text(file, 1 << 26))
    return files.parse_json(text, str(file))
