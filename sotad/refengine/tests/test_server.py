"""The whole server as a process: start-up, HTTP, streams, captures, the end."""

import gzip
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PACKAGE = __name__.rsplit(".", 2)[0]
ROOT = Path(__file__).parents[len(PACKAGE.split(".")) + 1]
SMALL = [
    *("--layers", "2", "--hidden", "64", "--heads", "2", "--vocab-size", "1024"),
    *("--max-model-len", "128", "--kv-tokens", "1024"),
]


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", PACKAGE, *flags]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*flags), cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


class CommandLine(unittest.TestCase):
    """Runs that never become ready."""

    def test_bad_usage_exits_2(self) -> None:
        """Unknown flags and impossible shapes are usage errors."""
        for flags in (["--no-such-flag"], ["--hidden", "10", "--heads", "3"], ["--max-batch-size", "0"]):
            with self.subTest(flags):
                ended = run(*flags)
                self.assertEqual(ended.returncode, 2)
                self.assertNotIn("Traceback", ended.stderr)

    def test_what_cannot_start_says_why(self) -> None:
        """Too little KV room and a taken port are one line each, and exit 1."""
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            taken = run("--port", str(holder.getsockname()[1]))
        small = run("--port", str(free_port()), "--kv-tokens", "100")
        for ended, text in ((taken, "cannot listen on"), (small, "cannot hold one sequence")):
            self.assertEqual(ended.returncode, 1)
            errors = [line for line in ended.stderr.splitlines() if "INFO" not in line]
            self.assertEqual(len(errors), 1)
            self.assertIn(text, errors[0])


class Http(unittest.TestCase):
    """One server for all of these."""

    folder: tempfile.TemporaryDirectory[str]
    url: str
    server: subprocess.Popen[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.url = f"http://127.0.0.1:{(port := free_port())}"
        flags = ["--port", str(port), *SMALL, "--profile-dir", cls.folder.name]
        cls.server = subprocess.Popen(command(*flags), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        cls.wait_until_ready()

    @classmethod
    def wait_until_ready(cls) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and cls.server.poll() is None:
            try:
                urllib.request.urlopen(cls.url + "/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not become ready")

    @classmethod
    def tearDownClass(cls) -> None:
        """SIGTERM ends the server with 0 and nothing unexpected on stderr."""
        cls.server.send_signal(signal.SIGTERM)
        _, errors = cls.server.communicate(timeout=20)
        cls.folder.cleanup()
        assert cls.server.returncode == 0 and "Traceback" not in errors, errors

    def post(self, path: str, body: object) -> tuple[int, str]:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=20) as response:
            text: str = response.read().decode()
            return text

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of a stream, which must end with [DONE]."""
        status, text = self.post(path, body | {"stream": True, "stream_options": {"include_usage": True}})
        *events, done, rest = text.split("\n\n")
        self.assertEqual((status, done, rest), (200, "data: [DONE]", ""))
        return [json.loads(event.removeprefix("data: ")) for event in events]

    def test_streamed_and_whole_answers_agree(self) -> None:
        """Both give the same text and the right usage, one chunk per token."""
        body = {"prompt": "to be", "max_tokens": 9, "temperature": 0, "ignore_eos": True}
        whole = json.loads(self.post("/v1/completions", body)[1])
        *chunks, last = self.stream("/v1/completions", body)
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks), whole["choices"][0]["text"])
        self.assertEqual(len(chunks), 9)
        self.assertEqual([c["choices"][0]["finish_reason"] for c in chunks], [None] * 8 + ["length"])
        for usage in (whole["usage"], last["usage"]):
            self.assertEqual([usage[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")], [5, 9, 14])

    def test_chat(self) -> None:
        """Chats carry a role first and the same text streamed and whole."""
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
        whole = json.loads(self.post("/v1/chat/completions", body)[1])
        *chunks, _ = self.stream("/v1/chat/completions", body)
        deltas = [c["choices"][0]["delta"] for c in chunks]
        self.assertEqual([d.get("role") for d in deltas], ["assistant"] + [None] * (len(deltas) - 1))
        self.assertEqual("".join(d["content"] for d in deltas), whole["choices"][0]["message"]["content"])

    def test_errors_are_openai_errors(self) -> None:
        """Bad bodies get 400 and an error object."""
        bad = {"/v1/completions": "prompt", "/v1/chat/completions": "messages", "/start_profile": "stage"}
        for path, field in bad.items():
            status, text = self.post(path, {field: 1})
            self.assertEqual((status, json.loads(text)["error"]["type"]), (400, "invalid_request_error"))

    def test_models_and_metrics(self) -> None:
        """The model is listed and finished work is counted."""
        self.assertEqual(json.loads(self.get("/v1/models"))["data"][0]["id"], "reference-tiny")
        self.post("/v1/completions", {"prompt": "abc", "max_tokens": 2, "ignore_eos": True})
        counted = re.search(r"^refengine:generation_tokens_total (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert counted is not None
        self.assertGreaterEqual(float(counted[1]), 2)

    def test_a_capture_holds_the_steps_of_its_stage(self) -> None:
        """The trace names every step with its batch, only of the stage asked for, and ends by itself."""
        for stage, steps in (("decode", 4), ("prefill", 1)):
            status, _ = self.post("/start_profile", {"stage": stage, "num_steps": steps, "name": "unit"})
            self.assertEqual(status, 200)
            self.post("/v1/completions", {"prompt": "profile me", "max_tokens": 8, "ignore_eos": True})
            self.assertEqual(json.loads(self.get("/profile_status"))["active"], False)
            (path,) = json.loads(self.post("/stop_profile", {})[1])["files"]
            self.assertIn(f"unit-{stage}-", path)
            events = json.loads(gzip.decompress(Path(path).read_bytes()))["traceEvents"]
            names = [e["name"] for e in events if e["name"].startswith("step[")]
            self.assertEqual(len(names), steps)
            self.assertTrue(all(re.fullmatch(rf"step\[{stage.upper()} bs=1 toks=\d+\]", n) for n in names), names)
            self.assertTrue({"lm_head", "layer.mlp", "kv.append"} <= {e["name"] for e in events})
