"""A spec becomes a run folder, and several run folders become one.

It may import every room but the command line; only the command line, `robustloss.run`,
`robustloss.evaluate` and `robustloss.load_classifier` import it. Begin with `runner.run` and its
stages. `settings`, `preflight` and `folder` refuse what cannot be done before anything is computed,
`executors` say where cells are computed, `write` and `provenance` make results.json. `merge` and
`comparable` put several runs side by side; `in_memory` evaluates a model without a spec or files,
and `asked` makes a spec of what was asked for.
"""
