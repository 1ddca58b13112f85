"""Sessions for other environments: `nox -l` lists them."""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests on every Python that is there."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs, env=QUIET)


@nox.session(python="3.11", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml allows, whose warnings are not ours to mend."""
    session.install("--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", "-o", "filterwarnings=default", *session.posargs, env=QUIET)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests: coverage of intervals, whole grids of starts, crashes."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "slow", *session.posargs, env=QUIET)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style."""
    session.install("ruff>=0.6")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.install("-e", ".[test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "docs", "docs/_build")
