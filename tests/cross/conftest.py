"""The workers run in processes of their own; pytest does not import them."""

collect_ignore_glob = ["networks_*.py", "main.py"]
