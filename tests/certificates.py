"""A certificate authority of the tests, made by openssl: nothing trusts it but what is told to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificates(folder: Path) -> dict[str, Path]:
    """`ca`, and `cert` and `key` of a server on 127.0.0.1, signed by it; valid for a day."""
    ca, ca_key, key, cert, request, names = (
        folder / name for name in ("ca.crt", "ca.key", "server.key", "server.crt", "server.csr", "names.cnf")
    )
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    _openssl(
        *new,
        "-x509",
        "-days",
        "1",
        "-subj",
        "/CN=tests",
        "-addext",
        "keyUsage=critical,keyCertSign",
        "-keyout",
        ca_key,
        "-out",
        ca,
    )  # the use of its key must be named: Python asks for it from 3.13 on
    _openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", request)
    _openssl(
        "x509", "-req", "-days", "1", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-extfile", names,
        "-out", cert,
    )  # fmt: skip
    return {"ca": ca, "cert": cert, "key": key}


def tls_binary() -> str:
    """A server program that speaks TLS; the test is skipped where there is none, or no openssl."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("needs a redis-server with TLS, which the embedded Valkey has not, and openssl")
    tried = subprocess.run([binary, "--tls-port", "0", "--version"], check=False, capture_output=True, text=True)
    if "no TLS" in tried.stdout:
        pytest.skip("the redis-server on PATH was built without TLS")
    return binary


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
