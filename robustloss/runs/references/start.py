"""The spec to begin with beside a reference: its data, network, training, attacks and seeds."""

from robustloss.results.numbers import is_given
from robustloss.results.provenance import find_searches
from robustloss.runs.errors import RunError
from robustloss.runs.meaning import fill_training, spec_of
from robustloss.runs.references.find import Reference
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.search import shared_search
from robustloss.spec.spec import Spec

OWN = "My loss"


def starting_spec(reference: Reference, source: str) -> Spec:
    """Return a spec of one loss that may stand beside a reference.

    Its loss is a softmax under the label `OWN`, to be replaced. It is tuned as the others were, if
    they all tried the same values of keys of [train].

    Args:
        reference: As `open_reference` gives it.
        source: The name under which it was opened.

    Raises:
        RunError: This version does not take the reference's spec.
    """
    run = reference.rows.run
    spec = spec_of(run)
    plain = {key: spec[key] for key in ("data", "model", "detection", "checks", "attacks")}
    trained = [loss for loss in spec["losses"] if not is_given(loss) and not loss.get("of")]
    tried = find_searches(run.provenance)
    search, tuning = shared_search(tried.get(loss["label"]) for loss in trained)
    try:
        return load_spec(
            {
                **plain,
                "name": "mine",
                "seeds": run.provenance["seeds"],
                "train": fill_training(run, {}),  # in the arithmetic that was used
                "tuning": tuning,
                "losses": [{"name": "softmax", "label": OWN, "search": search}],
                "reference": {"beside": source},
            }
        )
    except SpecError as error:
        raise RunError(
            f"The reference {reference.name} cannot be used: this version does not take its spec. "
            f"{error}"
        ) from error
