"""What a run says it ran on."""

import subprocess

from cnnzoo import environment


def test_git_is_asked_of_a_checkout_of_cnnzoo_alone(tmp_path, monkeypatch):
    """Installed into an environment within somebody's repository, cnnzoo gave that one's commit as its own."""
    (tmp_path / ".git").mkdir()
    site = tmp_path / ".venv" / "site-packages"
    site.mkdir(parents=True)
    asked = []
    monkeypatch.setattr(environment.subprocess, "run", lambda line, **options: asked.append(line) or Done())
    assert environment._commit(site) is None
    assert not asked
    assert environment._commit(tmp_path) == "f67f88e"
    for failure in (FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")):
        monkeypatch.setattr(environment.subprocess, "run", fail(failure))
        assert environment._commit(tmp_path) is None


def fail(failure):
    def run(*line, **options):
        raise failure

    return run


class Done:
    stdout = "f67f88e\n"
