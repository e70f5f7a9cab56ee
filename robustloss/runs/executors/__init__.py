"""Where the cells of a run are computed; the cells themselves do not know.

`choose.run_jobs` gives jobs to this process, to several (`processes`) or to a Ray cluster
(`cluster`). `automatic` says how many processes "auto" means. `alone` says which jobs run somebody
else's code: their cells get a process that no other cell uses, with any executor.
`splitting.run_cells` stands above: it lets several workers share the images of one cell. `torchrun`
is the other way round: torchrun has started the processes, and they train one cell together.
`workers` holds what a worker does whoever started it, `server` whence it is started. Begin with
`choose`.
"""
