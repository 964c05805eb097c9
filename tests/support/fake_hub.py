"""The Hub's HTTP interface, as far as publishing and fetching a run needs it, on this machine."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "a" * 40


class FakeHub:
    """Repositories as dictionaries of files; those who write need the token."""

    def __init__(self, token: str = "hf_secret") -> None:
        self.token, self.repos, self.private = token, dict[str, dict[str, bytes]](), set[str]()
        self.requests: list[str] = []
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Nothing on stderr."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        """Send JSON, or bytes as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code: str = "RepoNotFound", status: int = 404) -> None:
        """As the Hub answers for what is not there, or not for you."""
        self.answer({"error": code}, status, X_Error_Code=code, X_Error_Message=code)

    def logged_in(self) -> bool:
        """Whether the request carries the token."""
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def do_POST(self) -> None:
        """Create a repository, or commit files to it."""
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"POST {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if not self.logged_in():
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            options = json.loads(body)
            repo = "/".join(filter(None, (options.get("organization"), options["name"])))
            if not repo.startswith("me/"):
                return self.answer({"error": "no rights"}, 403)
            if repo in self.hub.repos:
                return self.answer({"error": "exists", "url": f"{self.hub.endpoint}/{repo}"}, 409)
            self.hub.repos[repo] = {}
            if options.get("private") or options.get("visibility") == "private":
                self.hub.private.add(repo)
            return self.answer({"url": f"{self.hub.endpoint}/{repo}"})
        _, _, _, user, name, verb, *_ = path.split("/")
        repo = f"{user}/{name}"
        if verb == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in json.loads(body)["files"]]
            return self.answer({"files": files})
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                self.hub.repos[repo][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
        return self.answer(
            {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{COMMIT}", "hookOutput": ""}
        )

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """List a repository, or send one of its files."""
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        repo = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[:2])
        files = self.hub.repos.get(repo)
        if files is None or (repo in self.hub.private and not self.logged_in()):
            return self.missing(status=404 if self.logged_in() else 401)
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else parts[3] if parts[0] != "api" else "main"
        if revision not in ("main", COMMIT):
            return self.missing("RevisionNotFound")
        if parts[0] == "api" and len(parts) > 4 and parts[4] == "tree":
            entries = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
            return self.answer(entries)
        if parts[0] == "api":
            return self.answer(
                {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files], "private": False, "tags": []}
            )
        name = "/".join(parts[4:])
        if name not in files:
            return self.missing("EntryNotFound")
        return self.answer(files[name], ETag=f'"{hashlib.sha1(files[name]).hexdigest()}"', X_Repo_Commit=COMMIT)
