"""What inturn costs, beside its peers: ``python tests/bench``. One file per family of rows; `harness` has the rest."""
