"""The description: what it says is what is done, as far as schemathesis can tell."""

import os
import subprocess
import sys
from pathlib import Path

TOKEN = "a-token-of-enough-letters"


def test_schemathesis_finds_nothing(address, tmp_path):
    place = address(token=TOKEN)
    run = subprocess.run(
        [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
            "run", f"{place}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}",
            "--max-examples", "10", "--seed", "1",
        ],
        env={
            **os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No issues found" in run.stdout
