"""The spec: every choice that decides a run, as plain values that are checked first.

Begin at `spec.Spec`: its fields are the tables of a TOML file, and its `cells` are what a run
computes. `load.load_spec` reads one.

The tables: `data` ([data], [[outside]], [[shifts]]), `training` ([train]), `losses` ([model],
[[losses]]), `search` ([tuning] and the searches of [[losses]]), `attacks`, `detection`
([detection], [checks]), `resources`. A table is a class of fields, whose descriptions become
`robustloss show --keys`; it is known once it is a field of `Spec`. Below them stand `base` (what
tables have in common), `errors` (one line per mistake: key, value, rule, remedy) and `text` (TOML,
slugs, the table of keys). `attack_kinds`, `prefixes` and `plugins` tell what a name in a spec
stands for, without loading it.

Imports nothing of robustloss, and no torch. Everything may import it.
"""
