"""``python -m cluster_pool`` is ``cluster-pool``."""

from cluster_pool.cli import main

if __name__ == "__main__":
    main()
