"""Options of the test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--distributed", action="store_true", help="run the tests with up to four processes too"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, and do not deselect: a run says what it left out."""
    if not config.getoption("--distributed"):
        skip = pytest.mark.skip(reason="one of the longer ones: make test-distributed runs it")
        for item in items:
            if item.get_closest_marker("distributed"):
                item.add_marker(skip)
