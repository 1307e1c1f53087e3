"""``python -m refengine``: the stand-in as an OpenAI-compatible server on the standard library alone."""

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from refengine.profiling import Profiler
from refengine.work import compute, next_token


class Server(ThreadingHTTPServer):
    """One engine behind many connections: one step at a time, in the order in which they ask."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.engine = threading.Lock()
        self.profiler = Profiler(flags.profile_dir)
        super().__init__((flags.host, flags.port), Handler)

    def step(self, stage: str, tokens: int, cost: float) -> None:
        annotation = f"step[{stage} bs=1 toks={tokens}]"
        span = self.profiler.span
        with self.engine, span(annotation, "user_annotation"), span("standin::token_work", "cpu_op"):
            compute(cost, self.flags.slow)


class Handler(BaseHTTPRequestHandler):
    """The endpoints that a campaign uses."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer({"status": "ok"})
        elif self.path == "/v1/models":
            self._answer({"object": "list", "data": [{"id": self.server.flags.model_name, "object": "model"}]})
        else:
            self._answer({"error": "no such endpoint"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path == "/v1/completions":
            self._complete(body)
        elif self.path == "/start_profile":
            problem = self.server.profiler.start(body.get("output_dir", ""))
            self._answer({"error": problem} if problem else {"active": True}, 409 if problem else 200)
        elif self.path == "/stop_profile":
            self._answer({"active": False, "files": self.server.profiler.stop()})
        else:
            self._answer({"error": "no such endpoint"}, 404)

    def _complete(self, body: dict) -> None:
        prompt, wanted = body["prompt"], body["max_tokens"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.server.step("PREFILL", len(prompt), len(prompt) / 8)
        for index in range(wanted):
            self.server.step("DECODE", 1, 1.0)
            token = next_token(prompt, index)
            choice = {"index": 0, "text": f" {token}", "finish_reason": None}
            if index == wanted - 1:
                choice["finish_reason"] = "length"
            if body.get("return_token_ids"):
                choice["token_ids"] = [token]
            self._event({"object": "text_completion", "choices": [choice]})
        self._event({"choices": [], "usage": {"prompt_tokens": len(prompt), "completion_tokens": wanted}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: dict) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _answer(self, value: dict, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    parser = argparse.ArgumentParser(prog="refengine", description=__doc__)
    parser.add_argument("--version", action="version", version="refengine stand-in 1")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model-name", "--served-model-name", default="standin")
    parser.add_argument("--model-path", default="", help="accepted, as other engines have it; there is no model")
    parser.add_argument("--max-model-len", "--context-length", type=int, default=64)
    parser.add_argument("--profile-dir", default="")
    parser.add_argument("--slow", type=float, default=1.0, help="work per token, as a multiple")
    parser.add_argument("--broken", type=int, default=0, help="end at once with this status")
    parser.add_argument("--deaf", type=int, default=0, help="1: never listen")
    flags = parser.parse_args()
    if flags.broken:
        sys.exit(flags.broken)
    if flags.deaf:
        threading.Event().wait()
    with Server(flags) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
