"""Where the cells of a run are computed: here, in processes, on a cluster."""
