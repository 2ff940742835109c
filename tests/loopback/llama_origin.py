"""llama.cpp's own HTTP server as an origin on loopback, with a tiny model of random weights.

The server is the one compiled into the `xllamacpp` package; it runs in a process of its own. The model is written by
`build_model`, so nothing is downloaded. What it generates is nonsense, but it is real generation:

*   A prompt is one token per UTF-8 byte (`▁` for a space) plus one for the start. A slot holds `SLOT_TOKENS` of them.
*   An answer is made of invented words, one token each, and never ends by itself: only `max_tokens` (`finish_reason`
    "length"), a `stop` string or the client's leaving ends it. Without `max_tokens` it is endless, because the server
    shifts the context when the slot is full.
*   The sampling seed is fixed and prompts are not cached: on an otherwise idle server the same request gets the same
    text.

`GET /slots` (beside `/v1`, not below it) lists `SLOTS` slots, each with `is_processing`. The slot of a stream whose
client leaves is free again in milliseconds, because the next write fails. An answer that is not streamed writes nothing
until it is complete; its server looks for the client only after a full second without any result on the server's
queue, and an answer to `GET /slots` is such a result, as is a token of another request. So to see one of those stop,
ask less often than once a second and run nothing beside it, or it goes on.

Run as a program: `python llama_origin.py PORT MODEL_PATH`, where port 0 means any free one.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import gguf
import httpx
import numpy as np
import numpy.typing as npt

MODEL_NAME: Final = "tiny-random"
SLOTS: Final = 4
SLOT_TOKENS: Final = 2048

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 5.0
_SEED: Final = 20240607
_WIDTH: Final = 256  # with _LAYERS, one to three milliseconds per token on one thread
_LAYERS: Final = 6
_HEADS: Final = 4
_FEED_FORWARD: Final = 4 * _WIDTH
_RMS_EPSILON: Final = 1e-5
_UNKNOWN_ID, _START_ID, _END_ID = 0, 1, 2
_SPACE: Final = "\u2581"  # how SentencePiece writes a space
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_LISTENING: Final = re.compile(r"^origin listening on (http://\S+)\n", re.MULTILINE)


def _words() -> list[str]:
    """The words an answer is made of, each with its leading space."""
    return [_SPACE + head + vowel + tail for head in "bdfgklmnprstvz" for vowel in "aeiou" for tail in ("", "n", "r")]


def _vocabulary() -> tuple[list[str], list[gguf.TokenType], list[float], int]:
    """Tokens, their types, their scores, and the id of the first word."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    types += [gguf.TokenType.BYTE] * 256
    scores = [0.0] * len(tokens)
    for token in (_SPACE, *map(chr, range(0x21, 0x7F))):
        tokens.append(token)
        types.append(gguf.TokenType.NORMAL)
        scores.append(-float(len(tokens)))
    first_word = len(tokens)
    for token in _words():
        tokens.append(token)
        types.append(gguf.TokenType.NORMAL)
        scores.append(-float(len(tokens)))
    return tokens, types, scores, first_word


def _tensors(vocabulary_size: int, first_word: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Every tensor by its name; random, but for what keeps an answer to the words.

    Coordinate 0 of the residual stream is the same positive number for every token, and no layer writes to it. The
    output row of a word has a large positive weight there, every other row a large negative one: so no control token
    (the end of text among them) and no lone byte is ever likely enough to be drawn.
    """
    random = np.random.default_rng(_SEED)

    def normal(rows: int, columns: int) -> npt.NDArray[np.float32]:
        return random.standard_normal((rows, columns), dtype=np.float32) / np.float32(np.sqrt(columns))

    embedding = normal(vocabulary_size, _WIDTH) * np.float32(np.sqrt(_WIDTH))
    embedding[:, 0] = 4.0
    output = normal(vocabulary_size, _WIDTH)
    output[:first_word, 0] = -8.0
    output[first_word:, 0] = 8.0
    ones = np.ones(_WIDTH, dtype=np.float32)
    yield "token_embd.weight", embedding
    yield "output_norm.weight", ones
    yield "output.weight", output
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", ones
        for name in ("attn_q", "attn_k", "attn_v"):
            yield f"{block}.{name}.weight", normal(_WIDTH, _WIDTH)
        attention_output = normal(_WIDTH, _WIDTH)
        attention_output[0] = 0.0
        yield f"{block}.attn_output.weight", attention_output
        yield f"{block}.ffn_norm.weight", ones
        for name in ("ffn_gate", "ffn_up"):
            yield f"{block}.{name}.weight", normal(_FEED_FORWARD, _WIDTH)
        feed_forward_output = normal(_WIDTH, _FEED_FORWARD)
        feed_forward_output[0] = 0.0
        yield f"{block}.ffn_down.weight", feed_forward_output


def build_model(path: Path) -> None:
    """Write the model to `path` as GGUF: about 26 MB, the same bytes each time."""
    tokens, types, scores, first_word = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(MODEL_NAME)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(SLOTS * SLOT_TOKENS)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(_RMS_EPSILON)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(_UNKNOWN_ID)
    writer.add_bos_token_id(_START_ID)
    writer.add_eos_token_id(_END_ID)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(_CHAT_TEMPLATE)
    for name, tensor in _tensors(len(tokens), first_word):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Serve the model at MODEL_PATH on 127.0.0.1:PORT until SIGTERM or SIGINT."""
    # Only this process needs the library: whoever imports this module to start it does not pay for loading it.
    import xllamacpp  # type: ignore[import-untyped]

    port, model_path = sys.argv[1:]
    # Blocked before the server starts its threads, which inherit the mask, so that sigwait below gets them and not
    # the handlers the server installs.
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)

    params = xllamacpp.CommonParams()
    params.model.path = model_path
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.ui = False
    params.endpoint_slots = True
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.ctx_shift = True
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 0
    params.fit_params = False
    params.warmup = False
    params.sampling.seed = _SEED
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 2 * SLOTS
    server = xllamacpp.Server(params)  # returns when the model is loaded, raises when it cannot be
    print(f"\norigin listening on {server.listening_address}", flush=True)
    signal.sigwait(stop_signals)
    # Taking the server down in order waits for every open connection, and there is nothing here worth the wait.
    os._exit(0)


def _wait_until_healthy(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address of the server that `process` runs, once it says it is well."""
    deadline = time.monotonic() + _START_SECONDS
    problem = "has not said where it listens"
    while time.monotonic() < deadline:
        status = process.poll()
        if status is not None:
            problem = f"ended with status {status}"
            break
        listening = _LISTENING.search(log.read_text(errors="replace"))
        if listening:
            try:
                response = httpx.get(f"{listening[1]}/health", timeout=1.0, trust_env=False)
            except httpx.TransportError as error:
                problem = f"does not answer: {error!r}"
            else:
                if response.status_code == httpx.codes.OK:
                    return listening[1]
                problem = f"answers {response.status_code}: {response.text}"
        time.sleep(0.02)
    raise RuntimeError(f"The llama.cpp origin {problem}. Its output:\n{log.read_text(errors='replace')}")


@contextmanager
def open_llama_origin(tmp_path: Path) -> Iterator[str]:
    """Build the model, start the server on a free port, give its base URL (`http://127.0.0.1:PORT/v1`), and stop it.

    Blocks while it starts and stops. The model and the server's log are left in `tmp_path`.
    """
    model = tmp_path / f"{MODEL_NAME}.gguf"
    log = tmp_path / "llama_origin.log"
    build_model(model)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "0", str(model)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield f"{_wait_until_healthy(process, log)}/v1"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
