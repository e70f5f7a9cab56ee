"""Attacks of other libraries behind our signature: torchattacks and the reference AutoAttack.

`model` makes true what their code assumes of a model, `torchattacks_table` says what each attack of
torchattacks takes. Neither library is imported before one of its attacks is asked for. `build`
names them. Begin reading at `model`.
"""
