"""Options of the test suite: what takes long is left out unless it is asked for."""

import pytest

LEFT_OUT = {
    "distributed": "one of the longer ones: make test-distributed runs it",
    "long": "one of the longer ones: make test LONG=1 runs it",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--distributed", action="store_true", help="run the tests with up to four processes too"
    )
    parser.addoption("--long", action="store_true", help="run the tests that take long too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, and do not deselect: a run says what it left out."""
    for mark, reason in LEFT_OUT.items():
        for item in items if not config.getoption(f"--{mark}") else ():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
