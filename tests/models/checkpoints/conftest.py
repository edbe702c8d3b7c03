"""The scripts that make the fixtures need the frameworks themselves, and are no tests."""

collect_ignore_glob = ["make_*.py"]
