"""The files that are shipped in ``deploy/``, checked by the programs that read them."""
