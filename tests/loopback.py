"""A Weights & Biases server on the loop-back interface: what its client needs for sweeps, agents and runs, no more."""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import sweeps
import yaml

PROJECT = {"id": "project", "name": "suite", "entity": {"id": "entity", "name": "local"}}


class Server:
    """Keeps sweeps and runs in memory; ``runs`` has config, history and summary of each as they were received."""

    def __init__(self) -> None:
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.again: list[dict[str, Any]] = []
        """Arguments of runs to hand out before the sweep's own, as a requeued run is."""
        self.lock = threading.RLock()
        handler = type("Handler", (_Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to one GraphQL operation; None for those the client can do without."""
        method = getattr(self, f"on_{operation.lower()}", None)
        return None if method is None else method(variables)

    def on_viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "user", "entity": "local", "username": "local", "email": "", "flags": "{}", "teams": {"edges": []}}}

    def on_upsertsweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, text = f"sweep{len(self.sweeps)}", variables["config"]
        config = yaml.safe_load(text)
        self.sweeps[name] = {"text": text, "config": config, "handed": []}
        warnings = sweeps.config.schema_violations_from_proposed_config(config)
        return {"upsertSweep": {"sweep": {"name": name, "project": PROJECT}, "configValidationWarnings": warnings}}

    def on_sweepwithruns(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["sweep"]
        found = {"id": name, "name": name, "state": "RUNNING", "config": self.sweeps[name]["text"], "runs": {"edges": []}}
        return {"project": {"sweep": found}}

    def on_createagent(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = f"agent{len(self.agents)}"
        self.agents[name] = variables["sweep"]
        return {"createAgent": {"agent": {"id": name}}}

    def on_heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        """An idle agent gets the next run, or leave to go."""
        commands: list[dict[str, Any]] = []
        if not json.loads(variables["runState"]):
            commands = [self._next(self.agents[variables["id"]])]
        return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}

    def _next(self, name: str) -> dict[str, Any]:
        sweep = self.sweeps[name]
        if self.again:
            arguments = {key: {"value": value} for key, value in self.again.pop().items()}
            return {"type": "run", "run_id": f"{name}-again", "program": sweep["config"].get("program"), "args": arguments}
        run = sweeps.next_run(sweep["config"], sweep["handed"])
        if run is None:
            return {"type": "exit"}
        run.state = sweeps.RunState.finished
        sweep["handed"].append(run)
        return {"type": "run", "run_id": f"{name}-{len(sweep['handed'])}", "program": sweep["config"].get("program"), "args": run.config}

    def on_runresumestatus(self, _: dict[str, Any]) -> dict[str, Any]:
        """No run here is gone on with."""
        return {"model": {**PROJECT, "bucket": None}}

    def on_upsertbucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        run = self.runs.setdefault(name, {"config": {}, "history": [], "summary": {}, "exit": None})
        if variables.get("config"):
            run["config"] = {key: entry["value"] for key, entry in json.loads(variables["config"]).items() if key != "_wandb"}
        bucket = {"id": name, "name": name, "displayName": name, "sweepName": variables.get("sweep"), "historyLineCount": 0}
        return {"upsertBucket": {"inserted": True, "bucket": {**bucket, "project": PROJECT}}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Rows of history and the summary that a run sends while it works."""
        run, parts = self.runs[name], sent.get("files") or {}
        run["history"] += [json.loads(line) for line in parts.get("wandb-history.jsonl", {}).get("content", [])]
        for line in parts.get("wandb-summary.json", {}).get("content", []):
            run["summary"] = json.loads(line)
        if sent.get("complete"):
            run["exit"] = sent.get("exitcode")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: Server

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        with self.server_state.lock:
            if self.path.endswith("/file_stream"):
                self.server_state.stream(self.path.split("/")[-2], json.loads(body))
            elif self.path.endswith("/graphql"):
                self._reply(self._graphql(json.loads(body)))
                return
            self._reply({})

    def _graphql(self, sent: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"(?:query|mutation)\s+(\w+)", sent["query"])
        found = self.server_state.answer(named[1], sent.get("variables") or {}) if named else None
        return {"errors": [{"message": "not answered here"}]} if found is None else {"data": found}

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
