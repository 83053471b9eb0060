"""The README's Python runs."""

import re
from pathlib import Path

from tlkit.data.sample import write_sample
from tlkit.steps import finish

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_python_in_the_readme_runs(tmp_path, capsys):
    finish(write_sample("digits", tmp_path / "digits"))
    for path in (tmp_path / "digits").rglob("*[1-9].png"):
        path.unlink()
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile("\n".join(snippets), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "efficientnet_lite0" in printed
    assert "digits/test/7" in printed
