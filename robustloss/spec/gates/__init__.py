"""Gates: `table` is the table [[gates]] of a spec, `files` reads gates that stand anywhere else."""
