"""The workers here run in processes of their own; pytest does not import them."""

collect_ignore_glob = ["carry*.py"]
